//! The device's own limits and counters, taken in the same run as the engines.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use terrane_wal::env::{Park, Spawn};
use terrane_wal::io::{BackendChoice, Buf, Disk, Op, Open, Purpose, Request, open_system_disk};

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

/// Rates of the bare device: the name of the probe, its depth, operations, seconds, latencies.
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    pub(crate) depth: usize,
    pub(crate) ops: u64,
    pub(crate) secs: f64,
    pub(crate) latencies_ns: Vec<u32>,
}

/// 4 KiB synced writes one after the other into a written file, and random 4 KiB reads at several
/// depths from a file of `bytes`.
pub(crate) fn probe(
    folder: &Path,
    spawn: Arc<dyn Spawn>,
    park: Arc<dyn Park>,
    bytes: u64,
    time: Duration,
) -> Result<Vec<Probe>, Failure> {
    let (disk, _) = open_system_disk(spawn, park, BackendChoice::Auto)?;
    let path = folder.join("probe");
    let file = disk.open(&path, Open::CreateNew)?;
    let mut chunk = Buf::zeroed(1 << 20);
    let mut random = Random::new(42);
    for word in chunk.chunks_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    for offset in (0..bytes).step_by(chunk.len()) {
        file.write(Purpose::Other, offset, &chunk, false)?;
    }
    file.sync()?;
    let mut probes = vec![synced_writes(&file, bytes, time)?];
    for depth in [1, 16, 64] {
        probes.push(random_reads(&*disk, &file, bytes, depth, time)?);
    }
    disk.remove(&path)?;
    Ok(probes)
}

fn synced_writes(
    file: &Arc<dyn terrane_wal::io::File>,
    bytes: u64,
    time: Duration,
) -> Result<Probe, Failure> {
    let block = Buf::zeroed(4096);
    let (begin, mut latencies_ns) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let start = Instant::now();
        let offset = (latencies_ns.len() as u64 * 4096) % bytes;
        file.write(Purpose::Other, offset, &block, true)?;
        latencies_ns.push(start.elapsed().as_nanos() as u32);
    }
    let secs = begin.elapsed().as_secs_f64();
    let ops = latencies_ns.len() as u64;
    Ok(Probe {
        name: "synced_write_4k",
        depth: 1,
        ops,
        secs,
        latencies_ns,
    })
}

fn random_reads(
    disk: &dyn Disk,
    file: &Arc<dyn terrane_wal::io::File>,
    bytes: u64,
    depth: usize,
    time: Duration,
) -> Result<Probe, Failure> {
    let mut batch = disk.batch(Purpose::Other);
    let mut random = Random::new(depth as u64);
    let (begin, mut ops) = (Instant::now(), 0);
    let mut started: Vec<Instant> = vec![begin; depth];
    let mut latencies_ns = Vec::new();
    let mut request = |token: u64, buf: Buf| Request {
        token,
        file: file.clone(),
        offset: random.below(bytes / 4096) * 4096,
        op: Op::Read(buf),
    };
    for (token, start) in started.iter_mut().enumerate() {
        *start = Instant::now();
        batch.push(request(token as u64, Buf::zeroed(4096)));
    }
    batch.submit();
    while batch.in_flight() > 0 {
        for done in batch.wait() {
            done.result?;
            ops += 1;
            let slot = done.token as usize;
            latencies_ns.push(started[slot].elapsed().as_nanos() as u32);
            if begin.elapsed() < time {
                started[slot] = Instant::now();
                batch.push(request(
                    done.token,
                    done.buf.ok_or("a read without its buffer")?,
                ));
            }
        }
        batch.submit();
    }
    let secs = begin.elapsed().as_secs_f64();
    Ok(Probe {
        name: "random_read_4k",
        depth,
        ops,
        secs,
        latencies_ns,
    })
}
