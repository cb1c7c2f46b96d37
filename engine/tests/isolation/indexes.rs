//! What reading by prefix, by index and by distance counts as read: what it looked at below, and no
//! more than that (`reach` has the rules).
//!
//! A reader reads and writes elsewhere; before it commits, somebody moves in. Seen to fail with
//! gaps between the rows of a scan that do not count, with the requested range in the place of what
//! was reached, with an end that does not count, and with a back end whose reach nobody holds.

use terrane::{Record, Result, Table, TableDef, Transaction, Vector};

use crate::reach::{Ground, Reading};

#[derive(Record)]
struct Person {
    #[terrane(id = 1, unique)]
    email: String,
    #[terrane(id = 2, index)]
    day: u32,
    #[terrane(id = 3, index)]
    city: String,
    #[terrane(id = 4, vector(metric = "l2"))]
    place: Vector<2>,
}

type House = (u32, u32);

const PEOPLE: TableDef<House, Person> = TableDef::new("people");

fn person(email: &str, day: u32, city: &str) -> Person {
    Person {
        email: email.into(),
        day,
        city: city.into(),
        place: Vector::from([day as f32, 1.0]),
    }
}

/// Who lives there from the beginning: house, day, city.
const THERE: [(House, u32, &str); 4] = [
    ((1, 5), 10, "aa"),
    ((2, 3), 20, "ab"),
    ((2, 6), 30, "b"),
    ((3, 1), 20, "c"),
];

struct Town {
    ground: Ground,
    people: Table<House, Person>,
}

impl Town {
    fn new() -> Town {
        let ground = Ground::new();
        let people = ground.db.table(PEOPLE).expect("a table");
        let set_up = ground.db.write(|tx| {
            THERE.iter().try_for_each(|(house, day, city)| {
                let email = format!("{}-{}", house.0, house.1);
                people.put(tx, *house, &person(&email, *day, city))
            })
        });
        set_up.expect("set up");
        Town { ground, people }
    }

    /// Holds a reading against people who move in, each with whether the reader has looked there.
    fn expect(&self, name: &str, read: Reading<'_>, cases: &[(House, u32, &str, bool)]) {
        for (house, day, city, conflict) in cases {
            let newcomer = person("new", *day, city);
            let put = |tx: &mut Transaction| self.people.put(tx, *house, &newcomer);
            let found = self.ground.conflicts(read, &put, 0);
            assert_eq!(
                found, *conflict,
                "{name}: {house:?}, day {day}, city {city}"
            );
            let gone = self.ground.db.write(|tx| self.people.delete(tx, *house));
            assert!(gone.expect("restored"));
        }
    }
}

/// The house of a row.
fn house(row: Option<Result<(House, Person)>>) -> House {
    row.expect("one").expect("a row").0
}

#[test]
fn a_prefix_counts_as_far_as_it_was_taken() {
    let town = Town::new();
    let people = &town.people;
    town.expect(
        "the first of a prefix",
        &|tx| assert_eq!(house(people.prefix(tx, 2).next()), (2, 3)),
        &[
            ((2, 1), 90, "z", true),
            ((2, 4), 90, "z", false),
            ((1, 9), 90, "z", false),
        ],
    );
    town.expect(
        "all of a prefix",
        &|tx| assert_eq!(people.prefix(tx, 2).count(), 2),
        &[
            ((2, 1), 90, "z", true),
            ((2, 9), 90, "z", true),
            ((3, 9), 90, "z", false),
        ],
    );
}

#[test]
fn an_index_counts_the_entries_that_were_taken_and_their_gaps() {
    let town = Town::new();
    let people = &town.people;
    let days = || people.index(Person::DAY);
    town.expect(
        "two of a range",
        &|tx| {
            let rows = days().range(tx, 15..).take(2);
            assert_eq!(rows.filter(Result::is_ok).count(), 2);
        },
        &[
            ((9, 9), 15, "z", true),
            ((2, 9), 20, "z", true), // between the two of that day
            ((9, 9), 20, "z", false),
            ((9, 9), 25, "z", false),
            ((9, 9), 14, "z", false),
        ],
    );
    town.expect(
        "one from the end",
        &|tx| assert_eq!(house(days().range(tx, 15..).next_back()), (2, 6)),
        &[
            ((9, 9), 30, "z", true),
            ((9, 9), 99, "z", true),
            ((9, 9), 29, "z", false),
        ],
    );
    town.expect(
        "entries that were counted",
        &|tx| assert_eq!(days().range(tx, 20..25).count(), 2),
        &[
            ((9, 9), 24, "z", true),
            ((9, 9), 25, "z", false),
            ((9, 9), 19, "z", false),
        ],
    );
    town.expect(
        "the first of a prefix of text",
        &|tx| {
            let cities = people.index(Person::CITY);
            assert_eq!(house(cities.prefix(tx, "a").next()), (1, 5));
        },
        &[
            ((9, 9), 90, "a", true),
            ((9, 9), 90, "aaa", false),
            ((9, 9), 90, "b", false),
        ],
    );
}

#[test]
fn a_value_counts_up_to_its_first_row_or_as_one_that_nobody_has() {
    let town = Town::new();
    let people = &town.people;
    town.expect(
        "the first of a day",
        &|tx| {
            let found = people.index(Person::DAY).get(tx, 20).expect("a read");
            assert_eq!(house(found.map(Ok)), (2, 3));
        },
        &[((1, 1), 20, "z", true), ((2, 4), 20, "z", false)],
    );
    town.expect(
        "a day that nobody has",
        &|tx| {
            let found = people.index(Person::DAY).get(tx, 25).expect("a read");
            assert!(found.is_none());
        },
        &[((9, 9), 25, "z", true), ((9, 9), 26, "z", false)],
    );
    town.expect(
        "a unique value that nobody has",
        &|tx| {
            let found = people.index(Person::EMAIL).get(tx, "new");
            assert!(found.expect("a read").is_none());
        },
        &[((9, 9), 90, "z", true)],
    );
    town.expect(
        "a unique check",
        &|tx| {
            let mine = person("mine", 90, "z");
            people.put(tx, (8, 8), &mine).expect("a write");
        },
        &[((9, 9), 90, "z", false)],
    );
}

#[test]
fn a_search_counts_every_row_that_it_measured_or_filtered() {
    let town = Town::new();
    let people = &town.people;
    town.expect(
        "a filter that one passes",
        &|tx| {
            let near = people.nearest(Person::PLACE, &[10.0, 1.0], 1);
            let hits = near
                .filter(Person::DAY.eq(10))
                .advanced()
                .exact()
                .run(tx)
                .expect("a search");
            assert_eq!(hits.len(), 1);
        },
        &[((9, 9), 90, "z", true), ((1, 1), 10, "z", true)],
    );
}
