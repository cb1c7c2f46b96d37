//! NumPy arrays of the data sets: vectors read row by row, small matrices read whole, and both
//! written.
//!
//! Format (numpy.lib.format, version 1.0): magic `\x93NUMPY`, major and minor version, header
//! length h as u16 little endian at byte 8, then h bytes of a Python dictionary (element type,
//! order, shape) and from byte 10 + h the elements, row by row.
//!
//! Vectors stay in their file: a process whose memory is measured must not hold the data set.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::half::{narrow, widen};
use crate::Failure;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Magic, version, header length.
const PREAMBLE: usize = 10;

/// What a header says, checked against the length of its file.
struct Header {
    element: String,
    rows: usize,
    columns: usize,
    /// Where the elements begin.
    offset: u64,
}

/// An opened array and its header.
fn open(path: &Path) -> Result<(File, Header), Failure> {
    let refuse = |what: String| -> Failure { format!("{}: {what}", path.display()).into() };
    let mut file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    let mut preamble = [0; PREAMBLE];
    file.read_exact(&mut preamble)
        .map_err(|_| refuse("no array: shorter than its preamble".into()))?;
    if preamble[..6] != *MAGIC || preamble[6] != 1 {
        return Err(refuse("expected an array of version 1.0".into()));
    }
    let length = usize::from(u16::from_le_bytes([preamble[8], preamble[9]]));
    let mut text = vec![0; length];
    file.read_exact(&mut text)
        .map_err(|_| refuse("the file ends within its header".into()))?;
    let text = String::from_utf8_lossy(&text);
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let element = value("descr")
        .and_then(|rest| rest.strip_prefix('\'')?.split_once('\''))
        .map(|(element, _)| element.to_string())
        .ok_or_else(|| refuse("no descr in the header".into()))?;
    if !value("fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        return Err(refuse("expected the elements row by row".into()));
    }
    let (rows, columns) = value("shape")
        .and_then(shape)
        .ok_or_else(|| refuse("expected a shape of one or two numbers above 0".into()))?;
    let size = match element.as_str() {
        "|b1" => 1,
        "<f2" => 2,
        "<f4" | "<i4" => 4,
        other => return Err(refuse(format!("elements of type {other} are not known"))),
    };
    let offset = (PREAMBLE + length) as u64;
    let expected = rows.checked_mul(columns).and_then(|n| n.checked_mul(size));
    let found = file.metadata()?.len() - offset;
    if expected.map(|n| n as u64) != Some(found) {
        let what = format!("expected {rows} x {columns} elements of {size} bytes, found {found}");
        return Err(refuse(what));
    }
    let header = Header {
        element,
        rows,
        columns,
        offset,
    };
    Ok((file, header))
}

/// `(rows, columns)`, or `(rows,)` as one column.
fn shape(text: &str) -> Option<(usize, usize)> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let (rows, columns) = inside.split_once(',')?;
    let rows = rows.trim().parse().ok()?;
    let columns = match columns.trim() {
        "" => 1,
        number => number.parse().ok()?,
    };
    (rows > 0 && columns > 0).then_some((rows, columns))
}

/// A matrix of f16 or f32 in its file, read one row at a time.
pub(crate) struct Vectors {
    file: File,
    path: PathBuf,
    header: Header,
}

impl Vectors {
    pub(crate) fn open(path: &Path) -> Result<Vectors, Failure> {
        let (file, header) = open(path)?;
        if !header.element.starts_with("<f") {
            return Err(format!("{}: expected f2 or f4", path.display()).into());
        }
        Ok(Vectors {
            file,
            path: path.to_path_buf(),
            header,
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.header.rows
    }

    pub(crate) fn dim(&self) -> usize {
        self.header.columns
    }

    /// One row, as it is in the file.
    pub(crate) fn row(&self, row: usize) -> Result<Vec<f32>, Failure> {
        if row >= self.rows() {
            return Err(format!("{}: there is no row {row}", self.path.display()).into());
        }
        let size = if self.header.element == "<f2" { 2 } else { 4 };
        let bytes = self.dim() * size;
        let mut raw = vec![0; bytes];
        self.file
            .read_exact_at(&mut raw, self.header.offset + (row * bytes) as u64)?;
        let out = if size == 2 {
            let halves = raw.as_chunks().0.iter();
            halves.map(|two| widen(u16::from_le_bytes(*two))).collect()
        } else {
            let floats = raw.as_chunks().0.iter();
            floats.map(|four| f32::from_le_bytes(*four)).collect()
        };
        Ok(out)
    }
}

/// An int32 matrix of at least `columns` columns, of which so many are kept.
pub(crate) fn ids(path: &Path, columns: usize) -> Result<Vec<Vec<u32>>, Failure> {
    let (mut file, header) = open(path)?;
    if header.element != "<i4" || header.columns < columns {
        let what = format!("expected i4 with {columns} columns at least");
        return Err(format!("{}: {what}", path.display()).into());
    }
    let mut raw = Vec::new();
    file.read_to_end(&mut raw)?;
    let row = |row: &[u8]| {
        let cells = row.as_chunks().0.iter().take(columns);
        let ids = cells.map(|four| u32::try_from(i32::from_le_bytes(*four)));
        ids.collect::<Result<Vec<u32>, _>>()
    };
    let rows = raw.chunks_exact(header.columns * 4).map(row);
    rows.collect::<Result<_, _>>()
        .map_err(|_| format!("{}: an id below 0", path.display()).into())
}

/// A column of truth values.
pub(crate) fn mask(path: &Path) -> Result<Vec<bool>, Failure> {
    let (mut file, header) = open(path)?;
    if header.element != "|b1" || header.columns != 1 {
        return Err(format!("{}: expected one column of b1", path.display()).into());
    }
    let mut raw = Vec::new();
    file.read_to_end(&mut raw)?;
    Ok(raw.into_iter().map(|byte| byte != 0).collect())
}

/// Writes an array row by row.
pub(crate) struct Writer(BufWriter<File>);

impl Writer {
    /// A new file for `rows` rows of `columns` elements, of which `element` is NumPy's name.
    pub(crate) fn create(
        path: &Path,
        element: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Writer, Failure> {
        let mut header = format!(
            "{{'descr': '{element}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
        );
        while !(PREAMBLE + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        out.write_all(MAGIC)?;
        out.write_all(&[1, 0])?;
        out.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        Ok(Writer(out))
    }

    /// The next elements as halves.
    pub(crate) fn halves(&mut self, row: &[f32]) -> Result<(), Failure> {
        for element in row {
            self.0.write_all(&narrow(*element).to_le_bytes())?;
        }
        Ok(())
    }

    /// The next elements as they are.
    #[cfg(test)]
    pub(crate) fn floats(&mut self, row: &[f32]) -> Result<(), Failure> {
        for element in row {
            self.0.write_all(&element.to_le_bytes())?;
        }
        Ok(())
    }

    /// The next row of ids.
    pub(crate) fn ids(&mut self, row: &[u32]) -> Result<(), Failure> {
        for id in row {
            self.0.write_all(&i32::try_from(*id)?.to_le_bytes())?;
        }
        Ok(())
    }

    /// Nothing comes after.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        Ok(self.0.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let rows = [[0.5, -2.0, 1.0 / 3.0], [0.0, 65_504.0, 6.0e-8]];
        let mut writer = Writer::create(&path, "<f4", 2, 3).unwrap();
        rows.iter().for_each(|row| writer.floats(row).unwrap());
        writer.finish().unwrap();
        let vectors = Vectors::open(&path).unwrap();
        assert_eq!((vectors.rows(), vectors.dim()), (2, 3));
        assert_eq!(vectors.row(1).unwrap(), rows[1]);
        assert!(vectors.row(2).is_err());

        let mut writer = Writer::create(&path, "<f2", 2, 3).unwrap();
        rows.iter().for_each(|row| writer.halves(row).unwrap());
        writer.finish().unwrap();
        let first = Vectors::open(&path).unwrap().row(0).unwrap();
        assert_eq!(first, [0.5, -2.0, 0.333_251_95]);

        let mut writer = Writer::create(&path, "<i4", 2, 3).unwrap();
        writer.ids(&[3, 1, 2, 6, 5, 4]).unwrap();
        writer.finish().unwrap();
        assert_eq!(ids(&path, 2).unwrap(), [[3, 1], [6, 5]]);
        assert!(ids(&path, 4).is_err());
        assert!(Vectors::open(&path).is_err());
    }

    #[test]
    fn what_is_no_such_array_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let mut writer = Writer::create(&path, "<f4", 2, 2).unwrap();
        writer.floats(&[1.0; 4]).unwrap();
        writer.finish().unwrap();
        let good = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8], words: &str| {
            std::fs::write(&path, bytes).unwrap();
            let told = Vectors::open(&path).err().unwrap().to_string();
            assert!(told.contains(words), "{told:?} lacks {words:?}");
        };
        refused(b"PK", "shorter");
        refused(
            &good[..good.len() - 1],
            "2 x 2 elements of 4 bytes, found 15",
        );
        refused(&good[..40], "within its header");
        let text = String::from_utf8_lossy(&good[10..128]).into_owned();
        for (from, to, words) in [
            ("<f4", "<f8", "<f8"),
            ("False", "True ", "row by row"),
            ("(2, 2)", "(2, 0)", "shape"),
        ] {
            let mut bent = good.clone();
            bent.splice(10..128, text.replace(from, to).bytes());
            refused(&bent, words);
        }
    }
}
