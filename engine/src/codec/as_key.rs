//! What a user may write where a key is asked for.
//!
//! `get(tx, 7)`, `get(tx, &id)`, `get(tx, "ada")`, `get(tx, (tenant, 1))` all name a key without
//! making one: no `String` is built to look up a `&str`.
//!
//! Invariants:
//! - A1: what stands for a key writes the very bytes of that key.
//! - A2: for a given key type at most one integer type stands for it, so that a literal needs no
//!   suffix; hence no blanket implementation, and widening conversions are left out.

use super::key::{Desc, Key, escape, invert};

/// What can stand for a key of type `K`: `K`, `&K`, a borrowed form of it, or a tuple of such.
///
/// An `Option` field is also found by the value itself. An own key type implements it for itself
/// by calling [`Key::encode_key`] and [`Key::encode_part`]; `&K` is there for every key.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot stand for a key of type `{K}`")]
pub trait AsKey<K: Key> {
    /// Appends the lone form of the key.
    fn write_key(&self, out: &mut Vec<u8>);

    /// Appends the part form of the key.
    fn write_part(&self, out: &mut Vec<u8>);
}

impl<K: Key> AsKey<K> for &K {
    fn write_key(&self, out: &mut Vec<u8>) {
        self.encode_key(out);
    }

    fn write_part(&self, out: &mut Vec<u8>) {
        self.encode_part(out);
    }
}

macro_rules! stands_for_itself {
    ($([$($generic:tt)*] $type:ty;)*) => {$(
        impl<$($generic)*> AsKey<$type> for $type {
            fn write_key(&self, out: &mut Vec<u8>) {
                self.encode_key(out);
            }

            fn write_part(&self, out: &mut Vec<u8>) {
                self.encode_part(out);
            }
        }

        impl<$($generic)*> AsKey<Option<$type>> for $type {
            fn write_key(&self, out: &mut Vec<u8>) {
                out.push(1);
                self.encode_key(out);
            }

            fn write_part(&self, out: &mut Vec<u8>) {
                out.push(1);
                self.encode_part(out);
            }
        }
    )*};
}

stands_for_itself! {
    [] u8;
    [] u16;
    [] u32;
    [] u64;
    [] u128;
    [] i8;
    [] i16;
    [] i32;
    [] i64;
    [] i128;
    [] f32;
    [] f64;
    [] bool;
    [] char;
    [] ();
    [] String;
    [] Vec<u8>;
    [const N: usize] [u8; N];
}

macro_rules! borrowed_bytes {
    ($([$($generic:tt)*] $borrowed:ty => $key:ty;)*) => {$(
        impl<$($generic)*> AsKey<$key> for $borrowed {
            fn write_key(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_ref());
            }

            fn write_part(&self, out: &mut Vec<u8>) {
                escape(self.as_ref(), out);
            }
        }

        impl<$($generic)*> AsKey<Option<$key>> for $borrowed {
            fn write_key(&self, out: &mut Vec<u8>) {
                out.push(1);
                AsKey::<$key>::write_key(self, out);
            }

            fn write_part(&self, out: &mut Vec<u8>) {
                out.push(1);
                AsKey::<$key>::write_part(self, out);
            }
        }
    )*};
}

borrowed_bytes! {
    [] &str => String;
    [] &&str => String;
    [] &[u8] => Vec<u8>;
    [] &&[u8] => Vec<u8>;
    [const N: usize] &[u8; N] => Vec<u8>;
}

impl<K: Key, Q: AsKey<K>> AsKey<Option<K>> for Option<Q> {
    fn write_key(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.write_key(out);
        }
    }

    fn write_part(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.write_part(out);
        }
    }
}

impl<K: Key, Q: AsKey<K>> AsKey<Desc<K>> for Desc<Q> {
    fn write_key(&self, out: &mut Vec<u8>) {
        self.write_part(out);
    }

    fn write_part(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.0.write_part(out);
        invert(&mut out[start..]);
    }
}

macro_rules! tuples {
    ($(($($key:ident $part:ident $at:tt),*))*) => {$(
        impl<$($key: Key,)* $($part: AsKey<$key>),*> AsKey<($($key,)*)> for ($($part,)*) {
            fn write_key(&self, out: &mut Vec<u8>) {
                self.write_part(out);
            }

            fn write_part(&self, out: &mut Vec<u8>) {
                $(self.$at.write_part(out);)*
            }
        }
    )*};
}

tuples! {
    (A P 0)
    (A P 0, B Q 1)
    (A P 0, B Q 1, C R 2)
    (A P 0, B Q 1, C R 2, D S 3)
    (A P 0, B Q 1, C R 2, D S 3, E T 4)
    (A P 0, B Q 1, C R 2, D S 3, E T 4, F U 5)
    (A P 0, B Q 1, C R 2, D S 3, E T 4, F U 5, G V 6)
    (A P 0, B Q 1, C R 2, D S 3, E T 4, F U 5, G V 6, H W 7)
}
