//! Crash-point enumeration: at every boundary of a workload every crash image is recovered and
//! checked, and the recovery is crashed again at every boundary of its own.
//!
//! ```text
//!   workload --boundary--> images --check--> recovery --boundary--> images --check--> recovery
//!                          (depth 1)                                (depth 2)
//! ```
//! Images that were checked already with the same number of acknowledgements are passed over.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{CrashCaps, ImageKind, IoEvent, SimDisk};

/// How crashes are enumerated.
#[derive(Clone, Debug)]
pub struct CrashPlan {
    /// Draws the samples that the caps ask for.
    pub seed: u64,
    /// Images of each boundary of the workload.
    pub caps: CrashCaps,
    /// Images of each boundary of a recovery; None for one crash only.
    pub second: Option<CrashCaps>,
    /// Raised by the workload with every acknowledgement: an image that lacks something is right
    /// before and wrong after, so it is checked again when this has changed.
    pub acknowledged: Arc<AtomicU64>,
}

impl CrashPlan {
    /// All images once, and `second` images of each kind for the second crash.
    #[must_use]
    pub fn new(seed: u64, caps: CrashCaps, second: usize) -> CrashPlan {
        CrashPlan {
            seed,
            caps,
            second: (second > 0).then(|| CrashCaps::at_most(second)),
            acknowledged: Arc::default(),
        }
    }
}

/// What an enumeration has checked so far.
#[derive(Debug, Default)]
pub struct CrashCounts(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    boundaries: u64,
    first: [u64; ImageKind::ALL.len()],
    second: u64,
    seen: BTreeSet<(u64, u64)>,
    failures: Vec<String>,
}

/// Failures kept; after the first ones nothing new is learnt.
const FAILURES_MAX: usize = 4;

impl CrashCounts {
    /// Images of a kind that were recovered and checked.
    #[must_use]
    pub fn of(&self, kind: ImageKind) -> u64 {
        self.0.lock().first[kind as usize]
    }

    /// Images of second crashes that were recovered and checked.
    #[must_use]
    pub fn depth_two(&self) -> u64 {
        self.0.lock().second
    }

    /// Boundaries of the workload at which images were taken.
    #[must_use]
    pub fn boundaries(&self) -> u64 {
        self.0.lock().boundaries
    }

    /// What went wrong: where the crash was, how the image was made, what the check said.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.0.lock().failures.clone()
    }

    /// Panics with the first failure, if there is one, or if no image was checked at all. A check
    /// that fails inside a thread of the workload is told here and not there, because threads may
    /// swallow panics.
    pub fn assert_clean(&self) {
        let failures = self.failures();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert!(self.of(ImageKind::All) > 0, "no image was checked: {self}");
    }

    fn passes(&self, acknowledged: u64, hash: u64) -> bool {
        let mut counts = self.0.lock();
        counts.failures.len() < FAILURES_MAX && counts.seen.insert((acknowledged, hash))
    }
}

impl fmt::Display for CrashCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.lock();
        write!(f, "boundaries {}", counts.boundaries)?;
        for kind in ImageKind::ALL {
            write!(f, ", {} {}", kind.name(), counts.first[kind as usize])?;
        }
        write!(f, ", depth 2 {}", counts.second)
    }
}

type Check = Arc<dyn Fn(&SimDisk) + Send + Sync>;

impl SimDisk {
    /// Checks, at every boundary that this disk passes from now on until [`SimDisk::off_io`], every
    /// image that a crash there could leave. `check` gets the crashed disk, recovers it, and panics
    /// if what it finds is wrong; it must not wait for threads of the workload.
    pub fn enumerate_crashes(
        &self,
        plan: CrashPlan,
        check: impl Fn(&SimDisk) + Send + Sync + 'static,
    ) -> Arc<CrashCounts> {
        let counts = Arc::new(CrashCounts::default());
        self.enumerate(plan, Arc::new(check), Arc::clone(&counts), None);
        counts
    }

    fn enumerate(
        &self,
        plan: CrashPlan,
        check: Check,
        counts: Arc<CrashCounts>,
        first: Option<String>,
    ) {
        self.on_io(move |disk, event| {
            let caps = match &first {
                None => {
                    counts.0.lock().boundaries += 1;
                    Some(plan.caps)
                }
                Some(_) => plan.second,
            };
            let Some(caps) = caps else { return };
            let acknowledged = plan.acknowledged.load(Ordering::SeqCst);
            let seed = plan.seed ^ event.boundary;
            for (kind, image) in disk.crash_images(seed, &caps) {
                if !counts.passes(acknowledged, image.hash()) {
                    continue;
                }
                match &first {
                    None => counts.0.lock().first[kind as usize] += 1,
                    Some(_) => counts.0.lock().second += 1,
                }
                let site = site(first.as_deref(), event, image.how());
                let crashed = SimDisk::from_image(&image);
                if first.is_none() && plan.second.is_some() {
                    let (plan, check) = (plan.clone(), Arc::clone(&check));
                    crashed.enumerate(plan, check, Arc::clone(&counts), Some(site.clone()));
                }
                let run = catch_unwind(AssertUnwindSafe(|| check(&crashed)));
                // Ends the cycle from the disk to its callback.
                crashed.off_io();
                if let Err(panic) = run {
                    let text = crate::env::panic_message(&*panic);
                    counts.0.lock().failures.push(format!("{site}: {text}"));
                }
            }
        });
    }
}

/// Where a crash was and what it left.
fn site(first: Option<&str>, event: &IoEvent, how: &str) -> String {
    let before = first.map_or(String::new(), |first| {
        format!("{first}, and in its recovery ")
    });
    format!(
        "{before}crash at boundary {} ({:?} {:?} of {} at {}, {} bytes), image {how}",
        event.boundary,
        event.phase,
        event.op,
        event.path.display(),
        event.offset,
        event.len
    )
}
