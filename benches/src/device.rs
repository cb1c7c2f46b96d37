//! The device's own limits and counters, taken in the same run as the engines.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use terrane_wal::env::{Park, Spawn};
use terrane_wal::io::{
    BackendChoice, Buf, Disk, File, Op, Open, Purpose, Request, open_system_disk,
};

use crate::Failure;
use crate::rows::Random;

/// What the block device has done so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) flushes: u64,
    pub(crate) bytes_written: u64,
}

/// The block device below a folder.
pub(crate) struct Device(Option<PathBuf>);

impl Device {
    /// Finds the device by its number; counters read 0 where the kernel shows none.
    pub(crate) fn below(folder: &Path) -> Result<Device, Failure> {
        let number = fs::metadata(folder)?.dev();
        let (major, minor) = (
            (number >> 8) & 0xfff,
            (number & 0xff) | ((number >> 12) & 0xfff00),
        );
        let stat = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        Ok(Device(stat.exists().then_some(stat)))
    }

    /// Totals of now.
    pub(crate) fn read(&self) -> Counters {
        let Some(text) = self.0.as_ref().and_then(|p| fs::read_to_string(p).ok()) else {
            return Counters::default();
        };
        let field = |n: usize| {
            text.split_whitespace()
                .nth(n)
                .and_then(|f| f.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Counters {
            flushes: field(15),
            bytes_written: field(6) * 512,
        }
    }

    /// What happened since `before`.
    pub(crate) fn since(&self, before: Counters) -> Counters {
        let now = self.read();
        Counters {
            flushes: now.flushes - before.flushes,
            bytes_written: now.bytes_written - before.bytes_written,
        }
    }
}

/// Rates of the bare device, with the depth of the queue.
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    pub(crate) depth: usize,
    pub(crate) durability: &'static str,
    pub(crate) ops: u64,
    pub(crate) secs: f64,
    pub(crate) latencies_ns: Vec<u32>,
    pub(crate) device: Counters,
    pub(crate) check: &'static str,
}

/// A written file on the device, and what is measured on it. It is removed when dropped.
pub(crate) struct Probes {
    disk: Arc<dyn Disk>,
    file: Arc<dyn File>,
    path: PathBuf,
    bytes: u64,
    device: Device,
}

impl Probes {
    /// Writes a file of `bytes` bytes below `folder`.
    pub(crate) fn new(
        folder: &Path,
        spawn: Arc<dyn Spawn>,
        park: Arc<dyn Park>,
        bytes: u64,
    ) -> Result<Probes, Failure> {
        let (disk, _) = open_system_disk(spawn, park, BackendChoice::Auto)?;
        let path = folder.join("probe");
        let file = disk.open(&path, Open::CreateNew)?;
        let mut chunk = Buf::zeroed(1 << 20);
        for offset in (0..bytes).step_by(chunk.len()) {
            for (block, words) in chunk.chunks_mut(4096).enumerate() {
                fill(words, offset / 4096 + block as u64);
            }
            file.write(Purpose::Other, offset, &chunk, false)?;
        }
        file.sync()?;
        Ok(Probes {
            disk,
            file,
            path,
            bytes,
            device: Device::below(folder)?,
        })
    }

    /// 4 KiB synced writes one after the other, and random 4 KiB reads at several depths, each for
    /// `time`.
    pub(crate) fn run(&self, time: Duration) -> Result<Vec<Probe>, Failure> {
        let mut probes = vec![self.synced_writes(time)?];
        for depth in [1, 16, 64] {
            let before = self.device.read();
            let mut probe = random_reads(&*self.disk, &self.file, self.bytes, depth, time)?;
            probe.device = self.device.since(before);
            probes.push(probe);
        }
        Ok(probes)
    }

    fn synced_writes(&self, time: Duration) -> Result<Probe, Failure> {
        let mut block = Buf::zeroed(4096);
        let before = self.device.read();
        let (begin, mut latencies_ns) = (Instant::now(), Vec::new());
        while begin.elapsed() < time {
            let number = latencies_ns.len() as u64 % (self.bytes / 4096);
            fill(&mut block, number);
            let start = Instant::now();
            self.file
                .write(Purpose::Other, number * 4096, &block, true)?;
            latencies_ns.push(start.elapsed().as_nanos() as u32);
        }
        let secs = begin.elapsed().as_secs_f64();
        Ok(Probe {
            name: "synced_write_4k",
            depth: 1,
            durability: "synced",
            ops: latencies_ns.len() as u64,
            secs,
            latencies_ns,
            device: self.device.since(before),
            check: "lengths",
        })
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        // A file that stays is in the way of nobody.
        let _ = self.disk.remove(&self.path);
    }
}

/// Fills a block with its number, so that a read can be told from any other.
fn fill(block: &mut [u8], number: u64) {
    for word in block.chunks_mut(8) {
        word.copy_from_slice(&number.to_le_bytes());
    }
}

fn random_reads(
    disk: &dyn Disk,
    file: &Arc<dyn File>,
    bytes: u64,
    depth: usize,
    time: Duration,
) -> Result<Probe, Failure> {
    let mut batch = disk.batch(Purpose::Other);
    let mut random = Random::new(depth as u64);
    let (begin, mut ops) = (Instant::now(), 0);
    let mut started: Vec<Instant> = vec![begin; depth];
    let mut wanted = vec![0u64; depth];
    let mut latencies_ns = Vec::new();
    let mut request = |token: u64, buf: Buf, wanted: &mut u64| {
        *wanted = random.below(bytes / 4096);
        Request {
            token,
            file: file.clone(),
            offset: *wanted * 4096,
            op: Op::Read(buf),
        }
    };
    for (token, start) in started.iter_mut().enumerate() {
        *start = Instant::now();
        batch.push(request(token as u64, Buf::zeroed(4096), &mut wanted[token]));
    }
    batch.submit();
    while batch.in_flight() > 0 {
        for done in batch.wait() {
            done.result?;
            ops += 1;
            let slot = done.token as usize;
            latencies_ns.push(started[slot].elapsed().as_nanos() as u32);
            let buf = done.buf.ok_or("a read without its buffer")?;
            if buf[4088..] != wanted[slot].to_le_bytes() {
                return Err(format!("block {} holds another", wanted[slot]).into());
            }
            if begin.elapsed() < time {
                started[slot] = Instant::now();
                batch.push(request(done.token, buf, &mut wanted[slot]));
            }
        }
        batch.submit();
    }
    let secs = begin.elapsed().as_secs_f64();
    Ok(Probe {
        name: "random_read_4k",
        depth,
        durability: "none",
        ops,
        secs,
        latencies_ns,
        device: Counters::default(),
        check: "the number in every block",
    })
}
