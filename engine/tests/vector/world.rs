//! A table with a vector index, and the same rows in a map.

use std::collections::BTreeMap;

use terrane::{Builder, Database, Read, Record, Table, TableDef, Transaction, Vector};

pub(crate) const DIM: usize = 24;
/// Places that vectors lie around.
pub(crate) const TOPICS: u64 = 30;

#[derive(Record, Clone, Debug, PartialEq)]
pub(crate) struct Item {
    #[terrane(id = 1, filter)]
    pub(crate) group: u16,
    #[terrane(id = 2, filter)]
    pub(crate) word: String,
    #[terrane(id = 3)]
    pub(crate) note: String,
    #[terrane(id = 4, vector(metric = "l2"))]
    pub(crate) place: Option<Vector<DIM>>,
}

/// Keys that are their own row ids.
pub(crate) const NUMBERED: TableDef<i32, Item> = TableDef::new("numbered");
/// Keys that are not.
pub(crate) const NAMED: TableDef<String, Item> = TableDef::new("named");

/// splitmix64
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn normal(&mut self) -> f32 {
        let one = |word: u64| (word >> 40) as f32 / (1_u64 << 24) as f32 - 0.5;
        (0..6).map(|_| one(self.next())).sum::<f32>() * 1.4
    }

    /// A vector near one of the topics.
    pub(crate) fn vector(&mut self) -> [f32; DIM] {
        let topic = self.below(TOPICS);
        self.vector_near(topic)
    }

    /// A vector near this topic.
    pub(crate) fn vector_near(&mut self, topic: u64) -> [f32; DIM] {
        self.vector_of(topic, 0.6)
    }

    /// A vector as wide around one of the topics as is said.
    pub(crate) fn vector_around(&mut self, width: f32) -> [f32; DIM] {
        let topic = self.below(TOPICS);
        self.vector_of(topic, width)
    }

    fn vector_of(&mut self, topic: u64, width: f32) -> [f32; DIM] {
        let mut topic = Random(topic);
        std::array::from_fn(|_| topic.normal() + width * self.normal())
    }

    pub(crate) fn item(&mut self) -> Item {
        Item {
            group: self.below(20) as u16,
            word: ["red", "green", "blue"][self.below(3) as usize].into(),
            note: format!("note {}", self.below(1000)),
            place: (self.below(16) > 0).then(|| Vector::from(self.vector())),
        }
    }
}

/// A key of a table from a number.
pub(crate) trait KeyOf:
    terrane::Key + terrane::AsKey<Self> + Ord + Clone + std::fmt::Debug
{
    fn of(number: u64) -> Self;
}

impl KeyOf for i32 {
    fn of(number: u64) -> i32 {
        number as i32 - 500
    }
}

impl KeyOf for String {
    fn of(number: u64) -> String {
        format!("item {number}")
    }
}

pub(crate) type Rows<K> = BTreeMap<K, Item>;

/// A database without a thread of its own: upkeep is stepped.
pub(crate) fn builder() -> Builder {
    Database::builder().background(false)
}

/// Runs the background work until there is nothing to do.
pub(crate) fn settle(db: &Database) {
    for _ in 0..100_000 {
        if !db.background_step() {
            return;
        }
    }
    panic!("upkeep does not end");
}

pub(crate) fn distance(row: &Item, query: &[f32]) -> Option<f64> {
    let place = row.place.as_ref()?;
    let squares = place.iter().zip(query);
    let sum: f64 = squares
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    Some(sum.sqrt())
}

/// Searches with every posting read, by codes however few the rows are; recall of the true nearest
/// is counted, everything else is asserted: hits are rows, once, with their distance, in order, and
/// as many as there are.
pub(crate) struct Judge {
    pub(crate) right: usize,
    pub(crate) all: usize,
}

impl Judge {
    pub(crate) fn new() -> Judge {
        Judge { right: 0, all: 0 }
    }

    pub(crate) fn ask<K: KeyOf>(
        &mut self,
        table: &Table<K, Item>,
        read: &impl Read,
        rows: &Rows<K>,
        query: &[f32],
        k: usize,
    ) {
        let search = table.nearest(Item::PLACE, query, k);
        let hits = search.advanced().probes(1 << 20).run(read).unwrap();
        let mut wanted: Vec<f64> = rows
            .values()
            .filter_map(|row| distance(row, query))
            .collect();
        wanted.sort_by(f64::total_cmp);
        wanted.truncate(k);
        assert_eq!(hits.len(), wanted.len(), "as many hits as rows");
        let mut keys: Vec<&K> = hits.iter().map(|hit| &hit.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), hits.len(), "a row is hit once");
        for pair in hits.windows(2) {
            assert!(pair[0].distance <= pair[1].distance, "nearest first");
        }
        for hit in &hits {
            let row = rows.get(&hit.key).expect("a hit is a row of the state");
            let exact = distance(row, query).expect("a hit has a vector");
            assert!(
                (exact - f64::from(hit.distance)).abs() < 1e-3,
                "{exact} {}",
                hit.distance
            );
            assert_eq!(&hit.record().unwrap(), row);
        }
        if let Some(last) = wanted.last() {
            self.right += hits
                .iter()
                .filter(|hit| f64::from(hit.distance) <= last + 1e-4)
                .count();
        }
        self.all += wanted.len();
    }

    /// A code's bound is broken once in a hundred times.
    pub(crate) fn done(self, what: &str) {
        assert!(
            self.right * 100 >= self.all * 99,
            "{what}: {} of {}",
            self.right,
            self.all
        );
    }
}

/// A random change of a row, in the transaction and in the map.
pub(crate) fn change<K: KeyOf>(
    table: &Table<K, Item>,
    tx: &mut Transaction,
    rows: &mut Rows<K>,
    random: &mut Random,
    keys: u64,
) {
    let key = K::of(random.below(keys));
    match random.below(10) {
        0..=1 => {
            let was = rows.remove(&key).is_some();
            assert_eq!(table.delete(tx, key).unwrap(), was);
        }
        2 => {
            // Neither vector nor filter columns change.
            if let Some(row) = rows.get_mut(&key) {
                row.note = format!("changed {}", random.below(1000));
                table.put(tx, key, row).unwrap();
            }
        }
        3 => {
            if let Some(row) = rows.get_mut(&key) {
                row.group = random.below(20) as u16;
                table.put(tx, key, row).unwrap();
            }
        }
        _ => {
            let row = random.item();
            table.put(tx, key.clone(), &row).unwrap();
            rows.insert(key, row);
        }
    }
}
