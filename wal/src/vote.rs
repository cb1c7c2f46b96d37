//! VOTE: what a replicated member has promised, in a file that one damaged slot does not set back.
//!
//! ```text
//! 0          4096         8192
//! |  slot 0  |   slot 1   |     equal, unless a save or an open is under way
//!
//! save: write one slot, durable -> write the other, durable -> the vote counts
//! open: read both -> the highest sequence -> write both again, in the same way -> it counts
//! ```
//!
//! A slot whose write was torn and a slot that rotted look alike. With each vote in one slot alone,
//! both would fall back to the older vote in the other: right for the first, whose vote nobody was
//! told of, and a broken promise (I2) for the second. So a vote counts only once it is in both:
//! whatever one slot has come to, the other holds the last vote that counts, or one that was being
//! saved after it. Both damaged is an error, never an older vote.
//!
//! Invariants:
//! * V1. A vote that `save`, `create` or `open` returned is durable in both slots until the next
//!   save begins; while that lasts, in at least one.
//! * V2. A slot is written only while the other one is durable with a vote that counts, or with the
//!   one that is written: a torn write never takes the last one.
//! * V3. Of one incarnation, neither the promised term nor the boot counter goes down.
//!
//! Byte table: engine/src/guide/format.md, "VOTE".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::error::WalError;
use crate::io::{BLOCK, Buf, Disk, File, IoError, Open, Purpose};
use crate::lsn::Term;

/// Bytes of the file: two slots.
const FILE_BYTES: u64 = 2 * BLOCK as u64;

/// Where the slots begin.
const SLOTS: [u64; 2] = [0, BLOCK as u64];

/// `TVOT`.
const MAGIC: u32 = u32::from_le_bytes(*b"TVOT");

/// The fields of a slot, as they lie on disk; zeros follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
struct Slot {
    magic: u32,
    /// Over bytes 8..64.
    crc: u32,
    db_uuid: [u8; 16],
    promised_term: u64,
    incarnation: u64,
    boot: u64,
    sequence: u64,
    reserved: u64,
}

const SLOT_BYTES: usize = size_of::<Slot>();

const _: () = assert!(SLOT_BYTES == 64);
const _: () = assert!(std::mem::offset_of!(Slot, crc) == 4);
const _: () = assert!(std::mem::offset_of!(Slot, db_uuid) == 8);
const _: () = assert!(std::mem::offset_of!(Slot, promised_term) == 24);
const _: () = assert!(std::mem::offset_of!(Slot, incarnation) == 32);
const _: () = assert!(std::mem::offset_of!(Slot, boot) == 40);
const _: () = assert!(std::mem::offset_of!(Slot, sequence) == 48);
const _: () = assert!(std::mem::offset_of!(Slot, reserved) == 56);

/// What a member must not forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Nothing of a lower term is acknowledged (I2).
    pub promised: Term,
    /// Drawn when the disk was formatted, and anew when it turns out to be an old one (I9).
    pub incarnation: u64,
    /// Starts on this disk (I13).
    pub boot: u64,
}

impl Vote {
    /// Refuses a vote of the same incarnation that takes something back.
    fn check_next(&self, next: &Vote) -> Result<(), WalError> {
        if self.incarnation != next.incarnation {
            return Ok(());
        }
        for (what, least, found) in [
            ("promised term", self.promised.0, next.promised.0),
            ("boot counter", self.boot, next.boot),
        ] {
            if found < least {
                let what = format!("{what} of a vote: expected at least {least}, found {found}");
                return Err(WalError::Invalid { what });
            }
        }
        Ok(())
    }
}

impl Slot {
    fn new(db_uuid: [u8; 16], vote: &Vote, sequence: u64) -> Slot {
        let mut slot = Slot {
            magic: MAGIC,
            crc: 0,
            db_uuid,
            promised_term: vote.promised.0,
            incarnation: vote.incarnation,
            boot: vote.boot,
            sequence,
            reserved: 0,
        };
        slot.crc = crc32fast::hash(&bytemuck::bytes_of(&slot)[8..]);
        slot
    }

    fn vote(&self) -> Vote {
        Vote {
            promised: Term(self.promised_term),
            incarnation: self.incarnation,
            boot: self.boot,
        }
    }

    fn encode(&self) -> Buf {
        let mut buf = Buf::zeroed(BLOCK);
        buf[..SLOT_BYTES].copy_from_slice(bytemuck::bytes_of(self));
        buf
    }

    fn decode(bytes: &[u8], db_uuid: [u8; 16]) -> Found {
        if bytes.len() != BLOCK {
            let found = format!("{} bytes", bytes.len());
            return Found::Damaged(WalError::corrupt(0, format!("{BLOCK} bytes"), found));
        }
        let (head, rest) = bytes.split_at(SLOT_BYTES);
        let slot: Slot = bytemuck::pod_read_unaligned(head);
        let crc = crc32fast::hash(&head[8..]);
        let damage = if slot.magic != MAGIC {
            Some((
                0,
                "a vote".to_owned(),
                format!("magic {:#010x}", slot.magic),
            ))
        } else if slot.crc != crc {
            Some((4, format!("crc {:#010x}", slot.crc), format!("{crc:#010x}")))
        } else {
            let dirt = rest.iter().position(|byte| *byte != 0);
            dirt.map(|at| {
                (
                    SLOT_BYTES + at,
                    "zeros".to_owned(),
                    format!("{:#04x}", rest[at]),
                )
            })
        };
        if let Some((offset, expected, found)) = damage {
            return Found::Damaged(WalError::corrupt(offset, expected, found));
        }
        if slot.reserved != 0 {
            return Found::Foreign(WalError::Version {
                segment: PathBuf::new(),
                expected: "a vote of format 1".to_owned(),
                found: format!("reserved bytes {:#x}", slot.reserved),
            });
        }
        if slot.db_uuid != db_uuid {
            let (ours, theirs) = (
                u128::from_be_bytes(db_uuid),
                u128::from_be_bytes(slot.db_uuid),
            );
            let expected = format!("a vote of database {ours:032x}");
            return Found::Foreign(WalError::corrupt(
                8,
                expected,
                format!("one of {theirs:032x}"),
            ));
        }
        Found::Whole(slot)
    }
}

/// What a slot holds.
enum Found {
    /// A vote.
    Whole(Slot),
    /// Nothing that counts: a torn write, rot, or a sector that cannot be read.
    Damaged(WalError),
    /// What was written whole, and not by this database in this format: the file is refused.
    Foreign(WalError),
}

/// The open VOTE file of a member.
///
/// Who holds the directory's `LOCK` holds the only one.
#[derive(Debug)]
pub struct VoteFile {
    file: Arc<dyn File>,
    /// In both slots.
    slot: Slot,
    failed: Option<Arc<WalError>>,
}

impl VoteFile {
    /// Makes the file with a first vote. After a power cut it is there whole, or not at all.
    ///
    /// It is written as `<name>.new` and then renamed; one that an earlier call left is removed. If
    /// this fails, it may be tried again.
    ///
    /// # Errors
    /// [`WalError::Invalid`] if the file is there, since it may hold a promise; [`WalError::Io`].
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        db_uuid: [u8; 16],
        vote: Vote,
    ) -> Result<VoteFile, WalError> {
        if disk.stat(path)?.is_some() {
            let what = format!("{}: expected no file, found one", path.display());
            return Err(WalError::Invalid { what });
        }
        let unfinished = path.with_extension("new");
        if disk.stat(&unfinished)?.is_some() {
            disk.remove(&unfinished)?;
        }
        let make = || {
            let file = disk.open(&unfinished, Open::CreateNew)?;
            write_slots(&*file, &Slot::new(db_uuid, &vote, 1), SLOTS)?;
            disk.rename(&unfinished, path)?;
            VoteFile::open(disk, path, db_uuid)
        };
        let made = make();
        if made.is_err() {
            // Its name may never become durable. The original error says more than one of this.
            let _ = disk.remove(path);
        }
        made
    }

    /// Opens the file: the last vote that was saved, or one whose save was cut off after it.
    ///
    /// Both slots and the name are made durable anew before this returns. A process that died
    /// inside a save, or a sync that failed, may have left a vote that is read from a cache and is
    /// not on the disk; and a slot that was damaged must not stay so, or the next damage would meet
    /// the only good one.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] if neither slot holds a vote, if two votes have one sequence, if the
    /// file is not of its length, or of another database; [`WalError::Version`];
    /// [`WalError::Io`], with which kind `NotFound` too: a member without the file has forgotten
    /// what it promised.
    pub fn open(disk: &dyn Disk, path: &Path, db_uuid: [u8; 16]) -> Result<VoteFile, WalError> {
        let file = disk.open(path, Open::Write)?;
        let len = file.len()?;
        if len != FILE_BYTES {
            let offset = len.min(FILE_BYTES) as usize;
            let (expected, found) = (format!("{FILE_BYTES} bytes"), format!("{len} bytes"));
            return Err(WalError::corrupt(offset, expected, found).in_file(path, 0));
        }
        let (slot, order) = newest(&*file, db_uuid)?;
        if !crate::planted!("a_damaged_vote_stays") {
            write_slots(&*file, &slot, order)?;
        }
        disk.sync_dir(path.parent().unwrap_or(Path::new("")))?;
        Ok(VoteFile {
            file,
            slot,
            failed: None,
        })
    }

    /// The last vote that counts. After a failed save it is unknown whether that one or the one
    /// that failed is on the disk.
    #[must_use]
    pub fn vote(&self) -> Vote {
        self.slot.vote()
    }

    /// Saves a vote. Once this returns it is durable, and one damaged slot loses nothing.
    ///
    /// A failed durable write is final. The system may have dropped the bytes and taken them for
    /// written, so that a second sync would report success for what is not on the disk; or the
    /// write may have reached it after all. Nothing more is saved through this handle, and the
    /// member must not act as if either vote stood: it opens the file again, which writes anew what
    /// it finds.
    ///
    /// # Errors
    /// [`WalError::Invalid`] if the promised term or the boot counter of the same incarnation would
    /// go down: nothing was written. [`WalError::Poisoned`] if this write or an earlier one failed.
    pub fn save(&mut self, vote: Vote) -> Result<(), WalError> {
        if let Some(cause) = self.failed.clone() {
            return Err(WalError::Poisoned { cause });
        }
        if !crate::planted!("a_promise_goes_down") {
            self.vote().check_next(&vote)?;
        }
        let Some(sequence) = self.slot.sequence.checked_add(1) else {
            let what = format!(
                "{}: no number is left for a vote",
                self.file.path().display()
            );
            return Err(WalError::Invalid { what });
        };
        let slot = Slot::new(self.slot.db_uuid, &vote, sequence);
        if let Err(error) = write_slots(&*self.file, &slot, SLOTS) {
            let cause = Arc::new(WalError::Io(error));
            self.failed = Some(Arc::clone(&cause));
            return Err(WalError::Poisoned { cause });
        }
        self.slot = slot;
        Ok(())
    }
}

/// The vote that counts, and in which order the slots are written again: first the one that is
/// damaged, or newer than the other, or which a save writes last (V2).
fn newest(file: &dyn File, db_uuid: [u8; 16]) -> Result<(Slot, [u64; 2]), WalError> {
    let [first, second] = SLOTS;
    let (forth, back) = ([first, second], [second, first]);
    let read = |at| read_slot(file, at, db_uuid);
    match (read(first), read(second)) {
        (Found::Foreign(error), _) | (_, Found::Foreign(error)) => Err(error),
        (Found::Damaged(error), Found::Damaged(_)) => Err(error),
        (Found::Damaged(_), Found::Whole(slot)) => Ok((slot, forth)),
        (Found::Whole(slot), Found::Damaged(_)) => Ok((slot, back)),
        (Found::Whole(a), Found::Whole(b)) if a.sequence > b.sequence => Ok((a, forth)),
        (Found::Whole(a), Found::Whole(b)) if a.sequence < b.sequence || a == b => Ok((b, back)),
        (Found::Whole(a), Found::Whole(b)) => {
            let expected = format!("{:?}, as in slot 0 with the same number", a.vote());
            let error = WalError::corrupt(0, expected, format!("{:?}", b.vote()));
            Err(error.in_file(file.path(), second))
        }
    }
}

fn read_slot(file: &dyn File, at: u64, db_uuid: [u8; 16]) -> Found {
    let mut buf = Buf::zeroed(BLOCK);
    let found = match file.read(Purpose::Other, at, &mut buf) {
        Ok(n) => Slot::decode(&buf[..n], db_uuid),
        // By V1 the other slot is enough, and writing this one may mend it.
        Err(error) => Found::Damaged(error.into()),
    };
    match found {
        Found::Damaged(error) => Found::Damaged(error.in_file(file.path(), at)),
        Found::Foreign(error) => Found::Foreign(error.in_file(file.path(), at)),
        Found::Whole(slot) => Found::Whole(slot),
    }
}

/// Writes the slots one after the other, each durable before the next begins.
fn write_slots(file: &dyn File, slot: &Slot, order: [u64; 2]) -> Result<(), IoError> {
    let buf = slot.encode();
    let durable = !crate::planted!("a_vote_is_not_synced");
    let slots = if crate::planted!("a_vote_in_one_slot") {
        1
    } else {
        2
    };
    let mut order = order.iter().take(slots);
    order.try_for_each(|at| file.write(Purpose::Other, *at, &buf, durable))
}
