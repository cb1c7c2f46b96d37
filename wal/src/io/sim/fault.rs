//! What goes wrong on purpose, and when: failing calls, a full disk, a stop at a boundary.
//!
//! Every call on the disk is counted; every call that changes something also has boundaries
//! (before it, pending if it is to be durable, after it), which are numbered through the life of
//! the disk. A driver runs a workload once to learn how many there are, then again for each number,
//! or takes the crash images inside the callback of [`super::SimDisk::on_io`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::world::{mix, mix_bytes};
use super::{Shared, SimDisk};
use crate::env::Xoshiro;
use crate::io::IoError;
use crate::io::syscall::failed_at;

/// What a call on the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// Opens an existing file.
    Open,
    /// Creates a file.
    Create,
    /// Makes a directory.
    CreateDir,
    /// Lists a directory.
    List,
    /// Asks for facts about a path, or for the length of an open file.
    Stat,
    /// Renames a file.
    Rename,
    /// Removes a file.
    Remove,
    /// Makes names durable.
    SyncDir,
    /// Takes a lock.
    Lock,
    /// Changes a length.
    SetLen,
    /// Reserves blocks.
    Allocate,
    /// Gives blocks back.
    Punch,
    /// Reads.
    Read,
    /// Writes, durably or not.
    Write,
    /// Makes writes durable.
    Sync,
}

impl OpKind {
    /// The name that an error carries.
    pub(super) fn name(self) -> &'static str {
        match self {
            OpKind::Open | OpKind::Create => "open",
            OpKind::CreateDir => "create_dir",
            OpKind::List => "list",
            OpKind::Stat => "stat",
            OpKind::Rename => "rename",
            OpKind::Remove => "remove",
            OpKind::SyncDir => "sync_dir",
            OpKind::Lock => "lock",
            OpKind::SetLen => "set_len",
            OpKind::Allocate => "allocate",
            OpKind::Punch => "punch",
            OpKind::Read => "read",
            OpKind::Write => "write",
            OpKind::Sync => "sync",
        }
    }

    /// True if a crash before and a crash after the call can differ.
    fn changes(self) -> bool {
        !matches!(
            self,
            OpKind::Open | OpKind::List | OpKind::Stat | OpKind::Read
        )
    }
}

/// Where in a call a boundary lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was done yet.
    Before,
    /// A durable write was made and is not durable yet.
    Pending,
    /// All was done; the caller does not know it yet.
    After,
}

/// A boundary that a call passes.
#[derive(Clone, Debug)]
pub struct IoEvent {
    /// Number of the boundary, from 0 on.
    pub boundary: u64,
    /// Number of the call, from 0 on; calls that change nothing are counted too.
    pub call: u64,
    /// What the call does.
    pub op: OpKind,
    /// Where in the call.
    pub phase: Phase,
    /// The file or directory.
    pub path: PathBuf,
    /// Byte offset, where the call has one.
    pub offset: u64,
    /// Bytes, where the call has a length.
    pub len: usize,
}

/// A call that fails.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Only calls of this kind count; any if None.
    pub op: Option<OpKind>,
    /// Only calls on paths with this text in them count; any if None.
    pub path_part: Option<String>,
    /// How many matching calls go well before.
    pub after: u64,
    /// What the failing call answers, as an error number of the operating system.
    pub errno: i32,
    /// All later matching calls fail as well.
    pub sticky: bool,
}

impl Fault {
    /// The call after the next `after` ones fails with EIO, once, whatever it does.
    #[must_use]
    pub fn nth_call(after: u64) -> Fault {
        Fault {
            op: None,
            path_part: None,
            after,
            errno: rustix::io::Errno::IO.raw_os_error(),
            sticky: false,
        }
    }

    /// As [`Fault::nth_call`], counting calls of one kind.
    #[must_use]
    pub fn nth(op: OpKind, after: u64) -> Fault {
        Fault {
            op: Some(op),
            ..Fault::nth_call(after)
        }
    }

    /// Fails from that call on.
    #[must_use]
    pub fn sticky(self) -> Fault {
        Fault {
            sticky: true,
            ..self
        }
    }

    /// Fails with another error number.
    #[must_use]
    pub fn with_errno(self, errno: i32) -> Fault {
        Fault { errno, ..self }
    }

    /// Fails only on paths with this text in them.
    #[must_use]
    pub fn on(self, path_part: &str) -> Fault {
        Fault {
            path_part: Some(path_part.to_owned()),
            ..self
        }
    }

    fn matches(&self, op: OpKind, path: &Path) -> bool {
        let part = self.path_part.as_deref();
        self.op.is_none_or(|mine| mine == op)
            && part.is_none_or(|part| path.to_string_lossy().contains(part))
    }
}

/// The order in which the requests of a batch end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompletionOrder {
    /// As they were submitted.
    Submitted,
    /// The other way round: nobody may count on the order.
    #[default]
    Reversed,
    /// As the seed draws; `poll` and `wait` hand out some at a time.
    Seeded,
}

/// The error of every call on a disk whose machine has crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed;

impl fmt::Display for Crashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated machine has crashed")
    }
}

impl std::error::Error for Crashed {}

/// True if the call failed because the simulated machine stands still.
#[must_use]
pub fn is_crash(error: &IoError) -> bool {
    error
        .source
        .get_ref()
        .is_some_and(|inner| inner.is::<Crashed>())
}

type Hook = Arc<dyn Fn(&SimDisk, &IoEvent) + Send + Sync>;

/// Counters and plans.
pub(super) struct Control {
    pub(super) calls: u64,
    pub(super) boundaries: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) order: CompletionOrder,
    pub(super) rng: Xoshiro,
    pub(super) hook: Option<Hook>,
    pub(super) trace: u64,
}

impl Control {
    pub(super) fn new(seed: u64) -> Control {
        Control {
            calls: 0,
            boundaries: 0,
            faults: Vec::new(),
            crash_at: None,
            crashed: false,
            capacity_bytes: None,
            order: CompletionOrder::default(),
            rng: Xoshiro::named(seed, "disk"),
            hook: None,
            trace: 0,
        }
    }

    /// The error number with which this call is to fail.
    fn fault(&mut self, op: OpKind, path: &Path) -> Option<i32> {
        let mut errno = None;
        self.faults.retain_mut(|fault| {
            if !fault.matches(op, path) {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            errno = errno.or(Some(fault.errno));
            fault.sticky
        });
        errno
    }
}

/// A call between its begin and its end.
#[derive(Clone, Debug)]
pub(super) struct Call {
    number: u64,
    op: OpKind,
    path: PathBuf,
    offset: u64,
    len: usize,
}

impl Call {
    pub(super) fn failed(&self, source: impl Into<std::io::Error>) -> IoError {
        failed_at(self.op.name(), &self.path, self.offset, self.len, source)
    }
}

/// Why a call does not go on.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The machine stands still: the call has no effect at all.
    Crashed(IoError),
    /// A planned fault: the call may have had a part of its effect.
    Fault(IoError),
}

impl Refusal {
    /// The error, for calls that fail without any effect.
    pub(super) fn into_error(self) -> IoError {
        match self {
            Refusal::Crashed(error) | Refusal::Fault(error) => error,
        }
    }
}

impl Shared {
    /// Counts a call, passes its first boundary, and fails it if that is planned.
    pub(super) fn begin(
        self: &Arc<Self>,
        op: OpKind,
        path: &Path,
        offset: u64,
        len: usize,
    ) -> Result<Call, Refusal> {
        let mut call = Call {
            number: 0,
            op,
            path: path.to_owned(),
            offset,
            len,
        };
        self.scheduling_point();
        let fault = {
            let mut control = self.control.lock();
            if control.crashed {
                return Err(Refusal::Crashed(
                    call.failed(std::io::Error::other(Crashed)),
                ));
            }
            call.number = control.calls;
            control.calls += 1;
            control.fault(op, path)
        };
        self.boundary(&call, Phase::Before)
            .map_err(Refusal::Crashed)?;
        match fault {
            None => Ok(call),
            Some(errno) => {
                let error = call.failed(std::io::Error::from_raw_os_error(errno));
                Err(Refusal::Fault(error))
            }
        }
    }

    /// As `begin`, for calls that fail without any effect.
    pub(super) fn begin_plain(
        self: &Arc<Self>,
        op: OpKind,
        path: &Path,
        offset: u64,
        len: usize,
    ) -> Result<Call, IoError> {
        self.begin(op, path, offset, len)
            .map_err(Refusal::into_error)
    }

    /// Passes the last boundary of a call.
    pub(super) fn end(self: &Arc<Self>, call: &Call) -> Result<(), IoError> {
        self.boundary(call, Phase::After)
    }

    /// Passes a boundary: the machine may stop here, and the driver may look.
    pub(super) fn boundary(self: &Arc<Self>, call: &Call, phase: Phase) -> Result<(), IoError> {
        let (event, hook) = {
            let mut control = self.control.lock();
            let words = [call.op as u64, phase as u64, call.offset, call.len as u64];
            let trace = mix_bytes(control.trace, call.path.as_os_str().as_encoded_bytes());
            control.trace = words.iter().fold(trace, |hash, word| mix(hash, *word));
            if !call.op.changes() {
                return Ok(());
            }
            if control.crash_at == Some(control.boundaries) {
                control.crashed = true;
            }
            if control.crashed {
                return Err(call.failed(std::io::Error::other(Crashed)));
            }
            let boundary = control.boundaries;
            control.boundaries += 1;
            let Some(hook) = control.hook.clone() else {
                drop(control);
                if phase != Phase::Before {
                    self.scheduling_point();
                }
                return Ok(());
            };
            let event = IoEvent {
                boundary,
                call: call.number,
                op: call.op,
                phase,
                path: call.path.clone(),
                offset: call.offset,
                len: call.len,
            };
            (event, hook)
        };
        hook(&SimDisk(Arc::clone(self)), &event);
        if phase != Phase::Before {
            self.scheduling_point();
        }
        Ok(())
    }
}
