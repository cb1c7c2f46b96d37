//! The rows nearest to a vector, in a snapshot or transaction: by the field's index, or exactly.
//!
//! The exact search asks every row the filter and, if it passes, measures it, both on its encoded
//! bytes: no record is decoded before its row is among the hits. That answer is the definition of
//! "nearest" and the oracle of the search by index, which reads postings around the query, and
//! rows only where codes cannot tell. Rows that a transaction has written itself are measured one
//! by one and merged.
//!
//! ```text
//! exact  visit rows -> filter (one field at a time) -> elements of the vector -> kernels -> top k
//! index  state, then newest set -> postings -> rows of the state -> with own rows: top k
//!        -> rows of the k hits, copied
//! ```
//! Each shard is searched for itself; of what they find the k nearest are the hits.
//!
//! Invariants:
//! - Q1: fewer than `k` hits only if fewer rows have a vector and pass the filter.
//! - Q2: hits are ordered by distance, then by key.
//! - Q3: a hit is a row of the state that is read, with its exact distance, whatever found it.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use terrane_vector::{ExactScan, MAX_K, Neighbour, Prepared, Scratch, SearchParams};
use terrane_wal::lsn::TreeId;

use crate::codec::vector::VectorView;
use crate::codec::{FieldDef, Key, Record, Span};
use crate::error::{Error, ErrorKind, Result};
use crate::index::vector::view::{RowFilter, View};
use crate::index::vector::{Hosted, VectorTable};
use crate::query::filter::Filter;
use crate::query::hit::Hit;
use crate::runtime::Core;
use crate::table::Shape;
use crate::table::place::Rooms;
use crate::table::scan::bounds;
use crate::table::vectors::{check_vector, refusal};
use crate::txn::Read;
use crate::txn::raw::{RawRead, ReadState};

/// The share of the true nearest rows that a search is to find where nothing is said.
const RECALL: f64 = 0.95;

/// Rows by their keys, the nearest first.
type Found = Vec<Neighbour<Vec<u8>>>;

/// A table in one shard, as it is read.
struct Room<'a, L> {
    shape: &'a Shape,
    leg: &'a L,
}

impl<L: RawRead> Room<'_, L> {
    fn tree(&self) -> TreeId {
        self.shape.info.tree
    }

    fn core(&self) -> Result<&Core> {
        Ok(self.leg.local()?.core())
    }
}

/// A search for the rows nearest to a vector; made by [`crate::Table::nearest`].
#[must_use = "a search does nothing until it is run"]
pub struct Nearest<K, V> {
    rooms: Rooms,
    def: FieldDef,
    query: Vec<f32>,
    k: usize,
    filter: Option<Filter<V>>,
    recall: Option<f64>,
    probes: Option<usize>,
    exact: bool,
    key: PhantomData<fn() -> K>,
}

/// Knobs of a search beyond its goal; made by [`Nearest::advanced`].
#[must_use = "a search does nothing until it is run"]
pub struct Advanced<K, V>(Nearest<K, V>);

impl<K: Key, V: Record> Advanced<K, V> {
    /// Scans every row that passes the filter instead of asking the index.
    pub fn exact(mut self) -> Advanced<K, V> {
        self.0.exact = true;
        self
    }

    /// Reads this many postings, the nearest ones, whatever the recall is; more than there are
    /// reads all. Only then may a search return fewer than `k` hits though more rows match.
    pub fn probes(mut self, probes: usize) -> Advanced<K, V> {
        self.0.probes = Some(probes);
        self
    }

    /// Runs the search.
    ///
    /// # Errors
    /// As [`Nearest::run`], and `Invalid` for 0 probes.
    pub fn run(self, read: &impl Read) -> Result<Vec<Hit<K, V>>> {
        self.0.run(read)
    }
}

impl<K: Key, V: Record> Nearest<K, V> {
    pub(crate) fn new(rooms: Rooms, def: FieldDef, query: &[f32], k: usize) -> Nearest<K, V> {
        Nearest {
            rooms,
            def,
            query: query.to_vec(),
            k,
            filter: None,
            recall: None,
            probes: None,
            exact: false,
            key: PhantomData,
        }
    }

    /// Only rows that meet `filter`; of several filters, all. The search still returns `k` hits
    /// if so many rows pass.
    pub fn filter(mut self, filter: Filter<V>) -> Nearest<K, V> {
        self.filter = Some(match self.filter {
            Some(before) => before & filter,
            None => filter,
        });
        self
    }

    /// The share of the true nearest rows that the result should hold, above 0 and up to 1; 0.95
    /// where nothing is said. A goal for a search by index, which reads as many postings as it
    /// takes on the average; an exact search reaches 1 whatever is asked for.
    pub fn recall(mut self, recall: f64) -> Nearest<K, V> {
        self.recall = Some(recall);
        self
    }

    /// Knobs beyond the goal: an exact scan, a fixed number of postings.
    pub fn advanced(self) -> Advanced<K, V> {
        Advanced(self)
    }

    /// Runs the search over the rows that `read` sees, a transaction's own writes among them.
    ///
    /// Hits come nearest first, those of equal distance by key. Rows whose optional vector is
    /// `None` are never found. A table without an index of the field, one of few rows and a state
    /// from before the index are scanned exactly: O(rows x dimension). Otherwise O(postings +
    /// entries read + rows read x dimension).
    ///
    /// # Errors
    /// `Invalid` when the field is not declared `vector(..)`, the query has another dimension or
    /// an element that is not finite, its square sum is above what `f32` holds, it is all zeros
    /// and the metric is cosine, the recall is outside of (0, 1], a range of the filter starts
    /// above its end, or the filter asks a field that is not declared `filter` and so not stored
    /// beside the index ([`Advanced::exact`] can ask any); `TooLarge` when `k` is above 10,000;
    /// those of a read.
    pub fn run(self, read: &impl Read) -> Result<Vec<Hit<K, V>>> {
        let mut rooms = Vec::new();
        for (shard, shape) in self.rooms.all() {
            let leg = read.leg(shard)?;
            shape.check_read(leg)?;
            rooms.push(Room { shape, leg });
        }
        let query = self.check().map_err(|error| self.in_field(error))?;
        let mut nearest = Vec::new();
        for (at, room) in rooms.iter().enumerate() {
            let found = room.core()?.shown(self.find(room, &query))?;
            nearest.extend(found.into_iter().map(|found| (found, at)));
        }
        if rooms.len() > 1 {
            nearest.sort_unstable(); // Q2
            nearest.truncate(self.k);
        }
        let hit = |(found, at): (Neighbour<Vec<u8>>, usize)| {
            let room = &rooms[at];
            room.core()?.shown(self.hit(room, found))
        };
        nearest.into_iter().map(hit).collect()
    }

    /// The nearest rows of a shard to a query that can be served, in the order of hits.
    fn find<L: RawRead>(&self, room: &Room<'_, L>, query: &Prepared) -> Result<Found> {
        let core = room.core()?;
        let table = core.vectors.get(room.tree());
        if let (Some(table), false) = (&table, self.exact) {
            table.check_whole(Some(self.def.id))?;
        }
        let hosted = table.as_ref().and_then(|table| table.of_field(self.def.id));
        let indexed = match (&table, hosted) {
            (Some(table), Some(hosted)) if !self.exact => {
                self.check_columns().map_err(|error| self.in_field(error))?;
                Some((table, hosted))
            }
            _ => None,
        };
        if self.k == 0 {
            return Ok(Vec::new());
        }
        match indexed {
            Some((table, hosted)) if self.is_worth_it(core, hosted)? => {
                // The state first, the newest centres after it (S4).
                let state = room.leg.state(room.tree())?;
                match hosted.serves(state.pin.ts()) {
                    true => self.by_index(core, &state, query, (table, hosted)),
                    false => self.by_scan(room, query),
                }
            }
            _ => self.by_scan(room, query),
        }
    }

    /// Whether the index is asked: not for few rows, unless the caller says how much to read.
    fn is_worth_it(&self, core: &Core, hosted: &Hosted) -> Result<bool> {
        let few = SearchParams::new(self.k).exact_below;
        Ok(self.probes.is_some() || hosted.row_count(core)? >= few)
    }

    /// Every row is asked.
    fn by_scan<L: RawRead>(&self, room: &Room<'_, L>, query: &Prepared) -> Result<Found> {
        let mut scan = ExactScan::new(query, self.k).map_err(|error| refusal(&error))?;
        let mut scratch = Vec::new();
        let (lower, upper) = bounds(&Span::all());
        room.leg
            .scan_raw(room.tree(), lower, upper, false)?
            .visit(|key, record| self.offer(&mut scan, key, record, &mut scratch))?;
        scan.finish().map_err(|error| self.stored(&error, &[]))
    }

    /// Offers a row to an exact scan, if it has a vector and passes.
    fn offer(
        &self,
        scan: &mut ExactScan<'_, Vec<u8>>,
        key: &[u8],
        record: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        if let Some(filter) = &self.filter
            && !filter.matches(record, scratch)?
        {
            return Ok(());
        }
        let Some(whole) = self.def.find(record)? else {
            return Ok(());
        };
        let vector = VectorView::of_whole(&whole)?;
        scan.offer_bytes(key.to_vec(), vector.elements)
            .map_err(|error| self.stored(&error, key))
    }

    /// Postings around the query, and the reader's own rows.
    fn by_index(
        &self,
        core: &Core,
        state: &ReadState,
        query: &Prepared,
        (table, hosted): (&VectorTable, &Hosted),
    ) -> Result<Found> {
        let filter = self.filter.as_ref().map(|filter| filter as &dyn RowFilter);
        let mut view = View::new(core, table, hosted, state.pin.ts());
        (view.own, view.filter) = (state.own.as_deref(), filter);
        view.bare = filter.is_none();
        let params = self.params(hosted)?;
        let found = in_scratch(|scratch| {
            let index = &hosted.index;
            index.search_in(scratch, &view, &self.query, &params)
        });
        let found = found.map_err(|error| self.in_field(error))?;
        hosted.searches.note(&found);
        let mut nearest = Vec::with_capacity(found.hits.len());
        for hit in found.hits {
            if let Some(key) = view.key_of(hit.id)? {
                nearest.push(Neighbour {
                    distance: hit.distance,
                    id: key,
                });
            }
        }
        if let Some(own) = &state.own {
            let mut scan = ExactScan::new(query, self.k).map_err(|error| refusal(&error))?;
            let mut scratch = Vec::new();
            for (key, write) in own.of_tree(table.source.tree) {
                if let Some(record) = &write.value {
                    self.offer(&mut scan, key, record, &mut scratch)?;
                }
            }
            nearest.extend(scan.finish().map_err(|error| self.stored(&error, &[]))?);
        }
        nearest.sort_unstable(); // Q2
        nearest.truncate(self.k);
        Ok(nearest)
    }

    /// When the search by index ends.
    fn params(&self, hosted: &Hosted) -> Result<SearchParams> {
        match self.probes {
            None => hosted.search_params(self.k, self.recall.unwrap_or(RECALL)),
            // Who says how many postings wants the index asked, however few rows there are.
            probes => Ok(SearchParams {
                probes,
                exact_below: 0,
                ..SearchParams::new(self.k)
            }),
        }
    }

    /// The row of what was found.
    fn hit<L: RawRead>(&self, room: &Room<'_, L>, found: Neighbour<Vec<u8>>) -> Result<Hit<K, V>> {
        let row = room.leg.get_raw(room.tree(), &found.id)?.ok_or_else(|| {
            let what = "a row is in a scan and not in a look-up";
            Error::new(ErrorKind::Corrupt, what)
                .with("table", &room.shape.info.name)
                .with("key", room.shape.show_key(&found.id))
        })?;
        Ok(Hit::new(K::decode_key(&found.id)?, found.distance, &row))
    }

    fn in_field(&self, error: Error) -> Error {
        error
            .with_unless_said("table", &self.rooms.first().info.name)
            .with_unless_said("field", self.def.name)
    }

    /// Whether every field that the filter asks is stored beside the codes.
    fn check_columns(&self) -> Result<()> {
        match self.filter.as_ref().and_then(Filter::first_without_codes) {
            None => Ok(()),
            Some(name) => {
                let what = "a filter asks a field that is not declared `filter`";
                let hint = "declare it `filter`, or use `advanced().exact()`";
                let error = Error::new(ErrorKind::Invalid, what).with("filter", name);
                Err(error.with("hint", hint))
            }
        }
    }

    /// Whether the search can be served; the query, prepared.
    fn check(&self) -> Result<Prepared> {
        let vector = self.def.vector.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "a field cannot be searched by distance")
        })?;
        check_vector(&vector, &self.query)?;
        if self.k > MAX_K {
            return Err(Error::new(ErrorKind::TooLarge, "k is above its limit")
                .with("given", self.k)
                .with("limit", MAX_K));
        }
        if let Some(recall) = self.recall
            && !(recall > 0.0 && recall <= 1.0)
        {
            return Err(Error::new(ErrorKind::Invalid, "a recall is out of range")
                .with("given", recall)
                .with("range", "above 0, up to 1"));
        }
        if let Some(filter) = &self.filter {
            filter.check()?;
        }
        if self.probes == Some(0) {
            let error = Error::new(ErrorKind::Invalid, "a search reads one posting or more");
            return Err(error.with("probes", 0));
        }
        Prepared::new(vector.metric, &self.query).map_err(|error| refusal(&error))
    }

    /// A stored vector that could not have been stored through this table.
    #[cold]
    fn stored(&self, error: &terrane_vector::VectorError, key: &[u8]) -> Error {
        Error::new(ErrorKind::Corrupt, "a stored vector fails its check")
            .with("table", &self.rooms.first().info.name)
            .with("field", self.def.name)
            .with("key", self.rooms.first().show_key(key))
            .caused_by(error.clone())
    }
}

thread_local! {
    /// What searches of this thread work in.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the thread's working memory; a search inside a search gets one of its own.
fn in_scratch<T>(run: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|kept| match kept.try_borrow_mut() {
        Ok(mut scratch) => run(&mut scratch),
        Err(_) => run(&mut Scratch::default()),
    })
}

impl<K, V> fmt::Debug for Advanced<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Advanced").field(&self.0).finish()
    }
}

impl<K, V> fmt::Debug for Nearest<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nearest")
            .field("table", &self.rooms.first().info.name)
            .field("field", &self.def.name)
            .field("dim", &self.query.len())
            .field("k", &self.k)
            .field("filter", &self.filter)
            .field("recall", &self.recall)
            .field("probes", &self.probes)
            .field("exact", &self.exact)
            .finish()
    }
}
