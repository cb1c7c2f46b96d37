//! What a leader shows, and what reads may not miss.

use super::{Read, World};

impl World {
    /// What a serving leader has committed can be seen; a lease of an older one is over by then.
    pub(super) fn show(&mut self, at: usize) {
        let host = &self.hosts[at];
        if let Some(replica) = &host.replica
            && replica.leads().is_some_and(|lead| lead.1)
        {
            self.shown = self.shown.max(replica.commit());
        }
    }

    /// Whoever has a lease, or led after all that was shown, shows no less.
    pub(super) fn read(&mut self, at: usize) {
        let host = &self.hosts[at];
        let now = host.time(self.now);
        let Some(replica) = &host.replica else {
            return;
        };
        if replica.has_lease(now) {
            self.done.reads += 1;
            let (seed, seen) = (self.seed, replica.commit());
            let shown = self.shown;
            assert!(
                seen >= shown,
                "seed {seed}: a read at {} sees {seen}, not {shown}",
                host.id
            );
        }
        let (boot, seen, shown) = (host.saved.boot, replica.commit(), self.shown);
        self.reads.retain(|read| {
            if read.at != at || read.boot != boot || replica.leads().is_none() {
                return read.at != at;
            }
            let answered = replica.led_after(read.since);
            if answered {
                assert!(read.seen >= read.shown, "seed {}: a stale read", self.seed);
                self.done.asked += 1;
            }
            !answered
        });
        if replica.leads().is_some() && self.reads.len() < 10 {
            self.reads.push(Read {
                at,
                boot,
                since: now,
                seen,
                shown,
            });
        }
    }
}
