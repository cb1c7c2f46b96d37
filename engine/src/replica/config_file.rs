//! The configuration that a member's log begins with, beside the log.
//!
//! Configurations are entries of the log, and logs are trimmed. So the newest committed one of what
//! is trimmed stands in a file of its own, which is replaced as a whole: written aside, synced, and
//! renamed. The log is not trimmed beyond a configuration that is not in it yet.
//!
//! ```text
//! 0 magic  8 version, length of the configuration  16 end of its entry  24 uuid  40 its bytes, crc
//! ```

use std::path::Path;
use std::sync::Arc;

use terrane_shard::log::Config;
use terrane_wal::io::{BLOCK, Buf, Disk, Open, Purpose};
use terrane_wal::lsn::Lsn;

use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 8] = *b"TRCONFIG";
const VERSION: u32 = 1;
const HEADER: usize = 40;
const CRC: usize = 4;

/// Writes the file, replacing the one that is there. Durable when it returns.
///
/// # Errors
/// Of the disk: the file is the one before, or this one.
pub(crate) fn save(
    disk: &dyn Disk,
    path: &Path,
    uuid: [u8; 16],
    (end, config): (Lsn, &Config),
) -> Result<()> {
    let body = config.encode();
    let mut bytes = Vec::with_capacity(HEADER + body.len() + CRC);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(end.0.to_le_bytes());
    bytes.extend(uuid);
    bytes.extend(body);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let mut buf = Buf::zeroed(bytes.len().next_multiple_of(BLOCK));
    buf[..bytes.len()].copy_from_slice(&bytes);
    let aside = path.with_extension("new");
    if disk.stat(&aside)?.is_some() {
        disk.remove(&aside)?;
    }
    let file = disk.open(&aside, Open::CreateNew)?;
    file.write(Purpose::Other, 0, &buf, false)?;
    file.sync()?;
    disk.rename(&aside, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("")))?;
    Ok(())
}

/// What the file says: whose configuration, the end of its entry, and what it is.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) uuid: [u8; 16],
    pub(crate) end: Lsn,
    pub(crate) config: Arc<Config>,
}

/// Reads the file of a shard: the end of the entry, and the configuration.
///
/// # Errors
/// `Corrupt`, also for another shard's, `Version`; of the disk.
pub(crate) fn load(disk: &dyn Disk, path: &Path, uuid: [u8; 16]) -> Result<(Lsn, Arc<Config>)> {
    let loaded = load_any(disk, path)?;
    if loaded.uuid == uuid {
        return Ok((loaded.end, loaded.config));
    }
    let error = Error::new(ErrorKind::Corrupt, "a configuration fails its check");
    Err(error
        .with("file", path.display())
        .with("expected", format!("shard {uuid:02x?}"))
        .with("found", format!("{:02x?}", loaded.uuid)))
}

/// Reads the file of whatever shard it is.
///
/// # Errors
/// `Corrupt`, `Version`; of the disk.
pub(crate) fn load_any(disk: &dyn Disk, path: &Path) -> Result<Loaded> {
    let file = disk.open(path, Open::Read)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    let wrong = |expected: String, found: String| {
        Error::new(ErrorKind::Corrupt, "a configuration fails its check")
            .with("file", path.display())
            .with("expected", expected)
            .with("found", found)
    };
    if !len.is_multiple_of(BLOCK) || len == 0 || len > (1 << 20) {
        let expected = format!("1 to 256 blocks of {BLOCK} bytes");
        return Err(wrong(expected, format!("{len} bytes")));
    }
    let mut bytes = Buf::zeroed(len);
    file.read(Purpose::Other, 0, &mut bytes)?;
    let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| bytes[at + n]));
    if bytes[..8] != MAGIC {
        let found = format!("{:02x?}", &bytes[..8]);
        return Err(wrong(format!("{:02x?} at 0", &MAGIC), found));
    }
    let end = HEADER + number(12) as usize;
    if end + CRC > len {
        return Err(wrong(format!("a length below {len}"), end.to_string()));
    }
    let (expected, found) = (crc32fast::hash(&bytes[..end]), number(end));
    if expected != found {
        return Err(wrong(format!("crc {expected:08x}"), format!("{found:08x}")));
    }
    if number(8) != VERSION {
        let error = Error::new(ErrorKind::Version, "a configuration of another version");
        let error = error.with("file", path.display());
        return Err(error.with("expected", VERSION).with("found", number(8)));
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes[24..HEADER]);
    let config = Config::decode(&bytes[HEADER..end])
        .map_err(|error| wrong("a configuration".into(), error.to_string()))?;
    let lsn = u64::from(number(16)) | u64::from(number(20)) << 32;
    Ok(Loaded {
        uuid,
        end: Lsn(lsn),
        config: Arc::new(config),
    })
}

#[cfg(test)]
mod tests {
    use terrane_shard::log::Incarnation;
    use terrane_shard::policy::{Member, Quorums, SemiSync};
    use terrane_wal::io::sim::SimDisk;

    use super::*;

    fn config(incarnation: u64) -> Config {
        let places: Vec<Member> = (0..3).map(|id| Member::voter(id, "z")).collect();
        let quorums = Quorums::new(&SemiSync::new(1), &places).unwrap();
        Config::new(quorums, vec![Incarnation(incarnation); 3]).unwrap()
    }

    // Seen to fail with a crc that is not compared.
    #[test]
    fn a_configuration_comes_back_whole_or_not_at_all() {
        let disk = SimDisk::new();
        let (path, uuid) = (Path::new("/CONFIG"), *b"shard-0123456789");
        for n in 1..3 {
            save(&disk, path, uuid, (Lsn(n), &config(n))).unwrap();
            let (lsn, found) = load(&disk, path, uuid).unwrap();
            assert_eq!((lsn, &*found), (Lsn(n), &config(n)));
        }
        let other = load(&disk, path, *b"other-0123456789").unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Corrupt);
        let used = HEADER + config(2).encode().len() + CRC;
        let file = disk.open(path, Open::Write).unwrap();
        let mut whole = Buf::zeroed(BLOCK);
        file.read(Purpose::Other, 0, &mut whole).unwrap();
        for at in 0..used {
            let mut bytes = Buf::zeroed(BLOCK);
            bytes.copy_from_slice(&whole);
            bytes[at] ^= 1 << (at % 8);
            file.write(Purpose::Other, 0, &bytes, false).unwrap();
            let error = load(&disk, path, uuid).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
        }
        file.set_len(100).unwrap();
        assert!(
            load(&disk, path, uuid)
                .unwrap_err()
                .to_string()
                .contains("100 bytes")
        );
        // After a power cut while it is replaced: one of both.
        for seed in 0..40 {
            let disk = SimDisk::new();
            save(&disk, path, uuid, (Lsn(1), &config(1))).unwrap();
            let _ = save(&disk, path, uuid, (Lsn(2), &config(2)));
            let after = disk.crash(seed);
            assert_eq!(load(&after, path, uuid).unwrap().0, Lsn(2));
        }
    }
}
