//! The limits of placement, as constants that hold each other up.
//!
//! Each bounds what one name, message or map can cost; none of them is a tuning knob.

/// Most bytes that a keyspace id has once zero bytes at its end are taken off.
///
/// One byte counts them in a message, and the hashes of six composite parts fit with room to spare.
pub const KEYSPACE_ID_BYTES_MAX: usize = 255;

/// Most bytes of a bound between two shards, so that a shard's name can be a folder's name.
pub const SHARD_BOUND_BYTES_MAX: usize = 32;

/// Most shards of a map: what four hex digits can tell apart.
pub const SHARDS_MAX: usize = 65_536;

/// Most columns of a `multicol` vindex, and the bytes that they share.
pub const MULTICOL_COLUMNS_MAX: usize = 8;

/// Most component borders of a `cfc` vindex that hashes its components.
pub const CFC_OFFSETS_MAX: usize = 14;

/// Most bytes of a name of a file or folder on the file systems that count.
const FILE_NAME_BYTES_MAX: usize = 255;

const _: () = assert!(SHARD_BOUND_BYTES_MAX <= KEYSPACE_ID_BYTES_MAX);
// Two bounds in hex and the dash.
const _: () = assert!(4 * SHARD_BOUND_BYTES_MAX < FILE_NAME_BYTES_MAX);
// A component gives at most the 16 bytes of MD5, and there is one more than borders.
const _: () = assert!(16 * (CFC_OFFSETS_MAX + 1) <= KEYSPACE_ID_BYTES_MAX);
