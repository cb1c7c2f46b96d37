//! Transactions: conflicts are retried, application errors pass through.
//!
//! `cargo run --example 02_transactions [FOLDER]`; without a folder a fresh temporary one is used
//! and removed at the end.

use std::path::{Path, PathBuf};

use terrane::{Database, Durability, ErrorKind, Position, Table, TableDef};

const ACCOUNTS: TableDef<u64, u64> = TableDef::new("accounts");
const PAYMENTS: TableDef<String, u64> = TableDef::new("payments");
const COUNTERS: TableDef<String, u64> = TableDef::new("counters");

enum TransferError {
    Overdrawn { short_by: u64 },
    Storage(terrane::Error),
}
impl From<terrane::Error> for TransferError {
    fn from(error: terrane::Error) -> Self {
        TransferError::Storage(error)
    }
}

/// The closure may run again: on a conflict its writes are dropped and it sees a newer snapshot.
fn transfer(
    db: &Database,
    accounts: &Table<u64, u64>,
    amount: u64,
) -> std::result::Result<(), TransferError> {
    db.try_write(|tx| {
        let source = accounts.get(tx, 1)?.unwrap_or(0);
        let Some(rest) = source.checked_sub(amount) else {
            return Err(TransferError::Overdrawn {
                short_by: amount - source,
            }); // aborts at once
        };
        let target = accounts.get(tx, 2)?.unwrap_or(0);
        accounts.put(tx, 1, &rest)?;
        accounts.put(tx, 2, &(target + amount))?;
        Ok(())
    })
}

/// Options of one transaction, and the commit it became.
fn pay(
    db: &Database,
    payments: &Table<String, u64>,
    id: &str,
    cents: u64,
) -> terrane::Result<Position> {
    let ((), commit) = db
        .writer()
        // Of a `Buffered` database: may only ask for more than its level.
        .durability(Durability::Local)
        // After `Unknown`, db.outcome(id) tells; a second run within 24 h commits once.
        .idempotency(id)
        .run(|tx| payments.put(tx, id, &cents))?;
    Ok(commit.position) // elsewhere: snapshot_at(&position) is not older than this
}

/// By hand, for a policy of one's own. What is read is tentative until `commit` has returned.
fn count_visit(db: &Database, counters: &Table<String, u64>) -> terrane::Result<u64> {
    loop {
        let mut tx = db.begin();
        let next = counters.get(&tx, "visits")?.unwrap_or(0) + 1;
        counters.put(&mut tx, "visits", &next)?;
        match tx.commit() {
            Err(error) if error.kind() == ErrorKind::Conflict => continue,
            outcome => return outcome.map(|_| next),
        }
    }
}

fn run(folder: &Path) -> terrane::Result<()> {
    let db = Database::open(folder.join("bank.terrane"))?;
    let accounts = db.table(ACCOUNTS)?;
    db.write(|tx| accounts.put(tx, 1, &100))?;

    assert!(transfer(&db, &accounts, 70).is_ok(), "70 of 100 are there");
    match transfer(&db, &accounts, 70) {
        Err(TransferError::Overdrawn { short_by }) => {
            println!("overdrawn: short by {short_by}");
            assert_eq!(short_by, 40);
        }
        Err(TransferError::Storage(error)) => return Err(error),
        Ok(()) => panic!("70 of 30 were paid"),
    }
    let now = db.snapshot();
    let balances = (accounts.get(&now, 1)?, accounts.get(&now, 2)?);
    println!("balances: {balances:?}");
    assert_eq!(balances, (Some(30), Some(70)));

    let payments = db.table(PAYMENTS)?;
    let first = pay(&db, &payments, "invoice-1", 990)?;
    pay(&db, &payments, "invoice-1", 990)?; // the same key: commits once
    println!("paid: {:?}", payments.get(&db.snapshot(), "invoice-1")?);
    assert_eq!(payments.get(&db.snapshot(), "invoice-1")?, Some(990));
    assert!(first <= db.snapshot().position());

    let counters = db.table(COUNTERS)?;
    std::thread::scope(|scope| {
        let visit = || (0..10).try_for_each(|_| count_visit(&db, &counters).map(|_| ()));
        let visitors = [scope.spawn(visit), scope.spawn(visit)];
        visitors
            .into_iter()
            .try_for_each(|visitor| visitor.join().unwrap_or(Ok(())))
    })?;
    let visits = counters.get(&db.snapshot(), "visits")?;
    println!("visits: {visits:?}");
    assert_eq!(visits, Some(20));
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let temporary = std::env::temp_dir().join(format!("terrane-02-{}", std::process::id()));
    let folder = given.as_ref().unwrap_or(&temporary);
    std::fs::create_dir_all(folder)?;

    run(folder)?;

    if given.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    Ok(())
}
