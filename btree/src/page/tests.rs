//! Tests of one page: against a map, under damage, and of what verification sees.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::branch::{self, Toward};
use super::header::*;
use super::image::{Builder, Entry, Frame, PageCopy, StoredKey};
use super::leaf::{self, Payload, ROW_GHOST, ROW_VERSIONED};
use super::overflow::{self, Link, OverflowRef};
use super::slots::Tails;
use super::verify::{verify, verify_crc};
use super::view::{PageEdit, PageView};
use crate::ids::{Class, PageId};

/// For keys without tails; on garbage any answer will do.
struct NoTails;

impl Tails for NoTails {
    type Error = Infallible;

    fn compare(&self, _: OverflowRef, _: &[u8]) -> Result<Ordering, Infallible> {
        Ok(Ordering::Less)
    }
}

fn words(bytes: &[u8]) -> Vec<AtomicU64> {
    let word = |c: &[u8]| AtomicU64::new(u64::from_le_bytes(c.try_into().unwrap()));
    bytes.chunks_exact(8).map(word).collect()
}

fn bytes(words: &[AtomicU64]) -> Vec<u8> {
    let mut out = Vec::new();
    PageView::new(words).copy_to(&mut out);
    out
}

fn identity(class: Class) -> PageHeader {
    PageHeader {
        class: class.number(),
        page_id: 77,
        tree: 256,
        ..bytemuck::Zeroable::zeroed()
    }
}

fn key(bytes: &[u8]) -> StoredKey {
    StoredKey {
        inline: bytes.to_vec(),
        tail: None,
    }
}

fn frame<'a>(
    identity: &'a PageHeader,
    level: u8,
    lower: Option<&'a StoredKey>,
    upper: Option<&'a StoredKey>,
) -> Frame<'a> {
    let kind = if level == 0 { LEAF } else { BRANCH };
    Frame {
        identity,
        kind,
        level,
        lower,
        upper,
    }
}

/// An empty leaf between two fences that share "pre".
fn empty_leaf(class: Class) -> Vec<AtomicU64> {
    let (lower, upper) = (key(b"pre"), key(b"preu"));
    let identity = identity(class);
    let frame = frame(&identity, 0, Some(&lower), Some(&upper));
    words(&Builder::new(class.bytes(), frame).finish(PageId::NONE))
}

#[derive(Clone, Debug)]
enum Op {
    Put(u16, usize, u8),
    Ghost(u16),
    Remove(u16),
    Compact,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..400u16, 0..300usize, any::<u8>()).prop_map(|(k, len, fill)| Op::Put(k, len, fill)),
        1 => (0..400u16).prop_map(Op::Ghost),
        3 => (0..400u16).prop_map(Op::Remove),
        1 => Just(Op::Compact),
    ]
}

/// Keys of different lengths, some beginning alike for more than a head.
fn row_key(k: u16) -> Vec<u8> {
    let mut key = b"prea".to_vec();
    match k % 4 {
        0 => key.extend_from_slice(&k.to_be_bytes()),
        1 => key.extend_from_slice(format!("same start {k}").as_bytes()),
        2 => key.extend(std::iter::repeat_n(0, usize::from(k / 4) % 9)),
        _ => key.extend_from_slice(&[0xff, k as u8]),
    }
    key
}

fn same(page: &[AtomicU64], model: &BTreeMap<Vec<u8>, (u8, Vec<u8>)>) {
    let image = bytes(page);
    verify(&image).unwrap_or_else(|damage| panic!("{damage}"));
    let copy = PageCopy::from_bytes(image);
    let rows: Vec<_> = copy
        .entries()
        .map(|e| (e.inline(), (e.flags, e.value.to_vec())))
        .collect();
    assert!(rows.iter().map(|(k, v)| (k, v)).eq(model.iter()));
    let view = PageView::new(page);
    for (place, key) in model.keys().enumerate() {
        assert_eq!(leaf::find(view, key, &NoTails), Ok(Ok(place)));
        let mut after = key.clone();
        after.push(0);
        let expect = if model.contains_key(&after) {
            Ok(place + 1)
        } else {
            Err(place + 1)
        };
        assert_eq!(leaf::find(view, &after, &NoTails), Ok(expect));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_leaf_is_a_sorted_map(ops in prop::collection::vec(op(), 1..300), class in 1..4u8) {
        let class = Class::new(class).unwrap();
        let page = empty_leaf(class);
        let mut model = BTreeMap::new();
        for op in ops {
            let mut edit = PageEdit::new(&page);
            match op {
                Op::Put(k, ..) | Op::Ghost(k) => {
                    let (key, flags, value) = match op {
                        Op::Put(_, len, fill) => (row_key(k), ROW_VERSIONED, vec![fill; len]),
                        _ => (row_key(k), ROW_GHOST | ROW_VERSIONED, vec![]),
                    };
                    let payload = Payload { flags, value: &value };
                    let done = match leaf::find(edit.view(), &key, &NoTails).unwrap() {
                        Ok(place) => leaf::replace(&mut edit, place, &key, payload),
                        Err(place) => leaf::insert(&mut edit, place, &key, None, payload),
                    };
                    let spare = leaf::capacity(class.bytes()) - leaf::live_bytes(edit.view());
                    prop_assert!(done || spare < 400, "refused with {spare} bytes to spare");
                    if done {
                        model.insert(key, (flags, value));
                    }
                }
                Op::Remove(k) => {
                    let key = row_key(k);
                    let found = leaf::find(edit.view(), &key, &NoTails).unwrap();
                    prop_assert_eq!(found.is_ok(), model.remove(&key).is_some());
                    if let Ok(place) = found {
                        leaf::remove(&mut edit, place);
                    }
                }
                Op::Compact => leaf::compact(&mut edit),
            }
        }
        same(&page, &model);
    }

    /// Seen to fail with the bounds check of the view's word access left out (an offset that was
    /// read optimistically is trusted).
    #[test]
    fn garbage_is_read_without_panic(
        seed in prop::collection::vec(any::<(u16, u8)>(), 1..60),
        wipe in any::<bool>(),
        search in prop::collection::vec(any::<u8>(), 0..40),
        branch_page in any::<bool>(),
    ) {
        let mut image = if branch_page { full_branch() } else { full_leaf() };
        if wipe {
            let mut state = u64::from(seed[0].0) + 1;
            for byte in &mut image {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
        }
        for (at, value) in seed {
            // Mostly header and slots, where the offsets are.
            let at = if value & 1 == 0 { at % 600 } else { at % 8192 };
            image[usize::from(at)] = value;
        }
        let page = words(&image);
        let view = PageView::new(&page);
        let Ok(found) = leaf::find(view, &search, &NoTails);
        let place = found.unwrap_or_else(|place| place);
        let row = leaf::row(view, place);
        let mut out = Vec::new();
        let _ = view.append_to(row.value_off, row.value_len, &mut out);
        let _ = row.overflow(view);
        let _ = leaf::live_bytes(view);
        let _ = branch::child_for(view, &search, Toward::Key, &NoTails);
        let _ = branch::child_for(view, &search, Toward::Below, &NoTails);
        let _ = Link::read(view);
        let copy = PageCopy::of(view);
        for entry in copy.entries().take(9000) {
            let _ = (entry.inline(), entry.value, entry.child, entry.tail);
        }
        let _ = (copy.lower(), copy.upper());
        let _ = verify(&image);
    }
}

/// A leaf with 40 rows (so it has hints), fences and no garbage.
fn full_leaf() -> Vec<u8> {
    let page = empty_leaf(Class::K8);
    let mut edit = PageEdit::new(&page);
    for i in 0..40u8 {
        let key = [b"preb", &[i][..], b"tail"].concat();
        let value = vec![i; 100 + usize::from(i)];
        let payload = Payload {
            flags: 0,
            value: &value,
        };
        assert!(leaf::insert(&mut edit, usize::from(i), &key, None, payload));
    }
    bytes(&page)
}

/// A branch with 40 separators.
fn full_branch() -> Vec<u8> {
    let identity = identity(Class::K8);
    let mut builder = Builder::new(8192, frame(&identity, 1, None, None));
    for i in 0..40u8 {
        let suffix = [i, 1, 2, 3, 4, i];
        let child = PageId(1000 + u64::from(i));
        let entry = Entry {
            flags: 0,
            prefix: &[],
            suffix: &suffix,
            tail: None,
            value: &[],
            child,
        };
        assert!(builder.push(entry));
    }
    builder.finish(PageId(2000))
}

#[test]
fn a_branch_leads_to_the_child_that_covers_the_key() {
    let page = words(&full_branch());
    let view = PageView::new(&page);
    let at = |key: &[u8], toward| branch::child_for(view, key, toward, &NoTails).unwrap();
    assert_eq!(at(&[], Toward::Key), (0, PageId(1000)));
    assert_eq!(at(&[7, 1, 2, 3, 4, 7], Toward::Key), (8, PageId(1008)));
    assert_eq!(at(&[7, 1, 2, 3, 4, 7], Toward::Below), (7, PageId(1007)));
    assert_eq!(at(&[7, 1, 2, 3, 4, 6], Toward::Key), (7, PageId(1007)));
    assert_eq!(at(&[255], Toward::Key), (40, PageId(2000)));
    let mut edit = PageEdit::new(&page);
    let separator = key(&[7, 1, 2, 3, 4, 7, 9]);
    assert!(branch::split_child(&mut edit, 8, &separator, PageId(5)));
    verify(&bytes(&page)).unwrap();
    assert_eq!(at(&[7, 1, 2, 3, 4, 7, 8], Toward::Key), (8, PageId(1008)));
    assert_eq!(at(&[7, 1, 2, 3, 4, 7, 9], Toward::Key), (9, PageId(5)));
    assert_eq!(branch::remove(&mut PageEdit::new(&page), 0), None);
    verify(&bytes(&page)).unwrap();
    assert_eq!(at(&[], Toward::Key), (0, PageId(1001)));
}

/// Every bit of every field that has only one right value is flipped: verification sees each.
#[test]
fn each_damaged_field_is_seen() {
    let link = Link {
        len: 500,
        next: PageId::NONE,
        index: 1,
        total: 8532,
    };
    let chain = overflow::build(&identity(Class::K8), 8192, &link, &[9; 500]);
    for (image, n) in [(full_leaf(), 40), (full_branch(), 40), (chain, 0)] {
        verify(&image).unwrap();
        let slots = HEADER_LEN..HEADER_LEN + n * SLOT_LEN;
        let trailer = image.len() - TRAILER_LEN..image.len();
        let fields = (4..8)
            .chain(32..56)
            .chain(64..HEADER_LEN)
            .chain(slots)
            .chain(trailer);
        for at in fields {
            for bit in 0..8 {
                // Two page flags and the level of a branch may have other values.
                let free = at == OFF_FLAGS && bit < 2 || at == OFF_FLAGS + 1 && image[6] == BRANCH;
                let mut bad = image.clone();
                bad[at] ^= 1 << bit;
                assert!(
                    free || verify(&bad).is_err(),
                    "kind {} byte {at} bit {bit}",
                    image[6]
                );
            }
        }
        let mut bad = image.clone();
        bad[8..16].fill(0);
        assert!(verify(&bad).is_err(), "page id 0");
        for len in [0, 127, 128, 4096, 8191, 16384] {
            let mut bad = image.clone();
            bad.resize(len, 0);
            assert!(verify(&bad).is_err(), "{len} bytes");
        }
    }
    assert!(verify(&vec![0; 8192]).is_err());
}

#[test]
fn damaged_entries_are_seen() {
    let image = full_leaf();
    let slot = |i: usize| {
        let word = image[HEADER_LEN + i * SLOT_LEN..][..8].try_into().unwrap();
        super::slots::Slot::unpack(u64::from_le_bytes(word))
    };
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bad = image.clone();
        change(&mut bad);
        verify(&bad).unwrap_err()
    };
    // Keys out of order: two slots exchanged.
    damaged(&|bad| {
        for i in 0..8 {
            bad.swap(HEADER_LEN + i, HEADER_LEN + SLOT_LEN + i);
        }
    });
    // Two slots with one entry: they overlap.
    damaged(&|bad| bad.copy_within(HEADER_LEN..HEADER_LEN + 8, HEADER_LEN + 8));
    // Unknown row flag, ghost with a value, overflow without a reference, long key without a tail.
    for flag in [1, 4, 8, 16, 32, 64, 128] {
        damaged(&|bad| bad[slot(5).off] |= flag);
    }
    // A value that is longer or shorter than it was.
    damaged(&|bad| bad[slot(5).off + 1] ^= 1);
    damaged(&|bad| bad[slot(5).off + 1] ^= 4);
    // Key bytes behind the head that break the order, and the fences' bytes.
    damaged(&|bad| bad[slot(0).off + 3] = 0xff);
    let fence = PageHeader::of(&image).unwrap().lower_fence;
    damaged(&|bad| bad[usize::from(fence.off)] ^= 1);
    damaged(&|bad| bad[usize::from(fence.off) + 2] ^= 1);
}

#[test]
fn the_crc_covers_all_but_itself() {
    let mut image = full_leaf();
    let crc = page_crc(&image);
    image[..4].copy_from_slice(&crc.to_le_bytes());
    verify_crc(&image).unwrap();
    for at in 0..image.len() {
        image[at] ^= 0x10;
        assert!(verify_crc(&image).is_err(), "byte {at}");
        image[at] ^= 0x10;
    }
    assert!(verify_crc(&[1; 100]).is_err());
}

#[test]
fn two_of_the_largest_rows_fit_between_any_fences() {
    for class in Class::ALL {
        let size = class.bytes();
        let tail = Some(OverflowRef {
            first: PageId(9),
            len: 10,
        });
        let long = inline_key_max(size);
        let fence = |byte| StoredKey {
            inline: vec![byte; long],
            tail,
        };
        let (lower, upper, identity) = (fence(1), fence(3), identity(class));
        let mut builder = Builder::new(size, frame(&identity, 0, Some(&lower), Some(&upper)));
        for byte in [2, 3] {
            let mut suffix = vec![2; long];
            suffix[long - 1] = byte;
            let value = vec![5; entry_max(size) - SLOT_LEN - 1 - 3 - long - overflow::REF_LEN];
            let entry = Entry {
                flags: 0,
                prefix: &[],
                suffix: &suffix,
                tail,
                value: &value,
                child: PageId::NONE,
            };
            assert!(builder.push(entry), "{class}");
        }
        verify(&builder.finish(PageId::NONE)).unwrap();
    }
}
