//! One small API over parking_lot in production and loom in models.
//!
//! Modules whose words are checked by loom take them from here and nowhere else. A lock is held for
//! a few instructions, never over a wait or an I/O (T4); waiting is [`crate::env::Park`]'s matter.

#[cfg(not(loom))]
mod real {
    use std::time::Duration;

    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

    /// A mutex that is never poisoned. `lock` is for short sections without I/O or waiting.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);

    /// Guard of a [`Mutex`].
    pub type MutexGuard<'a, T> = parking_lot::MutexGuard<'a, T>;

    impl<T> Mutex<T> {
        /// A mutex around `value`.
        pub const fn new(value: T) -> Mutex<T> {
            Mutex(parking_lot::const_mutex(value))
        }

        /// Enters the section.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            // A logical thread of a simulation passes the baton on instead of blocking.
            #[cfg(feature = "sim")]
            if let Some(guard) = crate::env::lock_by_turns(|| self.0.try_lock()) {
                return guard;
            }
            self.0.lock()
        }

        /// Enters the section if nobody is in it.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock()
        }
    }

    /// A flag that one thread waits for and others set; the ground under `Waiter`.
    #[derive(Debug, Default)]
    pub(crate) struct Token {
        set: parking_lot::Mutex<bool>,
        changed: parking_lot::Condvar,
    }

    impl Token {
        /// Sets the flag and wakes the thread that waits for it.
        pub(crate) fn set(&self) {
            *self.set.lock() = true;
            self.changed.notify_one();
        }

        /// Waits until the flag is set, then clears it.
        pub(crate) fn take(&self) {
            let mut set = self.set.lock();
            while !*set {
                self.changed.wait(&mut set);
            }
            *set = false;
        }

        /// As `take`, at most for `timeout`; false if the time ran out.
        pub(crate) fn take_timeout(&self, timeout: Duration) -> bool {
            let mut set = self.set.lock();
            self.changed.wait_while_for(&mut set, |set| !*set, timeout);
            std::mem::take(&mut *set)
        }
    }

    /// Offers the processor to other threads.
    pub(crate) fn yield_thread() {
        std::thread::yield_now();
    }
}

#[cfg(loom)]
mod real {
    use std::time::Duration;

    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

    /// The model's mutex.
    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    /// Guard of a [`Mutex`].
    pub type MutexGuard<'a, T> = loom::sync::MutexGuard<'a, T>;

    impl<T> Mutex<T> {
        /// A mutex around `value`.
        pub fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        /// Enters the section.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            match self.0.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }

        /// Enters the section if nobody is in it.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// A flag that one thread waits for and others set; the ground under `Waiter`.
    #[derive(Debug)]
    pub(crate) struct Token {
        set: Mutex<bool>,
        changed: loom::sync::Condvar,
    }

    impl Default for Token {
        fn default() -> Token {
            Token {
                set: Mutex::new(false),
                changed: loom::sync::Condvar::new(),
            }
        }
    }

    impl Token {
        /// Sets the flag and wakes the thread that waits for it.
        pub(crate) fn set(&self) {
            *self.set.lock() = true;
            self.changed.notify_one();
        }

        /// Waits until the flag is set, then clears it.
        pub(crate) fn take(&self) {
            let mut set = self.set.lock();
            while !*set {
                set = match self.changed.wait(set) {
                    Ok(guard) => guard,
                    Err(poisoned) => poisoned.into_inner(),
                };
            }
            *set = false;
        }

        /// The model has no time: a timeout runs out at once.
        pub(crate) fn take_timeout(&self, _timeout: Duration) -> bool {
            std::mem::take(&mut *self.set.lock())
        }
    }

    /// Offers the processor to other threads.
    pub(crate) fn yield_thread() {
        loom::thread::yield_now();
    }
}

pub use real::*;
