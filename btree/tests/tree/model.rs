//! The tree against a map: random operations on rows of all shapes, in every page class.
//!
//! Keys come from a small family, so that they meet again: empty, two bytes, short, with a
//! long common prefix, longer than a page keeps inline. Values reach from nothing through inline to
//! overflow chains. Seen to fail with: hints not refreshed after an insert; a separator taken as
//! inclusive; a leaf hint believed without a look at the fences.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::world::World;
use proptest::prelude::*;
use terrane_wal::io::Purpose;

use terrane_btree::{Class, Direction, Edit, LeafHint, LeafRows, RowFlags, Span, SpanRows};

type Model = BTreeMap<Vec<u8>, (RowFlags, Vec<u8>)>;

#[derive(Clone, Debug)]
enum Op {
    Put {
        key: u16,
        len: usize,
        versioned: bool,
    },
    Ghost(u16),
    Remove(u16),
    Get(u16),
    /// Finds the leaves of neighbouring numbers, then gets each.
    GetMany {
        from: u16,
        count: u16,
    },
    Scan {
        low: u16,
        high: u16,
        inclusive: bool,
        backward: bool,
    },
    /// Removes every key of the family that leaves a remainder.
    Sweep(u16),
    Checkpoint,
    /// Closes the store and opens its newest image.
    Reopen,
    /// Makes neighbouring numbers as one run, in the order of their keys.
    Run {
        from: u16,
        count: u16,
        len: usize,
    },
    /// Puts a run of neighbouring keys.
    Fill {
        from: u16,
        count: u16,
        len: usize,
    },
}

fn value_len() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..200usize,
        3 => 1000..5000usize,
        1 => 5000..65_537usize,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..1200u16;
    prop_oneof![
        8 => (key(), value_len(), any::<bool>())
            .prop_map(|(key, len, versioned)| Op::Put { key, len, versioned }),
        1 => key().prop_map(Op::Ghost),
        4 => key().prop_map(Op::Remove),
        3 => key().prop_map(Op::Get),
        2 => (key(), 0..20u16).prop_map(|(from, count)| Op::GetMany { from, count }),
        1 => (key(), key(), any::<bool>(), any::<bool>()).prop_map(
            |(low, high, inclusive, backward)| Op::Scan { low, high, inclusive, backward }
        ),
        1 => (2..5u16).prop_map(Op::Sweep),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Reopen),
        2 => (key(), 1..200u16, 0..400usize)
            .prop_map(|(from, count, len)| Op::Fill { from, count, len }),
        3 => (key(), 1..200u16, 0..1500usize)
            .prop_map(|(from, count, len)| Op::Run { from, count, len }),
    ]
}

/// The key with this number. Not in the order of the numbers.
fn key(number: u16) -> Vec<u8> {
    let mixed = number.wrapping_mul(40503);
    match number % 8 {
        0 if number == 0 => vec![],
        0 => vec![b'k'; usize::from(number)],
        1 => [vec![b'k'; 900], mixed.to_be_bytes().to_vec()].concat(),
        2 => [vec![b'k'; 6000], mixed.to_be_bytes().to_vec()].concat(),
        3 => [vec![b'k'; 1100], vec![mixed as u8; usize::from(mixed >> 3)]].concat(),
        4 => mixed.to_be_bytes().to_vec(),
        _ => format!("row {mixed:05} of the family").into_bytes(),
    }
}

fn value(number: u16, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u16).wrapping_mul(31).wrapping_add(number) as u8)
        .collect()
}

struct Pair {
    /// Leaves in which ranges lay when they were read last.
    hints: [[LeafHint; 2]; 8],
    /// Those of the last keys that were got together.
    leaves: Vec<LeafHint>,
    world: World,
    model: Model,
}

impl Pair {
    fn put(&mut self, number: u16, len: usize, versioned: bool) {
        let (key, value) = (key(number), value(number, len));
        let before = self.model.get(&key).cloned();
        self.world
            .tree
            .update(&key, &mut |row| {
                assert_eq!(
                    row.map(|row| row.flags),
                    before.as_ref().map(|(flags, _)| *flags)
                );
                Edit::Put {
                    value: &value,
                    versioned,
                }
            })
            .unwrap();
        self.model.insert(
            key,
            (
                RowFlags {
                    ghost: false,
                    versioned,
                },
                value,
            ),
        );
    }

    fn remove(&mut self, number: u16) {
        let key = key(number);
        self.world.tree.update(&key, &mut |_| Edit::Remove).unwrap();
        self.model.remove(&key);
    }

    fn run(mut self, op: Op) -> Pair {
        match op {
            Op::Put {
                key,
                len,
                versioned,
            } => self.put(key, len, versioned),
            Op::Ghost(number) => {
                let key = key(number);
                self.world.tree.update(&key, &mut |_| Edit::Ghost).unwrap();
                self.model.insert(
                    key,
                    (
                        RowFlags {
                            ghost: true,
                            versioned: true,
                        },
                        vec![],
                    ),
                );
            }
            Op::Remove(number) => self.remove(number),
            Op::Get(number) => {
                let key = key(number);
                let mut value = vec![1, 2, 3];
                let flags = self.world.tree.get(&key, &mut value).unwrap();
                assert_eq!(
                    flags.map(|flags| (flags, value)),
                    self.model.get(&key).cloned()
                );
            }
            Op::GetMany { from, count } => self.get_many(from..from + count),
            Op::Scan {
                low,
                high,
                inclusive,
                backward,
            } => {
                let (low, high) = (key(low), key(high));
                let (low, high) = if low <= high {
                    (low, high)
                } else {
                    (high, low)
                };
                let (low, high) = if inclusive {
                    (Bound::Included(low), Bound::Included(high))
                } else if low == high {
                    (Bound::Unbounded, Bound::Unbounded)
                } else {
                    (Bound::Excluded(low), Bound::Excluded(high))
                };
                self.scan(low, high, backward);
            }
            Op::Sweep(modulus) => {
                for number in (0..1400).filter(|number| number % modulus != 0) {
                    self.remove(number);
                }
            }
            Op::Checkpoint => self.world.checkpoint(),
            Op::Reopen => self.world = self.world.reopen(),
            Op::Run { from, count, len } => self.make(from..from + count, len),
            Op::Fill { from, count, len } => {
                for number in from..from + count {
                    self.put(number, len, false);
                }
            }
        }
        self
    }

    /// Puts most of the numbers and removes the others, in one run.
    fn make(&mut self, numbers: std::ops::Range<u16>, len: usize) {
        let row = |number| {
            let value = value(number, usize::from(number) * 7 % (len + 1));
            (key(number), (number % 5 > 0).then_some(value))
        };
        let rows: BTreeMap<_, _> = numbers.map(row).collect();
        let run: Vec<_> = rows.iter().map(|(k, v)| (&**k, v.as_deref())).collect();
        self.world.tree.apply_run(&run, Purpose::Miss).unwrap();
        for (key, value) in rows {
            match value {
                Some(value) => self.model.insert(key, (RowFlags::default(), value)),
                None => self.model.remove(&key),
            };
        }
    }

    /// With the leaves that were found for these keys, and with those found for others before.
    fn get_many(&mut self, numbers: std::ops::Range<u16>) {
        let keys: Vec<_> = numbers.map(key).collect();
        let mut leaves = Vec::new();
        let tree = &self.world.tree;
        let asked = keys.iter().map(Vec::as_slice);
        tree.find_leaves(asked, &mut leaves).unwrap();
        assert_eq!(leaves.len(), keys.len());
        for (at, key) in keys.iter().enumerate() {
            for hint in [leaves.get(at), self.leaves.get(at)].into_iter().flatten() {
                let mut value = vec![1];
                let flags = tree.get_at(key, hint, &mut value).unwrap();
                let found = flags.map(|flags| (flags, value));
                assert_eq!(found, self.model.get(key).cloned());
            }
        }
        self.leaves = leaves;
    }

    fn scan(&self, low: Bound<Vec<u8>>, high: Bound<Vec<u8>>, backward: bool) {
        let direction = if backward {
            Direction::Backward
        } else {
            Direction::Forward
        };
        let mut cursor = self.world.tree.cursor(
            low.as_ref().map(Vec::as_slice),
            high.as_ref().map(Vec::as_slice),
            direction,
        );
        let mut rows = LeafRows::default();
        let mut got = Vec::new();
        while cursor.next_leaf(&mut rows).unwrap() {
            assert!(!rows.is_empty());
            for row in rows.iter() {
                got.push((row.key.to_vec(), (row.flags, row.value.to_vec())));
            }
        }
        assert!(!cursor.next_leaf(&mut rows).unwrap());
        if let (false, Bound::Included(low), Bound::Included(high)) = (backward, &low, &high) {
            self.span(low, high);
        }
        if backward {
            got.reverse();
        }
        let expect = self.model.range((low.clone(), high.clone()));
        assert!(
            got.iter().map(|(k, v)| (k, v)).eq(expect),
            "{direction:?} {low:?} {high:?}"
        );
    }

    /// The rows of a half-open range, with hints that other ranges have used too.
    fn span(&self, low: &[u8], high: &[u8]) {
        let hints = &self.hints[low.len() % self.hints.len()];
        let mut rows = SpanRows::default();
        let tree = &self.world.tree;
        let range = Span {
            lower: low,
            upper: high,
            wanted: &|key| key.len() % 3 > 0,
        };
        tree.read_span(range, hints, &mut rows).unwrap();
        // A leaf may have left memory for the next one.
        assert!(rows.first_stood() || rows.leaves() > 1);
        let got: Vec<_> = rows
            .iter()
            .map(|row| (row.key.to_vec(), (row.flags, row.value.to_vec())))
            .collect();
        let expect = self
            .model
            .range::<[u8], _>((Bound::Included(low), Bound::Excluded(high)));
        assert!(
            got.iter()
                .map(|(k, v)| (k, v))
                .eq(expect.filter(|(key, _)| key.len() % 3 > 0)),
            "{low:?} {high:?}"
        );
    }

    fn check(&self) {
        let report = self.world.check();
        let ghosts = self.model.values().filter(|(flags, _)| flags.ghost).count();
        assert_eq!(report.ghosts, ghosts as u64);
        assert_eq!(report.rows + report.ghosts, self.model.len() as u64);
        self.scan(Bound::Unbounded, Bound::Unbounded, false);
        self.scan(Bound::Unbounded, Bound::Unbounded, true);
    }
}

fn compare(ops: Vec<Op>, world: World) {
    let mut pair = Pair {
        world,
        model: Model::new(),
        hints: Default::default(),
        leaves: Vec::new(),
    };
    for op in ops {
        pair = pair.run(op);
    }
    pair.check();
    pair.world = pair.world.reopen();
    pair.check();
    for number in 0..1400 {
        pair.remove(number);
    }
    pair.check();
    assert_eq!(pair.world.check().pages(), 1);
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn a_tree_is_a_sorted_map(ops in prop::collection::vec(op(), 1..120), class in 1..4u8) {
        compare(ops, World::in_memory(Class::new(class).unwrap()));
    }
}

proptest! {
    #![proptest_config(config(16))]

    #[test]
    fn also_with_64_frames(ops in prop::collection::vec(op(), 1..120), class in 1..4u8) {
        compare(ops, World::tiny(Class::new(class).unwrap()));
    }
}

/// With 64 frames. What an operation reads ahead, or all that it wants to hold at once, must not
/// drive out what it waits for: seen not to end.
fn tiny_pair(class: u8) -> Pair {
    Pair {
        world: World::tiny(Class::new(class).unwrap()),
        model: Model::new(),
        hints: Default::default(),
        leaves: Vec::new(),
    }
}

#[test]
fn a_run_in_few_frames_ends() {
    for class in 1..4 {
        let mut pair = tiny_pair(class);
        for step in 0..60_u16 {
            let from = step.wrapping_mul(40_503) % 1200;
            let (count, len) = (20 + from % 180, 300 + usize::from(from));
            pair = pair.run(Op::Fill {
                from,
                count,
                len: 300,
            });
            let from = from.wrapping_mul(7919) % 1200;
            pair = pair.run(Op::Run { from, count, len });
        }
        pair.check();
    }
}

#[test]
fn a_leaf_with_more_overflow_than_frames_is_read() {
    let mut pair = tiny_pair(1);
    // Short keys with long values, then long keys beside each other.
    for key in (4..200).step_by(8) {
        let (len, versioned) = (65_536, false);
        pair = pair.run(Op::Put {
            key,
            len,
            versioned,
        });
    }
    for key in (2..1400).step_by(8) {
        let (len, versioned) = (9, false);
        pair = pair.run(Op::Put {
            key,
            len,
            versioned,
        });
    }
    pair = pair.run(Op::Checkpoint).run(Op::Reopen);
    pair.span(&[], &[0xff]);
    pair.check();
}
