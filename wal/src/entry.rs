//! Entries: a run of records ended by a terminal one. The unit of commit, replay and replication.
//!
//! An entry is built before anything is known about its place; the sequencer gives it a timestamp
//! and a position, and `stamp` writes both into every record header and computes the crc. So log
//! bytes are equal on all members. A PUT with the flag `stamped` ends with eight bytes for its
//! commit's timestamp, which `stamp` fills too: replay then puts what the log says.
//!
//! Invariant: `decode_entry` accepts exactly what `EntryBuilder` and `Entry::stamp` can produce.

use crate::error::WalError;
use crate::limits::ENTRY_BYTES_MAX;
use crate::lsn::{Term, TreeId, Ts, TxnId};
use crate::record::{
    Body, DdlOp, FLAG_STAMPED, RECORD_HEADER_BYTES, Record, RecordHeader, RecordKind,
    TRAILER_BYTES, Trailer, decode_record, is_terminal, record_header,
};

/// Bytes of the shortest entry: a terminal record with an empty body.
pub const ENTRY_BYTES_MIN: usize = RECORD_HEADER_BYTES + TRAILER_BYTES;

/// Bytes at the end of a stamped value that hold its commit's timestamp.
pub const STAMP_BYTES: usize = 8;

/// Builds an entry record by record. Timestamps and transaction ids stay zero until it is stamped.
#[derive(Clone, Debug, Default)]
pub struct EntryBuilder {
    bytes: Vec<u8>,
    n_rec: u32,
    n_chunks: u32,
    run: Option<TxnId>,
}

impl EntryBuilder {
    /// An entry without records.
    #[must_use]
    pub fn new() -> EntryBuilder {
        EntryBuilder::default()
    }

    /// Continues a transaction whose first chunk begins at `txn`, after `n_chunks` chunk entries.
    pub fn continue_run(&mut self, txn: TxnId, n_chunks: u32) {
        self.run = Some(txn);
        self.n_chunks = n_chunks;
    }

    /// The row's value is `value` from here on.
    pub fn put(&mut self, tree: TreeId, schema: u32, flags: u8, key: &[u8], value: &[u8]) {
        self.push(tree, schema, flags, &Body::Put { key, value });
    }

    /// As [`EntryBuilder::put`], for a value whose last eight bytes become the commit's timestamp,
    /// little-endian, when the entry is stamped. Panics if the value is shorter.
    pub fn put_stamped(&mut self, tree: TreeId, schema: u32, flags: u8, key: &[u8], value: &[u8]) {
        assert!(
            value.len() >= STAMP_BYTES,
            "a stamped value has room for its timestamp"
        );
        self.push(
            tree,
            schema,
            flags | FLAG_STAMPED,
            &Body::Put { key, value },
        );
    }

    /// The row is gone.
    pub fn del(&mut self, tree: TreeId, schema: u32, flags: u8, key: &[u8]) {
        self.push(tree, schema, flags, &Body::Del { key });
    }

    /// All rows with `lo <= key < hi` (to the end of the tree if None) are gone.
    pub fn del_range(
        &mut self,
        tree: TreeId,
        schema: u32,
        flags: u8,
        lo: &[u8],
        hi: Option<&[u8]>,
    ) {
        self.push(tree, schema, flags, &Body::DelRange { lo, hi });
    }

    /// The tree directory changes.
    pub fn ddl(&mut self, op: &DdlOp<'_>) {
        self.push(TreeId(0), 0, 0, &Body::Ddl(*op));
    }

    /// Any other row record. Panics if `body` would end the entry, or has a tag of more than 255
    /// bytes.
    pub fn row(&mut self, tree: TreeId, schema: u32, flags: u8, body: &Body<'_>) {
        assert!(!is_terminal(body.kind() as u8), "{body:?} ends an entry");
        self.push(tree, schema, flags, body);
    }

    /// Ends the entry: a transaction whose outcome is remembered under `idempotency`, if not empty.
    /// Panics if it has more than 64 bytes: the caller has checked its argument.
    #[must_use]
    pub fn commit(self, idempotency: &[u8]) -> Entry {
        self.end(&Body::Commit { idempotency })
    }

    /// Ends a chunk of a long transaction; its timestamps stay zero.
    #[must_use]
    pub fn chunk(self) -> Entry {
        self.end(&Body::Chunk)
    }

    /// Ends a run of chunks without effect.
    #[must_use]
    pub fn abort(mut self, txn: TxnId) -> Entry {
        self.run = Some(txn);
        self.end(&Body::Abort { txn })
    }

    /// Begins a term; nothing else stands in the entry. Panics if there is a record already, or the
    /// term is 0.
    #[must_use]
    pub fn barrier(self, term: Term, note: &[u8]) -> Entry {
        assert!(self.is_empty() && term > Term(0), "a barrier stands alone");
        self.end(&Body::Barrier { term, note })
    }

    /// Changes members and policy; nothing else stands in the entry. Panics if there is a record
    /// already.
    #[must_use]
    pub fn config(self, config: &[u8]) -> Entry {
        assert!(self.is_empty(), "a configuration stands alone");
        self.end(&Body::Config { config })
    }

    /// Bytes so far. The entry will have this many and those of its terminal record.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if there is no record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn push(&mut self, tree: TreeId, schema: u32, flags: u8, body: &Body<'_>) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        body.encode(&mut self.bytes);
        let header = RecordHeader {
            // Wraps only above 4 GiB, and such an entry is refused by `admit`.
            len: (self.bytes.len() - at) as u32,
            kind: body.kind() as u8,
            flags,
            reserved: 0,
            tree: tree.0,
            schema,
            ts: 0,
            txn: 0,
        };
        self.bytes[at..at + RECORD_HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
        self.n_rec += 1;
    }

    fn end(mut self, body: &Body<'_>) -> Entry {
        let at = self.bytes.len();
        self.push(TreeId(0), 0, 0, body);
        let len = self.bytes.len() + TRAILER_BYTES;
        let record_len = ((len - at) as u32).to_le_bytes();
        self.bytes[at..at + 4].copy_from_slice(&record_len);
        let trailer = Trailer {
            n_rec: self.n_rec,
            n_chunks: self.n_chunks,
            entry_len: len as u32,
            entry_crc: 0,
        };
        self.bytes.extend_from_slice(bytemuck::bytes_of(&trailer));
        Entry {
            bytes: self.bytes,
            n_rec: self.n_rec,
            chunk: matches!(body, Body::Chunk),
            run: self.run,
            begins: begun_by(body),
        }
    }
}

/// An encoded entry, stamped or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    bytes: Vec<u8>,
    n_rec: u32,
    chunk: bool,
    run: Option<TxnId>,
    begins: Option<Term>,
}

/// The term that begins with a record.
fn begun_by(body: &Body<'_>) -> Option<Term> {
    match body {
        Body::Barrier { term, .. } => Some(*term),
        _ => None,
    }
}

impl Entry {
    /// Its bytes; the crc is right only after `stamp`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its length in bytes: what it takes of the record stream.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: an entry has at least its terminal record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Records, the terminal one included.
    #[must_use]
    pub fn n_rec(&self) -> u32 {
        self.n_rec
    }

    /// The transaction whose run this entry continues or ends; None: its own.
    pub(crate) fn run(&self) -> Option<TxnId> {
        self.run
    }

    /// The term that begins with this entry.
    pub(crate) fn begins(&self) -> Option<Term> {
        self.begins
    }

    /// The timestamp that `stamp` writes when it is given `ts`.
    pub(crate) fn terminal_ts(&self, ts: Ts) -> Ts {
        if self.chunk { Ts::ZERO } else { ts }
    }

    /// Writes timestamp (zero in a chunk) and transaction into every record header, and the crc.
    pub fn stamp(&mut self, ts: Ts, txn: TxnId) {
        assert!(self.len() <= ENTRY_BYTES_MAX, "{} bytes", self.len());
        let ts = self.terminal_ts(ts);
        let mut at = 0;
        while at < self.bytes.len() {
            let record = &mut self.bytes[at..];
            record[16..24].copy_from_slice(&ts.0.to_le_bytes());
            record[24..32].copy_from_slice(&txn.0.to_le_bytes());
            let len = u32::from_le_bytes([record[0], record[1], record[2], record[3]]) as usize;
            if record[4] == RecordKind::Put as u8 && record[5] & FLAG_STAMPED != 0 {
                record[len - STAMP_BYTES..len].copy_from_slice(&ts.0.to_le_bytes());
            }
            at += len;
        }
        assert_eq!(at, self.bytes.len(), "records fill the entry exactly");
        seal(&mut self.bytes);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Writes the crc into the last four bytes of an entry.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
}

/// The bytes of a VOID over a whole reserved range of `len` bytes.
pub(crate) fn void_entry(len: usize, ts: Ts, txn: TxnId) -> Vec<u8> {
    assert!((ENTRY_BYTES_MIN..=ENTRY_BYTES_MAX).contains(&len));
    let mut bytes = vec![0; len];
    let header = RecordHeader {
        len: len as u32,
        kind: RecordKind::Void as u8,
        flags: 0,
        reserved: 0,
        tree: 0,
        schema: 0,
        ts: ts.0,
        txn: txn.0,
    };
    let trailer = Trailer {
        n_rec: 1,
        n_chunks: 0,
        entry_len: len as u32,
        entry_crc: 0,
    };
    bytes[..RECORD_HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
    bytes[len - TRAILER_BYTES..].copy_from_slice(bytemuck::bytes_of(&trailer));
    seal(&mut bytes);
    bytes
}

/// A verified entry. Borrows its bytes.
#[derive(Clone, Copy, Debug)]
pub struct DecodedEntry<'a> {
    bytes: &'a [u8],
    trailer: Trailer,
    terminal: Record<'a>,
}

impl<'a> DecodedEntry<'a> {
    /// The records in order, the terminal one last.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + 'a {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            // Verified by `decode_entry`: the walk ends exactly at the end of the bytes.
            let (record, len) = decode_record(rest).ok()?;
            rest = rest.get(len..)?;
            Some(record)
        })
    }

    /// The record that ends the entry.
    #[must_use]
    pub fn terminal(&self) -> Record<'a> {
        self.terminal
    }

    /// The term that begins with this entry.
    #[must_use]
    pub fn begins(&self) -> Option<Term> {
        begun_by(&self.terminal.body)
    }

    /// Commit timestamp; zero for a chunk.
    #[must_use]
    pub fn ts(&self) -> Ts {
        self.terminal.ts
    }

    /// The transaction.
    #[must_use]
    pub fn txn(&self) -> TxnId {
        self.terminal.txn
    }

    /// Records, the terminal one included.
    #[must_use]
    pub fn n_rec(&self) -> u32 {
        self.trailer.n_rec
    }

    /// Chunk entries of this transaction before this entry.
    #[must_use]
    pub fn n_chunks(&self) -> u32 {
        self.trailer.n_chunks
    }

    /// The entry's crc: equal positions with unequal crc are diverged logs.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.trailer.entry_crc
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Verifies a whole entry: trailer, crc, and every record. Linear in the bytes; allocates nothing.
///
/// Errors are `Corrupt` with an offset into `bytes`, or `Version` for a reserved record type.
pub fn decode_entry(bytes: &[u8]) -> Result<DecodedEntry<'_>, WalError> {
    let Some((_, tail)) = bytes.split_last_chunk::<TRAILER_BYTES>() else {
        return Err(WalError::corrupt(
            0,
            "an entry of at least 48 bytes",
            format!("{} bytes", bytes.len()),
        ));
    };
    let trailer: Trailer = bytemuck::pod_read_unaligned(tail);
    let at = bytes.len() - TRAILER_BYTES;
    if trailer.entry_len as usize != bytes.len() {
        return Err(WalError::corrupt(
            at + 8,
            format!("entry length {}", bytes.len()),
            trailer.entry_len.to_string(),
        ));
    }
    let crc = crc32fast::hash(&bytes[..bytes.len() - 4]);
    if trailer.entry_crc != crc {
        return Err(WalError::corrupt(
            at + 12,
            format!("entry crc {crc:08x}"),
            format!("{:08x}", trailer.entry_crc),
        ));
    }
    let terminal = walk(bytes, trailer.n_rec)?;
    Ok(DecodedEntry {
        bytes,
        trailer,
        terminal,
    })
}

/// Decodes every record and returns the terminal one.
fn walk(bytes: &[u8], n_rec: u32) -> Result<Record<'_>, WalError> {
    let mut at = 0;
    let mut count = 0u32;
    let mut first: Option<Record<'_>> = None;
    loop {
        let (record, len) = decode_record(&bytes[at..])
            .map_err(|error| error.in_file(std::path::Path::new(""), at as u64))?;
        count += 1;
        let reference = *first.get_or_insert(record);
        if (record.ts, record.txn) != (reference.ts, reference.txn) {
            return Err(WalError::corrupt(
                at + 16,
                format!("{} of {:?}", reference.ts, reference.txn),
                format!("{} of {:?}", record.ts, record.txn),
            ));
        }
        at += len;
        let last = at == bytes.len();
        if last != is_terminal(record.body.kind() as u8) || (last && count != n_rec) {
            return Err(WalError::corrupt(
                at - len,
                format!("{n_rec} records, the last one terminal"),
                format!("{:?} as record {count}", record.body.kind()),
            ));
        }
        if last {
            return Ok(record);
        }
    }
}

/// Finds where an entry ends in a growing run of bytes, without looking at anything twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EntryWalk {
    next: usize,
}

impl EntryWalk {
    /// The length of the entry at the front of `bytes`, or None if more bytes are needed.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, WalError> {
        while let Some(rest) = bytes.get(self.next..) {
            if rest.len() < RECORD_HEADER_BYTES {
                break;
            }
            let header = record_header(rest)
                .map_err(|error| error.in_file(std::path::Path::new(""), self.next as u64))?;
            let end = self.next + header.len as usize;
            if end > ENTRY_BYTES_MAX {
                return Err(WalError::corrupt(
                    self.next,
                    format!("an entry of at most {ENTRY_BYTES_MAX} bytes"),
                    format!("a record that ends at {end}"),
                ));
            }
            if end > bytes.len() {
                break;
            }
            if is_terminal(header.kind) {
                return Ok(Some(end));
            }
            self.next = end;
        }
        Ok(None)
    }
}

/// Whole records in the first `len` bytes of an entry of ours. Linear in the records.
pub(crate) fn records_within(entry: &[u8], len: usize) -> u32 {
    let mut walk = 0;
    let mut count = 0;
    while let Ok(header) = record_header(&entry[walk..]) {
        walk += header.len as usize;
        if walk > len {
            break;
        }
        count += 1;
        if walk >= entry.len() {
            break;
        }
    }
    count
}
