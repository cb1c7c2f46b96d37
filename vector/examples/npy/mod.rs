//! The files of a data set: NumPy arrays of two dimensions.

use std::path::Path;

/// The numbers of a `.npy` file after its header, and the length of a row.
fn npy(path: &Path) -> (Vec<u8>, usize) {
    let bytes = std::fs::read(path).expect("a readable file");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..10 + header]).into_owned();
    let shape = text.split("'shape': (").nth(1).expect("a shape");
    let row = shape.split([',', ')']).nth(1).expect("two dimensions");
    (
        bytes[10 + header..].to_vec(),
        row.trim().parse().expect("a number"),
    )
}

/// Binary16 numbers, and the length of a row.
pub(crate) fn halves(path: &Path) -> (Vec<f32>, usize) {
    let (bytes, dim) = npy(path);
    let wide = |half: &[u8; 2]| {
        let bits = u16::from_le_bytes(*half);
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
        let value = match exponent {
            0 => fraction * 2.0_f32.powi(-24),
            _ => (1.0 + fraction / 1024.0) * 2.0_f32.powi(exponent - 15),
        };
        sign * value
    };
    (bytes.as_chunks().0.iter().map(wide).collect(), dim)
}

/// 32-bit ids, and how many there are in a row.
pub(crate) fn ids(path: &Path) -> (Vec<u64>, usize) {
    let (bytes, width) = npy(path);
    let wide = |id: &[u8; 4]| u64::from(u32::from_le_bytes(*id));
    (bytes.as_chunks().0.iter().map(wide).collect(), width)
}
