//! Verification of a whole store: every tree, every slot, and that nothing is owned twice or by
//! nobody.
//!
//! The store must not change meanwhile, and a checkpoint under way must not be stepped. Beside what
//! [`crate::check`] says of each tree: every page of the map is reached from the directory (none
//! leaks), every slot holds what the map says (T3), and the slots in use are exactly those of live
//! pages, those that wait on a deadlist, and those that a page is being written to (T5).

use std::collections::BTreeSet;

use terrane_wal::lsn::TreeId;

use crate::check::{Finding, TreeReport, check_tree};
use crate::error::StoreError;
use crate::ids::PageId;
use crate::store::Store;

/// What a store consists of.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Each tree, the directory included.
    pub trees: Vec<(TreeId, TreeReport)>,
    /// Pages that trees reach.
    pub pages: u64,
    /// Slots that were read and held against the map.
    pub slots: u64,
    /// Things found wrong.
    pub findings: u64,
}

impl Store {
    /// Verifies everything and calls `found` for whatever is wrong. `Err` only if the device fails
    /// or memory does not suffice. Reads every page twice: O(bytes of the store).
    pub fn check(&self, found: &mut dyn FnMut(Finding)) -> Result<CheckReport, StoreError> {
        let mut report = CheckReport::default();
        let mut findings = 0;
        let mut found = |error: StoreError| {
            findings += 1;
            found(Finding { error });
        };
        let mut reached = BTreeSet::new();
        for tree in self.all_trees(&mut found)? {
            let of_tree = check_tree(&tree, &mut reached, &mut |finding| found(finding.error))?;
            report.trees.push((tree.id(), of_tree));
        }
        report.pages = reached.len() as u64;
        let pool = self.pool();
        let mut live_bytes = 0;
        for id in (1..pool.page_id_hi().0).map(PageId) {
            let Some(place) = pool.place_of(id)? else {
                continue;
            };
            if !reached.contains(&id) {
                found(StoreError::corrupt_page(
                    id,
                    "a page that a tree reaches",
                    "a leak",
                ));
            }
            let Some((slot, class)) = place.at else {
                continue;
            };
            live_bytes += class.bytes() as u64;
            report.slots += 1;
            if !pool.space.slots.lock().zones.is_used(slot, class) {
                found(StoreError::corrupt(
                    "zones",
                    format!("{slot} of {id} in use"),
                    "free",
                ));
            }
            if let (_, Err(error)) = pool.read_slot(id, slot, class, place)? {
                found(error);
            }
        }
        let (used, dead, in_flight) = {
            let slots = pool.space.slots.lock();
            let used = slots.zones.used_bytes();
            let dead = slots.dead.bytes() + slots.failed_bytes();
            (used, dead, slots.in_flight)
        };
        if used != live_bytes + dead + in_flight {
            found(StoreError::corrupt(
                "zones",
                format!(
                    "{live_bytes} bytes of live, {dead} of dead or bad and {in_flight} of new slots"
                ),
                format!("{used} bytes in use"),
            ));
        }
        report.findings = findings;
        Ok(report)
    }
}
