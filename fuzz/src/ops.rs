//! The operation language: what a script can ask of a database, decoded from any bytes.
//!
//! One language drives the model test, crash enumeration, fuzzers and saved regressions. Decoding
//! is total (every byte string is a script) and bounded, encoding is its inverse, so a shrunk
//! script is saved as the bytes that a fuzzer would have found. A transaction or snapshot that an
//! operation names and that is not open is opened by it: random scripts waste few operations.

use std::fmt;

use crate::keys::{KeyId, Length, RowId, TABLES};

const _: () = assert!(TABLES == 2, "a table is one bit of a script");

/// Transactions that can be open at a time.
pub const TX_SLOTS: usize = 4;
/// Snapshots that can be open at a time.
pub const SNAPSHOT_SLOTS: usize = 3;
/// Operations of the longest script.
pub const OPS_MAX: usize = 400;
/// Rows of the largest bulk operation.
pub const BULK_MAX: usize = 256;

/// A bound of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// None.
    Open,
    /// The key and what lies inside of it.
    Included(KeyId),
    /// What lies inside of the key.
    Excluded(KeyId),
}

/// What a scan asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOf {
    /// Number of the table.
    pub table: u8,
    /// Lower bound.
    pub from: Edge,
    /// Upper bound.
    pub to: Edge,
    /// From the upper end down.
    pub reverse: bool,
    /// Rows taken; the rest is left unread.
    pub limit: u8,
}

/// What a transaction may overlook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Snapshot isolation.
    Snapshot,
    /// Serializable.
    Serializable,
}

/// An I/O call that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The machine stops.
    Stop,
    /// EIO, once.
    Error,
    /// EIO from then on.
    Errors,
    /// ENOSPC, once.
    Full,
}

impl Trouble {
    const ALL: [Trouble; 4] = [
        Trouble::Stop,
        Trouble::Error,
        Trouble::Errors,
        Trouble::Full,
    ];
}

/// One operation. `tx` and `snapshot` are slots; the other fields are what their line says.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Drops the slot's transaction and begins another.
    Begin { tx: u8, level: Level },
    /// Reads a row.
    Get { tx: u8, row: RowId },
    /// Writes a row.
    Put { tx: u8, row: RowId, length: Length },
    /// Deletes a row.
    Delete { tx: u8, row: RowId },
    /// Reads rows in order.
    Scan { tx: u8, scan: ScanOf },
    /// Sets a savepoint.
    Savepoint { tx: u8 },
    /// Goes back to one of the savepoints, counted from the newest.
    Rollback { tx: u8, back: u8 },
    /// Commits and waits until that is durable.
    Commit { tx: u8 },
    /// Commits and waits for nothing but the order.
    CommitLazily { tx: u8 },
    /// Drops the transaction.
    Abort { tx: u8 },
    /// Takes a snapshot.
    Snapshot { snapshot: u8 },
    /// Reads a row in a snapshot.
    SnapshotGet { snapshot: u8, row: RowId },
    /// Reads rows in a snapshot.
    SnapshotScan { snapshot: u8, scan: ScanOf },
    /// Drops a snapshot.
    Forget { snapshot: u8 },
    /// Writes many rows of the bulk family in one transaction of its own.
    Fill {
        table: u8,
        from: u16,
        count: u8,
        length: Length,
    },
    /// Deletes many rows of the bulk family in one transaction of its own.
    Clear { table: u8, from: u16, count: u8 },
    /// A whole checkpoint.
    Checkpoint,
    /// Some steps of background work.
    Step { steps: u8 },
    /// Makes everything committed durable.
    Flush,
    /// Closes the database and opens it again.
    Reopen,
    /// A power cut now; the seed chooses what the disk kept.
    Crash { seed: u16 },
    /// After so many more I/O calls, trouble.
    Plan { trouble: Trouble, calls: u16 },
}

/// How the database of a script is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Commits are as safe as the log's memory unless flushed; else each is durable.
    pub buffered: bool,
    /// The smallest pool of pages, so that evictions happen.
    pub small_pool: bool,
}

/// Operations and how to open the database for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The database.
    pub setup: Setup,
    /// What happens, in order.
    pub ops: Vec<Op>,
}

/// Takes numbers off the front of some bytes; behind the end are zeros.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn slot(&mut self, slots: usize) -> u8 {
        self.byte() % slots as u8
    }

    /// The first table three times in four: transactions that never meet prove little.
    fn table(&mut self) -> u8 {
        u8::from(self.byte() % 4 == 3)
    }

    fn row(&mut self) -> RowId {
        RowId {
            table: self.table(),
            key: KeyId::pick(self.word()),
        }
    }

    fn length(&mut self) -> Length {
        Length::ALL[self.byte() as usize % Length::ALL.len()]
    }

    fn edge(&mut self) -> Edge {
        match self.byte() % 3 {
            0 => Edge::Open,
            1 => Edge::Included(KeyId::pick(self.word())),
            _ => Edge::Excluded(KeyId::pick(self.word())),
        }
    }

    fn scan(&mut self) -> ScanOf {
        ScanOf {
            table: self.table(),
            from: self.edge(),
            to: self.edge(),
            reverse: self.byte() & 1 == 1,
            limit: self.byte(),
        }
    }
}

/// Kinds of operations; the byte of an operation chooses among them by these odds.
const ODDS: [(Kind, usize); 22] = [
    (Kind::Begin, 4),
    (Kind::Get, 10),
    (Kind::Put, 22),
    (Kind::Delete, 7),
    (Kind::Scan, 7),
    (Kind::Savepoint, 3),
    (Kind::Rollback, 3),
    (Kind::Commit, 14),
    (Kind::CommitLazily, 4),
    (Kind::Abort, 2),
    (Kind::Snapshot, 2),
    (Kind::SnapshotGet, 5),
    (Kind::SnapshotScan, 4),
    (Kind::Forget, 1),
    (Kind::Fill, 3),
    (Kind::Clear, 2),
    (Kind::Checkpoint, 2),
    (Kind::Step, 3),
    (Kind::Flush, 2),
    (Kind::Reopen, 1),
    (Kind::Crash, 1),
    (Kind::Plan, 2),
];

/// Sum of the odds.
const ODDS_SUM: usize = {
    let (mut at, mut sum) = (0, 0);
    while at < ODDS.len() {
        sum += ODDS[at].1;
        at += 1;
    }
    sum
};
const _: () = assert!(ODDS_SUM <= 256);

/// The kind that a byte chooses.
fn kind_of(byte: u8) -> Kind {
    let mut left = byte as usize % ODDS_SUM;
    for (kind, odds) in ODDS {
        match left.checked_sub(odds) {
            Some(rest) => left = rest,
            None => return kind,
        }
    }
    Kind::Begin
}

/// The smallest byte that chooses a kind.
fn code_of(kind: Kind) -> u8 {
    let before = ODDS.iter().take_while(|(other, _)| *other != kind);
    before.map(|(_, odds)| *odds as u8).sum()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Begin,
    Get,
    Put,
    Delete,
    Scan,
    Savepoint,
    Rollback,
    Commit,
    CommitLazily,
    Abort,
    Snapshot,
    SnapshotGet,
    SnapshotScan,
    Forget,
    Fill,
    Clear,
    Checkpoint,
    Step,
    Flush,
    Reopen,
    Crash,
    Plan,
}

impl Op {
    fn decode(source: &mut Source<'_>) -> Op {
        match kind_of(source.byte()) {
            Kind::Begin => {
                let tx = source.slot(TX_SLOTS);
                let weaker = source.byte() & 1 == 1;
                Op::Begin {
                    tx,
                    level: if weaker {
                        Level::Snapshot
                    } else {
                        Level::Serializable
                    },
                }
            }
            Kind::Get => Op::Get {
                tx: source.slot(TX_SLOTS),
                row: source.row(),
            },
            Kind::Put => {
                let (tx, row) = (source.slot(TX_SLOTS), source.row());
                Op::Put {
                    tx,
                    row,
                    length: source.length(),
                }
            }
            Kind::Delete => Op::Delete {
                tx: source.slot(TX_SLOTS),
                row: source.row(),
            },
            Kind::Scan => Op::Scan {
                tx: source.slot(TX_SLOTS),
                scan: source.scan(),
            },
            Kind::Savepoint => Op::Savepoint {
                tx: source.slot(TX_SLOTS),
            },
            Kind::Rollback => Op::Rollback {
                tx: source.slot(TX_SLOTS),
                back: source.byte() % 4,
            },
            Kind::Commit => Op::Commit {
                tx: source.slot(TX_SLOTS),
            },
            Kind::CommitLazily => Op::CommitLazily {
                tx: source.slot(TX_SLOTS),
            },
            Kind::Abort => Op::Abort {
                tx: source.slot(TX_SLOTS),
            },
            other => Op::decode_rest(other, source),
        }
    }

    /// Operations that are not one transaction's.
    fn decode_rest(kind: Kind, source: &mut Source<'_>) -> Op {
        match kind {
            Kind::Snapshot => Op::Snapshot {
                snapshot: source.slot(SNAPSHOT_SLOTS),
            },
            Kind::SnapshotGet => Op::SnapshotGet {
                snapshot: source.slot(SNAPSHOT_SLOTS),
                row: source.row(),
            },
            Kind::SnapshotScan => Op::SnapshotScan {
                snapshot: source.slot(SNAPSHOT_SLOTS),
                scan: source.scan(),
            },
            Kind::Forget => Op::Forget {
                snapshot: source.slot(SNAPSHOT_SLOTS),
            },
            Kind::Fill => Op::Fill {
                table: source.table(),
                from: source.word(),
                count: source.byte(),
                length: source.length(),
            },
            Kind::Clear => Op::Clear {
                table: source.table(),
                from: source.word(),
                count: source.byte(),
            },
            Kind::Checkpoint => Op::Checkpoint,
            Kind::Step => Op::Step {
                steps: source.byte() % 16,
            },
            Kind::Flush => Op::Flush,
            Kind::Reopen => Op::Reopen,
            Kind::Crash => Op::Crash {
                seed: source.word(),
            },
            Kind::Plan => {
                let trouble = Trouble::ALL[source.byte() as usize % Trouble::ALL.len()];
                Op::Plan {
                    trouble,
                    calls: source.word() % 64,
                }
            }
            // The others are decoded above.
            _ => Op::Abort {
                tx: source.slot(TX_SLOTS),
            },
        }
    }

    fn encode(self, out: &mut Vec<u8>) {
        let mut kind = |kind: Kind, args: &[u8]| {
            out.push(code_of(kind));
            out.extend(args);
        };
        match self {
            Op::Begin { tx, level } => kind(Kind::Begin, &[tx, u8::from(level == Level::Snapshot)]),
            Op::Get { tx, row } => kind(Kind::Get, &with_row(tx, row)),
            Op::Put { tx, row, length } => {
                let mut args = with_row(tx, row);
                args.push(length as u8);
                kind(Kind::Put, &args);
            }
            Op::Delete { tx, row } => kind(Kind::Delete, &with_row(tx, row)),
            Op::Scan { tx, scan } => kind(Kind::Scan, &with_scan(tx, scan)),
            Op::Savepoint { tx } => kind(Kind::Savepoint, &[tx]),
            Op::Rollback { tx, back } => kind(Kind::Rollback, &[tx, back]),
            Op::Commit { tx } => kind(Kind::Commit, &[tx]),
            Op::CommitLazily { tx } => kind(Kind::CommitLazily, &[tx]),
            Op::Abort { tx } => kind(Kind::Abort, &[tx]),
            Op::Snapshot { snapshot } => kind(Kind::Snapshot, &[snapshot]),
            Op::SnapshotGet { snapshot, row } => kind(Kind::SnapshotGet, &with_row(snapshot, row)),
            Op::SnapshotScan { snapshot, scan } => {
                kind(Kind::SnapshotScan, &with_scan(snapshot, scan));
            }
            Op::Forget { snapshot } => kind(Kind::Forget, &[snapshot]),
            Op::Fill {
                table,
                from,
                count,
                length,
            } => {
                let [low, high] = from.to_le_bytes();
                kind(
                    Kind::Fill,
                    &[table_code(table), low, high, count, length as u8],
                );
            }
            Op::Clear { table, from, count } => {
                let [low, high] = from.to_le_bytes();
                kind(Kind::Clear, &[table_code(table), low, high, count]);
            }
            Op::Checkpoint => kind(Kind::Checkpoint, &[]),
            Op::Step { steps } => kind(Kind::Step, &[steps]),
            Op::Flush => kind(Kind::Flush, &[]),
            Op::Reopen => kind(Kind::Reopen, &[]),
            Op::Crash { seed } => kind(Kind::Crash, &seed.to_le_bytes()),
            Op::Plan { trouble, calls } => {
                let [low, high] = calls.to_le_bytes();
                kind(Kind::Plan, &[trouble as u8, low, high]);
            }
        }
    }
}

/// A byte of which [`Source::table`] makes the table.
fn table_code(table: u8) -> u8 {
    table * 3
}

fn with_row(slot: u8, row: RowId) -> Vec<u8> {
    let [low, high] = row.key.number().to_le_bytes();
    vec![slot, table_code(row.table), low, high]
}

fn with_scan(slot: u8, scan: ScanOf) -> Vec<u8> {
    let mut args = vec![slot, table_code(scan.table)];
    for edge in [scan.from, scan.to] {
        let (kind, key) = match edge {
            Edge::Open => (0, None),
            Edge::Included(key) => (1, Some(key)),
            Edge::Excluded(key) => (2, Some(key)),
        };
        args.push(kind);
        args.extend(key.into_iter().flat_map(|key| key.number().to_le_bytes()));
    }
    args.extend([u8::from(scan.reverse), scan.limit]);
    args
}

impl Script {
    /// The script that these bytes are; every byte string is one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Script {
        let mut source = Source(bytes);
        let flags = source.byte();
        let setup = Setup {
            buffered: flags & 1 == 1,
            small_pool: flags & 2 == 2,
        };
        let mut ops = Vec::new();
        while !source.0.is_empty() && ops.len() < OPS_MAX {
            ops.push(Op::decode(&mut source));
        }
        Script { setup, ops }
    }

    /// Bytes of which [`Script::decode`] makes this script.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let setup = self.setup;
        let mut bytes = vec![u8::from(setup.buffered) | u8::from(setup.small_pool) << 1];
        self.ops.iter().for_each(|op| op.encode(&mut bytes));
        bytes
    }

    /// A smaller script that still fails: drops runs of operations, halves first, then shortens
    /// what is left, as long as `fails` says so. At most `tries` scripts are run.
    #[must_use]
    pub fn shrink(&self, tries: usize, mut fails: impl FnMut(&Script) -> bool) -> Script {
        let mut best = self.clone();
        let mut left = tries;
        let mut try_it = |best: &mut Script, next: Script| {
            let smaller = left > 0 && {
                left -= 1;
                fails(&next)
            };
            if smaller {
                *best = next;
            }
            smaller
        };
        let mut run = best.ops.len().div_ceil(2);
        while run > 0 {
            let mut at = 0;
            let mut dropped = false;
            while at < best.ops.len() {
                let mut next = best.clone();
                next.ops.drain(at..(at + run).min(best.ops.len()));
                if try_it(&mut best, next) {
                    dropped = true;
                } else {
                    at += run;
                }
            }
            if !(run == 1 && dropped) {
                run /= 2;
            }
        }
        for at in 0..best.ops.len() {
            for simpler in best.ops[at].simpler() {
                let mut next = best.clone();
                next.ops[at] = simpler;
                try_it(&mut best, next);
            }
        }
        best
    }
}

impl Op {
    /// Operations of the same kind that are easier to understand, easiest last.
    fn simpler(self) -> Vec<Op> {
        match self {
            Op::Put { tx, row, length } => {
                let shorter = Length::ALL
                    .into_iter()
                    .filter(|l| *l < length && *l > Length::Empty);
                let mut all: Vec<Op> = shorter.map(|length| Op::Put { tx, row, length }).collect();
                all.reverse();
                all
            }
            Op::Fill {
                table,
                from,
                count,
                length,
            } => {
                let less = [count / 2, count / 4, 1];
                let less = less.into_iter().filter(|n| *n < count);
                less.map(|count| Op::Fill {
                    table,
                    from,
                    count,
                    length,
                })
                .collect()
            }
            Op::Clear { table, from, count } => {
                let less = [count / 2, count / 4, 1];
                let less = less.into_iter().filter(|n| *n < count);
                less.map(|count| Op::Clear { table, from, count }).collect()
            }
            Op::Step { steps } if steps > 1 => vec![Op::Step { steps: 1 }],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edge::Open => f.write_str("the end"),
            Edge::Included(key) => write!(f, "{key} included"),
            Edge::Excluded(key) => write!(f, "{key} excluded"),
        }
    }
}

impl fmt::Display for ScanOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ScanOf {
            table,
            from,
            to,
            reverse,
            limit,
        } = self;
        let way = if *reverse { "downwards" } else { "upwards" };
        write!(
            f,
            "scan t{table} {way} between {from} and {to}, {limit} rows"
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Begin { tx, level } => write!(f, "tx {tx}: begin, {level:?}"),
            Op::Get { tx, row } => write!(f, "tx {tx}: get {row}"),
            Op::Put { tx, row, length } => {
                write!(f, "tx {tx}: put {row}, {} bytes", length.bytes())
            }
            Op::Delete { tx, row } => write!(f, "tx {tx}: delete {row}"),
            Op::Scan { tx, scan } => write!(f, "tx {tx}: {scan}"),
            Op::Savepoint { tx } => write!(f, "tx {tx}: savepoint"),
            Op::Rollback { tx, back } => write!(f, "tx {tx}: roll back {back} savepoints"),
            Op::Commit { tx } => write!(f, "tx {tx}: commit"),
            Op::CommitLazily { tx } => write!(f, "tx {tx}: commit, not waiting"),
            Op::Abort { tx } => write!(f, "tx {tx}: abort"),
            Op::Snapshot { snapshot } => write!(f, "snapshot {snapshot}: take"),
            Op::SnapshotGet { snapshot, row } => write!(f, "snapshot {snapshot}: get {row}"),
            Op::SnapshotScan { snapshot, scan } => write!(f, "snapshot {snapshot}: {scan}"),
            Op::Forget { snapshot } => write!(f, "snapshot {snapshot}: forget"),
            Op::Fill {
                table,
                from,
                count,
                length,
            } => {
                let len = length.bytes();
                write!(
                    f,
                    "fill t{table} from bulk row {from}, {count} rows of {len} bytes"
                )
            }
            Op::Clear { table, from, count } => {
                write!(f, "clear t{table} from bulk row {from}, {count} rows")
            }
            Op::Checkpoint => f.write_str("checkpoint"),
            Op::Step { steps } => write!(f, "{steps} steps of background work"),
            Op::Flush => f.write_str("flush"),
            Op::Reopen => f.write_str("close and open"),
            Op::Crash { seed } => write!(f, "power cut, seed {seed}"),
            Op::Plan { trouble, calls } => write!(f, "{trouble:?} after {calls} more I/O calls"),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup {
            buffered,
            small_pool,
        } = self.setup;
        writeln!(f, "database: buffered {buffered}, small pool {small_pool}")?;
        for (at, op) in self.ops.iter().enumerate() {
            writeln!(f, "{at:4}. {op}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn every_byte_string_is_a_script_and_scripts_survive_their_encoding() {
        for seed in 1..500 {
            let script = Script::decode(&noise(seed * 7919, (seed % 300) as usize));
            assert!(script.ops.len() <= OPS_MAX);
            assert_eq!(Script::decode(&script.encode()), script, "{script}");
            assert_eq!(script.to_string().lines().count(), script.ops.len() + 1);
        }
    }

    #[test]
    fn noise_reaches_every_kind_of_operation() {
        let mut seen = std::collections::BTreeSet::new();
        for op in (1..9).flat_map(|seed| Script::decode(&noise(seed * 5, 9000)).ops) {
            let mut bytes = Vec::new();
            op.encode(&mut bytes);
            seen.insert(bytes[0]);
        }
        assert_eq!(seen.len(), ODDS.len());
    }

    #[test]
    fn shrinking_leaves_what_the_failure_needs() {
        let mut script = Script::decode(&noise(11, 900));
        script.ops.truncate(90);
        let row = RowId {
            table: 0,
            key: KeyId(3),
        };
        script.ops[40] = Op::Put {
            tx: 1,
            row,
            length: Length::Huge,
        };
        script.ops[70] = Op::Crash { seed: 77 };
        let needed = |script: &Script| {
            let put = script
                .ops
                .iter()
                .position(|op| matches!(op, Op::Put { tx: 1, row: at, .. } if *at == row));
            let cut = script
                .ops
                .iter()
                .rposition(|op| *op == Op::Crash { seed: 77 });
            matches!((put, cut), (Some(put), Some(cut)) if put < cut)
        };
        let small = script.shrink(2_000, needed);
        let put = Op::Put {
            tx: 1,
            row,
            length: Length::Tiny,
        };
        assert_eq!(small.ops, vec![put, Op::Crash { seed: 77 }]);
    }
}
