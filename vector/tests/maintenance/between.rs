//! Commits that come inside a step of maintenance: after it has read a posting or rows, before it
//! takes the intents of rows. What it read is then old, and it must notice under the intents.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::world::{Stream, World};
use terrane_vector::{
    CentroidSet, Delta, IndexError, IndexParams, Key, Maintainer, MaintenanceHost, Metric,
    PostingId, PostingStore, Publish, RecordStore, RowId, VisitRecord, VisitRow, Write,
};

/// What a step reads before the commit comes.
#[derive(Clone, Copy, PartialEq)]
enum After {
    Posting,
    Rows,
}

/// The host of one step, in which a commit changes one of the rows that the step has just read.
struct Between {
    world: RefCell<World>,
    coming: Cell<Option<After>>,
    stream: RefCell<Stream>,
    /// Maintenance holds intents: from here on the commit would wait.
    held: Cell<bool>,
    deltas: RefCell<Vec<Delta>>,
}

impl Between {
    fn commit_one_of(&self, after: After, rows: &[RowId]) {
        if rows.is_empty() || self.held.get() || self.coming.get() != Some(after) {
            return;
        }
        self.coming.set(None);
        let (mut world, mut stream) = (self.world.borrow_mut(), self.stream.borrow_mut());
        let row = rows[stream.below(rows.len() as u64) as usize];
        let vector = (stream.below(3) > 0).then(|| stream.vector(16));
        let bound = world.bind(row, vector);
        self.deltas.borrow_mut().extend(Delta::of(&bound.writes));
        world.apply(bound);
    }
}

/// A step of the world's maintainer with a commit inside; whether the commit came.
fn step(world: World, after: After, seed: u64) -> (World, bool) {
    let mut world = world;
    let nobody = Maintainer::new(world.index.clone());
    let mut maintainer = std::mem::replace(&mut world.maintainer, nobody);
    let mut host = Between {
        world: RefCell::new(world),
        coming: Cell::new(Some(after)),
        stream: RefCell::new(Stream(seed)),
        held: Cell::new(false),
        deltas: RefCell::default(),
    };
    maintainer.step(&mut host).unwrap();
    maintainer.observe(&host.deltas.into_inner());
    let mut world = host.world.into_inner();
    world.maintainer = maintainer;
    (world, host.coming.get().is_none())
}

impl PostingStore for Between {
    type Error = IndexError;

    fn centroids(&self) -> Arc<CentroidSet> {
        self.world.borrow().store.centroids()
    }

    fn snapshot(&self) -> u64 {
        self.world.borrow().store.snapshot()
    }

    fn posting(&self, id: PostingId, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        let mut rows = Vec::new();
        self.world.borrow().store.posting(id, &mut |key, value| {
            match key {
                Key::Block(..) => {
                    let slots = value[8..].as_chunks::<8>().0.iter();
                    let slots = slots.take(usize::from(value[1]));
                    rows.extend(slots.map(|row| RowId(u64::from_le_bytes(*row))));
                }
                Key::Tail(_, row, _) => rows.push(row),
                _ => {}
            }
            visit(key, value)
        })?;
        self.commit_one_of(After::Posting, &rows);
        Ok(())
    }

    fn extra(
        &self,
        id: PostingId,
        group: u32,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), IndexError> {
        self.world.borrow().store.extra(id, group, visit)
    }

    fn locator(&self, row: RowId, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        self.world.borrow().store.locator(row, visit)
    }

    fn rows(&self, rows: &[RowId], visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        self.world.borrow().store.rows(rows, visit)?;
        self.commit_one_of(After::Rows, rows);
        Ok(())
    }

    fn row_count(&self) -> Result<u64, IndexError> {
        self.world.borrow().store.row_count()
    }

    fn all_rows(&self, visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        self.world.borrow().store.all_rows(visit)
    }
}

impl RecordStore for Between {
    fn read(&self, key: Key, visit: &mut VisitRecord<'_>) -> Result<(), IndexError> {
        self.world.borrow().store.read(key, visit)
    }

    fn scan(
        &self,
        from: Key,
        to: Option<Key>,
        visit: &mut VisitRecord<'_>,
    ) -> Result<(), IndexError> {
        self.world.borrow().store.scan(from, to, visit)
    }
}

impl MaintenanceHost for Between {
    fn horizon(&self) -> u64 {
        self.world.borrow().store.horizon()
    }

    fn row_at(&self, row: RowId, ts: u64, visit: &mut VisitRow<'_>) -> Result<(), IndexError> {
        self.world.borrow().store.row_at(row, ts, visit)
    }

    fn try_intent(&mut self, row: RowId) -> bool {
        self.held.set(true);
        self.world.get_mut().store.try_intent(row)
    }

    fn commit(&mut self, writes: Vec<Write>, publish: Publish) -> Result<(), IndexError> {
        self.held.set(false);
        self.world.get_mut().store.commit(writes, publish)
    }

    fn release(&mut self) {
        self.held.set(false);
        self.world.get_mut().store.release();
    }

    fn quiesced(&self, epoch: u64) -> bool {
        self.world.borrow().store.quiesced(epoch)
    }
}

// Seen to fail with: an assign that asks neither locator nor mark again; a move that does not ask
// the locator; a drain that trusts the marks that it read before it had the intents.
#[test]
fn a_commit_between_the_look_and_the_intents_is_noticed() {
    for (replicas, after) in [(1, After::Posting), (1, After::Rows), (2, After::Posting)] {
        let mut world = World::empty(IndexParams {
            posting_max: 12,
            replicas,
            ..IndexParams::new(Metric::L2, 16, 3)
        });
        let mut stream = Stream(37);
        let mut came = 0;
        for round in 0..900 {
            world.change(RowId(stream.below(150)), Some(stream.vector(16)));
            if round % 10 == 0 {
                // As if there were no postings yet.
                let row = RowId(stream.below(150));
                let bound = world.bind_to(row, stream.vector(16), |_| false);
                world.apply(bound);
            }
            // Some versions that commits kill must be kept, others not.
            match round % 60 {
                20 => drop(world.snapshot()),
                50 => world.close(0),
                _ => {}
            }
            for _ in 0..3 {
                let (after_it, one) = step(world, after, stream.next());
                world = after_it;
                came += usize::from(one);
            }
            if round % 4 == 0 {
                world.verify();
            }
        }
        assert!(came > 300, "{came} commits came between");
        world.settle();
        world.verify();
        let (now, all) = (world.ts, world.now().len());
        assert_eq!(world.full(&[0.0; 16], 200, now).len(), all);
    }
}
