//! Who promised what: the parent's record of the child's commits, and the judgement after the kill.
//!
//! The child writes one line before each commit and one after it, over a pipe:
//!
//! ```text
//! begin <thread> <batch>     the rows are put, commit is called next
//! ack <thread> <batch>       commit has returned: these rows must survive anything
//! ```
//!
//! A pipe keeps what was written when its writer is killed, so the parent reads to the end before
//! it judges. A line without its line feed was never said.
//!
//! L1: an acknowledged batch is found whole.
//! L2: a batch that was begun and not acknowledged is found whole or not at all.
//! L3: nothing else is found.
//!
//! The key of a row says which batch wrote it: round (8 bits), thread (8), batch (32), slot (16).

use std::collections::{BTreeMap, BTreeSet};

/// One transaction of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Batch {
    /// Which child: there is one for each kill.
    pub(crate) round: u8,
    pub(crate) thread: u8,
    pub(crate) number: u32,
}

impl Batch {
    /// Rows in this transaction: 3 to 8, so that one half of it is not the whole of another.
    pub(crate) fn rows(self) -> u16 {
        3 + ((u32::from(self.thread) * 7 + self.number) % 6) as u16
    }

    /// The key of the row in `slot`.
    pub(crate) fn key(self, slot: u16) -> u64 {
        u64::from(self.round) << 56
            | u64::from(self.thread) << 48
            | u64::from(self.number) << 16
            | u64::from(slot)
    }

    /// The batch and the slot that a key names.
    pub(crate) fn of_key(key: u64) -> (Batch, u16) {
        let round = (key >> 56) as u8;
        let thread = (key >> 48) as u8;
        (
            Batch {
                round,
                thread,
                number: (key >> 16) as u32,
            },
            key as u16,
        )
    }

    /// Which of the data set's `rows` is stored in `slot`. Threads and rounds start far apart.
    pub(crate) fn source_row(self, slot: u16, rows: usize) -> usize {
        let start = usize::from(self.thread) * 7_919 + usize::from(self.round) * 104_729;
        (start + self.number as usize * 8 + usize::from(slot)) % rows
    }

    /// The line to write before the commit.
    pub(crate) fn begin_line(self) -> String {
        format!("begin {} {}\n", self.thread, self.number)
    }

    /// The line to write after the commit.
    pub(crate) fn ack_line(self) -> String {
        format!("ack {} {}\n", self.thread, self.number)
    }
}

/// All that the children have said.
#[derive(Default)]
pub(crate) struct Ledger {
    acknowledged: BTreeSet<Batch>,
    /// Begun and not acknowledged, of all rounds.
    open: BTreeSet<Batch>,
}

/// What was found of one batch.
#[derive(Clone, Copy, Default)]
pub(crate) struct Found {
    /// Rows equal to the last byte to what was put.
    pub(crate) equal: u64,
    /// Rows that differ, or that no batch of this name has.
    pub(crate) wrong: u64,
}

/// The judgement.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Rows in acknowledged batches.
    pub(crate) acknowledged: u64,
    /// Acknowledged rows found equal.
    pub(crate) recovered: u64,
    /// Rows in whole batches that were not acknowledged.
    pub(crate) extra: u64,
    /// Batches that break L1, L2 or L3 by being there in part, changed, or uncalled for.
    pub(crate) half: u64,
    /// The first batches that are not as they must be.
    pub(crate) complaints: Vec<String>,
}

/// More complaints than this help nobody.
const COMPLAINTS_MAX: usize = 5;

impl Ledger {
    /// Writes down a line of the child of `round`.
    pub(crate) fn note(&mut self, round: u8, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let parsed = match words[..] {
            [verb, thread, number] => {
                thread
                    .parse()
                    .ok()
                    .zip(number.parse().ok())
                    .map(|(thread, number)| {
                        (
                            verb,
                            Batch {
                                round,
                                thread,
                                number,
                            },
                        )
                    })
            }
            _ => None,
        };
        match parsed {
            Some(("begin", batch)) if !self.acknowledged.contains(&batch) => {
                if !self.open.insert(batch) {
                    return Err(format!("{line:?}: expected each batch to begin once"));
                }
                Ok(())
            }
            Some(("ack", batch)) if self.open.remove(&batch) => {
                self.acknowledged.insert(batch);
                Ok(())
            }
            _ => Err(format!(
                "{line:?}: expected a begin, or an ack of what has begun"
            )),
        }
    }

    /// How many threads of this round have called commit and have no answer.
    pub(crate) fn waiting_threads(&self, round: u8) -> usize {
        let open = self.open.iter().filter(|batch| batch.round == round);
        open.map(|batch| batch.thread)
            .collect::<BTreeSet<u8>>()
            .len()
    }

    /// Batches that were begun and not acknowledged.
    pub(crate) fn open(&self) -> impl Iterator<Item = Batch> {
        self.open.iter().copied()
    }

    /// Number of acknowledged batches of this round.
    pub(crate) fn acknowledged(&self, round: u8) -> usize {
        self.acknowledged
            .iter()
            .filter(|batch| batch.round == round)
            .count()
    }

    /// Holds what was found against what was said.
    pub(crate) fn judge(&self, found: &BTreeMap<Batch, Found>) -> Verdict {
        let mut verdict = Verdict::default();
        let mut complain = |half: &mut u64, partly: bool, text: String| {
            *half += u64::from(partly);
            if verdict.complaints.len() < COMPLAINTS_MAX {
                verdict.complaints.push(text);
            }
        };
        for batch in &self.acknowledged {
            let rows = u64::from(batch.rows());
            let Found { equal, wrong } = found.get(batch).copied().unwrap_or_default();
            verdict.acknowledged += rows;
            verdict.recovered += equal;
            if equal != rows || wrong != 0 {
                let text = format!("acknowledged {batch:?}: {equal} of {rows} rows, {wrong} wrong");
                complain(&mut verdict.half, equal + wrong > 0, text);
            }
        }
        for (batch, Found { equal, wrong }) in found {
            if self.acknowledged.contains(batch) {
                continue;
            }
            let rows = u64::from(batch.rows());
            if self.open.contains(batch) && *equal == rows && *wrong == 0 {
                verdict.extra += rows;
                continue;
            }
            let text = format!("unanswered {batch:?}: {equal} of {rows} rows, {wrong} wrong");
            complain(&mut verdict.half, true, text);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(thread: u8, number: u32) -> Batch {
        Batch {
            round: 1,
            thread,
            number,
        }
    }

    fn whole(batch: Batch) -> (Batch, Found) {
        (
            batch,
            Found {
                equal: batch.rows().into(),
                wrong: 0,
            },
        )
    }

    /// Thread 0 has 0 acknowledged and 1 open, thread 1 has 0 open.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for line in ["begin 0 0", "begin 1 0", "ack 0 0", "begin 0 1"] {
            ledger.note(1, line).unwrap();
        }
        ledger
    }

    #[test]
    fn keys_name_their_batch() {
        for (round, thread, number, slot) in
            [(0, 0, 0, 0), (3, 7, 123_456, 5), (9, 255, u32::MAX, 8)]
        {
            let batch = Batch {
                round,
                thread,
                number,
            };
            assert_eq!(Batch::of_key(batch.key(slot)), (batch, slot));
        }
        assert!(batch(0, 1).key(0) > batch(0, 0).key(u16::MAX));
    }

    #[test]
    fn batches_have_several_rows_of_different_sources() {
        let sizes: BTreeSet<u16> = (0..100).map(|number| batch(2, number).rows()).collect();
        assert_eq!(sizes, (3..=8).collect());
        for number in 0..100 {
            let sources =
                (0..batch(2, number).rows()).map(|slot| batch(2, number).source_row(slot, 500));
            let sources: BTreeSet<usize> = sources.collect();
            assert_eq!(sources.len(), usize::from(batch(2, number).rows()));
            assert!(sources.iter().all(|row| *row < 500));
        }
    }

    #[test]
    fn lines_are_understood_as_they_are_written() {
        let mut ledger = Ledger::default();
        ledger
            .note(1, batch(4, 17).begin_line().trim_end())
            .unwrap();
        assert_eq!(ledger.open().collect::<Vec<_>>(), [batch(4, 17)]);
        assert_eq!(ledger.waiting_threads(1), 1);
        assert_eq!(ledger.waiting_threads(2), 0);
        ledger.note(1, batch(4, 17).ack_line().trim_end()).unwrap();
        assert_eq!((ledger.open().count(), ledger.acknowledged(1)), (0, 1));
        assert_eq!(ledger.acknowledged(2), 0);
    }

    #[test]
    fn lines_out_of_order_are_refused() {
        let mut ledger = ledger();
        for line in [
            "ack 0 0",
            "ack 3 0",
            "begin 0 1",
            "begin 0 0",
            "begin 0",
            "end 0 0",
            "",
            "begin 256 0",
        ] {
            assert!(ledger.note(1, line).is_err(), "{line:?} accepted");
        }
        assert_eq!(ledger.waiting_threads(1), 2);
        assert!(
            ledger.note(2, "begin 0 0").is_ok(),
            "another round begins anew"
        );
    }

    #[test]
    fn acknowledged_whole_and_unanswered_absent_or_whole_pass() {
        let rows = u64::from(batch(0, 0).rows());
        let verdict = ledger().judge(&BTreeMap::from([whole(batch(0, 0))]));
        let expected = Verdict {
            acknowledged: rows,
            recovered: rows,
            ..Verdict::default()
        };
        assert_eq!(verdict, expected);
        let verdict = ledger().judge(&BTreeMap::from([whole(batch(0, 0)), whole(batch(1, 0))]));
        assert_eq!((verdict.recovered, verdict.half), (rows, 0));
        assert_eq!(verdict.extra, u64::from(batch(1, 0).rows()));
    }

    #[test]
    fn every_kind_of_loss_is_seen() {
        let rows = u64::from(batch(0, 0).rows());
        let of = |entries: &[(Batch, u64, u64)]| {
            let found = entries.iter().map(|(batch, equal, wrong)| {
                (
                    *batch,
                    Found {
                        equal: *equal,
                        wrong: *wrong,
                    },
                )
            });
            let verdict = ledger().judge(&found.collect());
            assert_eq!(verdict.complaints.len(), 1, "{verdict:?}");
            (verdict.recovered, verdict.extra, verdict.half)
        };
        // L1: lost, partly lost, changed.
        assert_eq!(of(&[]), (0, 0, 0));
        assert_eq!(of(&[(batch(0, 0), rows - 1, 0)]), (rows - 1, 0, 1));
        assert_eq!(of(&[(batch(0, 0), rows - 1, 1)]), (rows - 1, 0, 1));
        // L2: half of an unanswered one, and one with a changed row.
        let good = (batch(0, 0), rows, 0);
        let open = u64::from(batch(0, 1).rows());
        assert_eq!(of(&[good, (batch(0, 1), 1, 0)]), (rows, 0, 1));
        assert_eq!(of(&[good, (batch(0, 1), open - 1, 1)]), (rows, 0, 1));
        // L3: a row beyond the batch, and a batch that nobody began.
        assert_eq!(of(&[good, (batch(0, 1), open, 1)]), (rows, 0, 1));
        assert_eq!(of(&[good, (batch(5, 0), 3, 0)]), (rows, 0, 1));
    }
}
