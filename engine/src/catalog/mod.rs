//! The catalog: which tables exist, which trees hold them, and under which schema.
//!
//! Its rows are rows of tree 2 (tables) and tree 3 (counters), changed only by ordinary commits: a
//! change of the schema is a transaction whose entry carries the tree records and the catalog rows,
//! under the gate held alone. In memory the catalog is a copy of what is committed.

mod outcome;
mod rows;
pub mod schema;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use terrane_vector::IndexState;
use terrane_wal::lsn::TreeId;
use terrane_wal::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::index::vector::create;
use crate::limits::{MAX_TABLE_NAME_BYTES, ROW_ID_BLOCK};
use crate::local::Local;
use crate::runtime::Core;
use crate::txn::Isolation;
use crate::txn::commit::{Entrance, run};
use crate::txn::leg::{Begin, Leg};

pub(crate) use outcome::Remembered;
use schema::{Evolution, Schema};
pub(crate) use table::{IndexInfo, RowIds, TableInfo, TableSpec, TreeOp, VectorInfo};

/// The catalog's rows.
pub(crate) const CATALOG: TreeId = TreeId(2);
/// Next tree id, next row id of each table.
pub(crate) const COUNTERS: TreeId = TreeId(3);
/// Outcomes of idempotency keys.
pub(crate) const OUTCOMES: TreeId = TreeId(4);
/// The trees that every database has beside the tree directory.
pub(crate) const SYSTEM_TREES: [TreeId; 3] = [CATALOG, COUNTERS, OUTCOMES];
/// Trees of tables and indexes begin here.
pub(crate) const FIRST_TREE: TreeId = TreeId(256);

/// The table of transactions of several shards: what is prepared in this one, and what it decided.
const PREPARED: &str = "terrane.prepared";

/// Counter key of the next tree id.
const NEXT_TREE: [u8; 5] = [1, 0, 0, 0, 0];

/// What is committed, as the running database knows it.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tables: BTreeMap<String, Arc<TableInfo>>,
    /// Schema version of every tree of a table: its own and its indexes'.
    versions: BTreeMap<TreeId, u32>,
    /// Row ids that are logged as given out and were not, by table.
    row_ids: BTreeMap<TreeId, Vec<std::ops::Range<u64>>>,
}

impl Catalog {
    /// The catalog of these tables.
    pub(crate) fn of(tables: Vec<TableInfo>) -> Catalog {
        let catalog = Catalog::default();
        for table in tables {
            catalog.insert(Arc::new(table));
        }
        catalog
    }

    /// Forgets which row ids were taken from the log for this process: it leads no more, or only
    /// now.
    pub(crate) fn forget_row_ids(&self) {
        self.state.lock().row_ids.clear();
    }

    /// A table is as it was committed, here or by another member.
    pub(crate) fn insert(&self, table: Arc<TableInfo>) {
        let mut state = self.state.lock();
        for tree in table.trees() {
            state.versions.insert(tree, table.schema_version);
        }
        state.tables.insert(table.name.clone(), table);
    }

    fn find(&self, name: &str) -> Option<Arc<TableInfo>> {
        self.state.lock().tables.get(name).cloned()
    }

    /// Every table, by name.
    pub(crate) fn tables(&self) -> Vec<Arc<TableInfo>> {
        self.state.lock().tables.values().cloned().collect()
    }

    /// Refuses rows that were encoded under another version of their table's schema. Asked inside
    /// the gate, so the answer holds until the commit has its place.
    pub(crate) fn check_schema(&self, tree: TreeId, version: u32) -> Result<()> {
        if tree < FIRST_TREE {
            return Ok(());
        }
        match self.state.lock().versions.get(&tree) {
            Some(current) if *current == version => Ok(()),
            current => {
                let error = Error::new(ErrorKind::Schema, "the table's schema has changed");
                Err(error
                    .with("tree", tree.0)
                    .with("written_under", version)
                    .with("current", current.copied().unwrap_or(0))
                    .with_retryable(true))
            }
        }
    }

    fn take_row_id(&self, tree: TreeId) -> Option<u64> {
        let mut state = self.state.lock();
        let blocks = state.row_ids.get_mut(&tree)?;
        let block = blocks.last_mut()?;
        let id = block.next()?;
        if block.is_empty() {
            blocks.pop();
        }
        Some(id)
    }
}

/// Opens the table `name`, creating it if it does not exist.
///
/// # Errors
/// `Invalid` for a bad name or another page size than the table has, `Schema` naming both sides,
/// and those of a commit.
pub(crate) fn open_table(
    local: &Local,
    name: &str,
    spec: &TableSpec<'_>,
) -> Result<Arc<TableInfo>> {
    check_name(name)?;
    open_named(local, name, spec)
}

/// The table of what is prepared and decided in a shard, made if it is not there.
///
/// # Errors
/// Those of a commit.
pub(crate) fn prepared_table(local: &Local) -> Result<Arc<TableInfo>> {
    if let Some(table) = local.core().catalog.find(PREPARED) {
        return Ok(table);
    }
    let schema = Schema::of::<Vec<u8>, Vec<u8>>()?;
    let spec = TableSpec {
        class: local.page_class(),
        row_ids: RowIds::Key,
        vectors: &[],
        schema: &schema,
    };
    open_named(local, PREPARED, &spec)
}

/// The tree of that table, if it is there.
pub(crate) fn find_prepared(core: &Core) -> Option<TreeId> {
    core.catalog.find(PREPARED).map(|table| table.tree)
}

fn open_named(local: &Local, name: &str, spec: &TableSpec<'_>) -> Result<Arc<TableInfo>> {
    let core = local.core();
    core.check_process()?;
    if let Some(table) = core.catalog.find(name) {
        check_class(core, &table, spec)?;
        if table.matches(spec)? == Evolution::Same {
            return Ok(table);
        }
    }
    core.check_writable()?;
    let (table, ticket) = {
        let _alone = core.gate.close();
        let table = match core.catalog.find(name) {
            None => TableInfo::new(name, spec, next_tree(core)?),
            // Another thread may have done it.
            Some(table) => match table.matches(spec)? {
                Evolution::Same => return Ok(table),
                Evolution::Replace { .. } => table.with_schema(spec.schema),
            },
        };
        let mut tx = system_transaction(local);
        if table.schema_version == 1 {
            for op in table.tree_ops() {
                tx.tree_op(op);
            }
            for vector in &table.vectors {
                create(&mut tx, &table, vector, (1, true), IndexState::Ready)?;
            }
            let next = table.trees().map(|tree| tree.0).max().unwrap_or(0) + 1;
            tx.put_raw(
                COUNTERS,
                0,
                0,
                NEXT_TREE.to_vec(),
                u64::from(next).to_le_bytes().to_vec(),
            )?;
        }
        tx.put_raw(CATALOG, 0, 0, name.as_bytes().to_vec(), table.encode())?;
        let ticket = run(&mut tx, Entrance::Alone)?;
        let table = Arc::new(table);
        core.catalog.insert(table.clone());
        core.vectors.install(core, &table);
        (table, ticket)
    };
    ticket.wait()?;
    Ok(table)
}

/// Adds a vector index to a table that exists, empty and in the state of being built; does nothing
/// if there is one. The table's schema stays what it is, and with it the handles of the table.
///
/// # Errors
/// `NotFound` if there is no such table, and those of a commit.
pub(crate) fn add_vector_index(
    local: &Local,
    name: &str,
    field: u16,
    options: (usize, bool),
) -> Result<()> {
    let core = local.core();
    core.check_writable()?;
    change_vectors(local, name, |tx, table| {
        if table.vectors.iter().any(|vector| vector.field == field) {
            return Ok(false);
        }
        let tree = next_tree(core)?;
        let vector = VectorInfo { field, tree };
        tx.tree_op(table.vector_op(&vector));
        let next = u64::from(tree.0 + 1).to_le_bytes().to_vec();
        tx.put_raw(COUNTERS, 0, 0, NEXT_TREE.to_vec(), next)?;
        create(tx, table, &vector, options, IndexState::Building)?;
        table.vectors.push(vector);
        table.vectors.sort_by_key(|vector| vector.field);
        Ok(true)
    })
}

/// Takes a vector index away. Its tree is dropped by the next open, as one that nobody names.
///
/// # Errors
/// As [`add_vector_index`].
pub(crate) fn drop_vector_index(local: &Local, name: &str, field: u16) -> Result<()> {
    change_vectors(local, name, |_, table| {
        let before = table.vectors.len();
        table.vectors.retain(|vector| vector.field != field);
        Ok(table.vectors.len() < before)
    })
}

/// Changes the vector indexes of a table in a transaction of its own, unless `change` finds nothing
/// to do.
fn change_vectors(
    local: &Local,
    name: &str,
    change: impl FnOnce(&mut Leg, &mut TableInfo) -> Result<bool>,
) -> Result<()> {
    let core = local.core();
    let ticket = {
        let _alone = core.gate.close();
        let missing = || Error::new(ErrorKind::NotFound, "there is no such table");
        let stored = core.catalog.find(name);
        let mut table = (*stored.ok_or_else(|| missing().with("table", name))?).clone();
        let mut tx = system_transaction(local);
        if !change(&mut tx, &mut table)? {
            return Ok(());
        }
        tx.put_raw(CATALOG, 0, 0, name.as_bytes().to_vec(), table.encode())?;
        let ticket = run(&mut tx, Entrance::Alone)?;
        core.catalog.insert(Arc::new(table.clone()));
        core.vectors.install(core, &table);
        ticket
    };
    ticket.wait()?;
    Ok(())
}

/// Refuses a page size that was asked for by name if the table has another one than that and than
/// the one that its rows would need today.
fn check_class(core: &Core, table: &TableInfo, spec: &TableSpec<'_>) -> Result<()> {
    let asked = core.options.page_class;
    if !core.options.page_class_named || table.class == asked || table.class == spec.class {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Invalid, "the table has another page size");
    Err(error
        .with("option", "page_bytes")
        .with("given", asked.bytes())
        .with("stored", table.class.bytes())
        .with("table", &table.name))
}

/// A row id of the table in `tree` that was never given out.
pub(crate) fn next_row_id(local: &Local, tree: TreeId) -> Result<u64> {
    let core = local.core();
    loop {
        if let Some(id) = core.catalog.take_row_id(tree) {
            return Ok(id);
        }
        let block = reserve_row_ids(local, tree)?;
        core.catalog
            .state
            .lock()
            .row_ids
            .entry(tree)
            .or_default()
            .push(block);
    }
}

/// Logs a block of row ids as given out. The block's entry comes before every entry that uses one
/// of its ids, so it need not be waited for.
fn reserve_row_ids(local: &Local, tree: TreeId) -> Result<std::ops::Range<u64>> {
    let mut key = vec![2];
    key.extend(tree.0.to_be_bytes());
    loop {
        let mut tx = system_transaction(local);
        let next = match tx.get_for_update_raw(COUNTERS, &key)? {
            Some(row) => counter(&row)?,
            None => 1,
        };
        let Some(end) = next.checked_add(ROW_ID_BLOCK) else {
            return Err(Error::new(ErrorKind::Full, "row ids are used up").with("tree", tree.0));
        };
        tx.put_raw(COUNTERS, 0, 0, key.clone(), end.to_le_bytes().to_vec())?;
        match tx.commit_ticket() {
            Ok(_) => return Ok(next..end),
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads the catalog's rows, at open.
pub(crate) fn load(core_tree: &terrane_btree::Tree) -> Result<Vec<TableInfo>> {
    use std::ops::Bound::Unbounded;
    let mut rows = terrane_btree::LeafRows::default();
    let mut cursor = core_tree.cursor(Unbounded, Unbounded, terrane_btree::Direction::Forward);
    let mut tables = Vec::new();
    while cursor.next_leaf(&mut rows)? {
        for row in rows.iter().filter(|row| !row.flags.ghost) {
            tables.push(TableInfo::decode(row.key, row.value)?);
        }
    }
    Ok(tables)
}

pub(crate) fn system_transaction(local: &Local) -> Leg {
    let core = local.core();
    let begin = Begin {
        isolation: Isolation::Snapshot,
        ..Begin::of(core)
    };
    Leg::begin(local.into(), begin)
}

pub(crate) fn next_tree(core: &Core) -> Result<TreeId> {
    let mut value = Vec::new();
    let row = core.tree(COUNTERS)?.get(&NEXT_TREE, &mut value)?;
    if row.is_none_or(|flags| flags.ghost) {
        return Ok(FIRST_TREE);
    }
    let next = counter(&value)?;
    match u32::try_from(next) {
        Ok(next) if next >= FIRST_TREE.0 => Ok(TreeId(next)),
        _ => Err(Error::new(ErrorKind::Corrupt, "the next tree id is not one").with("found", next)),
    }
}

fn counter(row: &[u8]) -> Result<u64> {
    match row.try_into() {
        Ok(bytes) => Ok(u64::from_le_bytes(bytes)),
        Err(_) => {
            let error = Error::new(ErrorKind::Corrupt, "a counter has another length");
            Err(error.with("expected", 8).with("found", row.len()))
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let reserved = name.starts_with("terrane.");
    if name.is_empty() || name.len() > MAX_TABLE_NAME_BYTES || reserved || name.contains('\0') {
        let error = Error::new(
            ErrorKind::Invalid,
            "a table's name is empty, too long or reserved",
        );
        return Err(error
            .with("name", name.escape_debug())
            .with("limit", MAX_TABLE_NAME_BYTES));
    }
    Ok(())
}
