//! Reads the two kinds of NumPy array that the data set has: float16 and int32 matrices.
//!
//! Format (numpy.lib.format, version 1.0): magic `\x93NUMPY`, major and minor version, header
//! length h as u16 little endian at byte 8, then h bytes of a Python dictionary (element type,
//! order, shape) and from byte 10 + h the elements, row by row. Anything else is refused with the
//! file, the offset, what was expected and what was found.
//!
//! N1: a matrix of halves that was read holds finite numbers only and no row of length zero, so
//! that [`normalised`] cannot divide by zero.

use std::path::Path;

use crate::failure::Failure;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Magic, version, header length.
const PREAMBLE: usize = 10;

/// Rows of equal length, in one piece of memory.
#[derive(Debug)]
pub(crate) struct Matrix<T> {
    /// At least one.
    columns: usize,
    cells: Vec<T>,
}

impl<T> Matrix<T> {
    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.cells.len() / self.columns
    }

    /// One row. Panics if there is no such row.
    pub(crate) fn row(&self, row: usize) -> &[T] {
        &self.cells[row * self.columns..][..self.columns]
    }
}

/// Reads a float16 matrix of `columns` columns; the halves are kept as their bits.
pub(crate) fn read_halves(file: &Path, columns: usize) -> Result<Matrix<u16>, Failure> {
    halves(file, &read(file)?, columns)
}

/// Reads an int32 matrix of at least `columns` columns.
pub(crate) fn read_ids(file: &Path, columns: usize) -> Result<Matrix<i32>, Failure> {
    ids(file, &read(file)?, columns)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::unreadable(file, &error))
}

fn halves(file: &Path, bytes: &[u8], columns: usize) -> Result<Matrix<u16>, Failure> {
    let body = Body::find(file, bytes, "<f2", 2)?;
    if body.columns != columns {
        let expected = format!("{columns} columns");
        let found = format!("{} columns", body.columns);
        return Err(Failure::bad_input(
            file,
            "header at offset 10: shape",
            expected,
            found,
        ));
    }
    let cells: Vec<u16> = body
        .elements
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    for (number, row) in cells.chunks_exact(columns).enumerate() {
        // N1: a row with an infinity or a NaN has a norm that is not finite.
        let norm = norm(row);
        if !(norm.is_finite() && norm > 0.0) {
            let place = format!(
                "offset {}, row {number}",
                body.offset + number * columns * 2
            );
            return Err(Failure::bad_input(
                file,
                place,
                "a finite vector with a length",
                norm,
            ));
        }
    }
    Ok(Matrix { columns, cells })
}

fn ids(file: &Path, bytes: &[u8], columns: usize) -> Result<Matrix<i32>, Failure> {
    let body = Body::find(file, bytes, "<i4", 4)?;
    if body.columns < columns {
        let expected = format!("at least {columns} columns");
        let found = format!("{} columns", body.columns);
        return Err(Failure::bad_input(
            file,
            "header at offset 10: shape",
            expected,
            found,
        ));
    }
    let cells = body
        .elements
        .chunks_exact(4)
        .map(|four| i32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect();
    Ok(Matrix {
        columns: body.columns,
        cells,
    })
}

/// What the header says, checked against the length of the file.
struct Body<'a> {
    /// Where the elements start in the file.
    offset: usize,
    columns: usize,
    elements: &'a [u8],
}

impl<'a> Body<'a> {
    fn find(
        file: &Path,
        bytes: &'a [u8],
        element: &str,
        element_bytes: usize,
    ) -> Result<Body<'a>, Failure> {
        if bytes.len() < PREAMBLE || &bytes[..6] != MAGIC {
            let found = format!("{:02x?}", &bytes[..bytes.len().min(6)]);
            return Err(Failure::bad_input(
                file,
                "offset 0",
                "\\x93NUMPY and a header",
                found,
            ));
        }
        if bytes[6..8] != [1, 0] {
            let found = format!("{}.{}", bytes[6], bytes[7]);
            return Err(Failure::bad_input(file, "offset 6", "version 1.0", found));
        }
        let offset = PREAMBLE + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let Some((head, elements)) = bytes.split_at_checked(offset) else {
            let expected = format!("a header that ends at {offset}");
            let found = format!("a file of {} bytes", bytes.len());
            return Err(Failure::bad_input(file, "offset 8", expected, found));
        };
        let header = String::from_utf8_lossy(&head[PREAMBLE..]);
        let refuse = |what: &str, expected: &str| {
            let place = format!("header at offset {PREAMBLE}: {what}");
            Failure::bad_input(file, place, expected, header.trim_end())
        };
        let quoted = format!("'{element}'");
        if !value_of(&header, "descr").is_some_and(|value| value.starts_with(&quoted)) {
            return Err(refuse("descr", &quoted));
        }
        if !value_of(&header, "fortran_order").is_some_and(|value| value.starts_with("False")) {
            return Err(refuse("fortran_order", "False"));
        }
        let Some((rows, columns)) = value_of(&header, "shape").and_then(shape) else {
            return Err(refuse("shape", "two numbers, neither of them 0"));
        };
        let expected = rows
            .checked_mul(columns)
            .and_then(|n| n.checked_mul(element_bytes));
        if expected != Some(elements.len()) {
            let place = format!("offset {offset}");
            let expected = format!("{rows} x {columns} elements of {element_bytes} bytes");
            let found = format!("{} bytes", elements.len());
            return Err(Failure::bad_input(file, place, expected, found));
        }
        Ok(Body {
            offset,
            columns,
            elements,
        })
    }
}

/// What follows `'key':` in a Python dictionary.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    Some(rest.trim_start())
}

/// `(rows, columns)` at the start of `text`.
fn shape(text: &str) -> Option<(usize, usize)> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let (rows, columns) = inside.split_once(',')?;
    let (rows, columns) = (rows.trim().parse().ok()?, columns.trim().parse().ok()?);
    (rows > 0 && columns > 0).then_some((rows, columns))
}

/// The row as f32 with length one (N1). The norm is taken after widening, as by the maker of the
/// answers.
pub(crate) fn normalised(row: &[u16]) -> Vec<f32> {
    let norm = norm(row);
    row.iter().map(|half| widen(*half) / norm).collect()
}

fn norm(row: &[u16]) -> f32 {
    row.iter()
        .map(|half| widen(*half) * widen(*half))
        .sum::<f32>()
        .sqrt()
}

/// IEEE 754 binary16 to binary32; every half is exact in f32.
fn widen(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: the fraction counts steps of 2^-24.
        0 => (fraction as f32 / 16_777_216.0).to_bits(),
        // Infinity and NaN.
        31 => 0x7f80_0000 | (fraction << 13),
        // The biases are 15 and 127.
        _ => ((exponent + 112) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(element: &str, shape: &str, body: &[u8]) -> Vec<u8> {
        let mut header =
            format!("{{'descr': '{element}', 'fortran_order': False, 'shape': {shape}, }}");
        while !(PREAMBLE + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        bytes
    }

    fn body(halves: &[u16]) -> Vec<u8> {
        halves.iter().flat_map(|half| half.to_le_bytes()).collect()
    }

    #[test]
    fn halves_widen_exactly() {
        for (half, expected) in [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65_504.0),
            (0x0400, 6.103_515_6e-5),
            (0x03ff, 1_023.0 / 16_777_216.0),
            (0x0001, 5.960_464_5e-8),
            (0x8001, -5.960_464_5e-8),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(
                widen(half).to_bits(),
                f32::to_bits(expected),
                "half {half:#06x}"
            );
        }
        assert!(widen(0x7e00).is_nan());
    }

    #[test]
    fn a_matrix_of_halves_is_read_and_normalised() {
        // 3, 4 and -1, 0.
        let bytes = file("<f2", "(2, 2)", &body(&[0x4200, 0x4400, 0xbc00, 0x0000]));
        let matrix = halves(Path::new("x.npy"), &bytes, 2).unwrap();
        assert_eq!(matrix.rows(), 2);
        assert_eq!(normalised(matrix.row(0)), [0.6, 0.8]);
        assert_eq!(normalised(matrix.row(1)), [-1.0, 0.0]);
    }

    #[test]
    fn ids_are_read_with_their_sign() {
        let body: Vec<u8> = [7, -1, 59_999]
            .iter()
            .flat_map(|id: &i32| id.to_le_bytes())
            .collect();
        let matrix = ids(Path::new("gt.npy"), &file("<i4", "(1, 3)", &body), 3).unwrap();
        assert_eq!(matrix.row(0), [7, -1, 59_999]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = file("<f2", "(1, 2)", &body(&[0x3c00, 0x3c00]));
        let refused = |bytes: &[u8], columns: usize, words: &[&str]| {
            let message = halves(Path::new("x.npy"), bytes, columns)
                .unwrap_err()
                .to_string();
            for word in words {
                assert!(message.contains(word), "{message:?} lacks {word:?}");
            }
        };
        refused(b"PK", 2, &["x.npy", "offset 0", "NUMPY"]);
        let mut newer = good.clone();
        newer[6] = 3;
        refused(&newer, 2, &["offset 6", "version 1.0", "found 3.0"]);
        let mut long = good.clone();
        long[9] = 0xff;
        refused(&long, 2, &["offset 8", "132 bytes"]);
        refused(&good, 3, &["expected 3 columns", "found 2 columns"]);
        refused(
            &good[..good.len() - 1],
            2,
            &["offset 128", "1 x 2 elements", "found 3 bytes"],
        );
        refused(
            &file("<f4", "(1, 2)", &[0; 8]),
            2,
            &["descr", "'<f2'", "'<f4'"],
        );
        refused(&file("<f2", "(2,)", &[0; 4]), 2, &["shape", "two numbers"]);
        refused(&file("<f2", "(0, 2)", &[]), 2, &["shape", "two numbers"]);
        let huge = format!("({}, {})", usize::MAX, 3);
        refused(
            &file("<f2", &huge, &[0; 4]),
            3,
            &["offset", "found 4 bytes"],
        );
        refused(
            &file("<f2", "(1, 2)", &[0; 4]),
            2,
            &["offset 128, row 0", "found 0"],
        );
        let infinite = file("<f2", "(1, 2)", &body(&[0x3c00, 0x7c00]));
        refused(&infinite, 2, &["row 0", "found inf"]);
    }
}
