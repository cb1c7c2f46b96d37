//! Kernels: dot products, squared distances and squared norms of `f32` rows, a batch at a time; of
//! binary16 rows one by one (`halves.rs`); and those over codes (`codes/`).
//!
//! One query goes against many rows that lie one after the other. The processor is looked at
//! once, when a [`Kernels`] table is made; a batch then costs one indirect call. Above this stand
//! the metrics (`prepared.rs`), which turn sums into distances and watch over overflow.
//!
//! Invariants:
//! * K1. Every tier gives the same bits. The sum is *defined*: element `i` belongs to lane
//!   `i mod 64`; each lane starts at +0 and adds its terms in rising `i`, product rounded, then
//!   sum rounded (no fused multiply-add); then lane `j` adds lane `j + w` for `w` = 32, 16, 8, 4,
//!   2, 1. So a search returns the same hits, ties included, on every machine, a replica agrees
//!   with its leader, and a simulation seed replays anywhere.
//! * K2. A table of a tier exists only where the processor has that tier.
//! * K3. A lane is never -0 (it starts at +0, and in round-to-nearest +0 plus -0, or x plus -x, is
//!   +0), so the +0 that pads the last, shorter chunk of a row changes no bit.
//!
//! With n terms the relative error against the sum of the terms' magnitudes is at most
//! `(ceil(n / 64) + 9) * 2^-24` (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed.,
//! section 4.2: the depth of the summation tree counts, plus roundings of the terms), as long as
//! nothing overflows or underflows. Fused multiply-add would buy one rounding and no time: a scan
//! waits for memory, and the loads of two operands fill the ports that it would save.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::OnceLock;

use crate::limits::LANES;
use crate::store::IndexError;
pub(crate) use codes::{Bounding, FACTOR_BYTES};

/// Writes a tier's three batch functions around its `zero`, `dot_step`, `l2_step` and `fold`.
///
/// The loops are part of K1 and therefore stand in one place. The query's last chunk is padded
/// once for the batch; a row's only if the dimension is no multiple of 64.
macro_rules! batch_kernels {
    ($(#[$feature:meta])*) => {
        /// `out[r]` = dot product of the query with row `r`.
        $(#[$feature])*
        pub(super) fn dot(query: &[f32], rows: &[f32], out: &mut [f32]) {
            let (query_full, query_rest) = query.as_chunks::<LANES>();
            let query_rest = padded(query_rest);
            for (row, out) in rows.chunks_exact(query.len()).zip(out) {
                let (full, rest) = row.as_chunks::<LANES>();
                let mut lanes = zero();
                for (a, b) in query_full.iter().zip(full) {
                    lanes = dot_step(lanes, a, b);
                }
                if !rest.is_empty() {
                    lanes = dot_step(lanes, &query_rest, &padded(rest));
                }
                *out = fold(lanes);
            }
        }

        /// `out[r]` = squared Euclidean distance of the query to row `r`.
        $(#[$feature])*
        pub(super) fn l2(query: &[f32], rows: &[f32], out: &mut [f32]) {
            let (query_full, query_rest) = query.as_chunks::<LANES>();
            let query_rest = padded(query_rest);
            for (row, out) in rows.chunks_exact(query.len()).zip(out) {
                let (full, rest) = row.as_chunks::<LANES>();
                let mut lanes = zero();
                for (a, b) in query_full.iter().zip(full) {
                    lanes = l2_step(lanes, a, b);
                }
                if !rest.is_empty() {
                    lanes = l2_step(lanes, &query_rest, &padded(rest));
                }
                *out = fold(lanes);
            }
        }

        /// `out[r]` = sum of squares of row `r`.
        $(#[$feature])*
        pub(super) fn norm(dim: usize, rows: &[f32], out: &mut [f32]) {
            for (row, out) in rows.chunks_exact(dim).zip(out) {
                let (full, rest) = row.as_chunks::<LANES>();
                let mut lanes = zero();
                for chunk in full {
                    lanes = dot_step(lanes, chunk, chunk);
                }
                if !rest.is_empty() {
                    let rest = padded(rest);
                    lanes = dot_step(lanes, &rest, &rest);
                }
                *out = fold(lanes);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod codes;
mod halves;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

/// The end of a row, filled with +0 to a whole chunk (K3).
#[inline]
fn padded(rest: &[f32]) -> [f32; LANES] {
    debug_assert!(rest.len() < LANES);
    let mut chunk = [0.0; LANES];
    chunk[..rest.len()].copy_from_slice(rest);
    chunk
}

/// K1's folding from `N` lanes on: a tier folds as far as whole registers go, then calls this.
#[inline]
fn fold_rest<const N: usize>(mut lanes: [f32; N]) -> f32 {
    const { assert!(N.is_power_of_two()) };
    let mut width = N / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// An instruction set that the kernels are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Plain Rust: the definition of the sums, and the fallback.
    Scalar,
    /// 128-bit vectors of aarch64.
    Neon,
    /// 256-bit vectors of x86-64.
    Avx2,
    /// 512-bit vectors of x86-64.
    Avx512,
}

impl Tier {
    /// Every tier, the widest last.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

/// A query against rows. Unsafe to call only because a function compiled for an instruction set
/// must not run on a processor that lacks it (K2); the bodies check every slice.
type AgainstRows = unsafe fn(&[f32], &[f32], &mut [f32]);

/// Rows by themselves; the first argument is the dimension. Unsafe as [`AgainstRows`].
type OfRows = unsafe fn(usize, &[f32], &mut [f32]);

/// The kernels of one tier: a table to be chosen once and called once per batch.
///
/// All tiers give the same bits, so the choice is one of speed alone.
#[derive(Clone, Copy)]
pub struct Kernels {
    tier: Tier,
    dot: AgainstRows,
    l2: AgainstRows,
    norm: OfRows,
    halves: halves::HalfTable,
    codes: codes::CodeTable,
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels")
            .field("tier", &self.tier)
            .finish_non_exhaustive()
    }
}

impl Kernels {
    /// The widest tier that this processor has; where the environment variable
    /// `TERRANE_KERNELS` names one that it has (`scalar`, `neon`, `avx2`, `avx512`), that one.
    /// Looked at once in the life of a process. For tests of what stands above the kernels.
    /// Another name changes nothing here, but no [`crate::VectorIndex`] is made then
    /// ([`Kernels::asked`]).
    ///
    /// ```
    /// use terrane_vector::Kernels;
    ///
    /// let kernels = Kernels::detect();
    /// let mut dots = [0.0; 2];
    /// kernels.dot(&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], &mut dots);
    /// assert_eq!(dots, [11.0, 17.0]);
    /// ```
    #[must_use]
    pub fn detect() -> Self {
        static CHOSEN: OnceLock<Kernels> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let widest = || Tier::ALL.into_iter().rev().find_map(Self::forced);
            let asked = Self::asked().ok().flatten();
            asked.or_else(widest).unwrap_or(Self::scalar())
        })
    }

    /// The kernels that the environment variable `TERRANE_KERNELS` names; `None` where it is not
    /// set or empty.
    ///
    /// # Errors
    /// [`IndexError::Parameter`] for a name that no tier has, and for a tier that this processor
    /// lacks.
    pub fn asked() -> Result<Option<Self>, IndexError> {
        let name = std::env::var_os("TERRANE_KERNELS").unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let named = Tier::ALL
            .into_iter()
            .find(|tier| *tier.to_string() == *name);
        let kernels = named.and_then(Self::forced);
        kernels.map(Some).ok_or(IndexError::Parameter {
            name: "TERRANE_KERNELS",
            expected: "scalar, neon, avx2 or avx512, and a tier of this processor",
        })
    }

    /// The kernels of `tier`, or `None` where the processor lacks it (K2). For tests and benches.
    #[must_use]
    pub fn forced(tier: Tier) -> Option<Self> {
        match tier {
            Tier::Scalar => Some(Self::scalar()),
            #[cfg(target_arch = "aarch64")]
            Tier::Neon if std::arch::is_aarch64_feature_detected!("neon") => Some(Self {
                tier,
                dot: neon::dot,
                l2: neon::l2,
                norm: neon::norm,
                halves: halves::neon::TABLE,
                codes: codes::CodeTable {
                    scan: codes::neon::scan,
                    bits: codes::neon::bits,
                    extra: codes::neon::extra,
                    hadamard: codes::neon::hadamard,
                    bounds: codes::neon::bounds,
                },
            }),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 if has_avx2() => Some(Self {
                tier,
                dot: avx2::dot,
                l2: avx2::l2,
                norm: avx2::norm,
                halves: halves::avx2::TABLE,
                codes: codes::CodeTable {
                    scan: codes::avx2::scan,
                    bits: codes::avx2::bits,
                    extra: codes::avx2::extra,
                    hadamard: codes::avx2::hadamard,
                    bounds: codes::avx2::bounds,
                },
            }),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 if has_avx2() && is_x86_feature_detected!("avx512f") => Some(Self {
                tier,
                dot: avx512::dot,
                l2: avx512::l2,
                norm: avx512::norm,
                halves: halves::avx512::TABLE,
                codes: wide_codes(),
            }),
            Tier::Neon | Tier::Avx2 | Tier::Avx512 => None,
        }
    }

    /// The tier that every processor has.
    const fn scalar() -> Self {
        Self {
            tier: Tier::Scalar,
            dot: scalar::dot,
            l2: scalar::l2,
            norm: scalar::norm,
            halves: halves::scalar::TABLE,
            codes: codes::CodeTable::SCALAR,
        }
    }

    /// The tier of this table.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// Dot products: `out[r]` = sum of `query[i] * rows[r * dim + i]`, where `dim` is the length
    /// of the query. Any dimension from 1, any alignment. O(rows x dim).
    ///
    /// # Panics
    /// If the query is empty or `rows` does not hold exactly `out.len()` rows.
    pub fn dot(&self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        assert_shape(query.len(), rows, out);
        // SAFETY: the one thing `dot` asks for is its instruction set, and `forced` makes a table
        // of a tier only after the processor was seen to have it (K2).
        unsafe { (self.dot)(query, rows, out) }
    }

    /// Squared Euclidean distances: `out[r]` = sum of `(query[i] - rows[r * dim + i])^2`. Shapes
    /// as in [`Kernels::dot`].
    ///
    /// # Panics
    /// As [`Kernels::dot`].
    pub fn l2_squared(&self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        assert_shape(query.len(), rows, out);
        // SAFETY: as in `dot`: the table's tier is one that the processor has (K2).
        unsafe { (self.l2)(query, rows, out) }
    }

    /// Squared norms: `out[r]` = sum of `rows[r * dim + i]^2`. Shapes as in [`Kernels::dot`].
    ///
    /// # Panics
    /// If `dim` is 0 or `rows` does not hold exactly `out.len()` rows.
    pub fn norm_squared(&self, dim: usize, rows: &[f32], out: &mut [f32]) {
        assert_shape(dim, rows, out);
        // SAFETY: as in `dot`: the table's tier is one that the processor has (K2).
        unsafe { (self.norm)(dim, rows, out) }
    }
}

/// Whether the AVX2 tier runs here. Every processor with AVX2 counts bits too.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")
}

/// The code kernels of the AVX-512 tier: those of AVX2 where the first processors with AVX-512 lack
/// the extension that one asks for (K2).
#[cfg(target_arch = "x86_64")]
fn wide_codes() -> codes::CodeTable {
    let bytes = is_x86_feature_detected!("avx512bw");
    let counts = is_x86_feature_detected!("avx512vpopcntdq");
    codes::CodeTable {
        scan: if bytes {
            codes::avx512::scan
        } else {
            codes::avx2::scan
        },
        bits: if counts {
            codes::avx512::bits
        } else {
            codes::avx2::bits
        },
        extra: if bytes {
            codes::avx512::extra
        } else {
            codes::avx2::extra
        },
        hadamard: codes::avx512::hadamard,
        bounds: codes::avx512::bounds,
    }
}

/// A batch of another shape would leave stale values in `out`: wrong answers, so always checked.
#[inline]
fn assert_shape(dim: usize, rows: &[f32], out: &[f32]) {
    assert!(dim > 0, "a row has at least one element");
    assert!(
        dim.checked_mul(out.len()) == Some(rows.len()),
        "{} elements are not {} rows of {dim}",
        rows.len(),
        out.len()
    );
}
