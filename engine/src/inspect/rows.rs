//! Catalog, rows and index entries against each other, by the stored schemas alone.
//!
//! A row has exactly one entry in each index, a function of its key and its bytes (`codec/index`,
//! K1): each row's entries are looked up, and each entry's row; so a difference is found from both
//! sides and told with the key. What the records of a vector index must be, its crate knows.

use std::ops::Bound::Unbounded;

use terrane_btree::{Direction, LeafRows, Tree};
use terrane_wal::lsn::{TreeId, Ts};

use super::{CheckReport, Finding};
use crate::catalog::schema::FieldSchema;
use crate::catalog::{self, FIRST_TREE, IndexInfo, TableInfo};
use crate::codec::DataType;
use crate::codec::record::Fields;
use crate::error::{Error, ErrorKind, Result};
use crate::index::vector::view::View;
use crate::runtime::Core;

/// Findings of one kind and table that are told; the rest is counted.
const TOLD_MAX: u64 = 20;

/// Checks every table of an open database.
pub(super) fn check(
    core: &Core,
    report: &mut CheckReport,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let mut seen: Vec<TreeId> = Vec::new();
    let next = catalog::next_tree(core)?;
    for table in core.catalog.tables() {
        report.tables += 1;
        let mut check = Check {
            core,
            table: &table,
            findings,
            told: 0,
        };
        for tree in table.trees() {
            if seen.contains(&tree) || tree < FIRST_TREE || tree >= next {
                let expected = format!("a tree of its own from {FIRST_TREE} to below {next}");
                check.tell("catalog", &expected, tree);
            }
            seen.push(tree);
        }
        let handle = core.tree(table.tree)?;
        if handle.class() != table.class {
            check.tell(
                "catalog",
                &format!("pages of {}", table.class),
                handle.class(),
            );
        }
        report.rows += check.rows(handle)?;
        for index in &table.indexes {
            report.index_entries += check.entries(index)?;
        }
        check.vectors()?;
        check.sum_up();
    }
    Ok(())
}

struct Check<'a> {
    core: &'a Core,
    table: &'a TableInfo,
    findings: &'a mut Vec<Finding>,
    told: u64,
}

/// Hears of a row: key and value.
type OnRow<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// Calls `row` for every row of a tree that is no ghost.
fn each(tree: &Tree, row: &mut OnRow<'_>) -> Result<u64> {
    let mut count = 0;
    let mut leaf = LeafRows::default();
    let mut cursor = tree.cursor(Unbounded, Unbounded, Direction::Forward);
    while cursor.next_leaf(&mut leaf)? {
        for found in leaf.iter().filter(|row| !row.flags.ghost) {
            count += 1;
            row(found.key, found.value)?;
        }
    }
    Ok(count)
}

fn get(tree: &Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut value = Vec::new();
    let flags = tree.get(key, &mut value)?;
    Ok(flags.filter(|flags| !flags.ghost).map(|_| value))
}

impl Check<'_> {
    /// Every record of the table's vector indexes, against each other and against the rows.
    fn vectors(&mut self) -> Result<()> {
        let Some(table) = self.core.vectors.get(self.table.tree) else {
            return Ok(());
        };
        if let Err(error) = table.check_whole(None) {
            self.tell("vector index", "one that can be opened", error);
        }
        for hosted in &table.indexes {
            let newest = View::new(self.core, &table, hosted, Ts(u64::MAX));
            for wrong in terrane_vector::check(&hosted.index, &newest)? {
                let what = format!("vector index of field {}", hosted.field.name);
                self.tell(&what, "records that agree", wrong);
            }
        }
        Ok(())
    }

    fn tell(&mut self, what: &str, expected: &str, found: impl std::fmt::Display) {
        self.told += 1;
        if self.told <= TOLD_MAX {
            self.findings.push(Finding {
                structure: format!("{what} of table {}", self.table.name.escape_debug()),
                file: None,
                offset: None,
                expected: expected.to_owned(),
                found: found.to_string(),
            });
        }
    }

    fn sum_up(&mut self) {
        if let more @ 1.. = self.told.saturating_sub(TOLD_MAX) {
            self.told = 0;
            self.tell("rows", "none that differ", format!("{more} more that do"));
        }
    }

    fn show(&self, key: &[u8]) -> String {
        let shown = self.table.schema.key.show_key(key);
        shown.unwrap_or_else(|_| format!("b\"{}\"", key.escape_ascii()))
    }

    /// Every row: its key and value by the schema, and its entry in each index.
    fn rows(&mut self, tree: &Tree) -> Result<u64> {
        let table = self.table;
        each(tree, &mut |key, value| {
            let valid = table.schema.key.show_key(key).map(drop);
            let valid = valid.and_then(|()| table.schema.check_value(value));
            if let Err(error) = valid {
                let place = self.show(key);
                self.tell(&format!("row {place}"), "a row of the schema", error);
                return Ok(());
            }
            for index in &table.indexes {
                self.entry_of_row(index, key, value)?;
            }
            Ok(())
        })
    }

    fn entry_of_row(&mut self, index: &IndexInfo, key: &[u8], value: &[u8]) -> Result<()> {
        let (entry, of) = entry(field(self.table, index)?, index, value, key)?;
        let found = get(self.core.tree(index.tree)?, &entry)?;
        if found.as_deref() != Some(&*of) {
            let what = format!(
                "index entry of row {} by field {}",
                self.show(key),
                index.field
            );
            let found = found.map_or("none".into(), |other| self.show(&other));
            self.tell(&what, "one that names the row", found);
        }
        Ok(())
    }

    /// Every entry of an index: the row that it names, and that it is that row's.
    fn entries(&mut self, index: &IndexInfo) -> Result<u64> {
        let table = self.table;
        let field = field(table, index)?;
        let rows = self.core.tree(table.tree)?;
        each(self.core.tree(index.tree)?, &mut |key, value| {
            let what = format!("entry of index {} ({})", index.field, field.name);
            let Ok(primary) = primary_key(field, index, key, value) else {
                self.tell(&what, "a value and a key", format!("{key:02x?}"));
                return Ok(());
            };
            let Some(row) = get(rows, primary)? else {
                let named = self.show(primary);
                self.tell(
                    &what,
                    "the entry of a row",
                    format!("row {named}, not there"),
                );
                return Ok(());
            };
            // A row that is no record was told when it was met itself.
            if let Ok((wanted, of)) = entry(field, index, &row, primary)
                && (wanted != key || of != value)
            {
                let named = self.show(primary);
                self.tell(
                    &what,
                    "the value of its row",
                    format!("another, for row {named}"),
                );
            }
            Ok(())
        })
    }
}

fn field<'a>(table: &'a TableInfo, index: &IndexInfo) -> Result<&'a FieldSchema> {
    let mut fields = table.schema.fields().iter();
    let found = fields.find(|field| field.id == index.field);
    found.ok_or_else(|| {
        let error = Error::new(ErrorKind::Corrupt, "an index of a field that is not there");
        error
            .with("structure", "catalog")
            .with("table", &table.name)
    })
}

/// Key and value of a row's entry.
fn entry(
    field: &FieldSchema,
    index: &IndexInfo,
    record: &[u8],
    primary: &[u8],
) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut fields = Fields::of(record)?;
    let mut whole = field.default.as_deref();
    while let Some(found) = fields.next_field()? {
        if found.id == field.id {
            whole = Some(found.whole);
        }
    }
    let (mut key, mut value) = (Vec::new(), Vec::new());
    field.data_type.write_part_of_field(whole, &mut key)?;
    let is_none = matches!(field.data_type, DataType::Option(_)) && key == [0];
    if index.unique {
        value.extend_from_slice(primary);
    }
    if !index.unique || is_none {
        key.extend_from_slice(primary);
    }
    Ok((key, value))
}

/// The primary key in an entry.
fn primary_key<'a>(
    field: &FieldSchema,
    index: &IndexInfo,
    key: &'a [u8],
    value: &'a [u8],
) -> Result<&'a [u8]> {
    if index.unique {
        return Ok(value);
    }
    let mut rest = key;
    field.data_type.show_part(&mut rest)?;
    Ok(rest)
}
