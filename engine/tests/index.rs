//! Indexes: after every transaction the entries are exactly those of the rows.
#![allow(clippy::unwrap_used)] // a test may panic wherever it stands in its file

use std::collections::BTreeMap;
use std::sync::Barrier;

use tempfile::TempDir;
use terrane::{Database, ErrorKind, Read, Record, Result, Table, TableDef};

#[derive(Record, Clone, Debug, PartialEq)]
struct User {
    #[terrane(id = 1, unique)]
    email: String,
    #[terrane(id = 2, index)]
    joined_day: u32,
    #[terrane(id = 3, unique)]
    nick: Option<String>,
    #[terrane(id = 4, index)]
    team: Option<i16>,
    #[terrane(id = 5, default)]
    bio: String,
}

/// A key that is text: entries of a secondary index carry it behind their field.
const USERS: TableDef<String, User> = TableDef::new("users");

fn open() -> (TempDir, Database, Table<String, User>) {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::open(folder.path().join("db")).unwrap();
    let users = db.table(USERS).unwrap();
    (folder, db, users)
}

fn user(email: &str) -> User {
    User {
        email: email.into(),
        joined_day: 20_411,
        nick: None,
        team: None,
        bio: String::new(),
    }
}

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// Values from small sets, so that unique ones collide.
    fn user(&mut self) -> User {
        let nick = self.below(30);
        let team = self.below(5) as i16 - 2;
        User {
            email: format!("m{}\0@example.org", self.below(40)),
            joined_day: self.below(20) as u32,
            nick: (nick < 20).then(|| "n".repeat(nick as usize)),
            team: (team < 2).then_some(team),
            bio: format!("bio {}", self.below(1000)),
        }
    }
}

type Rows<K> = Vec<(K, User)>;

fn collect<K>(rows: impl Iterator<Item = Result<(K, User)>>) -> Rows<K> {
    rows.map(Result::unwrap).collect()
}

/// Every index of `users`, in both directions, against the rows sorted by hand.
fn check_indexes(users: &Table<String, User>, read: &impl Read, model: &BTreeMap<String, User>) {
    fn by<O: Ord>(model: &BTreeMap<String, User>, of: impl Fn(&User) -> O) -> Rows<String> {
        let mut rows: Rows<String> = model.iter().map(|(k, u)| (k.clone(), u.clone())).collect();
        rows.sort_by_key(|(key, user)| (of(user), key.clone()));
        rows
    }
    assert_eq!(collect(users.iter(read)), by(model, |_| ()));
    let wanted = by(model, |user| user.email.clone());
    assert_eq!(collect(users.index(User::EMAIL).range(read, ..)), wanted);
    let wanted = by(model, |user| user.joined_day);
    assert_eq!(
        collect(users.index(User::JOINED_DAY).range(read, ..)),
        wanted
    );
    let wanted = by(model, |user| user.nick.clone());
    assert_eq!(collect(users.index(User::NICK).range(read, ..)), wanted);
    let mut wanted = by(model, |user| user.team);
    assert_eq!(collect(users.index(User::TEAM).range(read, ..)), wanted);
    wanted.reverse();
    assert_eq!(
        collect(users.index(User::TEAM).range(read, ..).rev()),
        wanted
    );

    for day in 0..20 {
        let wanted: Rows<String> = by(model, |user| user.joined_day)
            .into_iter()
            .filter(|r| r.1.joined_day == day)
            .collect();
        let index = users.index(User::JOINED_DAY);
        assert_eq!(collect(index.range(read, day..=day)), wanted);
        assert_eq!(index.range(read, day..day + 1).count(), wanted.len());
        assert_eq!(index.get(read, day).unwrap(), wanted.first().cloned());
    }
    for (key, user) in model {
        let found = users.index(User::EMAIL).get(read, &user.email).unwrap();
        assert_eq!(found, Some((key.clone(), user.clone())));
        if let Some(nick) = &user.nick {
            let found = users.index(User::NICK).get(read, nick.as_str()).unwrap();
            assert_eq!(found.map(|row| row.0).as_ref(), Some(key));
        }
    }
    let without = model.iter().find(|(_, user)| user.nick.is_none());
    let found = users.index(User::NICK).get(read, None::<&String>).unwrap();
    assert_eq!(found.map(|row| row.0).as_ref(), without.map(|row| row.0));
}

/// What a put of `user` at `key` must give: the field and the holder of a value that is taken.
fn taken(model: &BTreeMap<String, User>, key: &str, user: &User) -> bool {
    model.iter().any(|(other, held)| {
        other != key
            && (held.email == user.email || (held.nick.is_some() && held.nick == user.nick))
    })
}

#[test]
fn entries_follow_their_rows_through_random_writes() {
    let (folder, mut db, mut users) = open();
    let mut model = BTreeMap::new();
    let mut random = Random(7);
    let (mut refused, mut put) = (0, 0);
    for round in 0..60 {
        let mut tx = db.begin();
        let mut next = model.clone();
        for _ in 0..random.below(20) {
            let key = format!("k{}", random.below(60));
            if random.below(4) == 0 {
                assert_eq!(
                    users.delete(&mut tx, &key).unwrap(),
                    next.remove(&key).is_some()
                );
                continue;
            }
            let user = random.user();
            match users.put(&mut tx, &key, &user) {
                Ok(()) => {
                    assert!(!taken(&next, &key, &user), "a unique value was given twice");
                    next.insert(key, user);
                    put += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Constraint, "{error}");
                    assert!(taken(&next, &key, &user), "{error}");
                    refused += 1;
                }
            }
        }
        check_indexes(&users, &tx, &next);
        if random.below(4) == 0 {
            drop(tx); // and with it its entries
        } else {
            tx.commit().unwrap();
            model = next;
        }
        check_indexes(&users, &db.snapshot(), &model);
        if round == 30 {
            drop(users);
            db.close().unwrap();
            drop(db);
            db = Database::open(folder.path().join("db")).unwrap();
            users = db.table(USERS).unwrap();
        }
    }
    assert!(refused > 20 && put > 100, "{refused} refused, {put} put");
}

#[test]
fn a_unique_value_is_refused_by_name_and_the_transaction_goes_on() {
    let (_folder, db, users) = open();
    let mut held = user("ada@example.org");
    held.nick = Some("ada".into());
    db.write(|tx| users.put(tx, "first", &held)).unwrap();
    let mut tx = db.begin();
    let mut second = user("new@example.org");
    second.nick = Some("ada".into());
    let error = users.put(&mut tx, "second", &second).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Constraint);
    let text = error.to_string();
    for part in ["table=users", "field=nick", "\"ada\"", "holder=\"first\""] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // Nothing of the refused row is there, not the entry of its other unique field either.
    assert_eq!(users.get(&tx, "second").unwrap(), None);
    assert_eq!(
        users
            .index(User::EMAIL)
            .get(&tx, "new@example.org")
            .unwrap(),
        None
    );
    users
        .put(&mut tx, "third", &user("new@example.org"))
        .unwrap();
    // The value moves once its holder lets go of it, within one transaction.
    users
        .put(&mut tx, "first", &user("ada@example.org"))
        .unwrap();
    users.put(&mut tx, "third", &second).unwrap();
    tx.commit().unwrap();
    let now = db.snapshot();
    let found = users.index(User::NICK).get(&now, "ada").unwrap().unwrap();
    assert_eq!(found, ("third".to_string(), second));
    assert_eq!(users.index(User::EMAIL).range(&now, ..).count(), 2);
    assert_eq!(
        users.index(User::NICK).range(&now, ..).count(),
        2,
        "one of them is `None`"
    );
}

/// Two transactions give one unique value to two rows, neither seeing the other: the entry is one
/// key, so one conflicts, and is refused when it runs again.
#[test]
fn of_two_concurrent_inserts_of_one_unique_value_one_is_refused() {
    let (_folder, db, users) = open();
    let (mut one, mut two) = (db.begin(), db.begin());
    assert!(users.get(&one, "a").unwrap().is_none() && users.get(&two, "b").unwrap().is_none());
    users
        .insert(&mut one, "a", &user("same@example.org"))
        .unwrap();
    users
        .insert(&mut two, "b", &user("same@example.org"))
        .unwrap();
    one.commit().unwrap();
    let error = two.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let again = db.write(|tx| users.insert(tx, "b", &user("same@example.org")));
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Constraint);
    let all = collect(users.index(User::EMAIL).range(&db.snapshot(), ..));
    assert_eq!(all, [("a".to_string(), user("same@example.org"))]);
}

#[test]
fn threads_that_race_for_unique_values_get_each_once() {
    const THREADS: usize = 4;
    const VALUES: usize = 25;
    let (_folder, db, users) = open();
    let start = Barrier::new(THREADS);
    let won: Vec<usize> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (db, users, start) = (&db, &users, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut won = 0;
                    for value in 0..VALUES {
                        let key = format!("{thread}-{value}");
                        let row = user(&format!("{value}@example.org"));
                        match db.write(|tx| users.put(tx, &key, &row)) {
                            Ok(()) => won += 1,
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Constraint, "{error}")
                            }
                        }
                    }
                    won
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect()
    });
    assert_eq!(won.iter().sum::<usize>(), VALUES, "{won:?}");
    let model: BTreeMap<String, User> = collect(users.iter(&db.snapshot())).into_iter().collect();
    assert_eq!(model.len(), VALUES);
    check_indexes(&users, &db.snapshot(), &model);
}

#[test]
fn any_number_of_rows_may_lack_a_unique_value() {
    let (_folder, db, users) = open();
    db.write(|tx| {
        (0..5).try_for_each(|i| users.put(tx, format!("{i}"), &user(&format!("{i}@example.org"))))
    })
    .unwrap();
    let index = users.index(User::NICK);
    let now = db.snapshot();
    assert_eq!(
        index.range(&now, None::<String>..=None::<String>).count(),
        5
    );
    let first = index.get(&now, None::<&String>).unwrap().unwrap();
    assert_eq!(first.0, "0");
}

#[test]
fn prefixes_and_ranges_of_indexed_text() {
    let (_folder, db, users) = open();
    let mails = ["", "a", "a\0", "a\0b", "ab", "abc", "b"];
    db.write(|tx| {
        mails
            .iter()
            .enumerate()
            .try_for_each(|(i, mail)| users.put(tx, i.to_string(), &user(mail)))
    })
    .unwrap();
    let (index, now) = (users.index(User::EMAIL), db.snapshot());
    let mails_of =
        |rows: Rows<String>| -> Vec<String> { rows.into_iter().map(|row| row.1.email).collect() };
    assert_eq!(
        mails_of(collect(index.prefix(&now, "a"))),
        ["a", "a\0", "a\0b", "ab", "abc"]
    );
    assert_eq!(
        mails_of(collect(index.prefix(&now, "a\0"))),
        ["a\0", "a\0b"]
    );
    assert_eq!(mails_of(collect(index.prefix(&now, ""))), mails);
    assert_eq!(
        mails_of(collect(index.range(&now, "a".."ab"))),
        ["a", "a\0", "a\0b"]
    );
    assert_eq!(
        mails_of(collect(index.range(&now, "ab"..).rev())),
        ["b", "abc", "ab"]
    );
    #[expect(clippy::reversed_empty_ranges, reason = "the range that is refused")]
    let error = users
        .index(User::JOINED_DAY)
        .range(&now, 2..1)
        .next()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_snapshot_keeps_its_entries_and_a_transaction_sees_its_own() {
    let (_folder, db, users) = open();
    db.write(|tx| users.put(tx, "k", &user("old@example.org")))
        .unwrap();
    let before = db.snapshot();
    let mut tx = db.begin();
    users.put(&mut tx, "k", &user("new@example.org")).unwrap();
    let index = users.index(User::EMAIL);
    assert!(index.get(&tx, "old@example.org").unwrap().is_none());
    assert!(index.get(&tx, "new@example.org").unwrap().is_some());
    tx.commit().unwrap();
    assert!(index.get(&before, "old@example.org").unwrap().is_some());
    assert!(index.get(&before, "new@example.org").unwrap().is_none());
    assert_eq!(index.range(&before, ..).count(), 1);
    assert!(
        index
            .get(&db.snapshot(), "old@example.org")
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_field_without_an_index_is_invalid() {
    let (_folder, db, users) = open();
    let index = users.index(User::BIO);
    let now = db.snapshot();
    assert_eq!(index.get(&now, "").unwrap_err().kind(), ErrorKind::Invalid);
    let error = index.range(&now, ..).next().unwrap().unwrap_err();
    assert!(error.to_string().contains("field=bio"), "{error}");
}

/// A field that fits and a key that fits may not fit together.
#[test]
fn index_keys_have_the_limit_of_keys() {
    #[derive(Record)]
    struct Tag {
        #[terrane(id = 1, index)]
        tag: String,
    }
    let (_folder, db, _) = open();
    let tags = db.table(TableDef::<String, Tag>::new("tags")).unwrap();
    let mut tx = db.begin();
    let (key, tag) = ("k".repeat(20_000), "t".repeat(20_000));
    let error = tags.put(&mut tx, &key, &Tag { tag }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("field=tag"), "{error}");
    tx.commit().unwrap();
    assert_eq!(tags.count(&db.snapshot()).unwrap(), 0);
}

/// A row that does not fit into its transaction any more leaves none of its entries there.
#[test]
fn a_row_is_written_with_its_entries_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Database::builder().commit_keys(12);
    let db = builder.open(folder.path().join("db")).unwrap();
    let users = db.table(USERS).unwrap();
    let mut tx = db.begin();
    let mut model = BTreeMap::new();
    // A row and its four entries: two rows fit, of the third a part would.
    for key in ["a", "b", "c"] {
        let row = user(&format!("{key}@example.org"));
        match users.put(&mut tx, key, &row) {
            Ok(()) => drop(model.insert(key.to_string(), row)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}"),
        }
    }
    assert_eq!(model.len(), 2);
    check_indexes(&users, &tx, &model);
    tx.commit().unwrap();
    check_indexes(&users, &db.snapshot(), &model);
}

/// Adding an index to a table that exists is refused by name rather than done by half.
#[test]
fn an_index_cannot_be_added_later() {
    #[derive(Record)]
    struct Plain {
        #[terrane(id = 1)]
        name: String,
    }
    #[derive(Record)]
    struct Indexed {
        #[terrane(id = 1, index)]
        name: String,
    }
    let (_folder, db, _) = open();
    let plain = db.table(TableDef::<u64, Plain>::new("names")).unwrap();
    db.write(|tx| plain.put(tx, 1, &Plain { name: "a".into() }))
        .unwrap();
    let error = db
        .table(TableDef::<u64, Indexed>::new("names"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("table=names"), "{error}");
}
