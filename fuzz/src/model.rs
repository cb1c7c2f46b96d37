//! The reference: every version of every row by order of commits, and what follows from it.
//!
//! It says what each read must give, which commit must conflict and which must not, and which
//! states may be found after a crash: those after some prefix of the commits that holds all
//! acknowledged ones.
//!
//! - M1: the state after commit n is the last version at or below n of each row.
//! - M2: a transaction's view is fixed by its first read that its own writes do not answer.
//! - M3: a commit conflicts if and only if the view is fixed and, after it, somebody committed a
//!   row that it writes or, if serializable, a row that it has read or one within the reach of a
//!   scan: from the end at which the scan began to the last row that it gave out, or all of the
//!   range if it came to its end.

use std::collections::{BTreeMap, BTreeSet};

use crate::keys::{KeyId, RowId, Val};
use crate::ops::{Edge, Level, ScanOf};

/// Rows of one state.
pub type Rows = BTreeMap<RowId, Val>;
/// Rows written; None is a deletion.
pub type Writes = BTreeMap<RowId, Option<Val>>;

/// How many commits a state holds: state 0 is empty.
pub type State = usize;

/// All versions of all rows.
#[derive(Clone, Debug, Default)]
pub struct Model {
    commits: Vec<Writes>,
    versions: BTreeMap<RowId, Vec<(State, Option<Val>)>>,
    acknowledged: State,
}

impl Model {
    /// The newest state.
    #[must_use]
    pub fn newest(&self) -> State {
        self.commits.len()
    }

    /// The oldest state that a crash may lead back to.
    #[must_use]
    pub fn acknowledged(&self) -> State {
        self.acknowledged
    }

    /// A commit came next in the order; its place.
    pub fn commit(&mut self, writes: Writes) -> State {
        self.commits.push(writes);
        let state = self.commits.len();
        for (row, val) in &self.commits[state - 1] {
            self.versions.entry(*row).or_default().push((state, *val));
        }
        state
    }

    /// Everything up to the state survives a crash from now on.
    pub fn acknowledge(&mut self, state: State) {
        assert!(state <= self.newest());
        self.acknowledged = self.acknowledged.max(state);
    }

    /// The row in a state (M1).
    #[must_use]
    pub fn get(&self, row: RowId, state: State) -> Option<Val> {
        let versions = self.versions.get(&row)?;
        let (_, val) = versions.iter().rfind(|(at, _)| *at <= state)?;
        *val
    }

    /// True if somebody wrote the row after the state.
    fn written_after(&self, row: RowId, state: State) -> bool {
        let newest = self.versions.get(&row).and_then(|versions| versions.last());
        newest.is_some_and(|(at, _)| *at > state)
    }

    /// All rows of a state.
    #[must_use]
    pub fn rows(&self, state: State) -> Rows {
        let rows = self.versions.keys();
        rows.filter_map(|row| Some((*row, self.get(*row, state)?)))
            .collect()
    }

    /// The rows that a scan yields in a state.
    #[must_use]
    pub fn scan(&self, scan: &ScanOf, state: State) -> Vec<(KeyId, Val)> {
        self.scan_over(scan, state, &Writes::new())
    }

    fn scan_over(&self, scan: &ScanOf, state: State, own: &Writes) -> Vec<(KeyId, Val)> {
        let keys: BTreeSet<RowId> = self.versions.keys().chain(own.keys()).copied().collect();
        let seen = |row: RowId| match own.get(&row) {
            Some(val) => *val,
            None => self.get(row, state),
        };
        let mut rows: Vec<(KeyId, Val)> = keys
            .into_iter()
            .filter(|row| row.table == scan.table && scan.holds(row.key))
            .filter_map(|row| Some((row.key, seen(row)?)))
            .collect();
        if scan.reverse {
            rows.reverse();
        }
        rows.truncate(scan.limit as usize);
        rows
    }

    /// Which state, of those that a crash now may lead to, these rows are: the smallest.
    ///
    /// # Errors
    /// The prefix rule is broken; says how the rows differ from the nearest states.
    pub fn explain(&self, rows: &Rows) -> Result<State, String> {
        self.explain_within(rows, self.acknowledged, self.newest())
    }

    /// As [`Model::explain`] for a crash when `acknowledged` and `newest` stood elsewhere.
    ///
    /// # Errors
    /// The prefix rule is broken.
    pub fn explain_within(
        &self,
        rows: &Rows,
        acknowledged: State,
        newest: State,
    ) -> Result<State, String> {
        if let Some(state) = (acknowledged..=newest).find(|state| self.rows(*state) == *rows) {
            return Ok(state);
        }
        if let Some(state) = (0..acknowledged)
            .rev()
            .find(|state| self.rows(*state) == *rows)
        {
            return Err(format!(
                "acknowledged commits are lost: the state after {state} of {newest} commits, \
                 {acknowledged} of them acknowledged"
            ));
        }
        let differing = |state: State| differences(&self.rows(state), rows);
        let nearest = (acknowledged..=newest).min_by_key(|state| differing(*state).len());
        let nearest = nearest.unwrap_or(newest);
        let how = differing(nearest).join("; ");
        Err(format!(
            "no prefix from {acknowledged} to {newest} commits; nearest is {nearest}: {how:.2000}"
        ))
    }

    /// Goes back to a state: the commits above it did not survive.
    pub fn truncate(&mut self, state: State) {
        self.commits.truncate(state);
        for versions in self.versions.values_mut() {
            versions.retain(|(at, _)| *at <= state);
        }
        self.versions.retain(|_, versions| !versions.is_empty());
        self.acknowledged = state;
    }
}

/// What is expected and what is there, row by row.
#[must_use]
pub fn differences(expected: &Rows, found: &Rows) -> Vec<String> {
    let keys: BTreeSet<&RowId> = expected.keys().chain(found.keys()).collect();
    let show = |val: Option<&Val>| val.map_or("no row".to_owned(), Val::to_string);
    let differs = keys
        .into_iter()
        .filter(|row| expected.get(row) != found.get(row));
    differs
        .map(|row| {
            format!(
                "{row}: wanted {}, found {}",
                show(expected.get(row)),
                show(found.get(row))
            )
        })
        .collect()
}

impl ScanOf {
    /// True if the key lies inside of the requested range.
    #[must_use]
    pub fn holds(&self, key: KeyId) -> bool {
        let above = match self.from {
            Edge::Open => true,
            Edge::Included(from) => key >= from,
            Edge::Excluded(from) => key > from,
        };
        let below = match self.to {
            Edge::Open => true,
            Edge::Included(to) => key <= to,
            Edge::Excluded(to) => key < to,
        };
        above && below
    }

    /// What of the range was read when these rows were given out and no further one was asked for;
    /// None if nothing was.
    fn reached(&self, rows: &[(KeyId, Val)]) -> Option<ScanOf> {
        if rows.len() < self.limit as usize {
            return Some(*self);
        }
        let last = Edge::Included(rows.last()?.0);
        Some(if self.reverse {
            ScanOf {
                from: last,
                ..*self
            }
        } else {
            ScanOf { to: last, ..*self }
        })
    }

    /// True if no key whatever lies in the range, though it is none that is refused.
    #[must_use]
    pub fn is_void(&self) -> bool {
        let next = |key: KeyId| [key.bytes(), &[0]].concat();
        let start = match self.from {
            Edge::Open => Vec::new(),
            Edge::Included(key) => key.bytes().to_vec(),
            Edge::Excluded(key) => next(key),
        };
        match self.to {
            Edge::Open => false,
            Edge::Included(key) => next(key) <= start,
            Edge::Excluded(key) => key.bytes() <= start.as_slice(),
        }
    }

    /// True if the lower bound's key lies above the upper bound's: an argument error.
    #[must_use]
    pub fn is_inverted(&self) -> bool {
        let key = |edge: Edge| match edge {
            Edge::Open => None,
            Edge::Included(key) | Edge::Excluded(key) => Some(key),
        };
        matches!((key(self.from), key(self.to)), (Some(from), Some(to)) if from > to)
    }
}

/// A transaction that runs beside others.
#[derive(Clone, Debug)]
pub struct TxModel {
    level: Level,
    view: Option<State>,
    writes: Writes,
    savepoints: Vec<Writes>,
    read_rows: BTreeSet<RowId>,
    read_ranges: Vec<ScanOf>,
}

impl TxModel {
    /// A transaction that has done nothing.
    #[must_use]
    pub fn new(level: Level) -> TxModel {
        TxModel {
            level,
            view: None,
            writes: Writes::new(),
            savepoints: Vec::new(),
            read_rows: BTreeSet::new(),
            read_ranges: Vec::new(),
        }
    }

    /// What a read of the row gives (M2).
    pub fn get(&mut self, model: &Model, row: RowId) -> Option<Val> {
        if let Some(val) = self.writes.get(&row) {
            return *val;
        }
        self.read_rows.insert(row);
        let view = *self.view.get_or_insert(model.newest());
        model.get(row, view)
    }

    /// What a scan yields. One in which no key can lie reads nothing.
    pub fn scan(&mut self, model: &Model, scan: &ScanOf) -> Vec<(KeyId, Val)> {
        if scan.is_void() {
            return Vec::new();
        }
        let view = *self.view.get_or_insert(model.newest());
        let rows = model.scan_over(scan, view, &self.writes);
        self.read_ranges.extend(scan.reached(&rows));
        rows
    }

    /// Writes the row.
    pub fn put(&mut self, row: RowId, val: Val) {
        self.writes.insert(row, Some(val));
    }

    /// Deletes the row; whether there was one. A row that is not there is not written.
    pub fn delete(&mut self, model: &Model, row: RowId) -> bool {
        let there = self.get(model, row).is_some();
        if there {
            self.writes.insert(row, None);
        }
        there
    }

    /// Savepoints that can be gone back to.
    #[must_use]
    pub fn savepoints(&self) -> usize {
        self.savepoints.len()
    }

    /// Sets a savepoint.
    pub fn savepoint(&mut self) {
        self.savepoints.push(self.writes.clone());
    }

    /// Goes back to the savepoint with this number and ends it and those after it.
    pub fn rollback(&mut self, savepoint: usize) {
        let undone = self.savepoints.drain(savepoint..).next();
        self.writes = undone.unwrap_or_default();
    }

    /// Whether a commit now must conflict (M3).
    #[must_use]
    pub fn conflicts(&self, model: &Model) -> bool {
        let Some(view) = self.view else { return false };
        if self.writes.is_empty() {
            return false;
        }
        let written = |row: &RowId| model.written_after(*row, view);
        let ranges = || {
            let later = model.commits[view..].iter().flat_map(Writes::keys);
            let mut later = later.filter(|row| {
                let inside = |scan: &ScanOf| scan.table == row.table && scan.holds(row.key);
                self.read_ranges.iter().any(inside)
            });
            later.next().is_some()
        };
        self.writes.keys().any(written)
            || self.level == Level::Serializable && (self.read_rows.iter().any(written) || ranges())
    }

    /// What it would write.
    #[must_use]
    pub fn writes(&self) -> &Writes {
        &self.writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Length;

    fn row(key: u16) -> RowId {
        RowId {
            table: 0,
            key: KeyId(key),
        }
    }

    fn val(version: u32) -> Val {
        Val::new(version, Length::Small)
    }

    fn write(model: &mut Model, key: u16, version: u32) -> State {
        model.commit(Writes::from([(row(key), Some(val(version)))]))
    }

    fn all() -> ScanOf {
        ScanOf {
            table: 0,
            from: Edge::Open,
            to: Edge::Open,
            reverse: false,
            limit: 255,
        }
    }

    #[test]
    fn states_are_prefixes_of_the_commits() {
        let mut model = Model::default();
        write(&mut model, 1, 10);
        let second = write(&mut model, 1, 11);
        model.commit(Writes::from([(row(1), None), (row(2), Some(val(12)))]));
        assert_eq!(model.get(row(1), 0), None);
        assert_eq!(model.get(row(1), 2), Some(val(11)));
        assert_eq!(model.get(row(1), 3), None);
        model.acknowledge(second);
        assert_eq!(model.explain(&Rows::from([(row(2), val(12))])), Ok(3));
        assert_eq!(model.explain(&Rows::from([(row(1), val(11))])), Ok(2));
        let lost = model.explain(&Rows::from([(row(1), val(10))])).unwrap_err();
        assert!(lost.contains("acknowledged commits are lost"), "{lost}");
        let half = Rows::from([(row(1), val(11)), (row(2), val(12))]);
        assert!(model.explain(&half).unwrap_err().contains("no prefix"));
        model.truncate(2);
        assert_eq!(model.rows(2), Rows::from([(row(1), val(11))]));
    }

    #[test]
    fn lost_updates_conflict_at_both_levels_and_write_skew_at_one() {
        for level in [Level::Snapshot, Level::Serializable] {
            let mut model = Model::default();
            write(&mut model, 1, 1);
            let mut first = TxModel::new(level);
            let mut second = TxModel::new(level);
            first.get(&model, row(1));
            second.get(&model, row(1));
            second.get(&model, row(2));
            first.put(row(1), val(2));
            assert!(!first.conflicts(&model));
            model.commit(first.writes().clone());
            let mut skewed = second.clone();
            second.put(row(1), val(3));
            assert!(second.conflicts(&model));
            skewed.put(row(2), val(3));
            assert_eq!(skewed.conflicts(&model), level == Level::Serializable);
        }
    }

    #[test]
    fn blind_writes_never_conflict_and_phantoms_do() {
        let mut model = Model::default();
        let mut blind = TxModel::new(Level::Serializable);
        blind.put(row(5), val(1));
        let mut reader = TxModel::new(Level::Serializable);
        assert!(reader.scan(&model, &all()).is_empty());
        reader.put(row(9), val(2));
        write(&mut model, 5, 3);
        assert!(!blind.conflicts(&model));
        assert!(reader.conflicts(&model));
    }

    #[test]
    fn a_scan_that_was_stopped_has_read_up_to_its_last_row() {
        for (reverse, limit, written, conflict) in [
            (false, 2, 4, true),
            (false, 2, 3, true),
            (false, 2, 5, false),
            (true, 2, 5, true),
            (true, 2, 3, false),
            (false, 3, 9, false),
            (false, 4, 9, true),
            (true, 4, 1, true),
            (false, 0, 2, false),
        ] {
            let mut model = Model::default();
            for key in [2, 4, 6] {
                write(&mut model, key, 1);
            }
            let mut tx = TxModel::new(Level::Serializable);
            let (limit, all) = (limit, all());
            let rows = tx.scan(
                &model,
                &ScanOf {
                    reverse,
                    limit,
                    ..all
                },
            );
            assert_eq!(rows.len(), usize::from(limit).min(3));
            tx.put(row(20), val(1));
            write(&mut model, written, 2);
            assert_eq!(
                tx.conflicts(&model),
                conflict,
                "{reverse} {limit} {written}"
            );
        }
    }

    #[test]
    fn own_writes_are_merged_into_scans_and_savepoints_take_them_back() {
        let mut model = Model::default();
        write(&mut model, 1, 1);
        let mut tx = TxModel::new(Level::Serializable);
        tx.savepoint();
        assert!(tx.delete(&model, row(1)));
        tx.put(row(2), val(2));
        assert_eq!(tx.scan(&model, &all()), vec![(KeyId(2), val(2))]);
        tx.rollback(0);
        assert_eq!(tx.scan(&model, &all()), vec![(KeyId(1), val(1))]);
        assert!(!tx.delete(&model, row(3)));
        assert!(tx.writes().is_empty());
    }
}
