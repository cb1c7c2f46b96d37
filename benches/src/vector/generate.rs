//! Clusters for the vector suite, in the layout of its folders: as many vectors as wanted, the same
//! to the last bit on every machine.
//!
//! ```text
//! cluster r has a share ~ r^-0.8 of the rows, a centre, and 20 to 40 directions of its own
//! row = centre + directions * normal + a little normal noise, rounded to f16
//! ```
//!
//! G1: a row depends on the seed and its number alone, so neither threads nor order matter.
//! G2: only additions, multiplications, divisions and square roots of IEEE 754 are used, which are
//! the same everywhere; logarithms and powers are not.
//! G3: the exact answers are of the rounded rows, as a reader of the files sees them.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use terrane_vector::{ExactScan, Metric, Prepared};

use super::half::{narrow, widen};
use super::load::shuffled;
use super::npy::Writer;
use crate::Failure;
use crate::rows::{Random, scatter};

/// Options of the generator.
#[derive(Args, Clone)]
pub(crate) struct GenerateArgs {
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    #[arg(long, default_value_t = 1000)]
    queries: usize,
    #[arg(long, default_value_t = 128)]
    dim: usize,
    #[arg(long, default_value_t = 2000)]
    clusters: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder to write, made if absent.
    #[arg(long)]
    out: PathBuf,
    /// Threads; what is written does not depend on them.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Exact answers for each query.
const ANSWERS: usize = 100;
/// Rows made and measured at once: with 128 dimensions they stay in the second-level cache.
const BLOCK: usize = 4096;
/// Directions of a cluster: 20 to 40, fewer if the space has not so many.
const DIRECTIONS: std::ops::RangeInclusive<usize> = 20..=40;
/// Spread of the centres in each dimension, beside 1 along each direction: neighbouring clusters
/// overlap, so that the nearest rows are not all in one list.
const CENTRE_SPREAD: f32 = 0.5;
/// Spread in all dimensions around the subspace of the cluster.
const NOISE: f32 = 0.05;

/// A number near to normal: the sum of twelve even ones, which needs no logarithm (G2).
fn normal(random: &mut Random) -> f32 {
    const LANES: u64 = 0x0000_ffff_0000_ffff;
    let mut sum = 0;
    for _ in 0..3 {
        let word = random.next();
        let pairs = (word & LANES) + ((word >> 16) & LANES);
        sum += (pairs & 0xffff_ffff) + (pairs >> 32);
    }
    // Twelve numbers of 0 to 65,535; exact in f32, which has 24 bits.
    (sum as f32 - 12.0 * 32_767.5) / 65_536.0
}

/// r^-0.8 by Newton's fifth root (G2).
fn weight(rank: usize) -> f64 {
    let rank = rank as f64;
    let mut root = rank.sqrt();
    for _ in 0..64 {
        let fourth = root * root * root * root;
        root -= (root * fourth - rank) / (5.0 * fourth);
    }
    1.0 / (root * root * root * root)
}

struct Cluster {
    centre: Vec<f32>,
    /// Of length one and at right angles to each other.
    directions: Vec<Vec<f32>>,
}

/// Everything that a row is made of.
struct Mixture {
    dim: usize,
    seed: u64,
    clusters: Vec<Cluster>,
    /// Cluster of each row.
    of_row: Vec<u32>,
}

impl Mixture {
    fn new(args: &GenerateArgs) -> Mixture {
        let clusters = 0..args.clusters as u64;
        Mixture {
            dim: args.dim,
            seed: args.seed,
            clusters: clusters.map(|n| cluster(args.dim, args.seed, n)).collect(),
            of_row: spread(args.rows, args.clusters, args.seed),
        }
    }

    /// A vector of a cluster.
    fn draw(&self, cluster: u32, random: &mut Random, out: &mut [f32]) {
        let Cluster { centre, directions } = &self.clusters[cluster as usize];
        out.copy_from_slice(centre);
        for direction in directions {
            let along = normal(random);
            for (element, step) in out.iter_mut().zip(direction) {
                *element += along * step;
            }
        }
        for element in out {
            *element = widen(narrow(*element + NOISE * normal(random)));
        }
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        let mut random = stream(self.seed, 2, row as u64);
        self.draw(self.of_row[row], &mut random, out);
    }

    /// A query: from the clusters as often as the rows are, and none of the rows.
    fn query(&self, number: usize) -> Vec<f32> {
        let mut random = stream(self.seed, 3, number as u64);
        let like = random.below(self.of_row.len() as u64);
        let mut out = vec![0.0; self.dim];
        self.draw(self.of_row[like as usize], &mut random, &mut out);
        out
    }
}

/// Random numbers of one thing of one kind (G1).
fn stream(seed: u64, kind: u64, number: u64) -> Random {
    Random::new(scatter(scatter(seed) ^ kind).wrapping_add(number))
}

fn cluster(dim: usize, seed: u64, number: u64) -> Cluster {
    let mut random = stream(seed, 1, number);
    let centre = (0..dim).map(|_| CENTRE_SPREAD * normal(&mut random));
    let centre = centre.collect();
    let (least, most) = (*DIRECTIONS.start(), *DIRECTIONS.end());
    let wanted = least + random.below((most - least + 1) as u64) as usize;
    let mut directions: Vec<Vec<f32>> = Vec::new();
    for _ in 0..wanted.min(dim) {
        let mut next: Vec<f32> = (0..dim).map(|_| normal(&mut random)).collect();
        for before in &directions {
            let along: f32 = next.iter().zip(before).map(|(a, b)| a * b).sum();
            next.iter_mut()
                .zip(before)
                .for_each(|(a, b)| *a -= along * b);
        }
        let length = next.iter().map(|x| x * x).sum::<f32>().sqrt();
        next.iter_mut().for_each(|x| *x /= length);
        directions.push(next);
    }
    Cluster { centre, directions }
}

/// The cluster of each row: sizes by rank, then shuffled.
fn spread(rows: usize, clusters: usize, seed: u64) -> Vec<u32> {
    let weights: Vec<f64> = (1..=clusters).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    let mut sorted = Vec::with_capacity(rows);
    for (cluster, weight) in weights.iter().enumerate() {
        let size = (rows as f64 * weight / sum) as usize;
        sorted.extend(std::iter::repeat_n(cluster as u32, size));
    }
    // What was rounded away goes to the largest, one each.
    let left = rows - sorted.len();
    sorted.extend((0..left).map(|n| (n % clusters) as u32));
    let order = shuffled(rows, scatter(seed));
    order.into_iter().map(|at| sorted[at as usize]).collect()
}

/// Runs `body` over equal parts of `all`, each on a thread of its own, with the index of its first.
fn in_parts<T: Send>(
    threads: usize,
    all: &mut [T],
    body: impl Fn(usize, &mut [T]) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let size = all.len().div_ceil(threads.max(1)).max(1);
    let body = &body;
    std::thread::scope(|scope| {
        let parts = all.chunks_mut(size).enumerate();
        let running: Vec<_> = parts
            .map(|(n, part)| scope.spawn(move || body(n * size, part)))
            .collect();
        for thread in running {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

/// Writes the folder.
pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    let (rows, dim) = (args.rows, args.dim);
    if rows == 0 || dim == 0 || args.clusters == 0 || args.queries == 0 {
        return Err("rows, queries, clusters and dimension are at least 1".into());
    }
    u32::try_from(rows)?;
    fs::create_dir_all(&args.out)?;
    let mixture = Mixture::new(args);
    let queries: Vec<Vec<f32>> = (0..args.queries).map(|n| mixture.query(n)).collect();
    let mut writer = Writer::create(&args.out.join("queries.npy"), "<f2", args.queries, dim)?;
    for query in &queries {
        writer.halves(query)?;
    }
    writer.finish()?;
    let answers = write_rows(args, &mixture, &queries)?;
    let columns = ANSWERS.min(rows);
    let mut writer = Writer::create(&args.out.join("gt.npy"), "<i4", args.queries, columns)?;
    for ids in &answers {
        writer.ids(ids)?;
    }
    writer.finish()?;
    write_meta(args)
}

/// Writes the rows block by block, and finds the nearest of them to each query on the way.
fn write_rows(
    args: &GenerateArgs,
    mixture: &Mixture,
    queries: &[Vec<f32>],
) -> Result<Vec<Vec<u32>>, Failure> {
    let dim = args.dim;
    let prepared = queries.iter().map(|query| Prepared::new(Metric::L2, query));
    let prepared: Vec<Prepared> = prepared.collect::<Result<_, _>>()?;
    let scans = prepared.iter().map(|query| ExactScan::new(query, ANSWERS));
    let mut scans: Vec<ExactScan<'_, u32>> = scans.collect::<Result<_, _>>()?;
    let mut writer = Writer::create(&args.out.join("base.npy"), "<f2", args.rows, dim)?;
    let mut block = vec![vec![0.0; dim]; BLOCK.min(args.rows)];
    for first in (0..args.rows).step_by(BLOCK) {
        let many = BLOCK.min(args.rows - first);
        let block = &mut block[..many];
        in_parts(args.threads, block, |at, part| {
            for (n, row) in part.iter_mut().enumerate() {
                mixture.row(first + at + n, row);
            }
            Ok(())
        })?;
        for row in &*block {
            writer.halves(row)?;
        }
        let block = &*block;
        in_parts(args.threads, &mut scans, |_, part| {
            for scan in part {
                for (n, row) in block.iter().enumerate() {
                    scan.offer((first + n) as u32, row)?;
                }
            }
            Ok(())
        })?;
        if (first / BLOCK).is_multiple_of(32) {
            eprintln!("[{first}/{} rows]", args.rows);
        }
    }
    writer.finish()?;
    let ids = |scan: ExactScan<'_, u32>| -> Result<Vec<u32>, Failure> {
        Ok(scan.finish()?.iter().map(|found| found.id).collect())
    };
    scans.into_iter().map(ids).collect()
}

fn write_meta(args: &GenerateArgs) -> Result<(), Failure> {
    let meta = json!({
        "name": format!("clusters-{}-{}", args.rows, args.dim),
        "n": args.rows, "queries": args.queries, "dim": args.dim, "metric": "l2",
        "seed": args.seed, "clusters": args.clusters,
        "intrinsic_dimension": [DIRECTIONS.start(), DIRECTIONS.end()],
        "sizes": "rank^-0.8", "centre_spread": CENTRE_SPREAD.to_string(),
        "noise": NOISE.to_string(),
    });
    write(&args.out.join("meta.json"), &format!("{meta:#}\n"))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::answers::Judge;
    use crate::vector::dataset::Dataset;
    use crate::vector::load::wide;

    fn small(out: &Path, threads: usize) -> GenerateArgs {
        GenerateArgs {
            rows: 5000,
            queries: 20,
            dim: 16,
            clusters: 30,
            seed: 1,
            out: out.to_path_buf(),
            threads,
        }
    }

    /// FNV-1a over the arrays.
    fn hash(folder: &Path) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for name in ["base.npy", "queries.npy", "gt.npy"] {
            for byte in fs::read(folder.join(name)).unwrap() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash
    }

    #[test]
    fn the_bytes_are_those_of_the_seed_on_any_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        for threads in [1, 3] {
            let out = folder.path().join(threads.to_string());
            run(&small(&out, threads)).unwrap();
            let found = hash(&out);
            assert_eq!(
                found, 0x2d24_0b49_8ecf_ab10,
                "{found:#x} on {threads} threads"
            );
        }
    }

    #[test]
    fn the_answers_are_the_nearest_rows_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        run(&small(folder.path(), 2)).unwrap();
        let data = Dataset::open(folder.path(), 5).unwrap();
        let exact = wide(&data.answers("gt.npy").unwrap().unwrap());
        let row_of = |id: u64| Some(id as usize);
        let judge = Judge::new(&data, exact, &row_of, None).unwrap();
        let plain = |query: &[f32]| {
            let mut all: Vec<(u64, f32)> = (0..data.rows())
                .map(|row| {
                    let vector = data.vector(row).unwrap();
                    let far = crate::vector::answers::distance(Metric::L2, query, &vector);
                    (row as u64, far as f32)
                })
                .collect();
            all.sort_by(|a, b| a.1.total_cmp(&b.1));
            all.truncate(10);
            Ok(all)
        };
        assert_eq!(judge.recall(plain).unwrap(), 1.0);
    }

    #[test]
    fn normals_and_sizes_are_as_told() {
        let mut random = Random::new(1);
        let drawn: Vec<f64> = (0..100_000)
            .map(|_| f64::from(normal(&mut random)))
            .collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
        assert!(
            mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02,
            "{mean} {variance}"
        );
        for rank in [1_usize, 2, 100, 2000] {
            let expected = (rank as f64).powf(-0.8);
            assert!((weight(rank) / expected - 1.0).abs() < 1e-12, "{rank}");
        }
        let of_row = spread(10_000, 100, 1);
        let size = |cluster| of_row.iter().filter(|c| **c == cluster).count() as f64;
        assert_eq!(of_row.len(), 10_000);
        let ratio = size(0) / size(31);
        assert!(
            (ratio / 16.0 - 1.0).abs() < 0.05,
            "32^0.8 = 16, found {ratio}"
        );
    }
}
