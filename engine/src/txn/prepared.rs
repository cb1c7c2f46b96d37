//! Transactions of several shards that are prepared in this one and not decided: what they are
//! about to write, and what they have read.
//!
//! ```text
//! PREPARE   rows of `terrane.prepared` in the log; intents, reads and writes here
//! a reader  waits for what is prepared at or below its moment, at the keys that it reads
//! a writer  waits for who has read what it is about to write
//! DECIDE    writes the rows and deletes those of `terrane.prepared`, or only the latter
//! ```
//! After a change of leader all of it is made again from the rows, before the first commit.
//!
//! Invariants:
//! - D1: what a prepared transaction has read does not change until it is decided: its reads stand
//!   here before they are validated, and who writes looks here after its intents are placed.
//! - D2: a prepared transaction is given up by nobody but its coordinator's shard.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use terrane_wal::env::Waiter;
use terrane_wal::lsn::{TreeId, Ts};
use terrane_wal::sync::{AtomicUsize, Mutex, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Core;
use crate::txn::intents::Intents;
use crate::txn::owner::Owner;
use crate::txn::range::Range;
use crate::txn::ring::RowKey;
use crate::txn::write_set::{Write, WriteSet};

/// A transaction of several shards: its coordinator's shard, and a number that no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dtid {
    pub(crate) coordinator: u32,
    pub(crate) number: u64,
}

impl Dtid {
    /// As a key.
    pub(crate) fn encode(self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..4].copy_from_slice(&self.coordinator.to_be_bytes());
        key[4..].copy_from_slice(&self.number.to_be_bytes());
        key
    }

    /// From the front of a key.
    pub(crate) fn decode(key: &[u8]) -> Option<Dtid> {
        let (coordinator, rest) = key.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        Some(Dtid {
            coordinator: u32::from_be_bytes(*coordinator),
            number: u64::from_be_bytes(*number),
        })
    }
}

/// What a transaction has in one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) age: u64,
    /// In ascending order.
    pub(crate) writes: Vec<(RowKey, Write)>,
    pub(crate) keys: Vec<RowKey>,
    pub(crate) ranges: Vec<Range>,
}

/// A prepared part, with what keeps others away.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) dtid: Dtid,
    pub(crate) part: Part,
    /// Rows of `terrane.prepared`.
    pub(crate) chunks: u32,
    pub(crate) since: Duration,
    owner: Arc<Owner>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// At or below its timestamp: readers below it need not wait.
    from: Ts,
    /// Taken by who decides.
    intents: Option<Intents>,
    decided: bool,
    waiters: Vec<Arc<dyn Waiter>>,
}

/// All of a shard.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    count: AtomicUsize,
    all: Mutex<BTreeMap<Dtid, Arc<Pending>>>,
}

impl Prepared {
    /// Enters a part whose intents are placed.
    pub(crate) fn enter(
        &self,
        dtid: Dtid,
        part: Part,
        chunks: u32,
        (intents, since): (Intents, Duration),
    ) -> Arc<Pending> {
        let pending = Arc::new(Pending {
            dtid,
            part,
            chunks,
            since,
            owner: Arc::clone(intents.owner()),
            state: Mutex::new(State {
                from: Ts::ZERO,
                intents: Some(intents),
                decided: false,
                waiters: Vec::new(),
            }),
        });
        let mut all = self.all.lock();
        all.insert(dtid, Arc::clone(&pending));
        self.count.store(all.len(), Ordering::SeqCst);
        pending
    }

    /// The part of a transaction.
    pub(crate) fn get(&self, dtid: Dtid) -> Option<Arc<Pending>> {
        self.all.lock().get(&dtid).cloned()
    }

    /// All parts.
    pub(crate) fn all(&self) -> Vec<Arc<Pending>> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        self.all.lock().values().cloned().collect()
    }

    /// Forgets all of them: they are made again from their rows.
    pub(crate) fn clear(&self) {
        let all = {
            let mut all = self.all.lock();
            self.count.store(0, Ordering::SeqCst);
            std::mem::take(&mut *all)
        };
        all.values().for_each(|pending| pending.end());
    }

    /// A part is decided, and what it wrote is in the trees.
    pub(crate) fn leave(&self, pending: &Pending) {
        {
            let mut all = self.all.lock();
            all.remove(&pending.dtid);
            self.count.store(all.len(), Ordering::SeqCst);
        }
        pending.end();
    }

    /// Waits until nothing is undecided that a reader at `moment` may see of the rows between the
    /// bounds: what is prepared later has a later timestamp.
    ///
    /// # Errors
    /// `Unavailable` if that takes longer than a lock may be waited for.
    pub(crate) fn settle(
        &self,
        core: &Core,
        tree: TreeId,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        moment: Ts,
    ) -> Result<()> {
        if terrane_wal::planted!("readers_wait_for_no_decision") {
            return Ok(());
        }
        for pending in self.all() {
            if pending.writes_in(tree, lower, upper) {
                pending.wait(core, Some(moment))?;
            }
        }
        Ok(())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Waits until no other transaction is undecided that has read one of the rows to be written,
    /// whose intents are placed (D1).
    ///
    /// # Errors
    /// `Conflict` if it may not be waited for; as [`Prepared::settle`].
    pub(crate) fn admit(&self, core: &Core, intents: &Intents, writes: &WriteSet) -> Result<()> {
        for pending in self.all() {
            let own = Arc::ptr_eq(&pending.owner, intents.owner());
            let mut writes = writes.iter();
            if own || !writes.any(|(tree, key, _)| pending.has_read(tree, key)) {
                continue;
            }
            // What is prepared waits for nobody here, and its coordinator for elder ones alone.
            if intents.is_elsewhere() && !intents.may_wait_for(pending.owner.age()) {
                let what = "a row was read by an older transaction that is not decided";
                return Err(Error::new(ErrorKind::Conflict, what));
            }
            pending.wait(core, None)?;
        }
        Ok(())
    }
}

impl Pending {
    /// The owner word of its intents.
    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Its timestamp is this one or a later one.
    pub(crate) fn at_least(&self, from: Ts) {
        self.state.lock().from = from;
    }

    /// Takes the intents, to decide. None: somebody else decides.
    pub(crate) fn take(&self) -> Option<Intents> {
        self.state.lock().intents.take()
    }

    /// Gives the intents back: it could not be decided.
    pub(crate) fn put_back(&self, intents: Intents) {
        self.state.lock().intents = Some(intents);
    }

    fn end(&self) {
        let (waiters, intents) = {
            let mut state = self.state.lock();
            state.decided = true;
            (std::mem::take(&mut state.waiters), state.intents.take())
        };
        drop(intents);
        for waiter in waiters {
            waiter.unpark();
        }
    }

    fn writes_in(&self, tree: TreeId, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
        let mut writes = self.part.writes.iter();
        writes.any(|((of, key), _)| *of == tree && (lower, upper).contains(&**key))
    }

    fn has_read(&self, tree: TreeId, key: &[u8]) -> bool {
        let mut keys = self.part.keys.iter();
        let mut ranges = self.part.ranges.iter();
        keys.any(|(of, read)| *of == tree && **read == *key)
            || ranges.any(|range| range.tree == tree && range.contains(key))
    }

    /// Waits for the decision, if it may concern a reader at `moment`.
    fn wait(&self, core: &Core, moment: Option<Ts>) -> Result<()> {
        let waiter = core.env.park.waiter();
        let until = core.now().saturating_add(core.options.lock_timeout);
        loop {
            {
                let mut state = self.state.lock();
                let later = moment.is_some_and(|moment| state.from > moment);
                if state.decided || later {
                    return Ok(());
                }
                state.waiters.push(Arc::clone(&waiter));
            }
            let left = until.saturating_sub(core.now());
            if left.is_zero() {
                let what = "a transaction of several shards is not decided";
                return Err(Error::new(ErrorKind::TimedOut, what)
                    .with("coordinator", self.dtid.coordinator)
                    .with("number", self.dtid.number));
            }
            core.check_open()?;
            waiter.park_timeout(left);
        }
    }
}

impl Part {
    /// What a leg is about to write.
    pub(crate) fn of(age: u64, writes: &WriteSet) -> Part {
        let writes = writes.iter();
        Part {
            age,
            writes: writes
                .map(|(tree, key, write)| ((tree, Arc::clone(key)), write.clone()))
                .collect(),
            ..Part::default()
        }
    }

    /// As bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put(&mut out, self.age);
        put(&mut out, self.writes.len() as u64);
        for ((tree, key), write) in &self.writes {
            put(&mut out, tree.0.into());
            put(&mut out, write.schema.into());
            out.push(write.flags);
            put_bytes(&mut out, key);
            match &write.value {
                None => out.push(0),
                Some(value) => {
                    out.push(1);
                    put_bytes(&mut out, value);
                }
            }
        }
        put(&mut out, self.keys.len() as u64);
        for (tree, key) in &self.keys {
            put(&mut out, tree.0.into());
            put_bytes(&mut out, key);
        }
        put(&mut out, self.ranges.len() as u64);
        for range in &self.ranges {
            put(&mut out, range.tree.0.into());
            for bound in [&range.lower, &range.upper] {
                match bound {
                    Bound::Unbounded => out.push(0),
                    Bound::Included(key) => {
                        out.push(1);
                        put_bytes(&mut out, key);
                    }
                    Bound::Excluded(key) => {
                        out.push(2);
                        put_bytes(&mut out, key);
                    }
                }
            }
        }
        out
    }

    /// The inverse of [`Part::encode`].
    ///
    /// # Errors
    /// `Corrupt`, `Version`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Part> {
        let mut input = Input(bytes);
        let version = input.byte()?;
        if version != VERSION {
            let error = Error::new(ErrorKind::Version, "a prepared part of another version");
            return Err(error.with("found", version));
        }
        let mut part = Part {
            age: input.number()?,
            ..Part::default()
        };
        for _ in 0..input.count()? {
            let tree = input.tree()?;
            let schema = input.small()?;
            let flags = input.byte()?;
            let key = input.bytes()?.into();
            let value = match input.byte()? {
                0 => None,
                1 => Some(input.bytes()?.to_vec()),
                _ => return Err(malformed()),
            };
            let write = Write {
                value,
                schema,
                flags,
            };
            part.writes.push(((tree, key), write));
        }
        for _ in 0..input.count()? {
            part.keys.push((input.tree()?, input.bytes()?.into()));
        }
        for _ in 0..input.count()? {
            let tree = input.tree()?;
            let (lower, upper) = (input.bound()?, input.bound()?);
            part.ranges.push(Range { tree, lower, upper });
        }
        match input.0 {
            [] => Ok(part),
            _ => Err(malformed()),
        }
    }
}

const VERSION: u8 = 1;

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn malformed() -> Error {
    Error::new(ErrorKind::Corrupt, "a prepared part does not decode")
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64> {
        let bytes = self.take(8)?.try_into().map_err(|_| malformed())?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// How many follow: each has a byte at least.
    fn count(&mut self) -> Result<usize> {
        let count = usize::try_from(self.number()?).map_err(|_| malformed())?;
        (count <= self.0.len())
            .then_some(count)
            .ok_or_else(malformed)
    }

    fn small(&mut self) -> Result<u32> {
        u32::try_from(self.number()?).map_err(|_| malformed())
    }

    fn tree(&mut self) -> Result<TreeId> {
        Ok(TreeId(self.small()?))
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.count()?;
        self.take(len)
    }

    fn bound(&mut self) -> Result<Bound<Vec<u8>>> {
        Ok(match self.byte()? {
            0 => Bound::Unbounded,
            1 => Bound::Included(self.bytes()?.to_vec()),
            2 => Bound::Excluded(self.bytes()?.to_vec()),
            _ => return Err(malformed()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> Part {
        let row = |tree, key: &[u8]| (TreeId(tree), Arc::from(key));
        let write = |value: Option<&[u8]>| Write {
            value: value.map(<[u8]>::to_vec),
            schema: 3,
            flags: 1,
        };
        Part {
            age: 77,
            writes: vec![
                (row(300, b""), write(Some(b"value"))),
                (row(301, b"gone"), write(None)),
            ],
            keys: vec![row(300, b"read")],
            ranges: vec![
                Range {
                    tree: TreeId(300),
                    lower: Bound::Unbounded,
                    upper: Bound::Excluded(b"x".to_vec()),
                },
                Range {
                    tree: TreeId(302),
                    lower: Bound::Included(Vec::new()),
                    upper: Bound::Unbounded,
                },
            ],
        }
    }

    #[test]
    fn a_part_survives_its_bytes_and_no_others_do() {
        let bytes = part().encode();
        assert_eq!(Part::decode(&bytes).unwrap(), part());
        for len in 0..bytes.len() {
            assert!(Part::decode(&bytes[..len]).is_err(), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            Part::decode(&longer).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        for at in 0..bytes.len() {
            // Whatever it is taken for, it does not panic, nor ask for memory without end.
            let mut other = bytes.clone();
            other[at] ^= 0xff;
            let _ = Part::decode(&other);
        }
        let mut newer = bytes;
        newer[0] = 9;
        assert_eq!(Part::decode(&newer).unwrap_err().kind(), ErrorKind::Version);
    }

    #[test]
    fn a_transaction_has_one_key() {
        let dtid = Dtid {
            coordinator: 3,
            number: u64::MAX - 1,
        };
        assert_eq!(Dtid::decode(&dtid.encode()), Some(dtid));
        assert_eq!(Dtid::decode(&dtid.encode()[..11]), None);
    }
}
