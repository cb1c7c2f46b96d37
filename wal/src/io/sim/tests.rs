//! The simulated disk keeps what was synced, may lose what was not, and never invents.

use super::*;
use crate::io::Buf;

fn filled(byte: u8) -> Buf {
    let mut buf = Buf::zeroed(4096);
    buf.fill(byte);
    buf
}

fn byte_at(disk: &SimDisk, path: &str, offset: u64) -> Option<u8> {
    let file = disk.open(path.as_ref(), Open::Read).ok()?;
    let mut buf = Buf::zeroed(4096);
    let n = file.read(Purpose::Other, offset, &mut buf).unwrap();
    (n > 0).then(|| buf[0])
}

#[test]
fn what_was_synced_survives_every_crash_and_what_was_not_does_not_always() {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    file.write(Purpose::Other, 0, &filled(1), false).unwrap();
    file.sync().unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    file.write(Purpose::Other, 4096, &filled(2), false).unwrap();
    let mut seen = [0; 2];
    for seed in 0..64 {
        let after = disk.crash(seed);
        assert_eq!(byte_at(&after, "/a", 0), Some(1));
        seen[usize::from(byte_at(&after, "/a", 4096) == Some(2))] += 1;
    }
    assert!(seen[0] > 8 && seen[1] > 8, "{seen:?}");
}

#[test]
fn a_name_needs_the_sync_of_its_directory() {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    file.write(Purpose::Other, 0, &filled(1), true).unwrap();
    let kept = |disk: &SimDisk| {
        let crashes = (0..32).map(|seed| disk.crash(seed));
        crashes.filter(|d| byte_at(d, "/a", 0) == Some(1)).count()
    };
    assert!((4..28).contains(&kept(&disk)));
    disk.sync_dir("/".as_ref()).unwrap();
    assert_eq!(kept(&disk), 32);
}

#[test]
fn a_durable_write_covers_itself_and_not_its_neighbours() {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    file.write(Purpose::Other, 0, &filled(1), false).unwrap();
    file.write(Purpose::Other, 4096, &filled(2), true).unwrap();
    let mut lost = 0;
    for seed in 0..32 {
        let after = disk.crash(seed);
        assert_eq!(byte_at(&after, "/a", 4096), Some(2));
        lost += usize::from(byte_at(&after, "/a", 0) != Some(1));
    }
    assert!(lost > 4);
}

#[test]
fn an_older_unsynced_write_does_not_come_back_over_a_newer_durable_one() {
    let disk = SimDisk::new();
    let file = disk.open("/a".as_ref(), Open::CreateNew).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    file.write(Purpose::Other, 0, &filled(1), false).unwrap();
    file.write(Purpose::Other, 0, &filled(2), true).unwrap();
    for seed in 0..32 {
        assert_eq!(byte_at(&disk.crash(seed), "/a", 0), Some(2));
    }
}
