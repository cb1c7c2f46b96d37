//! Cells of centres: which part of a large set of postings a query has to look at.
//!
//! ```text
//! query -> cells by distance -> codes of the centres in the nearest cells -> exact comparison
//! ```
//!
//! One code costs about a nanosecond, so up to [`FLAT_MAX`] centres are one cell and every query
//! looks at all of them. Above that, k-means puts about a hundred centres to a cell, cells are
//! compared exactly and opened nearest first: as many as hold [`OPEN_MIN`] centres to begin with,
//! and more as the search asks for more postings, to the last (V3). Codes are made against the
//! cell's centre. Cells are derived data: nothing of them is stored.
//!
//! A tree of cells is chosen over a graph (HNSW, Vamana) because a set of centres is replaced as a
//! whole at each epoch, and flat arrays cost 68 bytes a centre at 384 dimensions where links cost
//! 256 more.
//!
//! Invariant: O1 every member is in exactly one cell, and all cells are opened before an order
//! ends.

use crate::cluster::{Rows, split_down};
use crate::code::encode_signs;
use crate::code::half::f16_finite_to;
use crate::kernel::Kernels;
use crate::metric::Metric;
use crate::record::{BlockBuilder, RowId, TailEntry, Vver};

/// Centres that one cell may hold when it is the only one.
pub(crate) const FLAT_MAX: usize = 20_000;
/// Centres of a cell at most when there are several, at clustering.
const FANOUT: usize = 128;
/// Rounds in which a centre may move to a cell near its own.
const ROUNDS: usize = 3;
/// Cells that a centre may move to, its own among them.
const NEAR: usize = 16;
/// Centres whose codes are looked at before the first is compared exactly.
pub(crate) const OPEN_MIN: usize = 8_192;
/// For each centre compared exactly so many codes have been looked at.
pub(crate) const OPEN_TIMES: usize = 16;

/// Centres that lie near each other.
#[derive(Debug)]
pub(crate) struct Cell {
    /// What its members are coded against: their mean.
    pub(crate) centre: Vec<f32>,
    /// The mean squared distance of its members from that.
    pub(crate) spread: f32,
    /// Positions in the set.
    pub(crate) members: Vec<u32>,
    /// A sealed block for every 32 members, in their order.
    pub(crate) blocks: Vec<Vec<u8>>,
}

/// Which members each cell has, and how many there were when cells were last made from scratch.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) cells: Vec<Cell>,
    clustered: usize,
}

impl Cells {
    /// Cells of these centres, one after the other in binary16. `before` says which cell of `old` a
    /// position was in: cells are kept until a quarter more centres have come.
    /// O(centres x dimension x log(cells)) from scratch.
    pub(crate) fn new(
        metric: Metric,
        dim: usize,
        centres: &[u16],
        flat_max: usize,
        old: &Self,
        before: &[Option<usize>],
    ) -> Self {
        let elements: Vec<f32> = centres.iter().map(|&x| f16_finite_to(x)).collect();
        let rows = Rows {
            dim,
            elements: &elements,
        };
        let count = rows.len();
        let kept = old.cells.len() > 1 && count <= old.clustered + old.clustered / 4;
        let (lists, clustered) = if count <= flat_max {
            (vec![(0..count).collect()], 0)
        } else if kept {
            (old.assign(rows, before), old.clustered)
        } else {
            let all = (0..count).collect();
            let mut lists = split_down(metric, rows, all, FANOUT, count as u64);
            for _ in 0..ROUNDS {
                lists = mended(rows, &lists);
            }
            (lists, count)
        };
        let whole = lists.into_iter().filter(|list| !list.is_empty());
        let cells = whole.map(|list| Cell::new(metric, rows, &list)).collect();
        Self { cells, clustered }
    }

    /// Members by the cell they were in, new ones by the nearest.
    fn assign(&self, rows: Rows<'_>, before: &[Option<usize>]) -> Vec<Vec<usize>> {
        let mut lists = vec![Vec::new(); self.cells.len()];
        for (member, before) in before.iter().enumerate() {
            let nearest = || {
                let far = |cell: &Cell| crate::wide::l2_squared(&cell.centre, rows.row(member));
                let all = self.cells.iter().map(far).enumerate();
                all.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
            };
            if let Some(cell) = before.or_else(nearest) {
                lists[cell].push(member);
            }
        }
        lists
    }

    /// Bytes that the cells take.
    pub(crate) fn memory_bytes(&self) -> usize {
        let cell = |cell: &Cell| {
            let blocks: usize = cell.blocks.iter().map(|block| block.len() + 24).sum();
            blocks + 4 * (cell.centre.len() + cell.members.len()) + size_of::<Cell>()
        };
        self.cells.iter().map(cell).sum()
    }
}

/// Lists in which each member is where, of the lists near its own, the mean is nearest: what
/// halving cut apart comes together again. O(lists^2 x dimension + members x 16 x dimension).
fn mended(rows: Rows<'_>, lists: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let kernels = Kernels::detect();
    let means: Vec<f32> = lists.iter().flat_map(|list| rows.mean(list)).collect();
    let mean = |at: usize| &means[at * rows.dim..][..rows.dim];
    let mut far = vec![0.0; lists.len()];
    let mut mended = vec![Vec::new(); lists.len()];
    let mut one = [0.0];
    for (own, list) in lists.iter().enumerate() {
        kernels.l2_squared(mean(own), &means, &mut far);
        let mut near: Vec<usize> = (0..lists.len()).collect();
        let most = NEAR.min(near.len());
        near.select_nth_unstable_by(most - 1, |&a, &b| far[a].total_cmp(&far[b]).then(a.cmp(&b)));
        near.truncate(most);
        for &member in list {
            let mut best = (f32::INFINITY, own);
            for &at in &near {
                kernels.l2_squared(mean(at), rows.row(member), &mut one);
                if one[0] < best.0 {
                    best = (one[0], at);
                }
            }
            mended[best.1].push(member);
        }
    }
    for list in &mut mended {
        list.sort_unstable();
    }
    mended.retain(|list| !list.is_empty());
    mended
}

impl Cell {
    fn new(metric: Metric, rows: Rows<'_>, members: &[usize]) -> Self {
        let centre = rows.mean(members);
        let mut blocks = Vec::new();
        let mut square = 0.0;
        for some in members.chunks(crate::limits::BLOCK_SLOTS) {
            let mut block = BlockBuilder::new(rows.dim, 0);
            for &member in some {
                let row = rows.row(member);
                square += crate::wide::l2_squared(row, &centre);
                let (code, factors) = encode_signs(metric, row, &centre);
                let entry = TailEntry {
                    factors,
                    code: &code,
                    extra: None,
                    columns: None,
                };
                block.push(RowId(member as u64), Vver(0), &entry);
            }
            blocks.push(block.finish().0);
        }
        Self {
            centre,
            spread: (square / members.len().max(1) as f64) as f32,
            members: members.iter().map(|&member| member as u32).collect(),
            blocks,
        }
    }
}
