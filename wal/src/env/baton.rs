//! The baton: of all logical threads of one simulated environment exactly one runs, and a seeded
//! scheduler says which. So an interleaving of the real code replays from its seed.
//!
//! Each logical thread is a thread of the operating system that blocks until it holds the baton.
//! It passes the baton on at its scheduling points: park, unpark, yield, spawn, join, every I/O of
//! the simulated disk, and a mutex that somebody else holds (with
//! [`super::SimEnv::preempt_at_locks`] at every mutex). Between two points nothing else runs.
//!
//! ```text
//!   ready --chosen--> running --park--> parked --unpark or deadline--> ready
//!                        |----mutex held---> contended --somebody ran--> ready
//!                        |----join--------> joining --that thread ended--> ready
//! ```
//! Invariants: B1 at most one logical thread runs; B2 the choice depends on the seed and on what
//! the threads did, not on the operating system; B3 simulated time passes by scheduling points,
//! and jumps to the next deadline when nobody is ready; B4 if nobody can ever be ready again, that
//! is a deadlock: a panic that names every thread.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::sim::SimClock;
use super::system::{Xoshiro, panic_message};
use crate::clock::Clock;
use crate::sync::Token;

/// Number of a logical thread; the one that made the environment is 0.
pub(crate) type ThreadId = usize;

/// Why a scheduling point is passed; part of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Park,
    Unpark,
    Yield,
    Spawn,
    Join,
    Io,
    Lock,
    End,
}

impl Point {
    /// Simulated time that passes here.
    fn cost(self) -> Duration {
        match self {
            Point::Io => Duration::from_micros(20),
            Point::Lock => Duration::from_nanos(100),
            _ => Duration::from_micros(1),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ready,
    Parked { until: Option<Duration> },
    Contended,
    Joining(ThreadId),
    Ended,
}

struct Logical {
    name: String,
    status: Status,
    /// Set when the thread is given the baton.
    turn: Arc<Token>,
    timed_out: bool,
    panic: Option<String>,
}

struct State {
    rng: Xoshiro,
    threads: Vec<Logical>,
    holder: ThreadId,
    /// Eighths of a chance that a ready thread goes on at a point; drawn per seed, so that some
    /// seeds run long stretches and others switch all the time.
    stay_eighths: usize,
    preempt_at_locks: bool,
    steps: u64,
    steps_max: u64,
    trace: u64,
    /// Why nothing is scheduled any more.
    stopped: Option<String>,
}

/// The payload with which a thread of a stopped environment unwinds.
struct Stopped;

pub(crate) struct Baton {
    state: Mutex<State>,
    clock: Arc<SimClock>,
}

impl fmt::Debug for Baton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let (threads, steps) = (state.threads.len(), state.steps);
        write!(f, "Baton({threads} threads, {steps} steps)")
    }
}

thread_local! {
    /// The batons of which this thread is a logical thread; the innermost environment is last.
    static MINE: RefCell<Vec<(Arc<Baton>, ThreadId)>> = const { RefCell::new(Vec::new()) };
}

impl Baton {
    /// A baton held by the calling thread, which becomes logical thread 0.
    pub(crate) fn new(seed: u64, clock: Arc<SimClock>) -> Arc<Baton> {
        let mut rng = Xoshiro::named(seed, "baton");
        let stay_eighths = rng.below(8);
        let state = State {
            rng,
            threads: vec![Logical::new("main")],
            holder: 0,
            stay_eighths,
            preempt_at_locks: false,
            steps: 0,
            steps_max: 200_000_000,
            trace: 0,
            stopped: None,
        };
        let baton = Arc::new(Baton {
            state: Mutex::new(state),
            clock,
        });
        MINE.with_borrow_mut(|mine| mine.push((Arc::clone(&baton), 0)));
        baton
    }

    /// The calling thread's number, if it belongs here.
    fn me(&self) -> Option<ThreadId> {
        let find = |mine: &RefCell<Vec<(Arc<Baton>, ThreadId)>>| {
            let mine = mine.borrow();
            let found = mine
                .iter()
                .rev()
                .find(|(baton, _)| std::ptr::eq(&raw const **baton, self));
            found.map(|(_, id)| *id)
        };
        MINE.try_with(find).ok().flatten()
    }

    fn me_or_panic(&self) -> ThreadId {
        match self.me() {
            Some(me) => me,
            None => panic!(
                "thread {:?} waits in a simulated environment that did not start it",
                std::thread::current().name()
            ),
        }
    }

    /// A scheduling point of a thread that could go on. Threads from outside pass freely.
    pub(crate) fn point(&self, why: Point) {
        if let Some(me) = self.me() {
            self.switch(me, Status::Ready, why);
        }
    }

    /// Waits until [`Baton::wake`] or `until`; false if the time ran out.
    pub(crate) fn park(&self, until: Option<Duration>) -> bool {
        let me = self.me_or_panic();
        self.switch(me, Status::Parked { until }, Point::Park);
        let mut state = self.state.lock();
        !std::mem::take(&mut state.threads[me].timed_out)
    }

    /// The number under which the calling thread may park.
    pub(crate) fn parking(&self) -> ThreadId {
        self.me_or_panic()
    }

    /// Makes a parked thread ready.
    pub(crate) fn wake(&self, id: ThreadId) {
        let mut state = self.state.lock();
        if let Status::Parked { .. } = state.threads[id].status {
            state.threads[id].status = Status::Ready;
        }
    }

    /// Now, plus a time to wait.
    pub(crate) fn deadline(&self, timeout: Duration) -> Duration {
        self.clock.now_mono().saturating_add(timeout)
    }

    /// True once the environment stopped; then every wait is over at once.
    pub(crate) fn has_stopped(&self) -> bool {
        self.state.lock().stopped.is_some()
    }

    /// Gives up the turn with a new status and comes back when chosen again.
    fn switch(&self, me: ThreadId, status: Status, why: Point) {
        let mut state = self.state.lock();
        if state.stopped.is_some() {
            return self.leave(me, state);
        }
        assert_eq!(state.holder, me, "B1: only the holder of the baton runs");
        self.clock.advance(why.cost());
        state.steps += 1;
        if state.steps > state.steps_max {
            let text = format!("no end after {} scheduling points", state.steps_max);
            return self.stop_with(me, state, text);
        }
        state.threads[me].status = status;
        if status != Status::Contended {
            // Somebody got on, so whoever waits for a mutex may find it free.
            state.wake_all(|status| status == Status::Contended);
        }
        let Some(next) = state.choose(me, why, &self.clock) else {
            let text = state.deadlock();
            return self.stop_with(me, state, text);
        };
        let words = [me as u64, why as u64, next as u64];
        state.trace = words.iter().fold(state.trace, |hash, word| {
            (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
        });
        if next == me {
            return;
        }
        state.holder = next;
        state.threads[next].turn.set();
        if status == Status::Ended {
            return;
        }
        self.await_turn(me, state);
    }

    fn await_turn<'a>(&'a self, me: ThreadId, mut state: MutexGuard<'a, State>) {
        let turn = Arc::clone(&state.threads[me].turn);
        while state.holder != me && state.stopped.is_none() {
            drop(state);
            turn.take();
            state = self.state.lock();
        }
        if state.stopped.is_some() {
            self.leave(me, state);
        }
    }

    /// Stops the environment for a reason that the calling thread found.
    fn stop_with(&self, me: ThreadId, mut state: MutexGuard<'_, State>, text: String) {
        state.stop(text);
        self.leave(me, state);
    }

    /// The way out of a stopped environment: thread 0 says why, the others unwind in silence; a
    /// thread that unwinds already goes on without waiting.
    fn leave(&self, me: ThreadId, state: MutexGuard<'_, State>) {
        let text = state.stopped.clone().unwrap_or_default();
        let ended = state.threads[me].status == Status::Ended;
        drop(state);
        if std::thread::panicking() || ended {
            return;
        }
        if me == 0 {
            panic!("the simulated environment has stopped: {text}");
        }
        std::panic::resume_unwind(Box::new(Stopped));
    }

    /// Ends all scheduling: threads that wait unwind.
    pub(crate) fn stop(&self, why: &str) {
        self.state.lock().stop(why.to_owned());
        // The innermost environment of this thread is the one before, from now on.
        let forget = |mine: &RefCell<Vec<(Arc<Baton>, ThreadId)>>| {
            let mut mine = mine.borrow_mut();
            mine.retain(|(baton, _)| !std::ptr::eq(&raw const **baton, self));
        };
        // At the end of a thread its list may be gone already.
        let _gone = MINE.try_with(forget);
    }

    /// Starts a logical thread; it runs when it is chosen.
    pub(crate) fn start(
        self: &Arc<Self>,
        name: &str,
        body: Box<dyn FnOnce() + Send + 'static>,
    ) -> std::io::Result<ThreadId> {
        let id = {
            let mut state = self.state.lock();
            state.threads.push(Logical::new(name));
            state.threads.len() - 1
        };
        let baton = Arc::clone(self);
        let run = move || {
            MINE.with_borrow_mut(|mine| mine.push((Arc::clone(&baton), id)));
            let turns = std::panic::AssertUnwindSafe(|| {
                baton.await_turn(id, baton.state.lock());
                body();
            });
            let ended = std::panic::catch_unwind(turns);
            baton.end(id, ended.err());
        };
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        if let Err(error) = started {
            self.state.lock().threads[id].status = Status::Ended;
            return Err(error);
        }
        self.point(Point::Spawn);
        Ok(id)
    }

    fn end(&self, me: ThreadId, panic: Option<Box<dyn std::any::Any + Send>>) {
        let mut state = self.state.lock();
        state.threads[me].panic = panic.map(|panic| match panic.is::<Stopped>() {
            true => "the simulated environment has stopped".to_owned(),
            false => panic_message(&*panic),
        });
        state.wake_all(|status| status == Status::Joining(me));
        state.threads[me].status = Status::Ended;
        drop(state);
        self.switch(me, Status::Ended, Point::End);
    }

    /// Waits for a logical thread to end.
    pub(crate) fn join(&self, id: ThreadId) -> Result<(), String> {
        let me = self.me_or_panic();
        loop {
            let mut state = self.state.lock();
            if state.threads[id].status == Status::Ended {
                return state.threads[id].panic.take().map_or(Ok(()), Err);
            }
            if let Some(why) = &state.stopped {
                return Err(format!("the simulated environment has stopped: {why}"));
            }
            drop(state);
            self.switch(me, Status::Joining(id), Point::Join);
        }
    }

    /// Lets the other threads run until none of them is ready.
    pub(crate) fn settle(&self) {
        let me = self.me_or_panic();
        let others_ready = || {
            let state = self.state.lock();
            let mut others = state.threads.iter().enumerate();
            others.any(|(id, thread)| id != me && thread.status == Status::Ready)
        };
        while others_ready() {
            self.switch(me, Status::Ready, Point::Yield);
        }
    }

    pub(crate) fn set_preempt_at_locks(&self, on: bool) {
        self.state.lock().preempt_at_locks = on;
    }

    pub(crate) fn set_steps_max(&self, steps_max: u64) {
        self.state.lock().steps_max = steps_max;
    }

    pub(crate) fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    pub(crate) fn trace(&self) -> u64 {
        self.state.lock().trace
    }
}

impl Logical {
    fn new(name: &str) -> Logical {
        Logical {
            name: name.to_owned(),
            status: Status::Ready,
            turn: Arc::new(Token::default()),
            timed_out: false,
            panic: None,
        }
    }
}

impl State {
    fn wake_all(&mut self, which: impl Fn(Status) -> bool) {
        for thread in &mut self.threads {
            if which(thread.status) {
                thread.status = Status::Ready;
            }
        }
    }

    fn stop(&mut self, why: String) {
        self.stopped.get_or_insert(why);
        self.threads.iter().for_each(|thread| thread.turn.set());
    }

    fn ready(&self) -> Vec<ThreadId> {
        let threads = self.threads.iter().enumerate();
        threads
            .filter(|(_, thread)| thread.status == Status::Ready)
            .map(|(id, _)| id)
            .collect()
    }

    /// The next thread to run; None if nobody ever will (B4).
    fn choose(&mut self, me: ThreadId, why: Point, clock: &SimClock) -> Option<ThreadId> {
        self.expire(clock.now_mono());
        let mut ready = self.ready();
        if ready.is_empty() {
            // B3: nobody is ready, so nothing happens until the next deadline.
            let deadlines = self
                .threads
                .iter()
                .filter_map(|thread| match thread.status {
                    Status::Parked { until } => until,
                    _ => None,
                });
            let next = deadlines.min()?;
            clock.advance(next.saturating_sub(clock.now_mono()));
            self.expire(next);
            ready = self.ready();
        }
        let could_stay = ready.contains(&me);
        if could_stay && why == Point::Yield && ready.len() > 1 {
            ready.retain(|id| *id != me);
        } else if could_stay {
            let stay = match why {
                Point::Lock => self.stay_eighths.max(6),
                _ => self.stay_eighths,
            };
            if self.rng.below(8) < stay {
                return Some(me);
            }
        }
        let index = self.rng.below(ready.len());
        Some(ready[index])
    }

    fn expire(&mut self, now: Duration) {
        for thread in &mut self.threads {
            if let Status::Parked { until: Some(until) } = thread.status
                && until <= now
            {
                thread.status = Status::Ready;
                thread.timed_out = true;
            }
        }
    }

    fn deadlock(&self) -> String {
        let mut text = "deadlock:".to_owned();
        for (id, thread) in self.threads.iter().enumerate() {
            let what = match thread.status {
                Status::Parked { .. } => "is parked".to_owned(),
                Status::Contended => "waits for a mutex".to_owned(),
                Status::Joining(other) => format!("waits for the end of thread {other}"),
                Status::Ready | Status::Ended => continue,
            };
            text += &format!(" thread {id} '{}' {what};", thread.name);
        }
        text
    }
}

/// Enters a mutex by turns if the calling thread holds a baton: one that somebody else is in passes
/// the baton on instead of blocking the operating system's thread, which would stop everybody.
/// None if the thread holds no baton and may simply block.
pub(crate) fn lock_by_turns<G>(try_lock: impl Fn() -> Option<G>) -> Option<G> {
    let turns = |mine: &RefCell<Vec<(Arc<Baton>, ThreadId)>>| {
        let mine = mine.borrow();
        let (baton, me) = mine.last()?;
        let (stopped, preempt) = {
            let state = baton.state.lock();
            (state.stopped.is_some(), state.preempt_at_locks)
        };
        if stopped {
            return None;
        }
        if preempt {
            baton.switch(*me, Status::Ready, Point::Lock);
        }
        loop {
            if let Some(guard) = try_lock() {
                return Some(guard);
            }
            if baton.has_stopped() {
                return None;
            }
            baton.switch(*me, Status::Contended, Point::Lock);
        }
    };
    MINE.try_with(turns).ok().flatten()
}
