//! The gate of commits: many commits inside, or one change of the schema, or the close.
//!
//! Held shared inside `commit` only, never by an open transaction, so that who holds it exclusively
//! waits for commits in flight and for nothing else.

use std::sync::Arc;

use terrane_wal::env::{Park, Waiter};
use terrane_wal::sync::Mutex;

#[derive(Debug, Default)]
struct State {
    inside: usize,
    exclusive: bool,
    waiters: Vec<Arc<dyn Waiter>>,
}

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    park: Arc<dyn Park>,
    state: Mutex<State>,
}

/// One commit inside the gate.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Gate);

/// The gate held alone.
#[derive(Debug)]
pub(crate) struct Alone<'a>(&'a Gate);

impl Gate {
    /// An open gate.
    pub(crate) fn new(park: Arc<dyn Park>) -> Gate {
        Gate {
            park,
            state: Mutex::new(State::default()),
        }
    }

    /// Enters beside other commits.
    pub(crate) fn enter(&self) -> Inside<'_> {
        self.wait(|state| {
            let free = !state.exclusive;
            state.inside += usize::from(free);
            free
        });
        Inside(self)
    }

    /// Keeps new commits out, then waits for those inside.
    pub(crate) fn close(&self) -> Alone<'_> {
        self.wait(|state| {
            let free = !state.exclusive;
            state.exclusive = true;
            free
        });
        self.wait(|state| state.inside == 0);
        Alone(self)
    }

    /// As [`Gate::close`], until [`Gate::release`].
    pub(crate) fn hold(&self) {
        std::mem::forget(self.close());
    }

    /// Lets in who waits since [`Gate::hold`].
    pub(crate) fn release(&self) {
        drop(Alone(self));
    }

    /// Waits until `done` says so; it may change the state when it does.
    fn wait(&self, mut done: impl FnMut(&mut State) -> bool) {
        let mut own: Option<Arc<dyn Waiter>> = None;
        loop {
            {
                let mut state = self.state.lock();
                if done(&mut state) {
                    return;
                }
                let waiter = own.get_or_insert_with(|| self.park.waiter());
                state.waiters.push(waiter.clone());
            }
            if let Some(waiter) = &own {
                waiter.park();
            }
        }
    }

    fn leave(&self, change: impl FnOnce(&mut State) -> bool) {
        let waiters = {
            let mut state = self.state.lock();
            if change(&mut state) {
                std::mem::take(&mut state.waiters)
            } else {
                Vec::new()
            }
        };
        for waiter in waiters {
            waiter.unpark();
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave(|state| {
            state.inside -= 1;
            state.inside == 0
        });
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.leave(|state| {
            state.exclusive = false;
            true
        });
    }
}
