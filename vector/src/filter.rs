//! Searches with a filter: what the host says of an entry, and when so little matches that every
//! posting is read.
//!
//! The filter is the store's: a store is a snapshot with a filter, and its rows are the accepted
//! ones. So the row is the truth here too, and a search that knows nothing of filters is right. To
//! be fast as well it asks about *columns*: bytes that the host put beside the entry, from which it
//! can often tell without the row. It is asked only for entries whose bound lets them be a hit.
//!
//! ```text
//! entry below the threshold -> admits(columns) -> Yes: its upper bound may lower the threshold
//!                                               -> No: dropped
//!                                               -> AskRow: its row is read with its posting
//! ```
//!
//! An entry that is refused lowers no threshold, so postings are read until `k` *matching* rows are
//! there, and patience counts a posting by how likely it holds a match (T2 in `stop.rs`): which of
//! its entries match is not known, only those within the threshold are asked about. Where few rows
//! match, patience would end the search in the wrong place or never: once a pass rate can be told
//! and it means at most [`MATCHES_FEW`] matching rows, each of them is measured
//! (`search/matches.rs`): an exact answer for a look at all columns and at the rows that match.

/// What a store says of an entry's filter columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// The row is accepted, if the snapshot has it.
    Yes,
    /// The row is refused, whatever the snapshot has.
    No,
    /// Only the row can tell.
    AskRow,
}

/// With at most this many matching rows in the table each of them is measured.
const MATCHES_FEW: f64 = 1_000.0;

/// Where more entries than that match, or may as far as columns tell, bounds tell which rows are
/// read after all.
pub(crate) const MATCHES_MAX: usize = 1_500;

/// Entries that were accepted or refused before a pass rate is believed.
const JUDGED_MIN: usize = 256;

/// Entries that were judged before idle postings weigh anything: the first posting is judged whole.
const WEIGHED_MIN: usize = 32;

/// Postings that were read before a pass rate is believed, unless the search would end before: the
/// first ones are near the query, where a filter that goes with the vectors accepts more, or less,
/// than elsewhere.
pub(crate) const POSTINGS_MIN: usize = 8;

/// Whether so few of the table's rows seem to match that each is worth a look, when `admitted` of
/// `judged` entries were accepted.
pub(crate) fn few_match(judged: usize, admitted: usize, rows: u64) -> bool {
    if judged < JUDGED_MIN || planted!("few_matches_not_noticed") {
        return false;
    }
    admitted as f64 / judged as f64 * rows as f64 <= MATCHES_FEW
}

/// What an idle posting of so many entries weighs against patience, after `admitted` of `judged`
/// entries were accepted: how likely it holds a match at all, and less the rarer matches are. The
/// k-th match is as far as the row at place `k / rate`, so neighbours lie in more postings, and a
/// posting that improves nothing says less. The fourth root of the rate was measured: it gives
/// filters of 50 and of 5 % the recall that patience was fitted for without one.
pub(crate) fn idle_weight(entries: usize, judged: usize, admitted: usize) -> f32 {
    if judged < WEIGHED_MIN {
        return 0.0;
    }
    if planted!("every_posting_is_idle") {
        return 1.0;
    }
    let rate = admitted as f32 / judged as f32;
    let likely = 1.0 - (1.0 - rate).powi(entries.min(1 << 20) as i32);
    likely * rate.sqrt().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_believed_once_enough_was_judged() {
        assert!(!few_match(255, 0, 60_000) && few_match(256, 0, 60_000));
        assert!(few_match(300, 5, 60_000) && !few_match(300, 6, 60_000));
        assert_eq!(idle_weight(60, 31, 20), 0.0);
        assert_eq!(idle_weight(60, 1000, 0), 0.0);
        assert_eq!(idle_weight(60, 1000, 1000), 1.0);
        assert!((idle_weight(60, 1600, 100) - 0.5).abs() < 0.02);
        assert!(idle_weight(60, 1000, 5) < 0.1);
    }
}
