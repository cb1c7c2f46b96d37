//! Any bytes through every decoder: the body of a fuzz target, and the check of its seeds.

use super::{
    Block, BlockBuilder, Centroid, Columns, Extra, Head, Job, Key, Locator, Mark, Meta,
    RecordError, RowId, TailEntry, Tuning, Vver,
};
use crate::code::Factors;
use crate::limits::{BLOCK_SLOTS, GROUP_SLOTS};

/// Tries every decoder on the same bytes. Returns those that took them, by name, and whether an
/// encoder gives back what was decoded: byte for byte, in blocks and extra bits for the slots that
/// hold an entry. The first two bytes choose the code dimensions.
#[doc(hidden)]
#[must_use]
pub fn decode_any(bytes: &[u8]) -> Vec<(&'static str, bool)> {
    let Some((&[low, high], value)) = bytes.split_first_chunk() else {
        return Vec::new();
    };
    let units = u16::from_le_bytes([low, high]) % 256 + 1;
    let dim = usize::from(units) * 64;
    let mut taken = Vec::new();
    let mut note = |name, same: Result<bool, RecordError>| {
        if let Ok(same) = same {
            taken.push((name, same));
        }
    };
    let is = |again: Vec<u8>| again == value;
    note("key", Key::decode(value).map(|key| is(key.encode())));
    note(
        "block",
        Block::decode(value, dim).map(|block| block_returns(&block, dim)),
    );
    note(
        "extra",
        Extra::decode(value, dim).map(|extra| extra_returns(&extra, dim)),
    );
    note(
        "columns",
        Columns::decode(value).map(|columns| is(again(&columns))),
    );
    note(
        "tail",
        TailEntry::decode(value, dim).map(|entry| tail_returns(&entry, value)),
    );
    note("head", Head::decode(value).map(|head| is(head.encode())));
    note("mark", Mark::decode(value).map(|mark| is(mark.encode())));
    note(
        "locator",
        Locator::decode(value).map(|locator| is(locator.encode())),
    );
    note(
        "tuning",
        Tuning::decode(value).map(|tuning| is(tuning.encode())),
    );
    note(
        "centroid",
        Centroid::decode(value, dim).map(|centroid| is(centroid.encode())),
    );
    note("job", Job::decode(value, dim).map(|job| is(job.encode())));
    note("meta", Meta::decode(value).map(|meta| is(meta.encode())));
    taken
}

fn again(columns: &Columns<'_>) -> Vec<u8> {
    let slots: Vec<Option<&[u8]>> = (0..columns.used()).map(|slot| columns.slot(slot)).collect();
    let beyond = (columns.used()..BLOCK_SLOTS).any(|slot| columns.slot(slot).is_some());
    assert!(!beyond, "a slot without an entry has no columns");
    Columns::encode(&slots, columns.seal()).unwrap_or_default()
}

/// Whether a block of the same entries has the same entries.
fn block_returns(block: &Block<'_>, dim: usize) -> bool {
    let entries = |block: &Block<'_>| {
        let one = |slot: usize| {
            let mut code = Vec::new();
            block.code(slot, &mut code);
            let factors = block.factors(slot).to_bytes();
            (block.row(slot), block.vver(slot), factors, code)
        };
        (0..block.used()).map(one).collect::<Vec<_>>()
    };
    let mut builder = BlockBuilder::new(dim, u64::from(block.seal()));
    let before = entries(block);
    for (row, vver, factors, code) in &before {
        builder.push(
            *row,
            *vver,
            &entry(Factors::from_bytes(*factors), code, None),
        );
    }
    let (bytes, _, _) = builder.finish();
    Block::decode(&bytes, dim)
        .is_ok_and(|again| entries(&again) == before && again.seal() == block.seal())
}

/// Whether extra bits, put beside a block again, are the same.
fn extra_returns(extra: &Extra<'_>, dim: usize) -> bool {
    let slots = |extra: &Extra<'_>| {
        let slots = (0..GROUP_SLOTS).map_while(|slot| extra.slot(slot));
        let bytes = slots.map(|(factors, planes)| (factors.to_bytes(), planes.to_vec()));
        bytes.collect::<Vec<_>>()
    };
    let (before, code) = (slots(extra), vec![0; dim / 8]);
    let mut builder = BlockBuilder::new(dim, u64::from(extra.seal()));
    for (factors, planes) in &before {
        let factors = Factors::from_bytes(*factors);
        builder.push(
            RowId(0),
            Vver(0),
            &entry(factors, &code, Some((factors, planes))),
        );
    }
    let (_, groups, _) = builder.finish();
    let again = groups
        .first()
        .and_then(|bytes| Extra::decode(bytes, dim).ok());
    let same = |again: Extra<'_>| slots(&again) == before && again.seal() == extra.seal();
    before.len() == extra.used() && again.is_some_and(same)
}

fn entry<'a>(
    factors: Factors,
    code: &'a [u8],
    extra: Option<(Factors, &'a [u8])>,
) -> TailEntry<'a> {
    let columns = None;
    TailEntry {
        factors,
        code,
        extra,
        columns,
    }
}

/// Whether a tail entry gives its bytes back; a factor that is no number may get another form.
fn tail_returns(entry: &TailEntry<'_>, value: &[u8]) -> bool {
    let none = |factors: Factors| factors.ip.is_nan() || factors.err.is_nan();
    let extra = entry.extra.is_some_and(|extra| none(extra.0));
    entry.encode() == value || none(entry.factors) || extra
}
