//! The limits of vector search, in one place, with the assertions that relate them.
//!
//! A host may choose narrower limits (the engine stores a vector inside its row, and a row has a
//! limit of its own); none may choose wider ones.

/// Largest dimension of a vector: 64 KiB of `f32`, the span of one block of the index format.
pub const MAX_DIM: usize = 16_384;

/// Largest `k` of one search: above it a caller wants a scan, not a list of neighbours.
pub const MAX_K: usize = 10_000;

/// Running sums of a kernel. Every tier adds in the order that this number fixes, so changing it
/// changes the last bits of distances.
pub(crate) const LANES: usize = 64;

/// Bytes of rows that go through a kernel at once. Small: the processor then fetches the next rows
/// from memory while it still measures these (60,000 rows of 384 elements, gathered and measured:
/// 4.7 ms at 6 KiB, 7.8 ms at 16 KiB and above). Not smaller: a row that is read while its copy
/// still waits in the store buffer stalls (12.7 ms at 2 KiB).
pub(crate) const BLOCK_BYTES: usize = 6 * 1024;

/// Rows of a block at most, however short they are.
pub(crate) const BLOCK_ROWS_MAX: usize = 64;

/// Alignment of a block in bytes: a cache line, and the widest vector register.
pub(crate) const BLOCK_ALIGN: usize = 64;

/// Largest dimension of a code: vectors are padded with zeros to whole words of bits.
pub(crate) const MAX_CODE_DIM: usize = MAX_DIM.next_multiple_of(CODE_DIM_STEP);

/// A code has a multiple of this many dimensions: a word of bits, a cache line of digits. It also
/// keeps the rotation of short vectors random enough for the error bound.
pub(crate) const CODE_DIM_STEP: usize = 64;

/// Slots of a sealed block: what one pass of the scan kernel takes.
pub(crate) const BLOCK_SLOTS: usize = 32;

/// Bytes of a block for four dimensions: one 4-bit digit for each slot.
pub(crate) const GROUP_BYTES: usize = BLOCK_SLOTS / 2;

/// Slots of a block whose extra bits share a record.
pub(crate) const GROUP_SLOTS: usize = 8;

/// Bytes of an entry's filter columns at most.
pub const COLUMNS_MAX: usize = 255;

/// Further bits for each dimension in the second stage, after the sign.
pub(crate) const EXTRA_BITS: usize = 3;

// The folding of lanes halves their number until one is left.
const _: () = assert!(LANES.is_power_of_two());
const _: () = assert!(BLOCK_SLOTS.is_multiple_of(GROUP_SLOTS));
// A format may store a dimension in two bytes.
const _: () = assert!(MAX_DIM <= u16::MAX as usize);
// A lane starts on a cache line in every row whose dimension is a multiple of LANES.
const _: () = assert!((LANES * size_of::<f32>()).is_multiple_of(BLOCK_ALIGN));

/// Rows of dimension `dim` in a block: at least one, however long they are.
pub(crate) const fn block_rows(dim: usize) -> usize {
    debug_assert!(dim > 0);
    let rows = BLOCK_BYTES / (dim * size_of::<f32>());
    if rows < 1 {
        1
    } else if rows > BLOCK_ROWS_MAX {
        BLOCK_ROWS_MAX
    } else {
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_one_to_sixty_four_rows_and_stays_small() {
        for dim in 1..=MAX_DIM {
            let rows = block_rows(dim);
            assert!(
                (1..=BLOCK_ROWS_MAX).contains(&rows),
                "dimension {dim}: {rows} rows"
            );
            assert!(
                rows == 1 || rows * dim * 4 <= BLOCK_BYTES,
                "dimension {dim}: {rows} rows"
            );
        }
        assert_eq!(block_rows(384), 4);
    }
}
