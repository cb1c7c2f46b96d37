//! From disk into a frame: read, verify, install.
//!
//! Two threads may read the same page at once; one of them installs it. The location may change
//! while the read is under way (the page was written elsewhere by a thread that had it): then what
//! was read says nothing, and the load starts again. Only bytes that the location of that moment
//! vouches for are installed (T3: page id, class, birth epoch, crc in the page and in the map).

use std::sync::atomic::Ordering;

use terrane_wal::io::{Buf, Op, Purpose, Request};
use terrane_wal::waits::assert_may_wait;

use crate::error::{Corruption, StoreError};
use crate::ids::{Class, PageId, Slot};
use crate::page::verify::verify;

use super::frame::Owner;
use super::latch;
use super::translate::{Entry, FrameWord, Location};
use super::{MAGIC, Pool, copy_in};

/// Pages read together at most: their buffers lie beside the pool.
const LOAD_BATCH: usize = 64;

/// A page that is on disk and not in memory.
struct Missing<'a> {
    entry: Entry<'a>,
    location: Location,
    slot: Slot,
    class: Class,
}

impl Pool {
    /// Reads a page into memory if it is on disk and not there. Blocks: never inside the gate or
    /// under a latch. Ok also if the page no longer exists (then `optimistic` says so).
    pub fn load(&self, id: PageId) -> Result<(), StoreError> {
        assert_may_wait();
        while let Some(Missing {
            entry,
            location,
            slot,
            class,
        }) = self.missing(id)?
        {
            let (buf, verdict) = self.read_slot(id, slot, class, location)?;
            if let Err(error) = verdict {
                let now = self.latch_soon(entry.state);
                let moved = entry.location() != Some(location);
                latch::release_unchanged(entry.state);
                if moved || now & latch::RESIDENT != 0 {
                    continue;
                }
                return Err(error);
            }
            let frame = self.take_frame(class)?;
            if self.install(id, entry, location, class, frame, &buf) {
                return Ok(());
            }
            self.frames.give(frame, class);
        }
        Ok(())
    }

    /// Reads pages into memory together, as far as they are on disk and not there: ahead of need,
    /// so a page that cannot be read stays for the one who needs it. Blocks, as [`Pool::load`].
    pub(crate) fn load_many(&self, ids: &[PageId], purpose: Purpose) -> Result<(), StoreError> {
        assert_may_wait();
        let disk = self.space.disk()?;
        for ids in ids.chunks(LOAD_BATCH) {
            let mut batch = disk.env.disk.batch(purpose);
            for (index, &id) in ids.iter().enumerate() {
                let Some(missing) = self.missing(id)? else {
                    continue;
                };
                if let Some((file, offset)) = disk.files.place(missing.slot) {
                    batch.push(Request {
                        token: index as u64,
                        file,
                        offset,
                        op: Op::Read(Buf::zeroed(missing.class.bytes())),
                    });
                }
            }
            while batch.in_flight() > 0 {
                for done in batch.wait() {
                    if let (Ok(read), Some(buf)) = (done.result, done.buf) {
                        self.install_read(ids[done.token as usize], &buf[..read])?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts a page that was read ahead into a frame, if the location of this moment vouches for it.
    fn install_read(&self, id: PageId, page: &[u8]) -> Result<(), StoreError> {
        let Some(Missing {
            entry,
            location,
            class,
            ..
        }) = self.missing(id)?
        else {
            return Ok(());
        };
        if judge_page(page, id, class, location).is_err() || verify(page).is_err() {
            return Ok(());
        }
        let frame = self.take_frame(class)?;
        if !self.install(id, entry, location, class, frame, page) {
            self.frames.give(frame, class);
        }
        Ok(())
    }

    /// Where to read a page that is on disk and not in memory. Blocks.
    fn missing(&self, id: PageId) -> Result<Option<Missing<'_>>, StoreError> {
        let Some(entry) = self.translation.entry(id) else {
            return Ok(None);
        };
        loop {
            let before = self.latch_soon(entry.state);
            let location = entry.location();
            latch::release_unchanged(entry.state);
            if before & latch::RESIDENT != 0 {
                return Ok(None);
            }
            let Some(location) = location else {
                self.know(id)?;
                continue;
            };
            return Ok(location.at.map(|(slot, class)| Missing {
                entry,
                location,
                slot,
                class,
            }));
        }
    }

    /// Where a page lies if it exists; `at` is None if it is in memory only. Blocks.
    pub(crate) fn place_of(&self, id: PageId) -> Result<Option<Location>, StoreError> {
        let Some(entry) = self.translation.entry(id) else {
            return Ok(None);
        };
        if entry.location().is_none() {
            self.know(id)?;
        }
        let before = self.latch_soon(entry.state);
        let location = entry.location();
        latch::release_unchanged(entry.state);
        let resident = before & latch::RESIDENT != 0;
        Ok(location.filter(|location| resident || location.at.is_some()))
    }

    /// Fills in the locations of the base chunk that holds `id`.
    fn know(&self, id: PageId) -> Result<(), StoreError> {
        let (first, entries) = self.space.read_base(id)?.unwrap_or((id, Vec::new()));
        for (index, &location) in entries.iter().enumerate() {
            self.know_one(PageId(first.0 + index as u64), location);
        }
        // Beyond the base and never published: no such page.
        self.know_one(id, Location::none(crate::ids::Epoch(0)));
        Ok(())
    }

    fn know_one(&self, id: PageId, location: Location) {
        if let Some(entry) = self.translation.entry(id) {
            self.latch_soon(entry.state);
            if entry.location().is_none() {
                entry.set_location(location);
            }
            latch::release_unchanged(entry.state);
        }
    }

    /// Reads a slot and judges what lies there. The outer error is the device's.
    pub(crate) fn read_slot(
        &self,
        id: PageId,
        slot: Slot,
        class: Class,
        location: Location,
    ) -> Result<(Buf, Result<(), StoreError>), StoreError> {
        let Some((file, offset)) = self.space.disk()?.files.place(slot) else {
            let error = StoreError::corrupt("length", format!("a data file with {slot}"), "none");
            return Err(error);
        };
        let mut buf = Buf::zeroed(class.bytes());
        let read = file.read(Purpose::Miss, offset, &mut buf)?;
        let verdict = judge_page(&buf[..read], id, class, location)
            .and_then(|()| {
                verify(&buf[..class.bytes()])
                    .map(|_| ())
                    .map_err(|damage| damage.of_page(id))
            })
            .map_err(|error| error.at(file.path(), offset));
        Ok((buf, verdict))
    }

    /// A frame, by eviction if there is none. Blocks.
    fn take_frame(&self, class: Class) -> Result<u32, StoreError> {
        loop {
            match self.take_or_want(class) {
                Some(frame) => return Ok(frame),
                None => self.relieve()?,
            }
        }
    }

    /// Puts a page that was read into its frame. False if the page came or moved meanwhile.
    fn install(
        &self,
        id: PageId,
        entry: Entry<'_>,
        location: Location,
        class: Class,
        frame: u32,
        page: &[u8],
    ) -> bool {
        let before = self.latch_soon(entry.state);
        let expected = before & latch::RESIDENT == 0 && entry.location() == Some(location);
        let words = self.frames.words(frame, class).filter(|_| expected);
        let Some(words) = words else {
            latch::release_unchanged(entry.state);
            return false;
        };
        copy_in(page, words);
        let word = FrameWord::new(frame, location.birth, class);
        entry.frame.store(word.pack(), Ordering::Relaxed);
        self.frames.set_owner(frame, Owner::Page(id));
        latch::set(entry.state, latch::RESIDENT | latch::MARKED);
        self.counters.resident.fetch_add(1, Ordering::Relaxed);
        self.counters.loaded.fetch_add(1, Ordering::Relaxed);
        latch::release_changed(entry.state);
        true
    }
}

/// T3: what the map says of a page against what lies in its slot.
pub(crate) fn judge_page(
    page: &[u8],
    id: PageId,
    class: Class,
    location: Location,
) -> Result<(), StoreError> {
    if page.len() < class.bytes() {
        return Err(StoreError::Corrupt(Box::new(Corruption {
            what: "length",
            page: Some(id),
            expected: format!("{} bytes of a page", class.bytes()),
            found: format!("{}, then the end of the file", page.len()),
            ..Corruption::default()
        })));
    }
    let u32_at =
        |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    let crc = crc32fast::hash(&page[4..class.bytes()]);
    let own = u32_at(0);
    let named = u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32;
    let birth = u32_at(20);
    let bad = |expected: String, found: String| {
        let error = StoreError::corrupt_page(id, expected, found);
        Err(error.in_tree(terrane_wal::lsn::TreeId(u32_at(16))))
    };
    if own != crc {
        return bad(format!("crc {own:#010x}"), format!("{crc:#010x}"));
    }
    if u64::from(u32_at(4) & 0xffff) != MAGIC || u32_at(4) >> 24 != u32::from(class.number()) {
        return bad(format!("a page of {class}"), format!("{:#010x}", u32_at(4)));
    }
    if named != id.0 {
        return bad(id.to_string(), format!("page {named}"));
    }
    if crc != location.crc || birth != location.birth.0 {
        return bad(
            format!("crc {:#010x} of {}", location.crc, location.birth),
            format!("crc {crc:#010x} of epoch {birth}: stale"),
        );
    }
    Ok(())
}
