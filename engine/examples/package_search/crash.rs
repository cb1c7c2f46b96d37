//! The proof by `kill -9`: a child loads, dies at a random moment, and the database is read again.
//!
//! ```text
//! parent                             child (child.rs)
//!   spawn ------------------------->   open, threads put rows
//!   read lines <--------- pipe ------  begin 0 0, begin 2 0, ack 0 0, ...
//!   random time over, and at least
//!   two threads wait: SIGKILL ----->   gone
//!   read the pipe to its end
//!   open the database, judge (ledger.rs)
//! ```
//!
//! C1: judgement comes after the end of the pipe and after the death of the child: no line that was
//! written is missing, and nothing writes to the files any more.
//! C2: a kill counts only if two threads or more had an unanswered commit when the child died, by
//! the lines read to the end. A kill that met fewer is judged all the same, and another follows.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use terrane::{Database, Snapshot, Table};

use crate::clock::{Dice, Stopwatch};
use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::ledger::{Batch, Found, Ledger, Verdict};
use crate::options::Options;
use crate::package::{self, ARRIVALS, PACKAGES, Package};
use crate::report;

/// The child is killed this long after its first commit began, drawn evenly from the range.
const KILL_AFTER_MS: std::ops::Range<u64> = 20..800;
/// A child that is silent this long is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Threads that must wait for an answer when the child dies.
const WAITING_MIN: usize = 2;
/// Kills that met fewer waiting threads before the program gives up.
const MISSES_MAX: u32 = 20;
const SIGKILL: i32 = 9;

/// What the kills left behind.
pub(crate) struct Survived {
    pub(crate) verdict: Verdict,
    /// The slowest reopening.
    pub(crate) reopen: Duration,
}

/// Kills as often as the options ask for; the database must not be open.
pub(crate) fn survive(
    options: &Options,
    dataset: &Dataset,
    database: &Path,
) -> Result<Survived, Failure> {
    report::heading("Crash");
    let mut dice = Dice::new(options.seed);
    let mut ledger = Ledger::default();
    let mut survived = Survived {
        verdict: Verdict::default(),
        reopen: Duration::ZERO,
    };
    let (mut kills, mut misses) = (0, 0);
    for round in 0..=u8::MAX {
        let delay = Duration::from_millis(dice.between(KILL_AFTER_MS.start, KILL_AFTER_MS.end));
        let watch = Stopwatch::start();
        load_and_kill(options, database, round, delay, &mut ledger)?;
        let waiting = ledger.waiting_threads(round);
        let outcome = format!(
            "SIGKILL after {} acknowledged commits, {waiting} threads waiting",
            ledger.acknowledged(round)
        );
        report::line("child loads and is killed", watch.elapsed(), &outcome);

        survived.verdict = read_again(dataset, database, &ledger, &mut survived.reopen)?;
        if !survived.verdict.complaints.is_empty() {
            return Ok(survived);
        }
        // C2
        if waiting >= WAITING_MIN {
            kills += 1;
        } else {
            misses += 1;
        }
        if kills == options.kills {
            return Ok(survived);
        }
        if misses > MISSES_MAX {
            break;
        }
    }
    Err(Failure::new(format!(
        "crash: expected {} kills while {WAITING_MIN} threads wait for a commit, found {kills}",
        options.kills
    )))
}

/// Kills and reaps the child when it goes out of scope, whatever happened.
struct Victim {
    child: Child,
}

impl Victim {
    fn spawn(options: &Options, database: &Path, round: u8) -> Result<Victim, Failure> {
        let failed = |error| Failure::new(format!("the child cannot be started: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let child = Command::new(program)
            .arg("child-load")
            .arg("--data")
            .arg(&options.data)
            .arg("--db")
            .arg(database)
            .args([
                "--threads",
                &options.threads.to_string(),
                "--round",
                &round.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        Ok(Victim { child })
    }

    /// SIGKILL, and wait until the process is gone: its lock on the database goes with it.
    fn kill(&mut self) -> Result<(), Failure> {
        let failed = |error| Failure::new(format!("the child cannot be killed: {error}"));
        self.child.kill().map_err(failed)?;
        let status = self.child.wait().map_err(failed)?;
        if status.signal() != Some(SIGKILL) {
            return Err(Failure::new(format!(
                "the child: expected SIGKILL, found {status}"
            )));
        }
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail harmlessly when the child is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load_and_kill(
    options: &Options,
    database: &Path,
    round: u8,
    delay: Duration,
    ledger: &mut Ledger,
) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        // Dropped before the scope waits for the reader, so that the reader meets the pipe's end.
        let mut victim = Victim::spawn(options, database, round)?;
        let Some(pipe) = victim.child.stdout.take() else {
            return Err(Failure::new("the child has no pipe"));
        };
        let (send, lines) = mpsc::channel();
        // A thread of its own, so that the child never waits for a full pipe.
        scope.spawn(move || {
            for line in complete_lines(pipe) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        wait_for_the_moment(&lines, round, delay, ledger)?;
        victim.kill()?;
        // C1: the channel ends when the pipe does.
        lines.iter().try_for_each(|line| note(ledger, round, &line))
    })
}

/// Lines of the pipe that have their line feed; a torn last one was never said.
fn complete_lines(pipe: impl Read) -> impl Iterator<Item = String> {
    let mut reader = BufReader::new(pipe);
    std::iter::from_fn(move || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.strip_suffix('\n').map(str::to_string)
    })
}

fn note(ledger: &mut Ledger, round: u8, line: &str) -> Result<(), Failure> {
    ledger
        .note(round, line)
        .map_err(|complaint| Failure::new(format!("the child: {complaint}")))
}

/// Returns when the delay since the first commit is over and enough threads wait.
fn wait_for_the_moment(
    lines: &Receiver<String>,
    round: u8,
    delay: Duration,
    ledger: &mut Ledger,
) -> Result<(), Failure> {
    let receive = |ledger: &mut Ledger, patience: Duration| match lines.recv_timeout(patience) {
        Ok(line) => note(ledger, round, &line).map(|()| true),
        Err(RecvTimeoutError::Timeout) => Ok(false),
        Err(RecvTimeoutError::Disconnected) => Err(Failure::new(
            "the child: expected it to load until killed, found it ended",
        )),
    };
    let stuck = || Failure::new(format!("the child: nothing heard for {SILENCE_MAX:?}"));
    if !receive(ledger, SILENCE_MAX)? {
        return Err(stuck());
    }
    let watch = Stopwatch::start();
    while let Some(rest) = delay.checked_sub(watch.elapsed()) {
        receive(ledger, rest)?;
    }
    // What lies in the pipe already is older than this moment.
    while receive(ledger, Duration::ZERO)? {}
    while ledger.waiting_threads(round) < WAITING_MIN {
        if !receive(ledger, SILENCE_MAX)? {
            return Err(stuck());
        }
    }
    Ok(())
}

/// Opens the database and holds everything in it against the ledger.
fn read_again(
    dataset: &Dataset,
    database: &Path,
    ledger: &Ledger,
    slowest: &mut Duration,
) -> Result<Verdict, Failure> {
    let watch = Stopwatch::start();
    let db = Database::open(database)?;
    let arrivals = db.table(ARRIVALS)?;
    let reopen = watch.elapsed();
    *slowest = reopen.max(*slowest);
    report::line("reopen", reopen, "recovered from the log");

    let watch = Stopwatch::start();
    let now = db.snapshot();
    first_load_is_there(&db.table(PACKAGES)?, &now, dataset)?;
    let found = rows_by_batch(&arrivals, &now, dataset)?;
    let verdict = ledger.judge(&found);
    indexes_agree(&arrivals, &now, dataset, ledger, &found)?;
    let outcome = format!(
        "{} of {} acknowledged rows equal, {} extra, {} half",
        verdict.recovered, verdict.acknowledged, verdict.extra, verdict.half
    );
    report::line("every row compared", watch.elapsed(), &outcome);
    Ok(verdict)
}

/// The rows loaded before the first child: all acknowledged, hence all there.
fn first_load_is_there(
    packages: &Table<u64, Package>,
    now: &Snapshot,
    dataset: &Dataset,
) -> Result<(), Failure> {
    let mut rows = dataset.rows.iter().enumerate();
    for found in packages.range(now, 0..u64::MAX) {
        let (key, package) = found?;
        let expected = rows.next().filter(|(_, row)| row.id == key);
        if !expected.is_some_and(|(row, _)| package.same_bytes(&Package::of_row(dataset, row, key)))
        {
            return Err(Failure::new(format!(
                "crash: row {key} is not as the first load put it"
            )));
        }
    }
    match rows.next() {
        None => Ok(()),
        Some((_, row)) => Err(Failure::new(format!(
            "crash: row {} of the first load is lost",
            row.id
        ))),
    }
}

fn rows_by_batch(
    arrivals: &Table<u64, Package>,
    now: &Snapshot,
    dataset: &Dataset,
) -> Result<BTreeMap<Batch, Found>, Failure> {
    let mut batches: BTreeMap<Batch, Found> = BTreeMap::new();
    for row in arrivals.range(now, 0..u64::MAX) {
        let (key, package) = row?;
        let (batch, slot) = Batch::of_key(key);
        let source = batch.source_row(slot, dataset.rows.len());
        let expected = Package::of_row(dataset, source, key);
        let found = batches.entry(batch).or_default();
        if slot < batch.rows() && package.same_bytes(&expected) {
            found.equal += 1;
        } else {
            found.wrong += 1;
        }
    }
    Ok(batches)
}

/// A row without its index entries, or an entry without its row, would be a transaction in part.
fn indexes_agree(
    arrivals: &Table<u64, Package>,
    now: &Snapshot,
    dataset: &Dataset,
    ledger: &Ledger,
    found: &BTreeMap<Batch, Found>,
) -> Result<(), Failure> {
    let rows: u64 = found.values().map(|found| found.equal + found.wrong).sum();
    let mut entries = 0;
    // Sections are lower-case words.
    for entry in arrivals.index(Package::SECTION).range(now, "".."~") {
        entry?;
        entries += 1;
    }
    if entries != rows {
        return Err(Failure::new(format!(
            "crash: index of sections: expected {rows} entries, found {entries}"
        )));
    }
    let slugs = arrivals.index(Package::SLUG);
    for batch in found.keys().copied().chain(ledger.open()) {
        for slot in 0..batch.rows() {
            let key = batch.key(slot);
            let source = &dataset.rows[batch.source_row(slot, dataset.rows.len())];
            let row = arrivals.get(now, key)?.map(|_| key);
            let entry = slugs
                .get(now, package::slug(&source.package, key).as_str())?
                .map(|(key, _)| key);
            if entry != row {
                return Err(Failure::new(format!(
                    "crash: index of slugs: expected {row:?} for row {key}, found {entry:?}"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_was_never_said() {
        let lines = |text: &'static str| complete_lines(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(lines("begin 0 0\nack 0 0\n"), ["begin 0 0", "ack 0 0"]);
        assert_eq!(lines("begin 0 0\nack 0 1"), ["begin 0 0"]);
        assert_eq!(lines(""), Vec::<String>::new());
    }

    #[test]
    fn the_kill_waits_for_its_time_and_for_two_threads() {
        let (send, lines) = mpsc::channel();
        let delay = Duration::from_millis(50);
        let mut ledger = Ledger::default();
        send.send("begin 0 0".to_string()).unwrap();
        let watch = Stopwatch::start();
        let moment = std::thread::scope(|scope| {
            scope.spawn(|| {
                // The second waiting thread comes late; an answer before it does not suffice.
                let (_silent, nothing) = mpsc::channel::<()>();
                assert!(nothing.recv_timeout(3 * delay).is_err());
                for line in ["ack 0 0", "begin 1 0", "begin 0 1"] {
                    send.send(line.to_string()).unwrap();
                }
            });
            wait_for_the_moment(&lines, 0, delay, &mut ledger)
        });
        moment.unwrap();
        assert!(watch.elapsed() >= 3 * delay);
        assert_eq!(ledger.waiting_threads(0), 2);

        drop(send);
        let ended = wait_for_the_moment(&lines, 0, delay, &mut ledger)
            .unwrap_err()
            .to_string();
        assert!(ended.contains("found it ended"), "{ended:?}");
    }
}
