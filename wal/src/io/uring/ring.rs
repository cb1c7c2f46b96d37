//! One ring and what is in flight on it: the only place that hands memory to the kernel.
//!
//! The ring owns each [`Request`] from `begin` to its completion, so nothing outside can free or
//! touch a buffer that the kernel still uses (R1). Short transfers go on where they stopped, EINTR,
//! EAGAIN and ECANCELED (the submitting thread ended) are submitted again, and a durable write that
//! did not succeed as one transfer is ended by an `fdatasync` of its own.

use std::fmt;
use std::io::Error;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::io::{Errno, ReadWriteFlags};

use super::ENTRIES;
use crate::io::syscall::{SysFile, failed, next_start};
use crate::io::{BLOCK, Buf, Completion, IoError, Op, Request};

/// A request on its way.
pub(super) struct Flight {
    request: Request,
    /// Bytes transferred.
    done: usize,
    /// A durable write goes as one transfer with `RWF_DSYNC`.
    pub(super) in_one: bool,
    /// All bytes are written and the sync that makes them durable is asked for.
    syncing: bool,
}

impl Flight {
    pub(super) fn new(request: Request) -> Flight {
        let mut flight = Flight {
            request,
            done: 0,
            in_one: false,
            syncing: false,
        };
        let direct = flight.file().is_some_and(|file| file.direct);
        flight.in_one = direct && matches!(flight.request.op, Op::WriteDurable(_));
        flight
    }

    #[cfg(test)]
    pub(super) fn op(&self) -> &Op {
        &self.request.op
    }

    fn file(&self) -> Option<&SysFile> {
        self.request.file.as_any().downcast_ref::<SysFile>()
    }

    fn failed(&self, source: impl Into<Error>) -> IoError {
        let len = self.request.op.buf().map_or(0, |buf| buf.len());
        let name = self.request.op.name();
        match self.file() {
            Some(file) => file.failed(name, self.request.offset, len, source),
            None => failed(name, self.request.file.path(), source),
        }
    }

    /// The submission entry of the next step.
    fn entry(&mut self) -> squeue::Entry {
        let fd = types::Fd(self.file().map_or(-1, |file| file.fd.as_raw_fd()));
        let at = self.request.offset + self.done as u64;
        let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC);
        if self.syncing {
            return sync.build();
        }
        let flags = match self.in_one {
            true => ReadWriteFlags::DSYNC.bits().cast_signed(),
            false => 0,
        };
        match &mut self.request.op {
            Op::Read(buf) => {
                let rest = &mut buf[self.done..];
                opcode::Read::new(fd, rest.as_mut_ptr(), rest.len() as u32)
                    .offset(at)
                    .build()
            }
            Op::Write(buf) | Op::WriteDurable(buf) => {
                let rest = &buf[self.done..];
                opcode::Write::new(fd, rest.as_ptr(), rest.len() as u32)
                    .offset(at)
                    .rw_flags(flags)
                    .build()
            }
            Op::Sync => sync.build(),
        }
    }

    /// Takes the answer of one step: the result of the request, or None if a next step is due.
    pub(super) fn advance(&mut self, answer: i32) -> Option<Result<usize, IoError>> {
        let n = match usize::try_from(answer) {
            Ok(n) => n,
            Err(_) => match Errno::from_raw_os_error(answer.saturating_neg()) {
                Errno::INTR | Errno::AGAIN | Errno::CANCELED => return None,
                // A file system without per-call flags: write plainly, then sync.
                Errno::OPNOTSUPP if self.in_one => {
                    self.in_one = false;
                    return None;
                }
                errno => return Some(Err(self.failed(errno))),
            },
        };
        match &self.request.op {
            Op::Read(buf) => {
                self.done += n;
                let ended = n == 0 || self.done == buf.len() || !self.done.is_multiple_of(BLOCK);
                ended.then_some(Ok(self.done))
            }
            Op::Sync => Some(Ok(0)),
            Op::Write(_) | Op::WriteDurable(_) if self.syncing => Some(Ok(self.done)),
            Op::Write(buf) | Op::WriteDurable(buf) => {
                let whole = buf.len();
                if n == 0 && whole > 0 {
                    return Some(Err(self.failed(std::io::ErrorKind::WriteZero)));
                }
                let one_piece = self.done == 0 && n == whole && self.in_one;
                self.done = next_start(self.done, n, whole);
                self.in_one = false;
                if self.done < whole {
                    return None;
                }
                let durable = matches!(self.request.op, Op::WriteDurable(_));
                self.syncing = durable && !one_piece;
                (!self.syncing).then_some(Ok(whole))
            }
        }
    }

    fn count(&self, bytes: usize) {
        let Some(file) = self.file() else { return };
        let stats = &file.stats;
        let add = |counter: &std::sync::atomic::AtomicU64, n: usize| {
            counter.fetch_add(n as u64, Ordering::Relaxed);
        };
        match &self.request.op {
            Op::Read(_) => add(&stats.bytes_read, bytes),
            Op::Write(_) => add(&stats.bytes_written, bytes),
            Op::WriteDurable(_) => {
                add(&stats.bytes_written, bytes);
                add(&stats.flushes, 1);
            }
            Op::Sync => add(&stats.flushes, 1),
        }
    }
}

/// A ring of the kernel and the requests in flight on it.
pub(super) struct Ring {
    /// Dropped by hand: a ring that cannot say what it still owns is leaked with its requests.
    kernel: ManuallyDrop<IoUring>,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// The kernel answered a call in a way that leaves what is in flight unknown.
    broken: Option<std::io::ErrorKind>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} in flight)", self.in_flight())
    }
}

impl Ring {
    /// Sets a ring up and checks that it knows the operations needed.
    pub(super) fn new() -> std::io::Result<Ring> {
        // Completions are handled when the owner enters the kernel, without an interrupt of the
        // thread that submitted. Kernels before 5.19 do not know the flag.
        let kernel = match IoUring::builder().setup_coop_taskrun().build(ENTRIES) {
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                IoUring::new(ENTRIES)?
            }
            other => other?,
        };
        let mut probe = Probe::new();
        kernel.submitter().register_probe(&mut probe)?;
        let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
        if !needed.iter().all(|code| probe.is_supported(*code)) {
            let text = "the kernel's ring knows no read, write or fsync";
            return Err(Error::new(std::io::ErrorKind::Unsupported, text));
        }
        let places = ENTRIES as usize;
        assert!(
            kernel.params().cq_entries() as usize >= places,
            "R2: completions of all entries fit"
        );
        Ok(Ring {
            kernel: ManuallyDrop::new(kernel),
            flights: (0..places).map(|_| None).collect(),
            free: (0..places).rev().collect(),
            broken: None,
        })
    }

    /// Requests between `begin` and their completion.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// True if `begin` may be called.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a request; the next `enter` starts it.
    pub(super) fn begin(&mut self, request: Request) {
        let Some(place) = self.free.pop() else {
            panic!("R2: no more than {ENTRIES} requests at a time");
        };
        self.flights[place] = Some(Flight::new(request));
        self.queue(place);
    }

    /// Queues the next step of a request.
    fn queue(&mut self, place: usize) {
        let Some(flight) = &mut self.flights[place] else {
            panic!("R1: place {place} holds no request");
        };
        let entry = flight.entry().user_data(place as u64);
        // SAFETY: the entry names a buffer, its length and a file descriptor. All three belong to
        // the request in `flights[place]`, which stays there, untouched, until `reap` has seen the
        // completion with this `user_data` (R1): `reap` and `abandon` are the only functions that
        // empty a place, `abandon` leaks what it takes, and `drop` waits for the rest. The buffer
        // is a heap allocation, so moving the ring does not move it.
        let pushed = unsafe { self.kernel.submission().push(&entry) };
        assert!(
            pushed.is_ok(),
            "R2: one entry per place, so the queue has room"
        );
    }

    /// Hands queued entries to the kernel; with `wait`, returns when a completion is there.
    pub(super) fn enter(&mut self, wait: bool) {
        if self.broken.is_some() || self.in_flight() == 0 {
            return;
        }
        loop {
            let nothing_new = self.kernel.submission().is_empty();
            if nothing_new && !self.kernel.completion().is_empty() {
                return;
            }
            let want = usize::from(wait && self.kernel.completion().is_empty());
            match self.kernel.submit_and_wait(want) {
                Ok(_) if self.kernel.submission().is_empty() => return,
                // The kernel stopped at an entry whose answer is a completion: hand in the rest.
                Ok(_) => {}
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::INTR) => {}
                    // No memory for the moment, or completions to be fetched first.
                    Some(Errno::AGAIN | Errno::BUSY) => {
                        if !self.kernel.completion().is_empty() {
                            return;
                        }
                        crate::sync::yield_thread();
                    }
                    _ => {
                        self.broken = Some(error.kind());
                        return;
                    }
                },
            }
        }
    }

    /// Moves what has ended to `done`, and queues the next steps of what has not.
    pub(super) fn reap(&mut self, done: &mut Vec<Completion>) {
        if let Some(kind) = self.broken {
            return self.abandon(kind, done);
        }
        let mut again = false;
        loop {
            let Some(answer) = self.kernel.completion().next() else {
                break;
            };
            let place = answer.user_data() as usize;
            let Some(flight) = self.flights[place].as_mut() else {
                panic!("R1: a completion for place {place}, where nothing is in flight");
            };
            let Some(result) = flight.advance(answer.result()) else {
                self.queue(place);
                again = true;
                continue;
            };
            if let Ok(bytes) = result {
                flight.count(bytes);
            }
            let flight = self.flights[place].take();
            self.free.push(place);
            done.extend(flight.map(|flight| Completion {
                token: flight.request.token,
                result,
                buf: flight.request.op.into_buf(),
            }));
        }
        if again {
            self.enter(false);
        }
    }

    /// Answers everything with an error and leaks the memory that the kernel may still use.
    fn abandon(&mut self, kind: std::io::ErrorKind, done: &mut Vec<Completion>) {
        for (place, slot) in self.flights.iter_mut().enumerate() {
            let Some(flight) = slot.take() else { continue };
            self.free.push(place);
            let result = Err(flight.failed(kind));
            let token = flight.request.token;
            // The caller gets a buffer of the same size; the kernel keeps the one it was given.
            let buf = flight.request.op.buf().map(|buf| Buf::zeroed(buf.len()));
            std::mem::forget(flight);
            done.push(Completion { token, result, buf });
        }
    }

    /// False if the ring must not be used again.
    pub(super) fn is_sound(&self) -> bool {
        self.broken.is_none()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while self.in_flight() > 0 {
            self.enter(true);
            self.reap(&mut ended);
        }
        if self.broken.is_none() {
            // SAFETY: the ring is dropped once, here, and not used after; nothing is in flight.
            unsafe { ManuallyDrop::drop(&mut self.kernel) };
        }
    }
}
