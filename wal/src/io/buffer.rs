//! Memory that a device can read from and write to: zeroed, aligned to [`BLOCK`], a multiple of it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::BLOCK;

/// One aligned block. Its alignment is what `O_DIRECT` asks for.
#[repr(C, align(4096))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Block([u8; BLOCK]);

/// An owned buffer of whole blocks, zeroed when made.
pub struct Buf(Vec<Block>);

impl Buf {
    /// A zeroed buffer of at least `len` bytes, rounded up to whole blocks.
    #[must_use]
    pub fn zeroed(len: usize) -> Buf {
        Buf(bytemuck::zeroed_vec(len.div_ceil(BLOCK)))
    }

    /// Cuts the buffer to `len` bytes, a multiple of [`BLOCK`], without giving memory back.
    pub fn truncate(&mut self, len: usize) {
        assert!(
            len.is_multiple_of(BLOCK),
            "{len} is not a multiple of {BLOCK}"
        );
        self.0.truncate(len / BLOCK);
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len())
    }
}
