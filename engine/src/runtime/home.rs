//! Which database a table belongs to.

use terrane_wal::sync::{AtomicU64, Ordering};

/// Opens of lone databases by this process so far.
static OPENS: AtomicU64 = AtomicU64::new(0);

/// The identity of an open database: all members of a shard share it, so that a table is of the
/// shard whoever leads. Two opens of a lone database differ: its trees may have other numbers then,
/// if it was replaced by another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Home {
    uuid: [u8; 16],
    /// Which open of this process; 0 for a member.
    open: u64,
}

impl Home {
    /// Of one open of a database by itself.
    pub(crate) fn alone(uuid: [u8; 16]) -> Home {
        let open = OPENS.fetch_add(1, Ordering::Relaxed) + 1;
        Home { uuid, open }
    }

    /// Of every member of a shard.
    pub(crate) fn shard(uuid: [u8; 16]) -> Home {
        Home { uuid, open: 0 }
    }
}
