//! Stretches of work in which a thread must not wait, and the assertion that it does not.
//!
//! A thread that waits while others poll for it to leave (the epoch gate of the pool, the guard of
//! a vector index) holds them up for as long as what it waits for takes, and for ever if that is
//! what they do. So whatever waits (parks, reads from the disk) asks here first.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    /// Stretches that this thread is in.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

/// Until it is dropped, this thread must not wait.
#[derive(Debug)]
#[must_use]
pub struct NoWait(PhantomData<*const ()>);

impl NoWait {
    /// Begins such a stretch; they nest.
    #[inline]
    pub fn begin() -> NoWait {
        INSIDE.with(|inside| inside.set(inside.get() + 1));
        NoWait(PhantomData)
    }
}

impl Drop for NoWait {
    #[inline]
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(inside.get() - 1));
    }
}

/// What waits calls this before.
///
/// # Panics
/// Inside such a stretch.
#[inline]
pub fn assert_may_wait() {
    assert!(
        INSIDE.with(Cell::get) == 0,
        "T4, E3: a wait inside the epoch gate or the guard of an index"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen to fail with a stretch that ends when a nested one does.
    #[test]
    fn a_wait_is_refused_until_the_last_stretch_has_ended() {
        let outer = NoWait::begin();
        drop(NoWait::begin());
        assert!(std::panic::catch_unwind(assert_may_wait).is_err());
        drop(outer);
        assert_may_wait();
    }
}
