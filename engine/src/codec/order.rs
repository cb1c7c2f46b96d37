//! The part form of a field's key by its stored type, without the Rust type.
//!
//! A check of a database computes with it what every index entry must be; a test holds it together
//! with what [`FieldDef::write_part`](super::FieldDef::write_part) writes.

use super::key::{Key, escape, invert};
use super::value::Value;
use super::{DataType, malformed};
use crate::error::Result;

impl DataType {
    /// Appends the part form of a field of this type, from the whole form behind its tag; `None`
    /// is an option that was left out.
    ///
    /// # Errors
    /// `Codec` when the bytes are no value of the type, or the type is no key.
    pub fn write_part_of_field(&self, whole: Option<&[u8]>, out: &mut Vec<u8>) -> Result<()> {
        match (self, whole) {
            (DataType::Option(_), None) => {
                out.push(0);
                Ok(())
            }
            (DataType::Option(inner), Some(whole)) => {
                out.push(1);
                inner.write_part(whole, out)
            }
            (_, Some(whole)) => self.write_part(whole, out),
            (_, None) => Err(malformed("a field without a default is missing")),
        }
    }

    /// Appends the part form of a value, from its whole form.
    fn write_part(&self, whole: &[u8], out: &mut Vec<u8>) -> Result<()> {
        fn simple<T: Key + Value>(whole: &[u8], out: &mut Vec<u8>) -> Result<()> {
            T::decode_value(whole)?.encode_part(out);
            Ok(())
        }
        match self {
            DataType::Unit => simple::<()>(whole, out),
            DataType::Bool => simple::<bool>(whole, out),
            DataType::Char => simple::<char>(whole, out),
            DataType::U8 => simple::<u8>(whole, out),
            DataType::U16 => simple::<u16>(whole, out),
            DataType::U32 => simple::<u32>(whole, out),
            DataType::U64 => simple::<u64>(whole, out),
            DataType::U128 => simple::<u128>(whole, out),
            DataType::I8 => simple::<i8>(whole, out),
            DataType::I16 => simple::<i16>(whole, out),
            DataType::I32 => simple::<i32>(whole, out),
            DataType::I64 => simple::<i64>(whole, out),
            DataType::I128 => simple::<i128>(whole, out),
            DataType::F32 => simple::<f32>(whole, out),
            DataType::F64 => simple::<f64>(whole, out),
            DataType::String | DataType::Bytes | DataType::FixedBytes(_) => {
                self.check_value(whole)?;
                if let DataType::FixedBytes(_) = self {
                    out.extend_from_slice(whole);
                } else {
                    escape(whole, out);
                }
                Ok(())
            }
            DataType::Option(inner) => match whole.split_first() {
                Some((0, [])) => {
                    out.push(0);
                    Ok(())
                }
                Some((1, rest)) => {
                    out.push(1);
                    inner.write_part(rest, out)
                }
                _ => Err(malformed("an option is neither 0 nor 1 and a value")),
            },
            DataType::Desc(inner) => {
                let start = out.len();
                inner.write_part(whole, out)?;
                invert(&mut out[start..]);
                Ok(())
            }
            DataType::Tuple(parts) => {
                let mut rest = whole;
                for part in parts {
                    part.write_part(part.wire().take(&mut rest)?, out)?;
                }
                if rest.is_empty() {
                    return Ok(());
                }
                Err(malformed("bytes are left after a tuple"))
            }
            DataType::List(_) | DataType::Vector(_) | DataType::Custom(_) | DataType::Record => {
                Err(malformed("a type is no key").with("type", self))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;
    use crate::codec::Desc;

    type Mixed = (u8, Option<String>, Desc<i32>);

    #[derive(Record)]
    struct Wide {
        #[terrane(id = 1, index)]
        word: String,
        #[terrane(id = 2, index)]
        number: i64,
        #[terrane(id = 3, index)]
        maybe: Option<u16>,
        #[terrane(id = 4, index)]
        mixed: Mixed,
        #[terrane(id = 5, index)]
        bytes: Vec<u8>,
        #[terrane(id = 6, index)]
        flag: Option<bool>,
        #[terrane(id = 7, index)]
        place: Desc<f64>,
        #[terrane(id = 8, index)]
        code: [u8; 3],
    }

    /// Seen failing with the inversion of `Desc` left out.
    #[test]
    fn the_stored_type_gives_the_entry_that_the_rust_type_gives() {
        for (maybe, flag) in [(None, Some(true)), (Some(700), None)] {
            let wide = Wide {
                word: "a\0b".into(),
                number: -3,
                maybe,
                mixed: (9, maybe.map(|_| "x\0".into()), Desc(-7)),
                bytes: vec![0, 255, 0],
                flag,
                place: Desc(-0.5),
                code: [0, 1, 2],
            };
            let mut record = Vec::new();
            wide.encode_value(&mut record);
            for def in Wide::FIELDS {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                def.write_part(&record, &mut theirs).unwrap();
                let raw = def.find_raw(&record).unwrap();
                let whole = raw.map(|field| field.whole);
                (def.data_type)()
                    .write_part_of_field(whole, &mut ours)
                    .unwrap();
                assert_eq!(ours, theirs, "{}", def.name);
            }
        }
    }
}
