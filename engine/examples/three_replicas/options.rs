//! The command line: what the program was asked to do.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::Failure;

/// Shown by `--help` and with a wrong command line.
pub(crate) const USAGE: &str = "\
three_replicas: harms the leader of three replicas under load, and counts what was lost

  --rounds N    harms, each followed by a switchover, 1 to 10000 (default 10)
  --threads N   threads that write, 1 to 64 (default 3)
  --data DIR    folder of the data set (default: TERRANE_DATA, or the bundled sample)
  --json        print one JSON object as the last line";

/// The command line, read.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) data: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) threads: usize,
    pub(crate) json: bool,
}

impl Options {
    /// Reads the arguments (without the program's name); None if help is asked for. `env_data` is
    /// TERRANE_DATA.
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = String>,
        env_data: Option<OsString>,
    ) -> Result<Option<Options>, Failure> {
        let mut options = Options {
            data: env_data
                .filter(|data| !data.is_empty())
                .map_or_else(bundled, PathBuf::from),
            rounds: 10,
            threads: 3,
            json: false,
        };
        while let Some(name) = arguments.next() {
            let mut value = || {
                let missing = || Failure::new(format!("{name}: expected a value, found none"));
                arguments.next().ok_or_else(missing)
            };
            match name.as_str() {
                "--data" => options.data = value()?.into(),
                "--rounds" => options.rounds = number(&name, &value()?, 10_000)?,
                "--threads" => options.threads = number(&name, &value()?, 64)?,
                "--json" => options.json = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(Failure::new(format!("{name}: no such option\n\n{USAGE}"))),
            }
        }
        Ok(Some(options))
    }
}

/// The sample beside this program; see `package_search/options.rs`.
fn bundled() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = package.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.join("examples/data")
}

fn number(name: &str, text: &str, high: usize) -> Result<usize, Failure> {
    let number = text.parse().ok();
    let number = number.filter(|number| (1..=high).contains(number));
    number.ok_or_else(|| {
        Failure::new(format!(
            "{name}: expected a number from 1 to {high}, found {text:?}"
        ))
    })
}
