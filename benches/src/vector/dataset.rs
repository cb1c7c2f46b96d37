//! The data set as it lies in a folder: vectors, queries, exact answers, attributes, filters.
//!
//! Row i of `base.npy` has id i. `meta.json` tells the metric; `attrs.csv` and the filters are
//! there for text and absent from generated folders. What belongs together is checked when it is
//! read, so that a wrong recall later cannot come from a mixed-up folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use terrane_vector::Metric;

use super::npy::{self, Vectors};
use crate::Failure;

/// Answers are judged by the nearest ten.
pub(crate) const NEAREST: usize = 10;

/// A folder; the vectors stay in their file.
pub(crate) struct Dataset {
    folder: PathBuf,
    pub(crate) name: String,
    pub(crate) metric: Metric,
    base: Vectors,
    /// Ready to be asked: of length one if the metric is cosine.
    pub(crate) queries: Vec<Vec<f32>>,
}

/// Attributes of a row.
#[derive(Clone, Default, Debug, PartialEq)]
pub(crate) struct Attributes {
    pub(crate) section: String,
    pub(crate) installed_size_kib: u32,
}

/// A predicate of `filters.json`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    SizeAtMost(u32),
    SectionIs(String),
    /// `id % modulus == remainder`.
    IdModulo {
        modulus: u64,
        remainder: u64,
    },
}

/// A filter, the rows that pass it by the folder's own reckoning, and the exact answers.
pub(crate) struct Filtered {
    pub(crate) name: String,
    pub(crate) condition: Condition,
    pub(crate) mask: Vec<bool>,
    pub(crate) answers: Vec<Vec<u32>>,
}

impl Dataset {
    /// Opens a folder; of the queries the first `most`.
    pub(crate) fn open(folder: &Path, most: usize) -> Result<Dataset, Failure> {
        let meta = json(&folder.join("meta.json"))?;
        let metric = match meta["metric"].as_str() {
            Some("cosine") => Metric::Cosine,
            Some("l2") => Metric::L2,
            other => return Err(format!("meta.json: metric {other:?} is not known").into()),
        };
        let base = Vectors::open(&folder.join("base.npy"))?;
        let asked = Vectors::open(&folder.join("queries.npy"))?;
        if asked.dim() != base.dim() {
            return Err("base.npy and queries.npy differ in their dimension".into());
        }
        let mut queries = Vec::new();
        for row in 0..asked.rows().min(most) {
            queries.push(ready(metric, asked.row(row)?));
        }
        Ok(Dataset {
            folder: folder.to_path_buf(),
            name: meta["name"].as_str().unwrap_or("unnamed").to_string(),
            metric,
            base,
            queries,
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.base.rows()
    }

    pub(crate) fn dim(&self) -> usize {
        self.base.dim()
    }

    /// The vector of a row; of length one if the metric is cosine.
    pub(crate) fn vector(&self, row: usize) -> Result<Vec<f32>, Failure> {
        Ok(ready(self.metric, self.base.row(row)?))
    }

    /// The exact answers in a file of the folder; `None` if it is not there.
    pub(crate) fn answers(&self, name: &str) -> Result<Option<Vec<Vec<u32>>>, Failure> {
        let file = self.folder.join(name);
        if !file.exists() {
            return Ok(None);
        }
        let mut answers = npy::ids(&file, NEAREST)?;
        if answers.len() < self.queries.len() {
            return Err(format!("{name}: fewer rows than there are queries").into());
        }
        answers.truncate(self.queries.len());
        let all = answers.iter().flatten();
        if all.copied().any(|id| id as usize >= self.rows()) {
            return Err(format!("{name}: an answer is no row of base.npy").into());
        }
        Ok(Some(answers))
    }

    /// Attributes of all rows; empty ones where the folder has none.
    pub(crate) fn attributes(&self) -> Result<Vec<Attributes>, Failure> {
        let file = self.folder.join("attrs.csv");
        if !file.exists() {
            return Ok(vec![Attributes::default(); self.rows()]);
        }
        let all = attributes(&fs::read_to_string(file)?)?;
        if all.len() != self.rows() {
            let (lines, rows) = (all.len(), self.rows());
            return Err(format!("attrs.csv has {lines} rows, base.npy {rows}").into());
        }
        Ok(all)
    }

    /// All filters of the folder.
    pub(crate) fn filters(&self) -> Result<Vec<Filtered>, Failure> {
        let file = self.folder.join("filters.json");
        if !file.exists() {
            return Ok(Vec::new());
        }
        let known = json(&file)?;
        let mut out = Vec::new();
        for (name, entry) in known.as_object().into_iter().flatten() {
            let predicate = entry["predicate"].as_str().unwrap_or_default();
            let condition = Condition::parse(predicate)
                .ok_or_else(|| format!("filters.json: {name}: {predicate:?} is not known"))?;
            let mask = npy::mask(&self.folder.join(format!("mask_{name}.npy")))?;
            if mask.len() != self.rows() {
                return Err(format!("mask_{name}.npy is of another number of rows").into());
            }
            let answers = self
                .answers(&format!("gt_filter_{name}.npy"))?
                .ok_or_else(|| format!("gt_filter_{name}.npy is not there"))?;
            out.push(Filtered {
                name: name.clone(),
                condition,
                mask,
                answers,
            });
        }
        Ok(out)
    }
}

/// As it is stored and asked: cosine looks at directions alone.
fn ready(metric: Metric, mut vector: Vec<f32>) -> Vec<f32> {
    if metric == Metric::Cosine {
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    vector
}

fn json(file: &Path) -> Result<Value, Failure> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()).into())
}

fn attributes(text: &str) -> Result<Vec<Attributes>, Failure> {
    let mut lines = text.lines();
    if lines.next() != Some("id,kind,section,priority,installed_size,package") {
        return Err("attrs.csv: expected id,kind,section,priority,installed_size,package".into());
    }
    let mut out = Vec::new();
    for (row, line) in lines.enumerate() {
        let refuse = || format!("attrs.csv: row {row}: {line:?} is not understood");
        let fields: Vec<&str> = line.split(',').collect();
        let [id, _, section, _, size, _] = fields[..] else {
            return Err(refuse().into());
        };
        if id.parse() != Ok(row) {
            return Err(refuse().into());
        }
        out.push(Attributes {
            section: section.to_string(),
            installed_size_kib: size.parse().map_err(|_| refuse())?,
        });
    }
    Ok(out)
}

impl Condition {
    /// `installed_size <= 247`, `section = 'doc'` or `id % 20 = 7`.
    fn parse(predicate: &str) -> Option<Condition> {
        let words: Vec<&str> = predicate.split_whitespace().collect();
        match words[..] {
            ["installed_size", "<=", limit] => Some(Condition::SizeAtMost(limit.parse().ok()?)),
            ["section", "=", quoted] => {
                let section = quoted.strip_prefix('\'')?.strip_suffix('\'')?;
                Some(Condition::SectionIs(section.to_string()))
            }
            ["id", "%", modulus, "=", remainder] => {
                let (modulus, remainder) = (modulus.parse().ok()?, remainder.parse().ok()?);
                (remainder < modulus).then_some(Condition::IdModulo { modulus, remainder })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicates_are_read() {
        let parse = Condition::parse;
        assert_eq!(
            parse("installed_size <= 247"),
            Some(Condition::SizeAtMost(247))
        );
        assert_eq!(
            parse("section = 'doc'"),
            Some(Condition::SectionIs("doc".into()))
        );
        let modulo = Condition::IdModulo {
            modulus: 200,
            remainder: 7,
        };
        assert_eq!(parse("id % 200 = 7"), Some(modulo));
        for wrong in ["", "id % 0 = 0", "id % 5 = 5", "section = doc", "size > 1"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn attributes_are_read_in_the_order_of_ids() {
        let head = "id,kind,section,priority,installed_size,package\n";
        let read = attributes(&format!("{head}0,a,doc,b,12,c\n1,a,net,b,3,d\n")).unwrap();
        let sizes: Vec<u32> = read.iter().map(|row| row.installed_size_kib).collect();
        assert_eq!((sizes, read[1].section.as_str()), (vec![12, 3], "net"));
        for wrong in ["1,a,doc,b,12,c\n", "0,a,doc,b,12\n", "0,a,doc,b,-1,c\n"] {
            assert!(attributes(&format!("{head}{wrong}")).is_err(), "{wrong:?}");
        }
        assert!(attributes("0,a,doc,b,12,c\n").is_err());
    }

    #[test]
    fn cosine_is_asked_with_vectors_of_length_one() {
        assert_eq!(ready(Metric::Cosine, vec![3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(ready(Metric::L2, vec![3.0, 4.0]), [3.0, 4.0]);
    }
}
