//! The data set as it lies in a folder: vectors, attributes, texts, queries and exact answers.
//!
//! Layout (`engine/examples/data/README.md`): row i of `base.npy` is line i of `attrs.csv` after
//! its header and line i of `texts.jsonl`; answers name ids, not rows. Reading checks that the
//! files belong together, so that a wrong answer later cannot come from a mixed-up folder:
//!
//! D1: all parts have the same number of rows, and ids rise strictly.
//! D2: every answer names an id of the data set, and the answers of a filter only ids it keeps.
//! D3: a filter keeps as many rows as `filters.json` says.

use std::path::Path;

use crate::failure::Failure;
use crate::json::{self, Json};
use crate::npy::{self, Matrix};

/// Dimension of the vectors.
pub(crate) const DIMENSION: usize = 384;
/// Answers are judged by the nearest ten.
pub(crate) const NEAREST: usize = 10;

const ATTRS_HEADER: &str = "id,kind,section,priority,installed_size,package";

/// Attributes and text of one row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: u64,
    pub(crate) kind: String,
    pub(crate) section: String,
    pub(crate) priority: String,
    pub(crate) installed_size_kib: u32,
    pub(crate) package: String,
    pub(crate) text: String,
}

/// A predicate of `filters.json`.
#[derive(Debug, PartialEq)]
pub(crate) enum Condition {
    SizeAtMost(u32),
    SectionIs(String),
    /// `id % modulus == remainder`.
    IdModulo {
        modulus: u64,
        remainder: u64,
    },
}

/// A filter with its exact answers.
pub(crate) struct Filtered {
    pub(crate) name: String,
    /// As `filters.json` words it.
    pub(crate) predicate: String,
    pub(crate) condition: Condition,
    pub(crate) answers: Matrix<i32>,
}

/// One folder, read.
pub(crate) struct Dataset {
    pub(crate) name: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) query_texts: Vec<String>,
    pub(crate) answers: Matrix<i32>,
    pub(crate) filters: Vec<Filtered>,
    base: Matrix<u16>,
    queries: Matrix<u16>,
}

impl Dataset {
    /// Reads and checks the folder.
    pub(crate) fn read(folder: &Path) -> Result<Dataset, Failure> {
        if !folder.is_dir() {
            return Err(Failure::new(format!(
                "{}: expected the folder of the data set, found none; name one with --data DIR or \
                 TERRANE_DATA",
                folder.display()
            )));
        }
        let meta_file = folder.join("meta.json");
        let meta = json::parse(&meta_file, 0, &text(&meta_file)?)?;
        let name = meta
            .member("name")
            .and_then(Json::text)
            .unwrap_or("unnamed")
            .to_string();

        let mut rows = read_attributes(&folder.join("attrs.csv"))?;
        read_texts(&folder.join("texts.jsonl"), &mut rows)?;
        let base_file = folder.join("base.npy");
        let base = npy::read_halves(&base_file, DIMENSION)?;
        same_count(&base_file, "rows", rows.len(), base.rows())?;
        same_count(
            &meta_file,
            "n",
            rows.len(),
            count_of(&meta_file, &meta, "n")?,
        )?;

        let queries = npy::read_halves(&folder.join("queries.npy"), DIMENSION)?;
        same_count(
            &meta_file,
            "queries",
            queries.rows(),
            count_of(&meta_file, &meta, "queries")?,
        )?;
        let query_texts = read_query_texts(&folder.join("query_texts.jsonl"), queries.rows())?;
        let answers = read_answers(&folder.join("gt.npy"), &rows, queries.rows(), |_| true)?;
        let filters = read_filters(folder, &rows, queries.rows())?;
        Ok(Dataset {
            name,
            rows,
            query_texts,
            answers,
            filters,
            base,
            queries,
        })
    }

    /// The vector of a row, with length one.
    pub(crate) fn vector(&self, row: usize) -> Vec<f32> {
        npy::normalised(self.base.row(row))
    }

    /// All query vectors, with length one.
    pub(crate) fn query_vectors(&self) -> Vec<Vec<f32>> {
        (0..self.queries.rows())
            .map(|query| npy::normalised(self.queries.row(query)))
            .collect()
    }
}

impl Condition {
    fn keeps(&self, row: &Row) -> bool {
        match self {
            Condition::SizeAtMost(limit) => row.installed_size_kib <= *limit,
            Condition::SectionIs(section) => row.section == *section,
            Condition::IdModulo { modulus, remainder } => row.id % modulus == *remainder,
        }
    }

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

fn text(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| Failure::unreadable(file, &error))
}

fn same_count(file: &Path, what: &str, expected: usize, found: usize) -> Result<(), Failure> {
    if expected == found {
        return Ok(());
    }
    Err(Failure::bad_input(
        file,
        format!("number of {what}"),
        expected,
        found,
    ))
}

fn count_of(file: &Path, json: &Json, name: &str) -> Result<usize, Failure> {
    let count = json
        .member(name)
        .and_then(Json::whole)
        .and_then(|n| usize::try_from(n).ok());
    count.ok_or_else(|| {
        Failure::bad_input(file, format!("member {name:?}"), "a whole number", "none")
    })
}

/// Lines with the offset of each; the last line feed ends a line and starts none.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = 0;
    text.split_terminator('\n').map(move |line| {
        let at = next;
        next += line.len() + 1;
        (at, line)
    })
}

fn read_attributes(file: &Path) -> Result<Vec<Row>, Failure> {
    attributes(file, &text(file)?)
}

fn attributes(file: &Path, text: &str) -> Result<Vec<Row>, Failure> {
    let mut lines = lines(text);
    let header = lines.next().map_or("", |(_, line)| line);
    if header != ATTRS_HEADER {
        return Err(Failure::bad_input(
            file,
            "offset 0",
            ATTRS_HEADER,
            format!("{header:?}"),
        ));
    }
    let mut rows: Vec<Row> = Vec::new();
    for (at, line) in lines {
        let refuse = |expected: &str| {
            Failure::bad_input(file, format!("offset {at}"), expected, format!("{line:?}"))
        };
        let fields: Vec<&str> = line.split(',').collect();
        let [id, kind, section, priority, size, package] = fields[..] else {
            return Err(refuse("six fields"));
        };
        if line.contains('"') {
            return Err(refuse("fields without quotes"));
        }
        let id = id.parse().map_err(|_| refuse("a number as id"))?;
        // D1
        if rows.last().is_some_and(|last| last.id >= id) {
            return Err(refuse("an id above that of the line before"));
        }
        rows.push(Row {
            id,
            kind: kind.to_string(),
            section: section.to_string(),
            priority: priority.to_string(),
            installed_size_kib: size.parse().map_err(|_| refuse("a number of KiB"))?,
            package: package.to_string(),
            text: String::new(),
        });
    }
    if rows.is_empty() {
        return Err(Failure::bad_input(file, "number of rows", "at least 1", 0));
    }
    Ok(rows)
}

/// Fills in the texts, which must come in the order of the rows.
fn read_texts(file: &Path, rows: &mut [Row]) -> Result<(), Failure> {
    let content = text(file)?;
    same_count(file, "rows", rows.len(), lines(&content).count())?;
    for (row, (at, line)) in rows.iter_mut().zip(lines(&content)) {
        let json = json::parse(file, at, line)?;
        if json.member("id").and_then(Json::whole) != Some(row.id) {
            let expected = format!("\"id\": {}", row.id);
            return Err(Failure::bad_input(
                file,
                format!("offset {at}"),
                expected,
                line,
            ));
        }
        row.text = text_of(file, at, &json)?;
    }
    Ok(())
}

fn read_query_texts(file: &Path, queries: usize) -> Result<Vec<String>, Failure> {
    let content = text(file)?;
    let texts: Vec<String> = lines(&content)
        .map(|(at, line)| text_of(file, at, &json::parse(file, at, line)?))
        .collect::<Result<_, _>>()?;
    same_count(file, "queries", queries, texts.len())?;
    Ok(texts)
}

fn text_of(file: &Path, at: usize, json: &Json) -> Result<String, Failure> {
    let text = json.member("text").and_then(Json::text);
    let refuse = || Failure::bad_input(file, format!("offset {at}"), "a member \"text\"", "none");
    Ok(text.ok_or_else(refuse)?.to_string())
}

fn read_answers(
    file: &Path,
    rows: &[Row],
    queries: usize,
    keeps: impl Fn(&Row) -> bool,
) -> Result<Matrix<i32>, Failure> {
    let answers = npy::read_ids(file, NEAREST)?;
    same_count(file, "queries", queries, answers.rows())?;
    for query in 0..queries {
        for (place, id) in answers.row(query).iter().enumerate() {
            // D2: rows are sorted by id (D1).
            let row = u64::try_from(*id)
                .ok()
                .and_then(|id| rows.binary_search_by_key(&id, |row| row.id).ok());
            if !row.is_some_and(|row| keeps(&rows[row])) {
                let place = format!("query {query}, place {place}");
                return Err(Failure::bad_input(
                    file,
                    place,
                    "an id that may be an answer",
                    id,
                ));
            }
        }
    }
    Ok(answers)
}

fn read_filters(folder: &Path, rows: &[Row], queries: usize) -> Result<Vec<Filtered>, Failure> {
    let file = folder.join("filters.json");
    let json = json::parse(&file, 0, &text(&file)?)?;
    let members = match json {
        Json::Object(members) if !members.is_empty() => members,
        _ => {
            return Err(Failure::bad_input(
                &file,
                "offset 0",
                "an object with filters",
                "none",
            ));
        }
    };
    let mut filters = Vec::new();
    for (name, entry) in members {
        let predicate = entry
            .member("predicate")
            .and_then(Json::text)
            .unwrap_or_default();
        let condition = Condition::parse(predicate).ok_or_else(|| {
            let place = format!("predicate of {name:?}");
            let known = "installed_size <= N, section = 'S' or id % M = R";
            Failure::bad_input(&file, place, known, format!("{predicate:?}"))
        })?;
        // D3
        let kept = rows.iter().filter(|row| condition.keeps(row)).count();
        same_count(
            &file,
            &format!("rows of {name:?}"),
            kept,
            count_of(&file, &entry, "count")?,
        )?;
        let answers_file = folder.join(format!("gt_filter_{name}.npy"));
        let answers = read_answers(&answers_file, rows, queries, |row| condition.keeps(row))?;
        let predicate = predicate.to_string();
        filters.push(Filtered {
            name,
            predicate,
            condition,
            answers,
        });
    }
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::bundled;

    #[test]
    fn the_bundled_folder_is_read() {
        let set = Dataset::read(&bundled()).unwrap();
        assert_eq!((set.rows.len(), set.query_vectors().len()), (8_000, 200));
        assert_eq!(set.rows[0].package, "apfsprogs");
        assert!(set.rows.iter().all(|row| row.text.len() >= 25));
        assert_eq!(set.filters.len(), 1);
        assert_eq!(
            set.filters[0].condition,
            Condition::SectionIs("doc".to_string())
        );
        let length: f32 = set.vector(7_999).iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }

    /// The answers were computed by another program: our reading of the vectors must agree.
    #[test]
    fn the_nearest_by_plain_arithmetic_is_the_first_answer() {
        let set = Dataset::read(&bundled()).unwrap();
        let vectors: Vec<Vec<f32>> = (0..set.rows.len()).map(|row| set.vector(row)).collect();
        for (query, vector) in set.query_vectors().iter().enumerate().step_by(20) {
            let likeness =
                |row: &usize| -> f32 { vectors[*row].iter().zip(vector).map(|(a, b)| a * b).sum() };
            let best = (0..vectors.len())
                .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
                .map(|row| set.rows[row].id as i32);
            assert_eq!(best, Some(set.answers.row(query)[0]), "query {query}");
        }
    }

    #[test]
    fn predicates_are_read() {
        let parse = Condition::parse;
        assert_eq!(
            parse("installed_size <= 247"),
            Some(Condition::SizeAtMost(247))
        );
        assert_eq!(
            parse("section = 'doc'"),
            Some(Condition::SectionIs("doc".to_string()))
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
    fn wrong_attributes_are_named() {
        let refused = |body: &str, words: &str| {
            let text = format!("{ATTRS_HEADER}\n3,deb-long,doc,optional,12,abc\n{body}");
            let message = attributes(Path::new("attrs.csv"), &text)
                .unwrap_err()
                .to_string();
            assert!(message.contains(words), "{message:?} lacks {words:?}");
        };
        refused(
            "4,deb-long,doc,optional,12\n",
            "offset 79: expected six fields, found",
        );
        refused(
            "4,deb-long,doc,optional,12,\"abc\"\n",
            "fields without quotes",
        );
        refused("x,deb-long,doc,optional,12,abc\n", "a number as id");
        refused("3,deb-long,doc,optional,12,abc\n", "an id above");
        refused("4,deb-long,doc,optional,-1,abc\n", "a number of KiB");
        let message = attributes(Path::new("a"), "id,kind\n")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("offset 0: expected id,kind,section"),
            "{message:?}"
        );
        let only_header = format!("{ATTRS_HEADER}\n");
        let message = attributes(Path::new("a"), &only_header)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("expected at least 1, found 0"),
            "{message:?}"
        );
    }

    #[test]
    fn a_folder_whose_parts_do_not_belong_together_is_refused() {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(bundled()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let refused = |name: &str, change: fn(&mut Vec<u8>), words: &str| {
            let file = copy.path().join(name);
            let original = std::fs::read(&file).unwrap();
            let mut bytes = original.clone();
            change(&mut bytes);
            std::fs::write(&file, bytes).unwrap();
            let message = match Dataset::read(copy.path()) {
                Ok(_) => panic!("{name}: accepted, expected {words:?}"),
                Err(failure) => failure.to_string(),
            };
            assert!(
                message.contains(name) && message.contains(words),
                "{name}: {message:?}"
            );
            std::fs::write(&file, original).unwrap();
        };
        refused("gt.npy", |b| b[128] ^= 0x40, "query 0, place 0");
        refused("gt_filter_sec5.npy", |b| b[129] ^= 0x40, "query 0, place 0");
        refused(
            "filters.json",
            |b| replace(b, "393", "394"),
            "rows of \"sec5\"",
        );
        refused(
            "filters.json",
            |b| replace(b, " = 'doc'", " > 'doc'"),
            "predicate of \"sec5\"",
        );
        refused(
            "texts.jsonl",
            |b| b[7] ^= 1,
            "offset 0: expected \"id\": 30",
        );
        refused(
            "meta.json",
            |b| replace(b, "\"n\": 8000", "\"n\": 8001"),
            "number of n",
        );
        refused("base.npy", |b| b.truncate(1_000), "8000 x 384 elements");
        let missing = Dataset::read(&copy.path().join("none"))
            .err()
            .unwrap()
            .to_string();
        assert!(
            missing.contains("--data DIR") && missing.contains("none"),
            "{missing:?}"
        );
    }

    fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
        let text = String::from_utf8(std::mem::take(bytes)).unwrap();
        assert!(text.contains(from));
        *bytes = text.replacen(from, to, 1).into_bytes();
    }
}
