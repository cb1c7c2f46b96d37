//! Vindexes by the name of their kind: the ten of this crate, and those that a host adds.
//!
//! A schema stores a kind and parameters as text. The registry turns them into a vindex when the
//! schema is declared and again when it is opened, so both find the same mistakes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Vindex;
use super::cfc::Cfc;
use super::column::Column;
use super::error::VindexError;
use super::multicol::Multicol;
use super::params::Params;
use super::static_map::StaticMap;

/// Builds a vindex of one kind.
type Build = Arc<dyn Fn(&Params<'_>) -> Result<Arc<dyn Vindex>, VindexError> + Send + Sync>;

/// The kinds of vindex that there are.
#[derive(Clone)]
pub struct Registry {
    kinds: BTreeMap<String, Build>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl Registry {
    /// The ten kinds of this crate.
    #[must_use]
    pub fn new() -> Registry {
        let mut kinds: BTreeMap<String, Build> = BTreeMap::new();
        for column in Column::ALL {
            let build: Build = Arc::new(move |params| {
                params.accept(&[])?;
                Ok(Arc::new(column))
            });
            kinds.insert(column.name().to_owned(), build);
        }
        let others: [(&str, Build); 3] = [
            (
                StaticMap::NAME,
                Arc::new(|params| Ok(Arc::new(StaticMap::new(params)?))),
            ),
            (
                Cfc::NAME,
                Arc::new(|params| Ok(Arc::new(Cfc::new(params)?))),
            ),
            (
                Multicol::NAME,
                Arc::new(|params| Ok(Arc::new(Multicol::new(params)?))),
            ),
        ];
        kinds.extend(others.map(|(kind, build)| (kind.to_owned(), build)));
        Registry { kinds }
    }

    /// Adds a kind. The builder refuses parameters that it does not know, by [`Params::accept`].
    ///
    /// # Errors
    /// [`VindexError::KindTaken`] where the name is in use: rows that lie by one rule are never
    /// looked for by another.
    pub fn register(
        &mut self,
        kind: &str,
        build: impl Fn(&Params<'_>) -> Result<Arc<dyn Vindex>, VindexError> + Send + Sync + 'static,
    ) -> Result<(), VindexError> {
        if self.kinds.contains_key(kind) {
            return Err(VindexError::KindTaken {
                kind: kind.to_owned(),
            });
        }
        self.kinds.insert(kind.to_owned(), Arc::new(build));
        Ok(())
    }

    /// The names of all kinds, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// A vindex of a kind with parameters.
    ///
    /// # Errors
    /// [`VindexError::UnknownKind`], [`VindexError::ParamTwice`], [`VindexError::UnknownParam`],
    /// and what the kind's builder refuses.
    pub fn build(
        &self,
        kind: &str,
        params: &[(&str, &str)],
    ) -> Result<Arc<dyn Vindex>, VindexError> {
        let Some(build) = self.kinds.get(kind) else {
            return Err(VindexError::UnknownKind {
                found: kind.to_owned(),
                accepted: self.kinds().collect::<Vec<_>>().join(", "),
            });
        };
        build(&Params::new(kind, params)?)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}
