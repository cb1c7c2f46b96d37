//! Ordered reading of the log while it grows: for change streams, replicas, backup.
//!
//! A reader never goes beyond the durable position, so what it has handed out survives a crash. It
//! reads segment files, not memory; at the end it says None and can be asked again.
//!
//! Invariant: a reader hands out entries in order, none twice, none left out; if its place was
//! trimmed away it says `CursorLost` and never something else.

use std::sync::Arc;

use crate::error::WalError;
use crate::frame::frame_bytes;
use crate::io::Purpose;
use crate::log::{Log, ReplayEntry};
use crate::lsn::Lsn;
use crate::segment::{FIRST_FRAME, FrameWindow, Segment};
use crate::stream::EntryStream;

/// Bytes that a reader reads ahead: small, because a tail is read again after each flush.
const READ_AHEAD: usize = 64 << 10;

/// Reads entries in order, up to the durable position.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    stream: EntryStream,
    /// Up to here the stream was fed.
    fed: Lsn,
    /// Cuts of the log that lie before this reader's time.
    cuts: usize,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    segment: Arc<Segment>,
    window: FrameWindow,
    offset: u64,
}

impl Place {
    fn at_start(segment: Arc<Segment>) -> Place {
        Place {
            window: FrameWindow::new(Arc::clone(&segment.file), Purpose::Other, READ_AHEAD),
            segment,
            offset: FIRST_FRAME,
        }
    }
}

impl Reader {
    pub(crate) fn new(log: Arc<Log>, from: Lsn) -> Result<Reader, WalError> {
        let durable = log.durable_lsn();
        if from > durable {
            return Err(WalError::Invalid {
                what: format!("a reader from {from}, but the log is durable up to {durable}"),
            });
        }
        let cuts = log.shelf.lock().cuts.len();
        let mut reader = Reader {
            log,
            stream: EntryStream::new(from),
            fed: from,
            cuts,
            place: None,
        };
        reader.check_kept()?;
        Ok(reader)
    }

    /// Where the next entry begins.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.stream.position()
    }

    /// The next entry, or None at the durable position; call again later to go on.
    pub fn next_entry(&mut self) -> Result<Option<ReplayEntry<'_>>, WalError> {
        while !self.stream.is_ready()? {
            if !self.feed()? {
                return Ok(None);
            }
        }
        self.stream.take()
    }

    /// Feeds the stream with what the next frame holds; false at the durable position.
    fn feed(&mut self) -> Result<bool, WalError> {
        self.check_kept()?;
        let durable = self.log.durable_lsn();
        if self.fed >= durable {
            return Ok(false);
        }
        let place = match self.place.take() {
            Some(place) => place,
            None => {
                let found = self.log.shelf.lock().find(self.fed);
                let Some(segment) = found else {
                    return Err(self.lost());
                };
                Place::at_start(segment)
            }
        };
        let place = self.place.insert(place);
        let next = self.log.shelf.lock().after(place.segment.seq);
        if let Some(next) = &next
            && next.first_lsn <= self.fed
        {
            *place = Place::at_start(Arc::clone(next));
            return Ok(true);
        }
        let limit = next.map_or(durable, |next| next.first_lsn.min(durable));
        let read = feed_frame(&mut self.stream, self.fed, limit, place);
        // A file that was trimmed meanwhile may have been used again: what was read is void.
        self.check_kept()?;
        self.fed = read?;
        Ok(true)
    }

    fn check_kept(&mut self) -> Result<(), WalError> {
        let shelf = self.log.shelf.lock();
        let (oldest, cuts) = (shelf.oldest, &shelf.cuts[self.cuts..]);
        if let Some(cut) = cuts.iter().find(|cut| **cut < self.fed) {
            return Err(WalError::Cut {
                position: self.position(),
                cut: *cut,
            });
        }
        self.cuts += cuts.len();
        drop(shelf);
        if self.fed < oldest {
            return Err(self.lost());
        }
        Ok(())
    }

    fn lost(&self) -> WalError {
        WalError::CursorLost {
            position: self.position(),
            oldest: self.log.oldest(),
        }
    }
}

/// Reads the frame at `place` and feeds what lies between `fed` and `limit`. Returns where the
/// stream stands then, and moves the place on if the frame is used up.
fn feed_frame(
    stream: &mut EntryStream,
    fed: Lsn,
    limit: Lsn,
    place: &mut Place,
) -> Result<Lsn, WalError> {
    let salt = place.segment.salt;
    if place.window.frame(place.offset, salt)?.is_err() {
        // Perhaps it was read ahead before it was written.
        place.window.forget();
    }
    let (header, payload) = match place.window.frame(place.offset, salt)? {
        Ok(frame) => frame,
        Err(fault) => {
            return Err(WalError::Corrupt {
                segment: place.segment.file.path().to_path_buf(),
                offset: place.offset,
                expected: fault.expected(),
                found: fault.found(),
            });
        }
    };
    let base = Lsn(header.base_lsn);
    let end = base.advance(payload.len() as u64);
    if base > fed {
        return Err(WalError::Corrupt {
            segment: place.segment.file.path().to_path_buf(),
            offset: place.offset,
            expected: format!("a payload from {fed}"),
            found: format!("one from {base}"),
        });
    }
    let upto = end.min(limit).max(fed);
    if end > fed {
        let from = fed.since(base) as usize;
        stream.feed(fed, &payload[from..upto.since(base) as usize]);
    }
    if upto >= end {
        place.offset += frame_bytes(payload.len()) as u64;
    }
    Ok(upto)
}
