//! Filters on encoded bytes against the same conditions on the Rust values (F1, F2).

use proptest::prelude::*;

use super::Filter;
use crate::Value;
use crate::error::ErrorKind;

#[derive(Clone, Debug, crate::Record)]
struct Row {
    #[terrane(id = 1, filter)]
    lang: String,
    #[terrane(id = 2, filter)]
    year: i16,
    #[terrane(id = 3)]
    score: f32,
    #[terrane(id = 4, default)]
    late: u8,
    #[terrane(id = 5)]
    note: Option<String>,
}

/// A condition, and what it means.
type Case = (Filter<Row>, fn(&Row, &Probe) -> bool);

/// The constants of the conditions.
#[derive(Clone, Debug)]
struct Probe {
    lang: String,
    year: i16,
    score: f32,
}

fn cases(probe: &Probe) -> Vec<Case> {
    let (lang, year, score) = (probe.lang.as_str(), probe.year, probe.score);
    vec![
        (Row::LANG.eq(lang), |row, probe| row.lang == probe.lang),
        (Row::LANG.ne(lang), |row, probe| row.lang != probe.lang),
        (Row::LANG.lt(lang), |row, probe| row.lang < probe.lang),
        (Row::LANG.starts_with(lang), |row, probe| {
            row.lang.starts_with(&probe.lang)
        }),
        (Row::LANG.between(..=lang), |row, probe| {
            row.lang <= probe.lang
        }),
        (Row::LANG.is_in(["a", lang]), |row, probe| {
            row.lang == "a" || row.lang == probe.lang
        }),
        (Row::LANG.is_in(Vec::<String>::new()), |_, _| false),
        (Row::YEAR.le(year), |row, probe| row.year <= probe.year),
        (Row::YEAR.gt(year), |row, probe| row.year > probe.year),
        (Row::YEAR.ge(year), |row, probe| row.year >= probe.year),
        (Row::YEAR.between(0..), |row, _| row.year >= 0),
        (Row::YEAR.between(-2..1), |row, _| {
            (-2..1).contains(&row.year)
        }),
        (Row::SCORE.lt(score), |row, probe| {
            row.score.total_cmp(&probe.score).is_lt()
        }),
        (Row::LATE.eq(0), |row, _| row.late == 0),
        (Row::NOTE.is_none(), |row, _| row.note.is_none()),
        (Row::NOTE.is_some(), |row, _| row.note.is_some()),
        (Row::NOTE.eq(lang), |row, probe| {
            row.note.as_ref() == Some(&probe.lang)
        }),
        (Row::NOTE.lt(Some(lang)), |row, probe| {
            row.note < Some(probe.lang.clone())
        }),
    ]
}

fn letters() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop::sample::select(vec!['\0', 'a', 'b']), 0..3)
        .prop_map(String::from_iter)
}

fn rows() -> impl Strategy<Value = Row> {
    let score = prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, f32::NAN, f32::INFINITY]);
    (
        letters(),
        -3..4_i16,
        score,
        0..2_u8,
        prop::option::of(letters()),
    )
        .prop_map(|(lang, year, score, late, note)| Row {
            lang,
            year,
            score,
            late,
            note,
        })
}

proptest! {
    #[test]
    fn filters_mean_what_they_say(
        row in rows(), from in rows(), i in 0..18_usize, j in 0..18_usize, old in any::<bool>(),
    ) {
        let probe = Probe { lang: from.lang, year: from.year, score: from.score };
        let mut bytes = Vec::new();
        let mut row = row;
        if old {
            // A row from before `late` and `note` were added.
            (row.late, row.note) = (0, None);
            row.encode_value(&mut bytes);
            bytes.truncate(bytes.len() - 2);
        } else {
            row.encode_value(&mut bytes);
        }
        let cases = cases(&probe);
        let ((one, means_one), (two, means_two)) = (&cases[i], &cases[j]);
        let (a, b) = (means_one(&row, &probe), means_two(&row, &probe));
        let mut scratch = Vec::new();
        let mut holds = |filter: Filter<Row>| filter.matches(&bytes, &mut scratch).unwrap();
        prop_assert_eq!(holds(one.clone()), a, "{:?}", one);
        prop_assert_eq!(holds(one.clone() & two.clone()), a && b);
        prop_assert_eq!(holds(one.clone() | two.clone()), a || b);
        prop_assert_eq!(holds(!one.clone() & (two.clone() | one.clone())), !a && b);
        prop_assert_eq!(holds(one.clone() & two.clone() & one.clone()), a && b);
        prop_assert_eq!(holds(one.clone() | two.clone() | !two.clone()), true);
    }
}

#[test]
fn debug_shows_the_expression() {
    let filter = (Row::LANG.eq("e\"n") & Row::YEAR.between(2020..) & Row::NOTE.is_none())
        | !Row::SCORE.is_in([1.5, 0.5, 1.5])
        | Row::LANG.starts_with("d");
    assert_eq!(
        format!("{filter:?}"),
        concat!(
            r#"((lang == "e\"n" & year in 2020.. & note == None)"#,
            r#" | !(score in [0.5, 1.5]) | lang starts with "d")"#
        )
    );
}

#[test]
fn filters_say_what_the_engine_must_know() {
    assert_eq!(
        (Row::LANG.eq("a") & Row::YEAR.eq(1)).first_without_codes(),
        None
    );
    assert_eq!(
        (Row::LANG.eq("a") & !Row::SCORE.eq(1.0)).first_without_codes(),
        Some("score")
    );
    assert!(
        (Row::YEAR.between(1..1) | Row::YEAR.between(..))
            .check()
            .is_ok()
    );
    let (low, high) = (1, 2);
    let error = (Row::LANG.eq("a") & !Row::YEAR.between(high..low))
        .check()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("field=year"));
}

#[test]
fn bytes_that_are_no_record_are_an_error() {
    let filter = Row::LANG.eq("a");
    for bytes in [&[][..], &[9], &[1], &[1, 1 << 3, 0], &[1, 1 << 3 | 4, 9]] {
        let error = filter.matches(bytes, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec, "{bytes:?}");
    }
}
