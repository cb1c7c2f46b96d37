//! The checker: whether the records of an index say the same as each other and as the rows.
//!
//! Read-only and slow: every record, every row. For tests, and for a host's verifier.

use std::collections::{BTreeMap, BTreeSet};

use crate::index::VectorIndex;
use crate::maintain::{Contents, RecordStore};
use crate::record::{
    Block, Centroid, Columns, Extra, Head, IndexState, Job, JobKind, Key, Locator, Mark, Meta,
    PostingId, RowId, State, TailEntry, Tuning, Vver,
};
use crate::store::IndexError;

/// What the copies of a row are, over all postings.
#[derive(Debug, Default)]
struct Copies {
    live: Vec<(Vver, PostingId)>,
    /// Marked copies that `stale` counts.
    stale: usize,
    newest: Vver,
}

/// What is wrong with an index, one sentence each; nothing if all is well. Between system
/// transactions and commits every one of these holds:
///
/// * V1. A live row has exactly the live entries that its locator lists, with the version that its
///   row has; a row without a vector has none. While the index is made, a row that the build has
///   not come to has neither.
/// * V5. `stale` of a locator is the number of marked copies of its row, but those that a draining
///   posting has dealt with; no copy is newer than its locator, and no marked one is without.
/// * Every posting but the unassigned one has a centre and a head; a draining one has its job and
///   its children; ids are below the next one, epochs at most the newest.
/// * A head's counts are those of its blocks; blocks are numbered from 0, all but the last full;
///   extra bits and filter columns belong to a slot of a block, and every slot has them if the
///   index does; marks belong to entries.
/// * Meta counts the centroid records; a tuning can be read.
/// * Codes are what encoding the row against the posting's centre gives.
///
/// The store's snapshot must see every applied commit. O(records + rows x dimension).
///
/// # Errors
/// [`IndexError::Record`] for a record that cannot be read; and the host's own.
pub fn check<S: RecordStore>(index: &VectorIndex, store: &S) -> Result<Vec<String>, S::Error> {
    let mut check = Check {
        index,
        store,
        wrong: Vec::new(),
        states: BTreeMap::new(),
        copies: BTreeMap::new(),
        entries: BTreeMap::new(),
    };
    let meta = check.meta()?;
    check.tuning()?;
    check.centroids(&meta)?;
    check.jobs()?;
    let mut ids: Vec<PostingId> = check.states.keys().copied().collect();
    ids.push(PostingId::UNASSIGNED);
    for id in ids {
        check.posting(id)?;
    }
    check.strays()?;
    check.locators()?;
    check.rows(meta.state == IndexState::Building)?;
    Ok(check.wrong)
}

struct Check<'c, S> {
    index: &'c VectorIndex,
    store: &'c S,
    wrong: Vec<String>,
    states: BTreeMap<PostingId, (State, [PostingId; 2])>,
    copies: BTreeMap<RowId, Copies>,
    /// Live entries as their tail records would be, by row and posting: for codes.
    entries: BTreeMap<(RowId, PostingId), Vec<u8>>,
}

impl<S: RecordStore> Check<'_, S> {
    fn say(&mut self, what: String) {
        self.wrong.push(what);
    }

    fn meta(&mut self) -> Result<Meta, S::Error> {
        let mut meta = None;
        self.store.read(Key::Meta, &mut |_, value| {
            meta = Some(Meta::decode(value)?);
            Ok(())
        })?;
        let meta = meta.ok_or(IndexError::Missing { record: "meta" })?;
        if meta.params != *self.index.params() {
            self.say(format!("meta: another index: {:?}", meta.params));
        }
        let published = self.store.centroids().epoch();
        if published != meta.epoch {
            self.say(format!(
                "epoch {published} is published, meta has {}",
                meta.epoch
            ));
        }
        Ok(meta)
    }

    /// One that cannot be read is found out again, but nobody should have written it.
    fn tuning(&mut self) -> Result<(), S::Error> {
        let mut wrong = None;
        self.store.read(Key::Tuning, &mut |_, value| {
            wrong = Tuning::decode(value).err();
            Ok(())
        })?;
        if let Some(error) = wrong {
            self.say(error.to_string());
        }
        Ok(())
    }

    fn centroids(&mut self, meta: &Meta) -> Result<(), S::Error> {
        let dim = self.index.space().code_dim();
        let (first, last) = (Key::Centroid(PostingId(0)), Key::Head(PostingId(0)));
        let (mut states, mut wrong) = (BTreeMap::new(), Vec::new());
        self.store.scan(first, Some(last), &mut |key, value| {
            if let Key::Centroid(id) = key {
                let record = Centroid::decode(value, dim)?;
                if id.0 == 0 || id.0 >= meta.next_posting || record.epoch > meta.epoch {
                    wrong.push(format!(
                        "posting {}: id or epoch {} too high",
                        id.0, record.epoch
                    ));
                }
                states.insert(id, (record.state, record.children));
            }
            Ok(())
        })?;
        if states.len() as u64 != u64::from(meta.centroids) {
            let (expected, found) = (meta.centroids, states.len());
            wrong.push(format!(
                "centroid records: expected {expected}, found {found}"
            ));
        }
        let children: BTreeSet<PostingId> = states
            .values()
            .filter(|(state, _)| *state == State::Draining)
            .flat_map(|(_, children)| *children)
            .collect();
        for (id, (state, _)) in &states {
            if (*state == State::Receiving) != children.contains(id) {
                wrong.push(format!("posting {}: {state:?}, its parent is not", id.0));
            }
        }
        for child in children.iter().filter(|child| child.0 != 0) {
            if !states.contains_key(child) {
                wrong.push(format!("posting {}: a child that is not there", child.0));
            }
        }
        self.states = states;
        self.wrong.append(&mut wrong);
        Ok(())
    }

    fn jobs(&mut self) -> Result<(), S::Error> {
        let dim = self.index.space().code_dim();
        let mut jobs = BTreeMap::new();
        let (first, last) = (Key::Job(PostingId(0)), Key::Extra(PostingId(0), 0));
        self.store.scan(first, Some(last), &mut |key, value| {
            if let Key::Job(id) = key {
                jobs.insert(id, Job::decode(value, dim)?);
            }
            Ok(())
        })?;
        for (&id, &(state, children)) in &self.states {
            let job = jobs.remove(&id);
            let fits = match &job {
                Some(job) => job.kind != JobKind::Reassign && job.children == children,
                None => false,
            };
            if fits != (state == State::Draining) {
                self.wrong
                    .push(format!("posting {}: {state:?} with job {job:?}", id.0));
            }
        }
        // What is left belongs to postings that are gone.
        for (id, job) in jobs {
            if job.kind != JobKind::Reassign {
                self.say(format!(
                    "job {:?} of posting {}, which is not there",
                    job.kind, id.0
                ));
            }
        }
        Ok(())
    }

    fn posting(&mut self, id: PostingId) -> Result<(), S::Error> {
        let dim = self.index.space().code_dim();
        let mut contents = Contents::read(self.store, id, dim)?;
        contents.read_extra(self.store, 0)?;
        let name = format!("posting {}", id.0);
        let draining = self.states.get(&id).map(|state| state.0) == Some(State::Draining);
        self.head(&name, id, &contents);
        let mut seen = BTreeSet::new();
        for (at, entry) in contents.entries.iter().enumerate() {
            let (row, vver) = (entry.row, entry.vver);
            if !seen.insert((row, vver)) {
                self.say(format!("{name}: row {} version {} twice", row.0, vver.0));
            }
            let copies = self.copies.entry(row).or_default();
            match contents.mark(row, vver) {
                None => copies.live.push((vver, id)),
                Some(Mark::DONE) if draining => continue,
                Some(Mark::DONE) => {
                    self.say(format!("{name}: row {} dealt with, nothing drains", row.0));
                    continue;
                }
                Some(_) => copies.stale += 1,
            }
            copies.newest = copies.newest.max(vver);
            let tail = contents.entry(at);
            if tail.extra.is_some() != self.index.has_extra() {
                self.say(format!("{name}: row {} has extra bits, or none", row.0));
            }
            if contents.mark(row, vver).is_none() {
                let plain = TailEntry {
                    columns: None,
                    ..contents.entry(at)
                };
                self.entries.insert((row, id), plain.encode());
            }
        }
        for (row, vver) in contents.marked() {
            if !seen.contains(&(row, vver)) {
                self.say(format!(
                    "{name}: a mark for row {} version {}",
                    row.0, vver.0
                ));
            }
        }
        Ok(())
    }

    fn head(&mut self, name: &str, id: PostingId, contents: &Contents) {
        let blocks = contents.block_sizes();
        let sealed: usize = blocks.iter().sum();
        let Some(head) = contents.head else {
            if id != PostingId::UNASSIGNED {
                self.say(format!("{name}: no head"));
            }
            return;
        };
        let Head {
            live, dead, tail, ..
        } = head;
        if live as usize + dead as usize != sealed || tail != 0 {
            self.say(format!(
                "{name}: head counts {live}, {dead}, {tail}; sealed are {sealed}"
            ));
        }
        if blocks
            .iter()
            .rev()
            .skip(1)
            .any(|&used| used != crate::limits::BLOCK_SLOTS)
        {
            self.say(format!("{name}: blocks of {blocks:?}"));
        }
    }

    /// Records that belong to no posting, or to no block of it.
    fn strays(&mut self) -> Result<(), S::Error> {
        let (mut sizes, mut wrong) = (BTreeMap::new(), Vec::new());
        let known = |id: PostingId| id == PostingId::UNASSIGNED || self.states.contains_key(&id);
        let dim = self.index.space().code_dim();
        let first = Key::Head(PostingId(0));
        self.store.scan(first, None, &mut |key, value| {
            match key {
                Key::Head(id) | Key::Tail(id, ..) | Key::Mark(id, ..) if !known(id) => {
                    wrong.push(format!("{key:?} of a posting that is not there"));
                }
                Key::Block(id, number) => {
                    let block = Block::decode(value, dim)?;
                    sizes.insert((id, number), (block.used(), block.seal()));
                    if !known(id) {
                        wrong.push(format!("{key:?} of a posting that is not there"));
                    }
                }
                Key::Columns(id, number) => {
                    let columns = Columns::decode(value)?;
                    if sizes.get(&(id, number)) != Some(&(columns.used(), columns.seal())) {
                        wrong.push(format!("{key:?} of other slots than its block"));
                    }
                }
                Key::Extra(id, group) => {
                    let extra = Extra::decode(value, dim)?;
                    let (used, seal) = sizes.get(&(id, group / 4)).copied().unwrap_or((0, 0));
                    let here = used.saturating_sub(8 * (group as usize % 4)).min(8);
                    let (found, other) = (extra.used(), extra.seal());
                    if (found, other) != (here, seal) {
                        let wanted = format!("{here} slots of seal {seal}");
                        wrong.push(format!("{key:?}: {found} of {other}, expected {wanted}"));
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        self.wrong.append(&mut wrong);
        Ok(())
    }

    fn locators(&mut self) -> Result<(), S::Error> {
        let mut locators = BTreeMap::new();
        let (first, last) = (Key::Locator(RowId(0)), Key::Job(PostingId(0)));
        self.store.scan(first, Some(last), &mut |key, value| {
            if let Key::Locator(row) = key {
                locators.insert(row, Locator::decode(value)?);
            }
            Ok(())
        })?;
        let draining =
            |id: &PostingId| self.states.get(id).map(|state| state.0) == Some(State::Draining);
        let mut wrong = Vec::new();
        for (row, copies) in &mut self.copies {
            let locator = locators.remove(row);
            // What a draining posting has given away is not listed any more.
            let listed = |copy: &(Vver, PostingId)| {
                locator.as_ref().is_some_and(|locator| {
                    locator.live && locator.vver == copy.0 && locator.postings.contains(&copy.1)
                })
            };
            copies
                .live
                .retain(|copy| listed(copy) || !draining(&copy.1));
            let Some(locator) = &locator else {
                if copies.stale > 0 || !copies.live.is_empty() {
                    wrong.push(format!("row {}: copies and no locator: {copies:?}", row.0));
                }
                continue;
            };
            let mut there: Vec<PostingId> = copies.live.iter().map(|copy| copy.1).collect();
            let all = copies.live.iter().all(&listed);
            let mut wanted = if locator.live {
                locator.postings.clone()
            } else {
                Vec::new()
            };
            there.sort_unstable();
            wanted.sort_unstable();
            if !all || there != wanted {
                wrong.push(format!(
                    "row {}: {locator:?}, live copies {:?}",
                    row.0, copies.live
                ));
            }
            if locator.stale != u16::MAX && usize::from(locator.stale) != copies.stale {
                let (stale, found) = (locator.stale, copies.stale);
                wrong.push(format!(
                    "row {}: stale {stale}, marked copies {found}",
                    row.0
                ));
            }
            if !locator.live && copies.stale == 0 || copies.newest > locator.vver {
                wrong.push(format!("row {}: {locator:?}, but {copies:?}", row.0));
            }
        }
        for (row, locator) in locators {
            wrong.push(format!("row {}: {locator:?} and no copy", row.0));
        }
        self.wrong.append(&mut wrong);
        Ok(())
    }

    fn rows(&mut self, building: bool) -> Result<(), S::Error> {
        let Self {
            index,
            store,
            wrong,
            copies,
            entries,
            ..
        } = self;
        let set = store.centroids();
        store.all_rows(&mut |row, vver, vector| {
            let found = match copies.remove(&row) {
                Some(found) => found,
                None if building => return Ok(()),
                None => Copies::default(),
            };
            if found.live.is_empty() || found.live.iter().any(|copy| copy.0 != vver) {
                wrong.push(format!("row {} version {}: {found:?}", row.0, vver.0));
                return Ok(());
            }
            let rotated = index.space().rotate(vector)?;
            for (_, id) in found.live {
                let right = set
                    .centre(id)
                    .map(|centre| index.entry(&rotated, &centre, None));
                if right.is_none() || right.as_ref() != entries.get(&(row, id)) {
                    wrong.push(format!(
                        "row {}: the code in posting {} is not its",
                        row.0, id.0
                    ));
                }
            }
            Ok(())
        })?;
        for (row, found) in copies.iter().filter(|(_, found)| !found.live.is_empty()) {
            wrong.push(format!("row {} has no vector: {found:?}", row.0));
        }
        Ok(())
    }
}
