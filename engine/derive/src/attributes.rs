//! What a struct says about itself: ids and flags of its fields, checked.
//!
//! All mistakes of a struct are reported at once, each with the span of the words that are wrong.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::{Data, DeriveInput, Error, Fields, Ident, LitInt, LitStr, Result, Type, Visibility};

/// The highest id of a field; `terrane` asserts that it has the same limit.
const MAX_FIELD_ID: u16 = 16_383;
/// The longest vector; `terrane` has the same limit.
const MAX_DIMENSIONS: u32 = 16_000;
/// The widest record; `terrane` has the same limit.
const MAX_FIELDS: usize = 1_000;

/// A struct that can be a record.
pub(crate) struct Table {
    pub(crate) name: Ident,
    /// In rising id.
    pub(crate) columns: Vec<Column>,
}

/// A field of it.
pub(crate) struct Column {
    pub(crate) ident: Ident,
    pub(crate) visibility: Visibility,
    pub(crate) data_type: Type,
    pub(crate) id: u16,
    pub(crate) unique: bool,
    pub(crate) index: bool,
    pub(crate) filter: bool,
    pub(crate) default: bool,
    pub(crate) vector: Option<Search>,
}

/// How a vector field is searched.
pub(crate) struct Search {
    pub(crate) metric: Metric,
    /// 0 where the type says it.
    pub(crate) dim: u32,
    /// Searched by a scan: no index is made with the table.
    pub(crate) exact: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Metric {
    L2,
    Cosine,
    Dot,
}

impl Table {
    /// Reads the struct that the derive stands on.
    pub(crate) fn of(input: &DeriveInput) -> Result<Table> {
        if let Some(first) = input.generics.params.first() {
            return Err(Error::new_spanned(
                first,
                "a record cannot be generic: its schema is one",
            ));
        }
        if let Some(attribute) = input.attrs.iter().find(|a| a.path().is_ident("terrane")) {
            return Err(Error::new_spanned(
                attribute,
                "`terrane` attributes stand on fields",
            ));
        }
        let fields = match &input.data {
            Data::Struct(data) => match &data.fields {
                Fields::Named(fields) => &fields.named,
                _ => {
                    return Err(Error::new_spanned(
                        &input.ident,
                        "a record has named fields",
                    ));
                }
            },
            _ => return Err(Error::new_spanned(&input.ident, "a record is a struct")),
        };
        let mut mistakes = Mistakes(None);
        let mut columns = Vec::new();
        for field in fields {
            match Column::of(field) {
                Ok(column) => columns.push(column),
                Err(error) => mistakes.add(error),
            }
        }
        if fields.is_empty() || fields.len() > MAX_FIELDS {
            let message = format!("a record has 1 to {MAX_FIELDS} fields");
            mistakes.add(Error::new_spanned(&input.ident, message));
        }
        check_unique(&columns, &mut mistakes);
        columns.sort_by_key(|column| column.id); // M2
        mistakes.none_or(Table {
            name: input.ident.clone(),
            columns,
        })
    }
}

/// Ids name a field, and so do the constants in upper case: neither may stand twice.
fn check_unique(columns: &[Column], mistakes: &mut Mistakes) {
    for (i, column) in columns.iter().enumerate() {
        for other in &columns[..i] {
            let (name, before) = (column.name(), other.name());
            if column.id == other.id {
                let message = format!("field `{before}` has id {} already", column.id);
                mistakes.add(Error::new(column.ident.span(), message));
            }
            if column.constant() == other.constant() {
                let message = format!("`{name}` and `{before}` give the same constant");
                mistakes.add(Error::new(column.ident.span(), message));
            }
        }
    }
}

impl Column {
    fn of(field: &syn::Field) -> Result<Column> {
        let Some(ident) = &field.ident else {
            return Err(Error::new_spanned(field, "a record has named fields"));
        };
        let mut words = Words::default();
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("terrane")) {
            attribute.parse_nested_meta(|meta| words.read(&meta))?;
        }
        words.check()?;
        let Some((id, _)) = words.id else {
            let message = format!("field `{ident}` needs an id: #[terrane(id = N)]");
            return Err(Error::new(ident.span(), message));
        };
        Ok(Column {
            ident: ident.clone(),
            visibility: field.vis.clone(),
            data_type: field.ty.clone(),
            id,
            unique: words.unique.is_some(),
            index: words.index.is_some(),
            filter: words.filter.is_some(),
            default: words.default.is_some(),
            vector: words.vector.map(|(search, _)| search),
        })
    }

    /// The name without `r#`.
    pub(crate) fn name(&self) -> String {
        self.ident.unraw().to_string()
    }

    /// The name of the field's constant.
    pub(crate) fn constant(&self) -> Ident {
        Ident::new(&self.name().to_uppercase(), self.ident.span())
    }
}

/// The words of a field's attributes, each with its place.
#[derive(Default)]
struct Words {
    id: Option<(u16, Span)>,
    unique: Option<Span>,
    index: Option<Span>,
    filter: Option<Span>,
    default: Option<Span>,
    vector: Option<(Search, Span)>,
}

impl Words {
    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let Some(word) = meta.path.get_ident() else {
            return Err(meta.error("an unknown attribute"));
        };
        let at = word.span();
        match word.to_string().as_str() {
            "id" => {
                let id = read_id(&meta.value()?.parse()?)?;
                once(self.id.replace((id, at)).is_some(), word)
            }
            "unique" => once(self.unique.replace(at).is_some(), word),
            "index" => once(self.index.replace(at).is_some(), word),
            "filter" => once(self.filter.replace(at).is_some(), word),
            "default" => once(self.default.replace(at).is_some(), word),
            "vector" => {
                let search = read_vector(meta)?;
                once(self.vector.replace((search, at)).is_some(), word)
            }
            other => Err(Error::new(
                at,
                format!(
                    "`{other}` is none of the attributes id, unique, index, filter, default, vector"
                ),
            )),
        }
    }

    /// Words that contradict each other.
    fn check(&self) -> Result<()> {
        if let (Some(_), Some(at)) = (self.unique, self.index) {
            return Err(Error::new(at, "`unique` is an index already"));
        }
        if self.vector.is_none() {
            return Ok(());
        }
        let pairs = [
            ("unique", self.unique),
            ("index", self.index),
            ("filter", self.filter),
            ("default", self.default),
        ];
        for (word, at) in pairs {
            if let Some(at) = at {
                return Err(Error::new(at, format!("a vector field cannot be `{word}`")));
            }
        }
        Ok(())
    }
}

fn once(again: bool, word: &Ident) -> Result<()> {
    if again {
        Err(Error::new(word.span(), format!("`{word}` is given twice")))
    } else {
        Ok(())
    }
}

fn read_id(literal: &LitInt) -> Result<u16> {
    match literal.base10_parse::<u16>() {
        Ok(0) => Err(Error::new(
            literal.span(),
            "id 0 belongs to the hidden columns",
        )),
        Ok(id) if id <= MAX_FIELD_ID => Ok(id),
        _ => Err(Error::new(
            literal.span(),
            format!("an id is 1 to {MAX_FIELD_ID}"),
        )),
    }
}

fn read_vector(meta: &ParseNestedMeta<'_>) -> Result<Search> {
    let (mut metric, mut dim, mut exact) = (None, None, false);
    meta.parse_nested_meta(|inner| {
        if inner.path.is_ident("metric") {
            let literal: LitStr = inner.value()?.parse()?;
            let found = match literal.value().as_str() {
                "l2" => Metric::L2,
                "cosine" => Metric::Cosine,
                "dot" => Metric::Dot,
                _ => return Err(Error::new(literal.span(), "a metric is l2, cosine or dot")),
            };
            return if metric.replace(found).is_some() {
                Err(inner.error("`metric` is given twice"))
            } else {
                Ok(())
            };
        }
        if inner.path.is_ident("dim") {
            let literal: LitInt = inner.value()?.parse()?;
            let found = literal.base10_parse::<u32>().ok();
            let Some(found) = found.filter(|dim| (1..=MAX_DIMENSIONS).contains(dim)) else {
                let message = format!("a dimension is 1 to {MAX_DIMENSIONS}");
                return Err(Error::new(literal.span(), message));
            };
            return if dim.replace(found).is_some() {
                Err(inner.error("`dim` is given twice"))
            } else {
                Ok(())
            };
        }
        if inner.path.is_ident("exact") {
            return if std::mem::replace(&mut exact, true) {
                Err(inner.error("`exact` is given twice"))
            } else {
                Ok(())
            };
        }
        Err(inner.error("a vector has `metric`, `dim` and `exact`"))
    })?;
    let metric = metric.ok_or_else(|| meta.error("a vector needs a metric: l2, cosine or dot"))?;
    Ok(Search {
        metric,
        dim: dim.unwrap_or(0),
        exact,
    })
}

/// Mistakes gathered so far, as one error with many places (M1).
struct Mistakes(Option<Error>);

impl Mistakes {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            none => *none = Some(error),
        }
    }

    fn none_or<T>(self, value: T) -> Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of all mistakes in a struct.
    fn mistakes(source: &str) -> Vec<String> {
        let input: DeriveInput = syn::parse_str(source).unwrap();
        match Table::of(&input) {
            Ok(_) => Vec::new(),
            Err(error) => error.into_iter().map(|one| one.to_string()).collect(),
        }
    }

    #[test]
    fn a_good_struct_is_read_in_rising_id() {
        let source = "struct S {
            #[terrane(id = 3, vector(metric = \"dot\", dim = 8))] c: DynVector,
            #[terrane(id = 1, unique)] a: u64,
            #[terrane(id = 2)] #[terrane(filter, index)] r#type: String,
        }";
        let input: DeriveInput = syn::parse_str(source).unwrap();
        let Ok(table) = Table::of(&input) else {
            panic!("refused")
        };
        let names: Vec<String> = table
            .columns
            .iter()
            .map(|column| column.constant().to_string())
            .collect();
        assert_eq!(names, ["A", "TYPE", "C"]);
        assert!(table.columns[0].unique && table.columns[1].filter && table.columns[1].index);
        assert_eq!(
            table.columns[2].vector.as_ref().map(|search| search.dim),
            Some(8)
        );
    }

    #[test]
    fn every_mistake_is_named() {
        let field = |attribute: &str| format!("struct S {{ #[terrane({attribute})] a: u64 }}");
        for (source, wanted) in [
            ("struct S { a: u64 }".to_string(), "needs an id"),
            (field("unique"), "needs an id"),
            (field("id = 0"), "hidden columns"),
            (field("id = 16384"), "1 to 16383"),
            (field("id = 70000"), "1 to 16383"),
            (field("id = 1, id = 2"), "given twice"),
            (field("id = 1, uniqe"), "none of the attributes"),
            (field("id = 1, unique, index"), "an index already"),
            (
                field("id = 1, vector(metric = \"l1\")"),
                "l2, cosine or dot",
            ),
            (field("id = 1, vector(dim = 3)"), "needs a metric"),
            (
                field("id = 1, vector(metric = \"l2\", dim = 0)"),
                "1 to 16000",
            ),
            (
                field("id = 1, vector(metric = \"l2\", size = 1)"),
                "`metric`, `dim` and `exact`",
            ),
            (
                field("id = 1, vector(metric = \"l2\", exact, exact)"),
                "`exact` is given twice",
            ),
            (
                field("id = 1, filter, vector(metric = \"l2\")"),
                "cannot be `filter`",
            ),
            (
                "struct S { #[terrane(id = 1)] a: u8, #[terrane(id = 1)] b: u8 }".into(),
                "already",
            ),
            (
                "struct S { #[terrane(id = 1)] a: u8, #[terrane(id = 2)] A: u8 }".into(),
                "same",
            ),
            ("struct S {}".into(), "1 to 1000 fields"),
            ("struct S(u64);".into(), "named fields"),
            ("enum E { A }".into(), "is a struct"),
            ("struct S<T> { #[terrane(id = 1)] a: T }".into(), "generic"),
            (
                "#[terrane(id = 1)] struct S { a: u8 }".into(),
                "stand on fields",
            ),
        ] {
            let found = mistakes(&source);
            assert!(
                found.len() == 1 && found[0].contains(wanted),
                "{source}: {found:?}"
            );
        }
    }

    #[test]
    fn mistakes_are_reported_together() {
        let found = mistakes("struct S { a: u8, b: u8, #[terrane(id = 0)] c: u8 }");
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
