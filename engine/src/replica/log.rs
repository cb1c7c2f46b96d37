//! The write-ahead log as the protocol sees it.
//!
//! The protocol asks for entries and cannot be told of a disk that fails: such a failure is kept,
//! and ends the member before anything that followed from the answer is done.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use terrane_shard::codec::Barrier;
use terrane_shard::log::{Config, Configs, Entry, Epochs, Head, Kind, Log, Term};
use terrane_wal::lsn::Lsn;
use terrane_wal::{Body, DecodedEntry, EntryBuilder, EntryCopy, Level, WalError, decode_entry};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of entries that are looked for at once.
const LOOK_BYTES: usize = 1 << 20;

/// A member's log.
#[derive(Debug)]
pub(super) struct MemberLog {
    wal: Arc<terrane_wal::Log>,
    /// The terms of what the protocol knows of.
    epochs: Epochs,
    /// The oldest position, and where the first whole entry begins there.
    oldest: Cell<(Lsn, Lsn)>,
    failed: RefCell<Option<Error>>,
}

impl MemberLog {
    pub(super) fn new(wal: Arc<terrane_wal::Log>) -> Self {
        Self {
            epochs: wal.epochs(),
            wal,
            oldest: Cell::default(),
            failed: RefCell::new(None),
        }
    }

    /// The log itself.
    pub(super) fn wal(&self) -> &Arc<terrane_wal::Log> {
        &self.wal
    }

    /// The failure behind an answer that was given since the last time.
    pub(super) fn failed(&self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Keeps an error; a value that can only mislead until it is asked for stands in.
    fn or_keep<T: Default>(&self, answer: Result<T>) -> T {
        answer.unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            T::default()
        })
    }

    /// Where the first whole entry begins: looked for once for each trim.
    fn oldest_entry(&self) -> Result<Lsn> {
        let oldest = self.wal.oldest();
        if self.oldest.get().0 != oldest {
            self.oldest.set((oldest, self.wal.oldest_entry()?));
        }
        Ok(self.oldest.get().1)
    }

    /// The configurations in it that may count, behind the first one and where that ends.
    pub(super) fn configs(&self, first: (Lsn, Arc<Config>), commit: Lsn) -> Result<Configs> {
        let (end, first) = first;
        let mut configs = Configs::new(first);
        let mut from = self.oldest_entry()?;
        loop {
            let some = self.entries(from, LOOK_BYTES)?;
            let Some(last) = some.last() else {
                break;
            };
            from = last.head.end;
            for entry in some {
                if let Kind::Config(config) = entry.kind
                    && entry.head.end > end
                {
                    configs.push(entry.head.end, config);
                }
            }
        }
        configs.commit(commit);
        Ok(configs)
    }

    fn entries(&self, from: Lsn, bytes: usize) -> Result<Vec<Entry>> {
        let copies = self.wal.read(from, bytes)?;
        copies.into_iter().map(entry_of).collect()
    }

    /// Puts a leader's entries behind the log.
    pub(super) fn append(&mut self, entries: Vec<Entry>) -> Result<()> {
        for Entry { head, bytes, .. } in entries {
            self.wal.append_copy(&EntryCopy { head, bytes })?;
            self.epochs.push(&head);
        }
        Ok(())
    }

    /// Cuts off what lies behind the end of an entry.
    pub(super) fn truncate(&mut self, to: Lsn) -> Result<()> {
        self.wal.cut(to)?;
        self.epochs.truncate(to);
        Ok(())
    }

    /// Begins a term, whose leader this member is.
    pub(super) fn begin(&self, term: Term, barrier: &Barrier) -> Result<()> {
        self.wal.unseal();
        self.write(EntryBuilder::new().barrier(term, &barrier.encode()))
    }

    pub(super) fn write_config(&self, config: &Config) -> Result<()> {
        self.write(EntryBuilder::new().config(&config.encode()))
    }

    fn write(&self, entry: terrane_wal::Entry) -> Result<()> {
        let admission = self.wal.admit(entry.len())?;
        self.wal
            .sequence(admission, entry, true, &mut |_| {})
            .fill();
        Ok(())
    }

    /// Entries of its own that the log has got since the last time, for a member that leads.
    pub(super) fn own(&mut self) -> Result<VecDeque<(Head, Kind)>> {
        let mut own = VecDeque::new();
        loop {
            let entries = self.entries(self.epochs.last().lsn, LOOK_BYTES)?;
            if entries.is_empty() {
                return Ok(own);
            }
            for Entry { head, kind, .. } in entries {
                self.epochs.push(&head);
                own.push_back((head, kind));
            }
        }
    }

    /// The end of what the protocol knows of.
    pub(super) fn end(&self) -> Lsn {
        self.epochs.last().lsn
    }

    /// Up to where what the protocol knows of is on disk.
    pub(super) fn durable(&self) -> Lsn {
        match terrane_wal::planted!("a_member_syncs_nothing") {
            true => self.end(),
            false => self.wal.durable_lsn().min(self.end()),
        }
    }

    /// Makes what the protocol knows of durable.
    pub(super) fn sync(&self) -> Result<()> {
        if !terrane_wal::planted!("a_member_syncs_nothing") {
            self.wal.wait(Level::Durable, self.end())?;
        }
        Ok(())
    }
}

impl Log for MemberLog {
    fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    fn oldest(&self) -> Lsn {
        self.or_keep(self.oldest_entry())
    }

    fn ending(&self, end: Lsn) -> Option<Head> {
        self.or_keep(self.wal.ending(end).map_err(Error::from))
    }

    fn read(&self, from: Lsn, bytes: usize) -> Vec<Entry> {
        // Who needs what was trimmed gets it another way.
        if from < self.oldest() {
            return Vec::new();
        }
        let mut entries = self.or_keep(self.entries(from, bytes));
        // What was logged since is not known to the protocol yet.
        let known = self.epochs.last().lsn;
        entries.retain(|entry| entry.head.end <= known);
        entries
    }
}

/// What a verified entry means to the protocol.
fn kind_of(entry: &DecodedEntry<'_>) -> Result<Kind> {
    match entry.terminal().body {
        Body::Barrier { .. } => Ok(Kind::Barrier),
        Body::Config { config } => match Config::decode(config) {
            Ok(config) => Ok(Kind::Config(Arc::new(config))),
            Err(error) => Err(Error::new(
                ErrorKind::Corrupt,
                "a configuration in the log cannot be read",
            )
            .with("cause", error)),
        },
        _ => Ok(Kind::Data),
    }
}

fn entry_of(copy: EntryCopy) -> Result<Entry> {
    let kind = kind_of(&decode_entry(&copy.bytes)?)?;
    Ok(Entry {
        head: copy.head,
        kind,
        bytes: copy.bytes,
    })
}

/// Whether an entry of a peer's is what its head and kind say, before the protocol sees it: its
/// bytes are verified, and what they mean is read from them.
pub(super) fn verified(entry: &mut Entry) -> Result<()> {
    let decoded = decode_entry(&entry.bytes)?;
    let len = entry.bytes.len() as u64;
    let head = &entry.head;
    if decoded.crc() != head.crc || head.start.0.checked_add(len) != Some(head.end.0) {
        let what = format!("an entry of {len} bytes that is not the one its head says");
        return Err(WalError::Invalid { what }.into());
    }
    entry.kind = kind_of(&decoded)?;
    Ok(())
}
