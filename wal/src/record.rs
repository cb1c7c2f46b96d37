//! Records: what an entry of the log is made of.
//!
//! ```text
//! | header 32 | body ...            |     a row record
//! | header 32 | body ... trailer 16 |     the terminal record that ends an entry
//! ```
//!
//! Records follow each other unpadded, so headers are read unaligned. Every row record is blind:
//! its value is the result, so that replay runs no user code. Byte tables: the format guide.
//!
//! Invariants: a record is decoded only if its length, type, reserved bytes and body are exactly as
//! the tables say; nothing is allocated by a length that was read.

use bytemuck::{Pod, Zeroable};

use crate::error::WalError;
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::lsn::{Term, TreeId, Ts, TxnId};
use crate::varint::{put_varint, take_varint};

/// Flag: the row belongs to a secondary or unique index.
pub const FLAG_INDEX: u8 = 1;
/// Flag: the row belongs to a vector index.
pub const FLAG_VECTOR: u8 = 2;
/// Flag: the record holds the value before the change.
pub const FLAG_BEFORE_IMAGE: u8 = 4;
/// Flag: bound after the transaction's chunks were logged.
pub const FLAG_LATE: u8 = 8;
/// Flag: the row carries an expiry.
pub const FLAG_EXPIRY: u8 = 16;
/// Flag: the value ends with the commit's timestamp, written when the entry was stamped.
pub const FLAG_STAMPED: u8 = 32;
/// All flags of format 1.
pub const FLAGS_KNOWN: u8 = 63;

/// Header of a record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RecordHeader {
    /// Bytes of header and body.
    pub len: u32,
    /// A [`RecordKind`].
    pub kind: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Zero.
    pub reserved: u16,
    /// The tree that the row lives in; 0 in control records.
    pub tree: u32,
    /// Schema version of the row's encoding; 0 if none.
    pub schema: u32,
    /// Commit timestamp; 0 in chunks.
    pub ts: u64,
    /// LSN where the transaction's first run begins.
    pub txn: u64,
}

/// Bytes of a record header.
pub const RECORD_HEADER_BYTES: usize = 32;

/// The last 16 bytes of an entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Trailer {
    /// Records of this entry, the terminal one included.
    pub n_rec: u32,
    /// Chunk entries of this transaction before this entry.
    pub n_chunks: u32,
    /// Bytes of the entry.
    pub entry_len: u32,
    /// CRC over the entry before this field.
    pub entry_crc: u32,
}

/// Bytes of an entry's trailer.
pub const TRAILER_BYTES: usize = 16;

const _: () = assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES);
const _: () = assert!(std::mem::offset_of!(RecordHeader, kind) == 4);
const _: () = assert!(std::mem::offset_of!(RecordHeader, flags) == 5);
const _: () = assert!(std::mem::offset_of!(RecordHeader, reserved) == 6);
const _: () = assert!(std::mem::offset_of!(RecordHeader, tree) == 8);
const _: () = assert!(std::mem::offset_of!(RecordHeader, schema) == 12);
const _: () = assert!(std::mem::offset_of!(RecordHeader, ts) == 16);
const _: () = assert!(std::mem::offset_of!(RecordHeader, txn) == 24);
const _: () = assert!(size_of::<Trailer>() == TRAILER_BYTES);
const _: () = assert!(std::mem::offset_of!(Trailer, entry_crc) == 12);
// The structs are written as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"));

/// The type byte of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A row and its value.
    Put = 1,
    /// A row is gone.
    Del = 2,
    /// All rows of a range are gone.
    DelRange = 3,
    /// A row whose value is a large value elsewhere.
    BlobRef = 4,
    /// A tree that was built outside the log.
    Ingest = 5,
    /// A change of the tree directory.
    Ddl = 6,
    /// Ends a chunk entry.
    Chunk = 7,
    /// Ends a transaction.
    Commit = 8,
    /// Ends a run without effect.
    Abort = 9,
    /// A sequenced transaction that failed validation.
    Void = 10,
    /// A term begins.
    Barrier = 14,
    /// Members and policy change.
    Config = 15,
    /// User bytes with a tag.
    Custom = 19,
}

impl RecordKind {
    /// The kind of a type byte. Types 11 to 13 and 16 to 18 are reserved in format 1.
    fn from_byte(byte: u8) -> Result<RecordKind, WalError> {
        Ok(match byte {
            1 => RecordKind::Put,
            2 => RecordKind::Del,
            3 => RecordKind::DelRange,
            4 => RecordKind::BlobRef,
            5 => RecordKind::Ingest,
            6 => RecordKind::Ddl,
            7 => RecordKind::Chunk,
            8 => RecordKind::Commit,
            9 => RecordKind::Abort,
            10 => RecordKind::Void,
            14 => RecordKind::Barrier,
            15 => RecordKind::Config,
            19 => RecordKind::Custom,
            11..=13 | 16..=18 => {
                return Err(WalError::Version {
                    segment: std::path::PathBuf::new(),
                    expected: "a record type of format 1".to_string(),
                    found: format!("reserved type {byte}"),
                });
            }
            _ => {
                return Err(WalError::corrupt(
                    4,
                    "a record type from 1 to 19",
                    byte.to_string(),
                ));
            }
        })
    }
}

/// True if a record of this type byte ends an entry.
pub(crate) fn is_terminal(kind: u8) -> bool {
    (7..=17).contains(&kind)
}

/// What a DDL record does to the tree directory. Idempotent by tree id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DdlKind {
    /// The tree exists from here on.
    CreateTree = 1,
    /// The tree and all its rows are gone.
    DropTree = 2,
}

/// A change of the tree directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DdlOp<'a> {
    /// What happens.
    pub kind: DdlKind,
    /// Page size class of the tree.
    pub class: u8,
    /// The tree; allocated before, never reused.
    pub tree: TreeId,
    /// A name for humans.
    pub name: &'a str,
    /// Whatever engine keeps beside it.
    pub options: &'a [u8],
}

/// A value that lies outside the log, named by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobId {
    /// Bytes of the value.
    pub length: u64,
    /// Local id.
    pub id: u64,
    /// Hash of the content.
    pub hash: [u8; 32],
}

/// The body of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The row's value from here on.
    Put {
        /// Key bytes.
        key: &'a [u8],
        /// Value bytes.
        value: &'a [u8],
    },
    /// The row is gone.
    Del {
        /// Key bytes.
        key: &'a [u8],
    },
    /// All rows with `lo <= key < hi` are gone.
    DelRange {
        /// First key of the range.
        lo: &'a [u8],
        /// First key behind the range; None: to the end of the tree.
        hi: Option<&'a [u8]>,
    },
    /// The row's value is a large value.
    BlobRef {
        /// Key bytes.
        key: &'a [u8],
        /// Where the value is found.
        blob: BlobId,
    },
    /// A tree built outside the log becomes visible.
    Ingest {
        /// Rows in it.
        rows: u64,
        /// Where it is found.
        blob: BlobId,
    },
    /// The tree directory changes.
    Ddl(DdlOp<'a>),
    /// Ends a chunk entry.
    Chunk,
    /// Ends a transaction.
    Commit {
        /// Key under which the outcome is remembered; may be empty.
        idempotency: &'a [u8],
    },
    /// Ends a run without effect.
    Abort {
        /// The run.
        txn: TxnId,
    },
    /// A sequenced transaction that failed validation.
    Void,
    /// A term begins. What follows is of it, up to the next one.
    Barrier {
        /// The term, 1 or higher.
        term: Term,
        /// How it was established: bytes of those who replicate.
        note: &'a [u8],
    },
    /// Members and policy change.
    Config {
        /// Bytes of those who replicate.
        config: &'a [u8],
    },
    /// User bytes.
    Custom {
        /// Whose they are.
        tag: &'a [u8],
        /// The bytes.
        bytes: &'a [u8],
    },
}

/// A decoded record. Borrows from the entry's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The tree that the row lives in; 0 in control records.
    pub tree: TreeId,
    /// Schema version of the row's encoding; 0 if none.
    pub schema: u32,
    /// `FLAG_*`.
    pub flags: u8,
    /// Commit timestamp; 0 in chunks.
    pub ts: Ts,
    /// LSN where the transaction's first run begins.
    pub txn: TxnId,
    /// The body.
    pub body: Body<'a>,
}

impl Body<'_> {
    /// The type byte.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Body::Put { .. } => RecordKind::Put,
            Body::Del { .. } => RecordKind::Del,
            Body::DelRange { .. } => RecordKind::DelRange,
            Body::BlobRef { .. } => RecordKind::BlobRef,
            Body::Ingest { .. } => RecordKind::Ingest,
            Body::Ddl(_) => RecordKind::Ddl,
            Body::Chunk => RecordKind::Chunk,
            Body::Commit { .. } => RecordKind::Commit,
            Body::Abort { .. } => RecordKind::Abort,
            Body::Void => RecordKind::Void,
            Body::Barrier { .. } => RecordKind::Barrier,
            Body::Config { .. } => RecordKind::Config,
            Body::Custom { .. } => RecordKind::Custom,
        }
    }

    /// Appends the body's bytes, without the trailer of a terminal record.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Body::Put { key, value } => {
                put_varint(out, key.len() as u64);
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            Body::Del { key } => out.extend_from_slice(key),
            Body::DelRange { lo, hi } => {
                put_varint(out, lo.len() as u64);
                out.extend_from_slice(lo);
                let upper = hi.unwrap_or(&[]);
                put_varint(out, upper.len() as u64);
                out.extend_from_slice(upper);
                out.push(u8::from(hi.is_none()));
            }
            Body::BlobRef { key, ref blob } => {
                put_varint(out, key.len() as u64);
                out.extend_from_slice(key);
                encode_blob(blob, out);
            }
            Body::Ingest { rows, ref blob } => {
                out.extend_from_slice(&rows.to_le_bytes());
                encode_blob(blob, out);
            }
            Body::Ddl(op) => {
                out.extend_from_slice(&[1, op.kind as u8, op.class, 0]);
                out.extend_from_slice(&op.tree.0.to_le_bytes());
                put_varint(out, op.name.len() as u64);
                out.extend_from_slice(op.name.as_bytes());
                out.extend_from_slice(op.options);
            }
            Body::Chunk | Body::Void => {}
            Body::Commit { idempotency } => {
                assert!(idempotency.len() <= IDEMPOTENCY_KEY_BYTES_MAX);
                out.push(idempotency.len() as u8);
                out.extend_from_slice(idempotency);
            }
            Body::Abort { txn } => out.extend_from_slice(&txn.0.to_le_bytes()),
            Body::Barrier { term, note } => {
                out.extend_from_slice(&term.0.to_le_bytes());
                out.extend_from_slice(note);
            }
            Body::Config { config } => out.extend_from_slice(config),
            Body::Custom { tag, bytes } => {
                assert!(tag.len() <= usize::from(u8::MAX));
                out.push(tag.len() as u8);
                out.extend_from_slice(tag);
                out.extend_from_slice(bytes);
            }
        }
    }
}

fn encode_blob(blob: &BlobId, out: &mut Vec<u8>) {
    out.extend_from_slice(&blob.length.to_le_bytes());
    out.extend_from_slice(&blob.id.to_le_bytes());
    out.extend_from_slice(&blob.hash);
}

/// Decodes the record at the front of `bytes`: the record, and its length in bytes.
///
/// Offsets in errors count from the front of `bytes`.
pub fn decode_record(bytes: &[u8]) -> Result<(Record<'_>, usize), WalError> {
    let header = record_header(bytes)?;
    let len = header.len as usize;
    let Some(record) = bytes.get(..len) else {
        return Err(WalError::corrupt(
            0,
            format!("a record of at most {} bytes", bytes.len()),
            len.to_string(),
        ));
    };
    if header.reserved != 0 || header.flags & !FLAGS_KNOWN != 0 {
        return Err(WalError::corrupt(
            5,
            "known flags and reserved bytes of zero",
            format!("flags {}, reserved {}", header.flags, header.reserved),
        ));
    }
    let kind = RecordKind::from_byte(header.kind)?;
    let end = if is_terminal(header.kind) {
        len.checked_sub(TRAILER_BYTES)
    } else {
        Some(len)
    };
    let Some(body) = end.and_then(|end| record.get(RECORD_HEADER_BYTES..end)) else {
        return Err(WalError::corrupt(
            0,
            "room for the trailer in a terminal record",
            format!("{len} bytes"),
        ));
    };
    let body = decode_body(kind, body)
        .map_err(|error| error.in_file(std::path::Path::new(""), RECORD_HEADER_BYTES as u64))?;
    let record = Record {
        tree: TreeId(header.tree),
        schema: header.schema,
        flags: header.flags,
        ts: Ts(header.ts),
        txn: TxnId(header.txn),
        body,
    };
    Ok((record, len))
}

/// The header at the front of `bytes`, with a length that covers at least itself.
pub(crate) fn record_header(bytes: &[u8]) -> Result<RecordHeader, WalError> {
    let Some(head) = bytes.get(..RECORD_HEADER_BYTES) else {
        return Err(WalError::corrupt(
            0,
            "a record header of 32 bytes",
            format!("{} bytes", bytes.len()),
        ));
    };
    let header: RecordHeader = bytemuck::pod_read_unaligned(head);
    if (header.len as usize) < RECORD_HEADER_BYTES {
        return Err(WalError::corrupt(
            0,
            "a record length of at least 32",
            header.len.to_string(),
        ));
    }
    Ok(header)
}

fn decode_body(kind: RecordKind, body: &[u8]) -> Result<Body<'_>, WalError> {
    Ok(match kind {
        RecordKind::Put => {
            let (key, value) = take_bytes(body)?;
            Body::Put { key, value }
        }
        RecordKind::Del => Body::Del { key: body },
        RecordKind::DelRange => {
            let (lo, rest) = take_bytes(body)?;
            let (hi, rest) = take_bytes(rest)?;
            match rest {
                [0] => Body::DelRange { lo, hi: Some(hi) },
                [1] if hi.is_empty() => Body::DelRange { lo, hi: None },
                _ => return Err(wrong_body(kind, body)),
            }
        }
        RecordKind::BlobRef => {
            let (key, rest) = take_bytes(body)?;
            let blob = decode_blob(rest).ok_or_else(|| wrong_body(kind, body))?;
            Body::BlobRef { key, blob }
        }
        RecordKind::Ingest => {
            let (rows, rest) = take_u64(body).ok_or_else(|| wrong_body(kind, body))?;
            let blob = decode_blob(rest).ok_or_else(|| wrong_body(kind, body))?;
            Body::Ingest { rows, blob }
        }
        RecordKind::Ddl => Body::Ddl(decode_ddl(body)?),
        RecordKind::Chunk if body.is_empty() => Body::Chunk,
        RecordKind::Chunk => return Err(wrong_body(kind, body)),
        RecordKind::Commit => match body.split_first() {
            Some((&n, key))
                if key.len() == usize::from(n) && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX =>
            {
                Body::Commit { idempotency: key }
            }
            _ => return Err(wrong_body(kind, body)),
        },
        RecordKind::Abort => match take_u64(body) {
            Some((txn, [])) => Body::Abort { txn: TxnId(txn) },
            _ => return Err(wrong_body(kind, body)),
        },
        RecordKind::Void if body.iter().all(|&byte| byte == 0) => Body::Void,
        RecordKind::Void => {
            return Err(WalError::corrupt(0, "zeros in a VOID", "other bytes"));
        }
        RecordKind::Barrier => match take_u64(body) {
            Some((term, note)) if term > 0 => Body::Barrier {
                term: Term(term),
                note,
            },
            _ => return Err(wrong_body(kind, body)),
        },
        RecordKind::Config => Body::Config { config: body },
        RecordKind::Custom => {
            let split = body
                .split_first()
                .and_then(|(&n, rest)| rest.split_at_checked(usize::from(n)));
            let (tag, bytes) = split.ok_or_else(|| wrong_body(kind, body))?;
            Body::Custom { tag, bytes }
        }
    })
}

fn decode_ddl(body: &[u8]) -> Result<DdlOp<'_>, WalError> {
    let wrong = || wrong_body(RecordKind::Ddl, body);
    let (fixed, rest) = body.split_first_chunk::<8>().ok_or_else(wrong)?;
    let [version, op, class, reserved, t0, t1, t2, t3] = *fixed;
    if version != 1 {
        return Err(WalError::Version {
            segment: std::path::PathBuf::new(),
            expected: "a DDL record of version 1".to_string(),
            found: format!("version {version}"),
        });
    }
    let kind = match op {
        1 => DdlKind::CreateTree,
        2 => DdlKind::DropTree,
        _ => return Err(WalError::corrupt(1, "a DDL op of 1 or 2", op.to_string())),
    };
    let (name, options) = take_bytes(rest)?;
    let name = std::str::from_utf8(name).map_err(|_| wrong())?;
    if reserved != 0 {
        return Err(WalError::corrupt(
            3,
            "a reserved byte of zero",
            reserved.to_string(),
        ));
    }
    Ok(DdlOp {
        kind,
        class,
        tree: TreeId(u32::from_le_bytes([t0, t1, t2, t3])),
        name,
        options,
    })
}

fn decode_blob(bytes: &[u8]) -> Option<BlobId> {
    let (length, rest) = take_u64(bytes)?;
    let (id, rest) = take_u64(rest)?;
    let hash: [u8; 32] = rest.try_into().ok()?;
    Some(BlobId { length, id, hash })
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*head), rest))
}

/// Bytes behind their own varint length, and the rest.
fn take_bytes(bytes: &[u8]) -> Result<(&[u8], &[u8]), WalError> {
    let (len, rest) = take_varint(bytes)?;
    usize::try_from(len)
        .ok()
        .and_then(|len| rest.split_at_checked(len))
        .ok_or_else(|| {
            WalError::corrupt(
                bytes.len() - rest.len(),
                format!("a length of at most {}", rest.len()),
                len.to_string(),
            )
        })
}

fn wrong_body(kind: RecordKind, body: &[u8]) -> WalError {
    WalError::corrupt(
        0,
        format!("the body of a {kind:?} record"),
        format!("{} other bytes", body.len()),
    )
}
