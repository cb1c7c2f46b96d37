//! The bodies of the fuzz targets: each takes any bytes and must come back.
//!
//! What comes back may be a typed error; a panic, a hang, memory by a claimed length, or a wrong
//! answer is a finding. The binaries in `fuzz_targets/` hand them the fuzzer's bytes;
//! `tests/corpus.rs` hands them the saved corpora and seeded noise on the stable compiler.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::OnceLock;

use bytemuck::Zeroable;
use terrane::catalog::schema::Schema;
use terrane::codec::record::Fields;
use terrane::codec::{Column, Key, Value};
use terrane::{Desc, DynVector, Record, Vector};
use terrane_btree::page::header::{PageHeader, page_crc};
use terrane_btree::page::verify::{verify, verify_crc};
use terrane_shard::codec::Barrier;
use terrane_shard::log::Config;
use terrane_shard::topology::ShardRecord;
use terrane_wal::frame::{FrameHeader, decode_frame, seal_frame};
use terrane_wal::io::sim::{Image, SimDisk};
use terrane_wal::record::decode_record;
use terrane_wal::{Body, EntryBuilder, decode_entry};

use crate::check;
use crate::keys::{KeyId, Length, RowId, Val};
use crate::ops::{Script, Setup};
use crate::rig::{self, Rig};

/// A target: its name and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by the names of their binaries.
pub const TARGETS: [Target; 9] = [
    ("frame", frame),
    ("entry", entry),
    ("page", page),
    ("store", store),
    ("key", key),
    ("record", record),
    ("vector", vector),
    ("control", control),
    ("ops", ops),
];

/// The first `N` bytes, missing ones as zeros, and the rest.
fn front<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let mut front = [0; N];
    let (head, rest) = bytes.split_at(bytes.len().min(N));
    front[..head.len()].copy_from_slice(head);
    (front, rest)
}

/// The records of a vector index: blocks, extra bits, columns, tails, heads, marks, locators,
/// centroids, jobs, meta and tuning, and a set of one centroid. The first two bytes choose the
/// dimensions of the code.
///
/// # Panics
/// A record that a decoder takes is not what the encoder gives for it.
pub fn vector(bytes: &[u8]) {
    for (name, same) in terrane_vector::decode_any(bytes) {
        assert!(same, "the bytes of a {name} change on their way");
    }
    let (dim, value) = front::<2>(bytes);
    let dim = usize::from(u16::from_le_bytes(dim)) % terrane_vector::MAX_DIM + 1;
    for metric in terrane_vector::Metric::ALL {
        let one = [(terrane_vector::PostingId(1), value)];
        if let Ok(set) = terrane_vector::CentroidSet::load(metric, dim, 1, one) {
            assert_eq!((set.len(), set.epoch()), (1, 1));
        }
    }
}

/// What control entries of a shard say, configurations and barriers, and what a topology keeps.
///
/// # Panics
/// Bytes that a decoder takes are not what the encoder gives for them.
pub fn control(bytes: &[u8]) {
    if let Ok(config) = Config::decode(bytes) {
        assert_eq!(config.encode(), bytes, "the bytes of a config change");
    }
    if let Ok(barrier) = Barrier::decode(bytes) {
        assert_eq!(barrier.encode(), bytes, "the bytes of a barrier change");
    }
    if let Ok(record) = ShardRecord::decode(bytes) {
        assert_eq!(record.encode(), bytes, "the bytes of a shard record change");
    }
}

/// The frame parser. Bytes as they are, and as the payload of a frame that is sealed here and then
/// damaged in one bit.
///
/// # Panics
/// A damaged frame passed, or a whole one did not.
pub fn frame(bytes: &[u8]) {
    let (salt, rest) = front::<8>(bytes);
    let salt = u64::from_le_bytes(salt);
    if let Ok((header, payload)) = decode_frame(rest, salt) {
        assert_eq!(header.payload_len as usize, payload.len());
        entry(payload);
    }
    let (place, payload) = front::<4>(rest);
    let payload = &payload[..payload.len().min(32 << 10)];
    let head = size_of::<FrameHeader>();
    let mut sealed = vec![0; terrane_wal::frame::frame_bytes(payload.len())];
    sealed[head..head + payload.len()].copy_from_slice(payload);
    let header = FrameHeader {
        salt,
        payload_len: payload.len() as u32,
        ..FrameHeader::zeroed()
    };
    seal_frame(&mut sealed, header);
    match decode_frame(&sealed, salt) {
        Ok((_, found)) => assert_eq!(found, payload, "a frame gives another payload"),
        Err(fault) => assert!(payload.is_empty(), "a sealed frame is refused: {fault:?}"),
    }
    let at = u32::from_le_bytes(place) as usize % (sealed.len() * 8);
    sealed[at / 8] ^= 1 << (at % 8);
    assert!(
        decode_frame(&sealed, salt).is_err(),
        "bit {at} of a frame is not covered"
    );
}

/// Entries and records. Bytes as they are, and as the rows of an entry that is built here.
///
/// # Panics
/// An entry does not give back what went into it.
pub fn entry(bytes: &[u8]) {
    let _ = decode_record(bytes);
    if let Ok(decoded) = decode_entry(bytes) {
        let count = decoded.records().count();
        assert!(
            count as u32 <= decoded.n_rec().max(1),
            "more records than counted"
        );
        let _ = (
            decoded.terminal(),
            decoded.ts(),
            decoded.txn(),
            decoded.crc(),
        );
    }
    let mut builder = EntryBuilder::new();
    let mut rows: Vec<(&[u8], &[u8])> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() && rows.len() < 50 {
        let ([key, value], tail) = front::<2>(rest);
        let (key, tail) = tail.split_at(tail.len().min(key as usize));
        let (value, tail) = tail.split_at(tail.len().min(value as usize));
        builder.put(terrane_wal::lsn::TreeId(7), 1, 0, key, value);
        rows.push((key, value));
        rest = tail;
    }
    let (name, _) = front::<4>(bytes);
    let mut built = builder.commit(&name);
    built.stamp(terrane_wal::lsn::Ts(9), terrane_wal::lsn::TxnId(3));
    let decoded = match decode_entry(built.bytes()) {
        Ok(decoded) => decoded,
        Err(error) => panic!("an entry is refused by its own decoder: {error}"),
    };
    let found: Vec<(&[u8], &[u8])> = decoded
        .records()
        .filter_map(|record| match record.body {
            Body::Put { key, value } => Some((key, value)),
            _ => None,
        })
        .collect();
    assert_eq!(found, rows, "an entry gives other rows");
    let mut damaged = built.bytes().to_vec();
    let at = name[0] as usize * 31 % damaged.len();
    damaged[at] ^= name[1].max(1);
    assert!(
        decode_entry(&damaged).is_err(),
        "byte {at} of an entry is not covered"
    );
}

/// The page verifier: bytes of all three sizes, and with magic, class, id and crc put right, so
/// that what lies behind them is reached.
///
/// # Panics
/// A damaged page passed by its crc.
pub fn page(bytes: &[u8]) {
    for class in 1_u8..=3 {
        let mut page = vec![0; 4096 << class];
        let len = bytes.len().min(page.len());
        page[..len].copy_from_slice(&bytes[..len]);
        let _ = verify(&page);
        let _ = verify_crc(&page);
        // "TP", kind 1 to 3, the class, an id.
        page[4..6].copy_from_slice(b"TP");
        page[6] = 1 + page[6] % 3;
        page[7] = class;
        page[8] |= 1;
        page[11..16].fill(0);
        let crc = page_crc(&page);
        page[..4].copy_from_slice(&crc.to_le_bytes());
        assert!(verify_crc(&page).is_ok());
        let _ = verify(&page);
        assert_eq!(PageHeader::of(&page).map(|header| header.crc), Some(crc));
        let last = page.len() - 1;
        page[last] ^= 0x10;
        assert!(
            verify_crc(&page).is_err(),
            "the last byte of a page is not covered"
        );
    }
}

/// A database with an image and a log tail, in a few files.
fn golden() -> &'static Image {
    static GOLDEN: OnceLock<Image> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let rig = match Rig::over(77, SimDisk::seeded(77), Setup::default()) {
            Ok(rig) => rig,
            Err(error) => panic!("a new database does not open: {error}"),
        };
        let fill = |from: usize, length: Length| {
            let write = rig.db.write(|tx| {
                for n in from..from + 40 {
                    let row = RowId {
                        table: (n % 2) as u8,
                        key: KeyId::bulk(n),
                    };
                    let val = Val::new(n as u32, length).bytes(row);
                    rig.tables[row.table as usize].put(tx, row.key.bytes(), &val)?;
                }
                Ok(())
            });
            assert!(write.is_ok());
        };
        fill(0, Length::Medium);
        fill(30, Length::Overflow);
        assert!(rig.db.checkpoint().is_ok());
        fill(60, Length::Small);
        assert!(rig.db.checkpoint().is_ok());
        fill(100, Length::Small);
        let image = rig.sim.disk().image();
        rig.stop();
        image
    })
}

/// What happens to the files of a database.
fn damage(image: &mut Image, bytes: &[u8]) -> bool {
    let files: Vec<PathBuf> = image.files();
    let ([file, mode], mut rest) = front::<2>(bytes);
    let path = &files[file as usize % files.len()];
    let Some(mut content) = image.read(path) else {
        return false;
    };
    let mut hostile = false;
    match mode % 4 {
        // The file is these bytes.
        0 => content = rest.to_vec(),
        // It ends early.
        1 => {
            let (len, _) = front::<4>(rest);
            content.truncate(u32::from_le_bytes(len) as usize % (content.len() + 1));
        }
        // Bytes of it are others.
        _ => {
            while !rest.is_empty() && !content.is_empty() {
                let (at, tail) = front::<4>(rest);
                let ([byte], tail) = front::<1>(tail);
                // Half of the places near the front, where headers are.
                let len = if at[3] & 1 == 1 {
                    content.len().min(4096)
                } else {
                    content.len()
                };
                let at = u32::from_le_bytes(at) as usize % len;
                content[at] = byte;
                rest = tail;
            }
        }
    }
    if mode % 4 == 3 && path.ends_with("META") {
        // Every copy with its crc put right: bytes that only an enemy writes.
        hostile = true;
        for copy in content.chunks_mut(64 << 10) {
            if let Some(copy) = copy.get_mut(..4096) {
                let crc = page_crc(&copy[8..]);
                copy[8..12].copy_from_slice(&crc.to_le_bytes());
            }
        }
    }
    image.replace(path, &content);
    hostile
}

/// META, map and log loader: a database with one damaged file is opened, read and checked. It may
/// be refused; what it shows must be rows that were written.
///
/// # Panics
/// Wrong rows were shown.
pub fn store(bytes: &[u8]) {
    let mut image = golden().clone();
    let hostile = damage(&mut image, bytes);
    let Ok(rig) = Rig::over(1, SimDisk::from_image(&image), Setup::default()) else {
        return;
    };
    let now = rig.db.snapshot();
    for (table, handle) in (0..).zip(&rig.tables) {
        for row in handle.iter(&now) {
            let Ok((key, value)) = row else { break };
            if hostile {
                continue;
            }
            let genuine = rig::row_of(table, &key).and_then(|row| Val::read(row, &value));
            if let Err(words) = genuine {
                panic!("a damaged database shows {words}");
            }
        }
    }
    let _ = rig.db.check_store();
    drop(now);
    rig.stop();
}

/// A key that decodes encodes to the same bytes, and two keys sort as their bytes do.
fn key_of<K: Key + PartialEq>(a: &[u8], b: &[u8], compare: impl Fn(&K, &K) -> Ordering) {
    let decode = |bytes: &[u8]| K::decode_key(bytes).ok();
    let encode = |key: &K| {
        let mut out = Vec::new();
        key.encode_key(&mut out);
        out
    };
    let (x, y) = (decode(a), decode(b));
    for (key, bytes) in [(&x, a), (&y, b)] {
        if let Some(key) = key {
            assert_eq!(encode(key), bytes, "a key has two encodings");
        }
    }
    if let (Some(x), Some(y)) = (&x, &y) {
        assert_eq!(
            compare(x, y),
            encode(x).cmp(&encode(y)),
            "keys sort otherwise than bytes"
        );
    }
}

/// The key codec: round trip and order for keys of many types.
///
/// # Panics
/// A law of the codec is broken.
pub fn key(bytes: &[u8]) {
    let ([split], rest) = front::<1>(bytes);
    let (a, b) = rest.split_at(rest.len().min(split as usize % 40));
    key_of::<u8>(a, b, Ord::cmp);
    key_of::<u64>(a, b, Ord::cmp);
    key_of::<i32>(a, b, Ord::cmp);
    key_of::<i128>(a, b, Ord::cmp);
    key_of::<bool>(a, b, Ord::cmp);
    key_of::<char>(a, b, Ord::cmp);
    key_of::<String>(a, b, Ord::cmp);
    key_of::<Vec<u8>>(a, b, Ord::cmp);
    key_of::<[u8; 3]>(a, b, Ord::cmp);
    key_of::<Option<String>>(a, b, Ord::cmp);
    key_of::<(String, u16)>(a, b, Ord::cmp);
    key_of::<(Vec<u8>, Option<i64>, String)>(a, b, Ord::cmp);
    key_of::<Desc<String>>(a, b, |x, y| y.0.cmp(&x.0));
    key_of::<(Desc<u32>, Vec<u8>)>(a, b, |x, y| y.0.0.cmp(&x.0.0).then_with(|| x.1.cmp(&y.1)));
    // A NaN equals nothing, so floats are compared by their order alone.
    let float = |bytes: &[u8]| f64::decode_key(bytes).ok();
    if let (Some(x), Some(y)) = (float(a), float(b)) {
        assert_eq!(
            x.total_cmp(&y),
            a.cmp(b),
            "floats sort otherwise than bytes"
        );
    }
}

/// A record of many kinds of fields.
#[derive(Record, Debug, PartialEq)]
struct Everything {
    #[terrane(id = 1, index)]
    text: String,
    #[terrane(id = 2)]
    number: i64,
    #[terrane(id = 3)]
    maybe: Option<u32>,
    #[terrane(id = 4)]
    list: Vec<String>,
    #[terrane(id = 5)]
    bytes: Vec<u8>,
    #[terrane(id = 6, filter)]
    flag: bool,
    #[terrane(id = 7)]
    pair: (u8, String),
    #[terrane(id = 9, default)]
    late: f32,
    #[terrane(id = 11)]
    place: Vector<3>,
}

/// The bytes of a whole record, for a corpus to begin with.
#[must_use]
pub fn sample_record() -> Vec<u8> {
    let record = Everything {
        text: "text".to_owned(),
        number: -7,
        maybe: Some(3),
        list: vec!["a".to_owned(), String::new()],
        bytes: vec![0, 255],
        flag: true,
        pair: (1, "b".to_owned()),
        late: 0.5,
        place: Vector::from([1.0, 0.0, -2.0]),
    };
    let mut bytes = Vec::new();
    record.encode_value(&mut bytes);
    bytes
}

fn value_of<V: Value>(bytes: &[u8]) {
    let Ok(value) = V::decode_value(bytes) else {
        return;
    };
    let mut once = Vec::new();
    value.encode_value(&mut once);
    let again = match V::decode_value(&once) {
        Ok(again) => again,
        Err(error) => panic!("a value is refused by its own decoder: {error}"),
    };
    let mut twice = Vec::new();
    again.encode_value(&mut twice);
    assert_eq!(once, twice, "a value changes with every encoding");
}

fn column_of<V: Column>(bytes: &[u8]) {
    let _ = V::decode_field(bytes);
}

/// The record codec, the schema codec, and everything below them.
///
/// # Panics
/// A value changes on its way.
pub fn record(bytes: &[u8]) {
    value_of::<Everything>(bytes);
    value_of::<String>(bytes);
    value_of::<Vec<u8>>(bytes);
    value_of::<Vec<Option<u16>>>(bytes);
    value_of::<(u64, String)>(bytes);
    value_of::<Option<Vec<String>>>(bytes);
    value_of::<[u8; 5]>(bytes);
    column_of::<DynVector>(bytes);
    column_of::<Vector<3>>(bytes);
    if let Ok(mut fields) = Fields::of(bytes) {
        while let Ok(Some(_)) = fields.next_field() {}
    }
    if let Ok(schema) = Schema::decode(bytes) {
        let _ = schema.validate();
        let _ = schema.check_value(bytes);
        assert_eq!(
            Schema::decode(&schema.encode()).ok(),
            Some(schema),
            "a schema changes"
        );
    }
}

/// The operation language: a script beside the model. The first bytes are its seed.
///
/// # Panics
/// Database and model part.
pub fn ops(bytes: &[u8]) {
    let (seed, rest) = front::<2>(bytes);
    let script = Script::decode(rest);
    if let Err(words) = check::run(&script, u64::from(u16::from_le_bytes(seed))) {
        panic!("{words}\n{script}");
    }
}
