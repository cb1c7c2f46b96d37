//! Recall and cost of the index on real embeddings: a measurement, not a test.
//!
//! `TERRANE_DATA` names a folder with `base.npy` and `queries.npy` (binary16, rows of one length)
//! and `gt.npy` (32-bit ids of the exact nearest by cosine); for filters `mask_NAME.npy` (a byte
//! for each row) and `gt_filter_NAME.npy`. `TERRANE_REPEATS` says how often each query is timed
//! (5); the least time of a query counts, and of those the median and the 99th percentile are
//! shown.
//!
//! Two hosts: `MemoryStore`, whose tree of keys a search descends for each posting, and one that
//! finds a posting by its number, as an engine does that keeps page ids.

// A measurement needs a clock, and ends on the spot where its files are not what it expects.
#![allow(clippy::disallowed_methods, clippy::expect_used)]

mod npy;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use npy::{halves, ids};
use terrane_vector::{
    Admit, Calibration, CalibrationStep, CentroidSet, IndexError, IndexParams, Kernels, Key,
    MemoryStore, Metric, NewRow, PostingId, PostingStore, RowId, Scratch, SearchParams, Tuning,
    VectorIndex, VisitRecord, VisitRow, Vver, Write,
};

/// The filters of the data set; a row's filter column is a byte with a bit for each.
const FILTERS: [&str; 5] = ["size50", "sec5", "mod5", "sec05", "mod05"];

/// The records of a posting, one after the other, and where each lies.
#[derive(Default, Clone)]
struct Page {
    keys: Vec<(Key, Range<usize>)>,
    bytes: Vec<u8>,
    extra: Vec<Vec<u8>>,
}

/// A host that finds postings and rows by number; with a bit of the filter column, or none.
struct Numbered<'b> {
    set: Arc<CentroidSet>,
    pages: Vec<Page>,
    rows: &'b [f32],
    dim: usize,
    /// The filter columns of rows, and the bit that is asked for.
    columns: &'b [[u8; 1]],
    filter: Option<u8>,
}

impl<'b> Numbered<'b> {
    fn new(
        set: Arc<CentroidSet>,
        mut writes: Vec<Write>,
        rows: &'b [f32],
        dim: usize,
        columns: &'b [[u8; 1]],
    ) -> Self {
        let mut pages = vec![Page::default(); set.len() + 1];
        writes.sort_unstable_by_key(|write| write.key);
        for write in writes {
            let value = write.value.expect("a new index deletes nothing");
            match write.key {
                Key::Head(id) | Key::Block(id, _) | Key::Columns(id, _) => {
                    let page = &mut pages[id.0 as usize];
                    let start = page.bytes.len();
                    page.bytes.extend_from_slice(&value);
                    page.keys.push((write.key, start..page.bytes.len()));
                }
                Key::Extra(id, group) => {
                    let extra = &mut pages[id.0 as usize].extra;
                    extra.resize(group as usize + 1, Vec::new());
                    extra[group as usize] = value;
                }
                _ => {}
            }
        }
        let filter = None;
        Self {
            set,
            pages,
            rows,
            dim,
            columns,
            filter,
        }
    }

    fn accepts(&self, row: RowId) -> bool {
        let bits = self.columns[row.0 as usize][0];
        self.filter.is_none_or(|filter| bits >> filter & 1 == 1)
    }
}

impl PostingStore for Numbered<'_> {
    type Error = IndexError;

    fn centroids(&self) -> Arc<CentroidSet> {
        Arc::clone(&self.set)
    }

    fn snapshot(&self) -> u64 {
        u64::MAX
    }

    fn filtered(&self) -> bool {
        self.filter.is_some()
    }

    fn admits(&self, columns: Option<&[u8]>) -> Admit {
        match (columns, self.filter) {
            (Some([bits]), Some(filter)) if bits >> filter & 1 == 1 => Admit::Yes,
            (Some(_), Some(_)) => Admit::No,
            _ => Admit::AskRow,
        }
    }

    fn posting(&self, id: PostingId, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        let page = &self.pages[id.0 as usize];
        for (key, place) in &page.keys {
            visit(*key, &page.bytes[place.clone()])?;
        }
        Ok(())
    }

    fn extra(
        &self,
        id: PostingId,
        group: u32,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), IndexError> {
        if let Some(value) = self.pages[id.0 as usize].extra.get(group as usize) {
            visit(Key::Extra(id, group), value)?;
        }
        Ok(())
    }

    fn locator(&self, _: RowId, _: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        Ok(())
    }

    fn rows(&self, rows: &[RowId], visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        for &row in rows {
            if self.accepts(row) {
                let start = row.0 as usize * self.dim;
                visit(row, Vver(0), &self.rows[start..start + self.dim])?;
            }
        }
        Ok(())
    }

    fn row_count(&self) -> Result<u64, IndexError> {
        Ok(self.columns.len() as u64)
    }

    fn all_rows(&self, visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        for (row, vector) in (0..).map(RowId).zip(self.rows.chunks_exact(self.dim)) {
            if self.accepts(row) {
                visit(row, Vver(0), vector)?;
            }
        }
        Ok(())
    }
}

/// A byte a row, with a bit for each filter that lets the row through.
fn filter_columns(folder: &Path, count: usize) -> Vec<[u8; 1]> {
    let mut columns = vec![[0]; count];
    for (bit, name) in FILTERS.iter().enumerate() {
        let mask = std::fs::read(folder.join(format!("mask_{name}.npy"))).unwrap_or_default();
        let mask = &mask[mask.len().saturating_sub(count)..];
        for (column, &there) in columns.iter_mut().zip(mask) {
            column[0] |= u8::from(there != 0) << bit;
        }
    }
    columns
}

fn main() {
    let Some(folder) = std::env::var_os("TERRANE_DATA") else {
        println!("TERRANE_DATA names no folder: nothing to measure");
        return;
    };
    let folder = Path::new(&folder);
    let (base, dim) = halves(&folder.join("base.npy"));
    let (queries, _) = halves(&folder.join("queries.npy"));
    let truth = ids(&folder.join("gt.npy"));
    let count = base.len() / dim;
    let columns = filter_columns(folder, count);
    println!(
        "kernels {}, {count} rows of {dim}",
        Kernels::detect().tier()
    );
    for extra_bits in [true, false] {
        let params = IndexParams {
            extra_bits,
            columns: true,
            ..IndexParams::new(Metric::Cosine, dim, 7)
        };
        let index = VectorIndex::new(params).expect("parameters in range");
        let start = Instant::now();
        let rows = || (0..).map(RowId).zip(base.chunks_exact(dim));
        let new = rows().zip(&columns).map(|((id, vector), column)| NewRow {
            id,
            vector,
            key: None,
            columns: Some(column),
        });
        let writes = index.build(1, new).expect("acceptable rows");
        let built = start.elapsed();
        let mut memory = MemoryStore::new(CentroidSet::empty(Metric::Cosine, dim));
        memory
            .apply(1, writes.clone())
            .expect("records of this index");
        for (row, vector) in rows() {
            memory.put_row(1, row, Some((Vver(0), vector.to_vec())));
        }
        let mut numbered = Numbered::new(memory.centroids(), writes, &base, dim, &columns);
        println!(
            "extra bits {extra_bits}: built in {built:.1?}, {} bytes of records a row, {} postings",
            memory.record_bytes() / count,
            memory.centroids().len(),
        );
        let tuning = calibrated(&index, &numbered);
        println!(
            "   host    | target | recall@10  hits | postings codes asked second rows all | \
             p50 us p99 us"
        );
        for target in [0.8, 0.9, 0.95, 0.99, 1.0] {
            let params = tuning.params(10, target).expect("a recall");
            let label = format!("numbered | {target:6}");
            measure(&label, &index, &numbered, &params, &queries, &truth);
        }
        let params = tuning.params(10, 0.95).expect("a recall");
        let label = "memory   |   0.95";
        measure(label, &index, &memory, &params, &queries, &truth);
        for (bit, name) in FILTERS.iter().enumerate() {
            let path = folder.join(format!("gt_filter_{name}.npy"));
            if path.exists() {
                numbered.filter = Some(bit as u8);
                let label = format!("{name:8} |   0.95");
                measure(&label, &index, &numbered, &params, &queries, &ids(&path));
            }
        }
    }
}

/// A calibration from beginning to end.
fn calibrated(index: &VectorIndex, store: &Numbered<'_>) -> Tuning {
    let mut calibration = Calibration::new(10, 1).expect("a k in range");
    let start = Instant::now();
    for steps in 1.. {
        match calibration.step(index, store).expect("a step") {
            CalibrationStep::Working => {}
            CalibrationStep::Done(tuning) => {
                println!("calibrated in {:.1?}, {steps} steps", start.elapsed());
                return tuning;
            }
            CalibrationStep::Nothing => break,
        }
    }
    panic!("rows enough for an index");
}

/// A line: recall, costs and times of all queries.
fn measure<S: PostingStore<Error = IndexError>>(
    label: &str,
    index: &VectorIndex,
    store: &S,
    params: &SearchParams,
    queries: &[f32],
    (truth, width): &(Vec<u64>, usize),
) {
    let repeats = std::env::var("TERRANE_REPEATS").ok();
    let repeats = repeats.and_then(|text| text.parse().ok()).unwrap_or(5);
    let (mut right, mut hits, mut all, mut sums) = (0, 0, 0, [0; 6]);
    let mut scratch = Scratch::default();
    let mut times = Vec::new();
    for (query, truth) in queries
        .chunks_exact(index.dim())
        .zip(truth.chunks_exact(*width))
    {
        let truth = &truth[..params.k];
        let mut search = || {
            let start = Instant::now();
            let found = index.search_in(&mut scratch, store, query, params);
            (found.expect("a search"), start.elapsed().as_nanos())
        };
        let (found, first) = search();
        times.push((1..repeats).fold(first, |least, _| search().1.min(least)));
        right += found
            .hits
            .iter()
            .filter(|hit| truth.contains(&hit.id.0))
            .count();
        hits += found.hits.len();
        all += truth.len();
        let costs = [
            found.postings,
            found.scanned,
            found.asked,
            found.second_stage,
            found.rows,
            usize::from(found.all_matches) * 100,
        ];
        for (sum, cost) in sums.iter_mut().zip(costs) {
            *sum += cost;
        }
    }
    times.sort_unstable();
    let count = times.len();
    let [postings, codes, asked, second, rows, whole] = sums.map(|sum| sum / count);
    println!(
        " {label} | {:9.4} {hits:5} | {postings:8} {codes:5} {asked:5} {second:6} {rows:4} \
         {whole:2}% | {:6.1} {:6.1}",
        right as f64 / all as f64,
        times[count / 2] as f64 / 1000.0,
        times[count * 99 / 100] as f64 / 1000.0,
    );
}
