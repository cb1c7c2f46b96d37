//! Filters: typed expressions over the fields of a record, evaluated on its encoded bytes.
//!
//! A scan asks a filter about each row before anything of the row is decoded: every test reads
//! one field, in the part form of its key, and compares bytes, which is the order of its type
//! (C2 of the codec). Expressions and not closures, since they can be shown, split, and sent to
//! where the rows are.
//!
//! Invariants:
//! - F1: a test means what the operator of the same name means on the Rust values: `None` is
//!   below every `Some`; floats compare by `total_cmp`, so `-0.0` is below `0.0`.
//! - F2: a field that a row lacks reads as it does when the row is decoded.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{BitAnd, BitOr, Bound, Not};

use crate::codec::{AsKey, Column, FieldDef, Key, KeyRange, Record, Span};
use crate::error::{Error, Result};
use crate::field::Field;
use crate::index::vector::source::column;
use crate::index::vector::view::RowFilter;

/// A condition on the fields of the record `R`.
///
/// Made by the comparisons of [`Field`], joined by `&`, `|` and `!`.
///
/// ```
/// use terrane::{Filter, Record};
///
/// #[derive(Record)]
/// struct Passage {
///     #[terrane(id = 1, filter)]
///     lang: String,
///     #[terrane(id = 2, filter)]
///     year: u16,
/// }
/// let filter: Filter<Passage> = Passage::LANG.eq("en") & !Passage::YEAR.between(..2020);
/// assert_eq!(format!("{filter:?}"), r#"(lang == "en" & !(year in ..2020))"#);
/// ```
pub struct Filter<R> {
    node: Node,
    record: PhantomData<fn() -> R>,
}

#[derive(Clone)]
enum Node {
    Test { def: FieldDef, test: Test },
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
}

/// A condition on the part form of one field.
#[derive(Clone)]
enum Test {
    Compare(Compare, Vec<u8>),
    /// Sorted, without repeats.
    In(Vec<Vec<u8>>),
    Between(Bound<Vec<u8>>, Bound<Vec<u8>>),
    /// The part form begins so.
    StartsWith(Vec<u8>),
}

#[derive(Clone, Copy)]
enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl<R: Record, T: Key + Column> Field<R, T> {
    /// Rows whose field is `value`.
    #[must_use]
    pub fn eq(self, value: impl AsKey<T>) -> Filter<R> {
        self.compare(Compare::Eq, &value)
    }

    /// Rows whose field is not `value`.
    #[must_use]
    pub fn ne(self, value: impl AsKey<T>) -> Filter<R> {
        self.compare(Compare::Ne, &value)
    }

    /// Rows whose field is below `value`.
    #[must_use]
    pub fn lt(self, value: impl AsKey<T>) -> Filter<R> {
        self.compare(Compare::Lt, &value)
    }

    /// Rows whose field is `value` or below.
    #[must_use]
    pub fn le(self, value: impl AsKey<T>) -> Filter<R> {
        self.compare(Compare::Le, &value)
    }

    /// Rows whose field is above `value`.
    #[must_use]
    pub fn gt(self, value: impl AsKey<T>) -> Filter<R> {
        self.compare(Compare::Gt, &value)
    }

    /// Rows whose field is `value` or above.
    #[must_use]
    pub fn ge(self, value: impl AsKey<T>) -> Filter<R> {
        self.compare(Compare::Ge, &value)
    }

    /// Rows whose field lies in `range`. A range that starts above its end makes the search
    /// `Invalid`.
    #[must_use]
    pub fn between(self, range: impl KeyRange<T>) -> Filter<R> {
        let (start, end) = range.part_bounds();
        self.test(Test::Between(start, end))
    }

    /// Rows whose field is one of `values`; none when there are none.
    #[must_use]
    pub fn is_in<Q: AsKey<T>>(self, values: impl IntoIterator<Item = Q>) -> Filter<R> {
        let mut parts: Vec<Vec<u8>> = values.into_iter().map(|value| part::<T>(&value)).collect();
        parts.sort_unstable();
        parts.dedup();
        self.test(Test::In(parts))
    }

    fn compare(self, compare: Compare, value: &impl AsKey<T>) -> Filter<R> {
        self.test(Test::Compare(compare, part::<T>(value)))
    }

    fn test(self, test: Test) -> Filter<R> {
        // In an exact scan any field can be asked, also one that the schema gives no order.
        let def = self.def().with_order::<T>();
        Filter {
            node: Node::Test { def, test },
            record: PhantomData,
        }
    }
}

impl<R: Record, T: Key + Column> Field<R, Option<T>>
where
    Option<T>: Key + Column,
{
    /// Rows whose field is `None`.
    #[must_use]
    pub fn is_none(self) -> Filter<R> {
        self.eq(None::<&T>)
    }

    /// Rows whose field is not `None`.
    #[must_use]
    pub fn is_some(self) -> Filter<R> {
        self.ne(None::<&T>)
    }
}

impl<R: Record> Field<R, String> {
    /// Rows whose field begins with `prefix`.
    #[must_use]
    pub fn starts_with(self, prefix: &str) -> Filter<R> {
        let mut escaped = part::<String>(&prefix);
        escaped.truncate(escaped.len() - 2); // without the end of the part
        self.test(Test::StartsWith(escaped))
    }
}

fn part<K: Key>(value: &impl AsKey<K>) -> Vec<u8> {
    let mut out = Vec::new();
    value.write_part(&mut out);
    out
}

impl<R: Record> Filter<R> {
    /// Whether the encoded `record` meets the condition. `scratch` is overwritten; handing in the
    /// same one for every row saves its allocation.
    ///
    /// # Errors
    /// `Codec` when the bytes are no record of this type.
    #[doc(hidden)]
    pub fn matches(&self, record: &[u8], scratch: &mut Vec<u8>) -> Result<bool> {
        self.node.matches(record, scratch)
    }

    /// Whether the expression can be asked at all.
    ///
    /// # Errors
    /// `Invalid` when a range starts above its end.
    #[doc(hidden)]
    pub fn check(&self) -> Result<()> {
        self.node.visit(&mut |def, test| match test {
            Test::Between(start, end) => Span::of_parts(start.clone(), end.clone())
                .map(drop)
                .map_err(|error: Error| error.with("field", def.name)),
            _ => Ok(()),
        })
    }

    /// The first field in the expression that is not stored beside vector codes (`filter`), so
    /// that a search by codes would have to read rows for it.
    #[doc(hidden)]
    #[must_use]
    pub fn first_without_codes(&self) -> Option<&'static str> {
        let mut found = None;
        let visited = self.node.visit(&mut |def, _| {
            if !def.filter && found.is_none() {
                found = Some(def.name);
            }
            Ok(())
        });
        debug_assert!(visited.is_ok());
        found
    }
}

impl<R: Record> RowFilter for Filter<R> {
    fn judge(&self, columns: &[u8]) -> Option<bool> {
        self.node.judge(columns)
    }

    fn matches(&self, record: &[u8]) -> Result<bool> {
        self.node.matches(record, &mut Vec::new())
    }
}

/// All of the nodes if `neutral` is true, else any of them: the other answer of one decides, and
/// one that cannot tell leaves the whole open.
fn joined(nodes: &[Node], columns: &[u8], neutral: bool) -> Option<bool> {
    let mut answer = Some(neutral);
    for node in nodes {
        match node.judge(columns) {
            Some(one) if one == neutral => {}
            Some(decides) => return Some(decides),
            None => answer = None,
        }
    }
    answer
}

impl Node {
    /// As [`Node::matches`], on the columns beside a code; None if they do not decide.
    fn judge(&self, columns: &[u8]) -> Option<bool> {
        match self {
            Node::Test { def, test } => column(columns, def.id).map(|part| test.holds(part)),
            Node::All(nodes) => joined(nodes, columns, true),
            Node::Any(nodes) => joined(nodes, columns, false),
            Node::Not(node) => node.judge(columns).map(|holds| !holds),
        }
    }

    fn matches(&self, record: &[u8], scratch: &mut Vec<u8>) -> Result<bool> {
        match self {
            Node::Test { def, test } => {
                scratch.clear();
                def.write_part(record, scratch)?;
                Ok(test.holds(scratch))
            }
            Node::All(nodes) => {
                for node in nodes {
                    if !node.matches(record, scratch)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Node::Any(nodes) => {
                for node in nodes {
                    if node.matches(record, scratch)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Node::Not(node) => Ok(!node.matches(record, scratch)?),
        }
    }

    fn visit(&self, seen: &mut dyn FnMut(&FieldDef, &Test) -> Result<()>) -> Result<()> {
        match self {
            Node::Test { def, test } => seen(def, test),
            Node::All(nodes) | Node::Any(nodes) => {
                nodes.iter().try_for_each(|node| node.visit(seen))
            }
            Node::Not(node) => node.visit(seen),
        }
    }
}

impl Test {
    fn holds(&self, part: &[u8]) -> bool {
        match self {
            Test::Compare(compare, with) => match compare {
                Compare::Eq => part == with,
                Compare::Ne => part != with,
                Compare::Lt => part < with.as_slice(),
                Compare::Le => part <= with.as_slice(),
                Compare::Gt => part > with.as_slice(),
                Compare::Ge => part >= with.as_slice(),
            },
            Test::In(parts) => parts
                .binary_search_by(|one| one.as_slice().cmp(part))
                .is_ok(),
            Test::Between(start, end) => {
                let above = match start {
                    Bound::Included(start) => part >= start.as_slice(),
                    Bound::Excluded(start) => part > start.as_slice(),
                    Bound::Unbounded => true,
                };
                above
                    && match end {
                        Bound::Included(end) => part <= end.as_slice(),
                        Bound::Excluded(end) => part < end.as_slice(),
                        Bound::Unbounded => true,
                    }
            }
            Test::StartsWith(prefix) => part.starts_with(prefix),
        }
    }
}

impl<R> BitAnd for Filter<R> {
    type Output = Filter<R>;

    fn bitand(self, other: Filter<R>) -> Filter<R> {
        let node = match (self.node, other.node) {
            (Node::All(mut left), Node::All(right)) => {
                left.extend(right);
                Node::All(left)
            }
            (Node::All(mut left), right) => {
                left.push(right);
                Node::All(left)
            }
            (left, right) => Node::All(vec![left, right]),
        };
        Filter {
            node,
            record: PhantomData,
        }
    }
}

impl<R> BitOr for Filter<R> {
    type Output = Filter<R>;

    fn bitor(self, other: Filter<R>) -> Filter<R> {
        let node = match (self.node, other.node) {
            (Node::Any(mut left), Node::Any(right)) => {
                left.extend(right);
                Node::Any(left)
            }
            (Node::Any(mut left), right) => {
                left.push(right);
                Node::Any(left)
            }
            (left, right) => Node::Any(vec![left, right]),
        };
        Filter {
            node,
            record: PhantomData,
        }
    }
}

impl<R> Not for Filter<R> {
    type Output = Filter<R>;

    fn not(self) -> Filter<R> {
        Filter {
            node: Node::Not(Box::new(self.node)),
            record: PhantomData,
        }
    }
}

impl<R> Clone for Filter<R> {
    fn clone(&self) -> Self {
        Filter {
            node: self.node.clone(),
            record: PhantomData,
        }
    }
}

/// The expression, as it could be written.
impl<R> fmt::Debug for Filter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.node, f)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, between) = match self {
            Node::Test { def, test } => return test.show(def, f),
            Node::Not(node) => return write!(f, "!({node})"),
            Node::All(nodes) => (nodes, " & "),
            Node::Any(nodes) => (nodes, " | "),
        };
        for (i, node) in nodes.iter().enumerate() {
            write!(f, "{}{node}", if i == 0 { "(" } else { between })?;
        }
        f.write_str(")")
    }
}

impl Test {
    fn show(&self, def: &FieldDef, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data_type = (def.data_type)();
        let value = |part: &Vec<u8>| {
            let mut input = part.as_slice();
            data_type
                .show_part(&mut input)
                .unwrap_or_else(|_| "?".into())
        };
        write!(f, "{}", def.name)?;
        match self {
            Test::Compare(compare, with) => {
                let sign = match compare {
                    Compare::Eq => "==",
                    Compare::Ne => "!=",
                    Compare::Lt => "<",
                    Compare::Le => "<=",
                    Compare::Gt => ">",
                    Compare::Ge => ">=",
                };
                write!(f, " {sign} {}", value(with))
            }
            Test::In(parts) => {
                let shown: Vec<String> = parts.iter().map(value).collect();
                write!(f, " in [{}]", shown.join(", "))
            }
            Test::Between(start, end) => {
                f.write_str(" in ")?;
                match start {
                    Bound::Included(start) => write!(f, "{}", value(start))?,
                    Bound::Excluded(start) => write!(f, "(above {})", value(start))?,
                    Bound::Unbounded => {}
                }
                f.write_str("..")?;
                match end {
                    Bound::Included(end) => write!(f, "={}", value(end)),
                    Bound::Excluded(end) => write!(f, "{}", value(end)),
                    Bound::Unbounded => Ok(()),
                }
            }
            Test::StartsWith(prefix) => {
                write!(f, " starts with {}", value(&[prefix, &[0, 0][..]].concat()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
