//! The command line: what the program was asked to do.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::Failure;

/// Shown by `--help` and with a wrong command line.
pub(crate) const USAGE: &str = "\
package_search: loads package descriptions with vectors, searches them, survives kill -9

  --data DIR    folder of the data set (default: TERRANE_DATA, or the bundled sample)
  --db DIR      empty or absent folder for the database; it is kept
                (default: a fresh temporary one, removed at the end)
  --threads N   threads of the process that is killed, 3 to 64 (default 4)
  --kills N     how often a process is killed, 1 to 100 (default 1)
  --seed N      seed of the moments of the kills (default: another each time)
  --json        print one JSON object as the last line";

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Task {
    Help,
    /// The whole program.
    Main,
    /// The process that is killed; `round` says which one it is.
    ChildLoad {
        round: u8,
    },
}

/// The command line, read.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) task: Task,
    pub(crate) data: PathBuf,
    pub(crate) database: Option<PathBuf>,
    pub(crate) threads: u8,
    pub(crate) kills: u32,
    pub(crate) seed: u64,
    pub(crate) json: bool,
}

impl Options {
    /// Reads the arguments (without the program's name). `env_data` is TERRANE_DATA, `fresh_seed`
    /// the seed of a run that names none.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        env_data: Option<OsString>,
        fresh_seed: u64,
    ) -> Result<Options, Failure> {
        let mut options = Options {
            task: Task::Main,
            data: env_data
                .filter(|data| !data.is_empty())
                .map_or_else(bundled, PathBuf::from),
            database: None,
            threads: 4,
            kills: 1,
            seed: fresh_seed,
            json: false,
        };
        let mut round = 0;
        let mut arguments = arguments.into_iter().peekable();
        let child = arguments.next_if(|first| first == "child-load").is_some();
        while let Some(argument) = arguments.next() {
            let name = argument.to_string_lossy().into_owned();
            let mut value = || {
                let missing = || Failure::new(format!("{name}: expected a value, found none"));
                arguments.next().ok_or_else(missing)
            };
            match name.as_str() {
                "--data" => options.data = value()?.into(),
                "--db" => options.database = Some(value()?.into()),
                "--threads" => options.threads = number(&name, &value()?, 3, 64)? as u8,
                "--kills" => options.kills = number(&name, &value()?, 1, 100)? as u32,
                "--seed" => options.seed = number(&name, &value()?, 0, u64::MAX)?,
                "--round" if child => round = number(&name, &value()?, 0, 255)? as u8,
                "--json" => options.json = true,
                "--help" | "-h" => options.task = Task::Help,
                _ => return Err(Failure::new(format!("{name}: no such option\n\n{USAGE}"))),
            }
        }
        if child {
            options.task = Task::ChildLoad { round };
        }
        Ok(options)
    }
}

/// The sample beside this program. Where cargo runs it, cargo says where the package is: a build
/// folder that checkouts share may hold a program that another one built.
pub(crate) fn bundled() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = package.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.join("examples/data")
}

fn number(name: &str, value: &OsString, low: u64, high: u64) -> Result<u64, Failure> {
    let text = value.to_string_lossy();
    let number = text
        .parse()
        .ok()
        .filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| {
        Failure::new(format!(
            "{name}: expected a number from {low} to {high}, found {text:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(line: &str, env_data: Option<&str>) -> Result<Options, String> {
        let arguments = line.split_whitespace().map(OsString::from);
        Options::parse(arguments, env_data.map(OsString::from), 5).map_err(|f| f.to_string())
    }

    #[test]
    fn defaults_and_every_option() {
        let options = parse("", None).unwrap();
        assert!(options.data.ends_with("examples/data"));
        assert_eq!(
            (options.threads, options.kills, options.seed, options.json),
            (4, 1, 5, false)
        );
        assert_eq!(options.task, Task::Main);
        let line = "--data d --db b --threads 8 --kills 3 --seed 9 --json";
        let options = parse(line, Some("env")).unwrap();
        assert_eq!(options.data, Path::new("d"));
        assert_eq!(options.database.as_deref(), Some(Path::new("b")));
        assert_eq!(
            (options.threads, options.kills, options.seed, options.json),
            (8, 3, 9, true)
        );
    }

    #[test]
    fn the_environment_names_a_folder_unless_empty() {
        assert_eq!(parse("", Some("env")).unwrap().data, Path::new("env"));
        assert!(parse("", Some("")).unwrap().data.ends_with("examples/data"));
    }

    #[test]
    fn the_child_has_a_round_and_nobody_else() {
        let options = parse("child-load --round 7 --db b", None).unwrap();
        assert_eq!(options.task, Task::ChildLoad { round: 7 });
        assert!(
            parse("--round 7", None)
                .unwrap_err()
                .contains("--round: no such option")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, words) in [
            (
                "--threads 2",
                "--threads: expected a number from 3 to 64, found \"2\"",
            ),
            ("--threads", "--threads: expected a value, found none"),
            ("--kills 0", "--kills: expected a number from 1 to 100"),
            ("--seed x", "--seed: expected a number"),
            ("--fast", "--fast: no such option"),
        ] {
            let message = parse(line, None).unwrap_err();
            assert!(message.contains(words), "{line:?}: {message:?}");
        }
    }
}
