//! Whether answers are answers at all, and how many of the exact ones are among them.
//!
//! A recall is worth nothing if it is computed against wrong ids, so every answer is measured
//! anew from the data set, beside the exact ones:
//!
//! A1: ids are distinct, are live rows, and pass the filter by the folder's own mask.
//! A2: distances rise, and each is the distance of its row.
//! A3: at no place is an answer nearer than the exact answer of that place: then the "exact" one
//! would be wrong.
//! A4: ten answers come if ten rows match.

use terrane_vector::Metric;

use super::dataset::{Dataset, NEAREST};
use crate::Failure;

/// What a table answered: ids and distances.
pub(crate) type Hits = Vec<(u64, f32)>;

/// How far two ways of summing up a distance may be apart.
const ROUNDING: f64 = 1e-4;
/// How far apart the distances of equal rows may be: as near as the tenth is right as well.
const TIE: f64 = 1e-6;

/// Where the vector of a row is to be found: rows that exchanged their vectors have others.
pub(crate) type RowOf<'a> = &'a (dyn Fn(u64) -> Option<usize> + Sync);

/// Exact answers and what else is needed to judge others.
pub(crate) struct Judge<'a> {
    data: &'a Dataset,
    /// Ids of the exact answers, as the table names them.
    exact: Vec<Vec<u64>>,
    /// Their distances.
    distances: Vec<Vec<f64>>,
    row_of: RowOf<'a>,
    mask: Option<&'a [bool]>,
}

impl<'a> Judge<'a> {
    /// A judge with exact answers. `row_of` tells which row of the data set an id has, `None` if it
    /// must not be found; `mask` which ids pass the filter.
    pub(crate) fn new(
        data: &'a Dataset,
        exact: Vec<Vec<u64>>,
        row_of: RowOf<'a>,
        mask: Option<&'a [bool]>,
    ) -> Result<Judge<'a>, Failure> {
        let mut judge = Judge {
            data,
            exact,
            distances: Vec::new(),
            row_of,
            mask,
        };
        for query in 0..judge.exact.len() {
            let mut distances = Vec::new();
            for id in &judge.exact[query] {
                judge.admit(query, *id)?;
                distances.push(judge.distance(query, *id)?);
            }
            if !distances.is_sorted_by(|a, b| *a <= b + ROUNDING * (1.0 + b)) {
                return Err(format!("query {query}: the exact answers are not in order").into());
            }
            judge.distances.push(distances);
        }
        Ok(judge)
    }

    pub(crate) fn queries(&self) -> usize {
        self.exact.len()
    }

    /// How many of the answers to a query are right.
    pub(crate) fn right(&self, query: usize, hits: &Hits) -> Result<usize, Failure> {
        well_formed(hits).map_err(|e| format!("query {query}: {e}"))?;
        let exact = &self.exact[query];
        if hits.len() != exact.len().min(NEAREST) {
            let (found, wanted) = (hits.len(), exact.len());
            return Err(format!("query {query}: {found} answers though {wanted} match").into());
        }
        let tenth = self.distances[query].last().copied().unwrap_or(0.0);
        let mut right = 0;
        for (place, (id, told)) in hits.iter().enumerate() {
            self.admit(query, *id)?;
            let measured = self.distance(query, *id)?;
            let told = f64::from(*told);
            let slack = ROUNDING * (1.0 + measured.abs());
            if (told - measured).abs() > slack {
                return Err(
                    format!("query {query}: id {id} is at {measured}, not at {told}").into(),
                );
            }
            let best = self.distances[query][place];
            if told < best - slack {
                let what = format!("id {id} at {told} is nearer than the exact answer at {best}");
                return Err(format!("query {query}, place {place}: {what}").into());
            }
            let tied = measured <= tenth + TIE * (1.0 + tenth.abs());
            right += usize::from(tied || exact.contains(id));
        }
        Ok(right)
    }

    /// Asks every query, judges every answer, and gives the recall.
    pub(crate) fn recall(
        &self,
        mut ask: impl FnMut(&[f32]) -> Result<Hits, Failure>,
    ) -> Result<f64, Failure> {
        let (mut right, mut wanted) = (0, 0);
        for query in 0..self.queries() {
            right += self.right(query, &ask(&self.data.queries[query])?)?;
            wanted += self.exact[query].len();
        }
        Ok(right as f64 / wanted.max(1) as f64)
    }

    /// Fails unless an id may be an answer (A1).
    fn admit(&self, query: usize, id: u64) -> Result<(), Failure> {
        let live = (self.row_of)(id).is_some();
        let passes = self
            .mask
            .is_none_or(|mask| mask.get(id as usize).copied().unwrap_or(false));
        if live && passes {
            return Ok(());
        }
        Err(format!("query {query}: id {id} cannot be an answer").into())
    }

    fn distance(&self, query: usize, id: u64) -> Result<f64, Failure> {
        let row = (self.row_of)(id).ok_or("an id without a row")?;
        let vector = self.data.vector(row)?;
        Ok(distance(
            self.data.metric,
            &self.data.queries[query],
            &vector,
        ))
    }
}

/// Ids distinct and distances rising: cheap enough for the timed part of a run.
pub(crate) fn well_formed(hits: &Hits) -> Result<(), Failure> {
    for (place, (id, distance)) in hits.iter().enumerate() {
        let before = &hits[..place];
        if before.iter().any(|(other, _)| other == id) {
            return Err(format!("id {id} comes twice").into());
        }
        // A NaN is in no order with anything.
        if distance.is_nan() || before.last().is_some_and(|(_, last)| last > distance) {
            return Err(format!("id {id} at {distance} is out of order").into());
        }
    }
    Ok(())
}

/// The distance as the engine defines it, in f64.
pub(crate) fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(x, y)| (f64::from(*x), f64::from(*y)));
    match metric {
        Metric::L2 => pairs().map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt(),
        Metric::Cosine => {
            let norms = pairs().fold((0.0, 0.0), |(a, b), (x, y)| (a + x * x, b + y * y));
            1.0 - pairs().map(|(x, y)| x * y).sum::<f64>() / (norms.0 * norms.1).sqrt()
        }
        Metric::Dot => -pairs().map(|(x, y)| x * y).sum::<f64>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::npy::Writer;

    /// Twelve rows on a line, at 0, 1, 2 .. from the only query; two of them at 9.
    fn line() -> (tempfile::TempDir, Dataset) {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("meta.json"), r#"{"metric": "l2", "name": "line"}"#).unwrap();
        let places = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, -9.0, 10.0];
        for (name, rows) in [("base.npy", &places[..]), ("queries.npy", &places[..1])] {
            let mut writer = Writer::create(&file(name), "<f4", rows.len(), 1).unwrap();
            writer.floats(rows).unwrap();
            writer.finish().unwrap();
        }
        let data = Dataset::open(folder.path(), usize::MAX).unwrap();
        (folder, data)
    }

    fn hits(ids: &[u64]) -> Hits {
        let at = |id: u64| if id == 10 { 9.0 } else { id.min(10) as f32 };
        ids.iter().map(|id| (*id, at(*id))).collect()
    }

    #[test]
    fn right_answers_are_counted_and_wrong_ones_told() {
        let (_folder, data) = line();
        let row = |id: u64| (id != 5).then_some(id as usize).filter(|row| *row < 12);
        let exact: Vec<u64> = vec![0, 1, 2, 3, 4, 6, 7, 8, 9];
        let mut ten = exact.clone();
        ten.push(10);
        let judge = Judge::new(&data, vec![ten.clone()], &row, None).unwrap();
        assert_eq!(judge.right(0, &hits(&ten)).unwrap(), 10);
        let mut near = ten.clone();
        near[9] = 11;
        let mut far = hits(&near);
        far[9].1 = 10.0;
        assert_eq!(judge.right(0, &far).unwrap(), 9);

        let refused = |hits: Hits, words: &str| {
            let told = judge.right(0, &hits).unwrap_err().to_string();
            assert!(told.contains(words), "{told:?} lacks {words:?}");
        };
        refused(hits(&exact), "9 answers though 10 match");
        let bend = |place: usize, hit: (u64, f32)| {
            let mut bent = hits(&ten);
            bent[place] = hit;
            bent
        };
        refused(bend(5, (5, 5.0)), "cannot be an answer");
        refused(bend(9, (99, 10.0)), "cannot be an answer");
        refused(bend(1, (0, 0.5)), "comes twice");
        refused(bend(1, (1, 2.5)), "out of order");
        refused(bend(9, (11, 9.5)), "is at 10, not at 9.5");
        refused(bend(0, (0, f32::NAN)), "out of order");
    }

    #[test]
    fn a_tie_with_the_tenth_is_right() {
        let (_folder, data) = line();
        let row = |id: u64| Some(id as usize);
        let exact: Vec<u64> = (0..10).collect();
        let judge = Judge::new(&data, vec![exact.clone()], &row, None).unwrap();
        let mut other = exact;
        other[9] = 10;
        assert_eq!(judge.right(0, &hits(&other)).unwrap(), 10);
    }

    #[test]
    fn exact_answers_that_are_not_exact_are_told() {
        let (_folder, data) = line();
        let row = |id: u64| Some(id as usize);
        let judge = Judge::new(&data, vec![(1..=10).collect()], &row, None).unwrap();
        let told = judge.right(0, &hits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
        let told = told.unwrap_err().to_string();
        assert!(told.contains("nearer than the exact answer"), "{told}");
        assert!(Judge::new(&data, vec![vec![3, 2, 1]], &row, None).is_err());
        let mask = [false; 12];
        assert!(Judge::new(&data, vec![vec![1]], &row, Some(&mask)).is_err());
    }
}
