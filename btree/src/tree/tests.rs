//! Tests of one tree on one thread: what comes back is what was put.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use terrane_wal::lsn::TreeId;

use super::cursor::LeafRows;
use super::*;
use crate::check::check_tree;

fn tree(class: Class) -> Tree {
    Tree::in_memory(TreeId(256), class, 64 << 20).unwrap()
}

fn put(tree: &Tree, key: &[u8], value: &[u8]) {
    tree.update(key, &mut |_| Edit::Put {
        value,
        versioned: false,
    })
    .unwrap();
}

fn remove(tree: &Tree, key: &[u8]) {
    tree.update(key, &mut |_| Edit::Remove).unwrap();
}

fn get(tree: &Tree, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    tree.get(key, &mut value).unwrap().map(|_| value)
}

fn check(tree: &Tree) -> crate::check::TreeReport {
    let mut all = Vec::new();
    let report = check_tree(tree, &mut BTreeSet::new(), &mut |finding| {
        all.push(finding.error)
    })
    .unwrap();
    assert!(all.is_empty(), "{}", all[0]);
    report
}

/// A number that looks random and never repeats.
fn mixed(i: u64) -> u64 {
    let mut x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[test]
fn rows_come_back_in_every_class_and_order() {
    for class in Class::ALL {
        for order in 0..3u64 {
            let tree = tree(class);
            let key = |i: u64| match order {
                0 => i.to_be_bytes(),
                1 => (20_000 - i).to_be_bytes(),
                _ => mixed(i).to_be_bytes(),
            };
            for i in 0..20_000 {
                put(
                    &tree,
                    &key(i),
                    format!("value {i} {}", "x".repeat(60)).as_bytes(),
                );
            }
            for i in 0..20_000 {
                let expect = format!("value {i} {}", "x".repeat(60));
                assert_eq!(get(&tree, &key(i)).as_deref(), Some(expect.as_bytes()));
            }
            assert_eq!(get(&tree, b"absent"), None);
            let report = check(&tree);
            assert_eq!(report.rows, 20_000);
            let fill = report.live_bytes as f64 / (report.pages() * class.bytes() as u64) as f64;
            // Rising and falling keys leave full pages.
            assert!(
                fill > if order < 2 { 0.9 } else { 0.6 },
                "{class} {order}: {fill}"
            );
        }
    }
}

#[test]
fn deleting_nine_tenths_frees_three_quarters_of_the_pages() {
    for class in Class::ALL {
        let tree = tree(class);
        let n = 60_000;
        for i in 0..n {
            put(&tree, &mixed(i).to_be_bytes(), &[7; 90]);
        }
        let before = check(&tree).pages();
        for i in 0..n {
            if i % 10 != 0 {
                remove(&tree, &mixed(i).to_be_bytes());
            }
        }
        let after = check(&tree);
        assert_eq!(after.rows, n / 10);
        assert!(after.pages() * 4 < before, "{before} -> {}", after.pages());
        for i in 0..n {
            remove(&tree, &mixed(i).to_be_bytes());
        }
        let empty = check(&tree);
        assert_eq!((empty.pages(), empty.height), (1, 1));
    }
}

#[test]
fn long_keys_and_values_come_back_both_ways() {
    let tree = tree(Class::K8);
    let mut model = BTreeMap::new();
    let common = vec![b'k'; 20_000];
    for i in 0..120u64 {
        let mut key = common[..(i as usize * 167) % 20_000].to_vec();
        key.extend_from_slice(&mixed(i).to_be_bytes()[..2]);
        let mut long = common.clone();
        long.extend_from_slice(&mixed(i).to_be_bytes());
        for (key, len) in [(key, i as usize * 540), (long, 10)] {
            let value = vec![i as u8; len.min(VALUE_MAX)];
            put(&tree, &key, &value);
            model.insert(key, value);
        }
    }
    let report = check(&tree);
    assert!(report.overflow > 300 && report.leaves > 3, "{report:?}");
    for (key, value) in &model {
        assert_eq!(get(&tree, key).as_ref(), Some(value));
    }
    scan_equals(&tree, &model);
    for (i, key) in model.keys().enumerate() {
        if i % 7 != 0 {
            remove(&tree, key);
        }
    }
    let model: BTreeMap<_, _> = model
        .into_iter()
        .enumerate()
        .filter(|(i, _)| i % 7 == 0)
        .map(|(_, row)| row)
        .collect();
    scan_equals(&tree, &model);
    check(&tree);
    for key in model.keys() {
        remove(&tree, key);
    }
    assert_eq!(check(&tree).pages(), 1);
}

fn scan_equals(tree: &Tree, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    for direction in [Direction::Forward, Direction::Backward] {
        let mut cursor = tree.cursor(Bound::Unbounded, Bound::Unbounded, direction);
        let mut rows = LeafRows::default();
        let mut got = Vec::new();
        while cursor.next_leaf(&mut rows).unwrap() {
            got.extend(
                rows.iter()
                    .map(|row| (row.key.to_vec(), row.value.to_vec())),
            );
        }
        if direction == Direction::Backward {
            got.reverse();
        }
        assert!(
            got.iter().map(|(k, v)| (k, v)).eq(model.iter()),
            "{direction:?}"
        );
    }
}

#[test]
fn limits_are_errors_and_the_row_stays() {
    let tree = tree(Class::K8);
    let key = vec![1; KEY_MAX];
    let value = vec![2; VALUE_MAX];
    put(&tree, &key, &value);
    put(&tree, b"", b"");
    let longer = vec![2; VALUE_MAX + 1];
    let answer = Edit::Put {
        value: &longer,
        versioned: false,
    };
    let error = tree.update(&key, &mut |_| answer).unwrap_err();
    assert!(
        matches!(error, StoreError::TooLarge { what: "value", .. }),
        "{error}"
    );
    let error = tree
        .update(&[1; KEY_MAX + 1], &mut |_| Edit::Ghost)
        .unwrap_err();
    assert!(
        matches!(error, StoreError::TooLarge { what: "key", .. }),
        "{error}"
    );
    assert_eq!(get(&tree, &key), Some(value));
    assert_eq!(get(&tree, b""), Some(vec![]));
    assert_eq!(get(&tree, &[1; KEY_MAX + 1]), None);
    check(&tree);
}

#[test]
fn a_dropped_tree_leaves_no_page() {
    let tree = tree(Class::K8);
    for i in 0..3_000 {
        put(
            &tree,
            &mixed(i).to_be_bytes(),
            &vec![7; (i as usize % 40) * 200],
        );
    }
    tree.drop_contents().unwrap();
    let error = tree.get(b"x", &mut Vec::new()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
}
