//! The record that this program stores, and the tables it lives in.
//!
//! One record type serves both tables: `packages` holds the data set under its own ids, `arrivals`
//! what the killed child wrote. A record is a pure function of a row of the data set and its key,
//! so that after a crash the expected record can be made again and compared field by field.

use terrane::{Record, TableDef, Vector};

use crate::dataset::{Condition, DIMENSION, Dataset, NEAREST};

/// A sentence from the description of a Debian package.
#[derive(Record)]
pub(crate) struct Package {
    /// Package name and key: no two rows may share it.
    #[terrane(id = 1, unique)]
    pub(crate) slug: String,
    #[terrane(id = 2)]
    pub(crate) name: String,
    #[terrane(id = 3, index, filter)]
    pub(crate) section: String,
    #[terrane(id = 4)]
    pub(crate) kind: String,
    #[terrane(id = 5)]
    pub(crate) priority: String,
    #[terrane(id = 6, index, filter)]
    pub(crate) installed_size_kib: u32,
    /// The remainders by which the full set's filters choose: a typed filter compares columns.
    #[terrane(id = 7, filter)]
    pub(crate) id_mod_20: u16,
    #[terrane(id = 8, filter)]
    pub(crate) id_mod_200: u16,
    #[terrane(id = 9)]
    pub(crate) text: String,
    #[terrane(id = 10, vector(metric = "cosine"))]
    pub(crate) embedding: Vector<384>,
}

/// The data set, by its own ids.
pub(crate) const PACKAGES: TableDef<u64, Package> = TableDef::new("packages");
/// What the child loads until it is killed; see `ledger.rs` for the keys.
pub(crate) const ARRIVALS: TableDef<u64, Package> = TableDef::new("arrivals");
/// Named counters, for the write conflict.
pub(crate) const COUNTERS: TableDef<String, u64> = TableDef::new("counters");

impl Package {
    /// The record of row `row` of the data set, stored under `key`.
    pub(crate) fn of_row(dataset: &Dataset, row: usize, key: u64) -> Package {
        let source = &dataset.rows[row];
        Package {
            slug: slug(&source.package, key),
            name: source.package.clone(),
            section: source.section.clone(),
            kind: source.kind.clone(),
            priority: source.priority.clone(),
            installed_size_kib: source.installed_size_kib,
            id_mod_20: (source.id % 20) as u16,
            id_mod_200: (source.id % 200) as u16,
            text: source.text.clone(),
            embedding: embedding(&dataset.vector(row)),
        }
    }

    /// Whether every field has the same bytes; floats are compared by their bits.
    pub(crate) fn same_bytes(&self, other: &Package) -> bool {
        let bits = |package: &Package| -> Vec<u32> {
            package
                .embedding
                .iter()
                .map(|cell| cell.to_bits())
                .collect()
        };
        self.slug == other.slug
            && self.name == other.name
            && self.section == other.section
            && self.kind == other.kind
            && self.priority == other.priority
            && self.installed_size_kib == other.installed_size_kib
            && self.id_mod_20 == other.id_mod_20
            && self.id_mod_200 == other.id_mod_200
            && self.text == other.text
            && bits(self) == bits(other)
    }
}

/// The unique name of the row of `package` stored under `key`.
pub(crate) fn slug(package: &str, key: u64) -> String {
    format!("{package}#{key}")
}

/// A vector field of these cells.
pub(crate) fn embedding(cells: &[f32]) -> Vector<384> {
    let mut array = [0.0; DIMENSION];
    // The data set refuses vectors of another length.
    array.copy_from_slice(cells);
    Vector::from(array)
}

/// Which way a search goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the vector index, with its usual goal of recall.
    Index,
    /// Every row is measured.
    Exact,
}

/// A search for the [`NEAREST`] packages, as keys from near to far. `condition` becomes a typed
/// filter; one that no stored column answers gives `None`.
pub(crate) fn nearest_keys(
    packages: &terrane::Table<u64, Package>,
    reader: &impl terrane::Read,
    query: &[f32],
    condition: Option<&Condition>,
    way: Way,
) -> terrane::Result<Option<Vec<u64>>> {
    let search = packages.nearest(Package::EMBEDDING, query, NEAREST);
    let search = match condition {
        None => search,
        Some(Condition::SizeAtMost(limit)) => {
            search.filter(Package::INSTALLED_SIZE_KIB.between(..=*limit))
        }
        Some(Condition::SectionIs(section)) => search.filter(Package::SECTION.eq(section.as_str())),
        Some(Condition::IdModulo {
            modulus: 20,
            remainder,
        }) => search.filter(Package::ID_MOD_20.eq(*remainder as u16)),
        Some(Condition::IdModulo {
            modulus: 200,
            remainder,
        }) => search.filter(Package::ID_MOD_200.eq(*remainder as u16)),
        Some(Condition::IdModulo { .. }) => return Ok(None),
    };
    let hits = match way {
        Way::Index => search.run(reader)?,
        Way::Exact => search.advanced().exact().run(reader)?,
    };
    Ok(Some(hits.iter().map(|hit| hit.key).collect()))
}
