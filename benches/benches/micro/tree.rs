//! The B+tree in memory: search and insert in one leaf, then get, replace, insert and scan in a
//! tree of 200,000 rows of 108 bytes.

use std::hint::black_box;
use std::ops::Bound;

use criterion::{BatchSize, Criterion, Throughput};
use terrane_btree::{Class, Direction, Edit, LeafRows, Tree};
use terrane_wal::lsn::TreeId;

use crate::scatter;

const ROWS: u64 = 200_000;

fn value(key: u64) -> [u8; 100] {
    let mut out = [3; 100];
    out[..8].copy_from_slice(&key.to_le_bytes());
    out
}

fn put(tree: &Tree, key: u64) {
    let value = value(key);
    let edit = &mut |_: Option<terrane_btree::Row<'_>>| Edit::Put {
        value: &value,
        versioned: false,
    };
    tree.update(&key.to_be_bytes(), edit).expect("room");
}

fn get(tree: &Tree, key: u64, out: &mut Vec<u8>) {
    let found = tree.get(&key.to_be_bytes(), out).expect("readable");
    assert!(found.is_some() && out[..8] == key.to_le_bytes());
}

fn tree_of(rows: u64, mib: usize) -> Tree {
    let tree = Tree::in_memory(TreeId(256), Class::K8, mib << 20);
    let tree = tree.expect("a tree");
    for number in 0..rows {
        put(&tree, scatter(number));
    }
    tree
}

pub(crate) fn all(c: &mut Criterion) {
    one_leaf(c);
    large(c);
}

fn one_leaf(c: &mut Criterion) {
    let tree = tree_of(60, 4);
    let mut group = c.benchmark_group("tree/one_leaf_of_60_rows");
    let (mut number, mut out) = (0, Vec::new());
    group.bench_function("find", |b| {
        b.iter(|| {
            number = (number + 7) % 60;
            get(&tree, scatter(black_box(number)), &mut out);
        });
    });
    group.bench_function("insert_and_remove", |b| {
        b.iter(|| {
            let key = scatter(1000);
            put(&tree, black_box(key));
            let gone = tree.update(&key.to_be_bytes(), &mut |_| Edit::Remove);
            gone.expect("removed");
        });
    });
    group.finish();
}

fn large(c: &mut Criterion) {
    let tree = tree_of(ROWS, 128);
    let mut group = c.benchmark_group("tree/200k_rows");
    let (mut number, mut out) = (0u64, Vec::new());
    group.bench_function("get", |b| {
        b.iter(|| {
            number = scatter(number) % ROWS;
            get(&tree, scatter(number), &mut out);
        });
    });
    group.bench_function("replace", |b| {
        b.iter(|| {
            number = scatter(number) % ROWS;
            put(&tree, scatter(number));
        });
    });
    group.bench_function("insert_1000_random", |b| {
        b.iter_batched_ref(
            || tree_of(10_000, 16),
            |small| (10_000..11_000).for_each(|n| put(small, scatter(n))),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("scan", |b| {
        b.iter(|| {
            let mut cursor = tree.cursor(Bound::Unbounded, Bound::Unbounded, Direction::Forward);
            let (mut rows, mut seen) = (LeafRows::default(), 0);
            while cursor.next_leaf(&mut rows).expect("readable") {
                seen += rows.iter().filter(|row| row.value.len() == 100).count() as u64;
            }
            assert_eq!(seen, ROWS);
        });
    });
    group.finish();
}
