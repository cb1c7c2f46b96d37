//! `terrane shard` and `terrane policy`: what is computed from the command line alone.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use terrane::inspect::{self, PlaceQuery, Shards};

/// What `terrane shard` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Shard {
    /// Prints the shards, each with its share of all keyspace ids in thousandths.
    Map(Which),
    /// Prints the shards on which rows with a value lie, one a line.
    Route(Place),
    /// As `route`, with the keyspace id and the rule that gave it.
    Explain(Place),
}

/// Which shards there are.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// So many, with nearly equal ranges.
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
    /// These: `-40,40-80,80-`, or `-40-80-` for the same.
    #[arg(long, value_name = "RANGES", allow_hyphen_values = true)]
    ranges: Option<String>,
}

/// What is placed, and how.
#[derive(Args, Debug)]
pub(crate) struct Place {
    #[command(flatten)]
    which: Which,
    /// The kind of vindex.
    #[arg(long, value_name = "KIND", default_value = "xxhash")]
    vindex: String,
    /// A parameter of the vindex; may be given several times.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// A value; given once for each column.
    #[arg(
        long = "value",
        value_name = "V",
        required = true,
        allow_hyphen_values = true
    )]
    values: Vec<String>,
}

/// What `terrane policy` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Prints what a policy survives on its members.
    Check {
        /// none, semi_sync or cross_zone.
        #[arg(long, value_name = "NAME", default_value = "semi_sync")]
        policy: String,
        /// Acknowledgements besides the leader's own disk.
        #[arg(long, value_name = "N", default_value_t = 1)]
        acks: usize,
        /// Readers may give them too.
        #[arg(long)]
        readers: bool,
        /// A member, `number:zone` or `number:zone:reader`; given once for each.
        #[arg(long = "member", value_name = "MEMBER", required = true)]
        members: Vec<String>,
    },
}

impl Which {
    fn shards(self) -> Shards {
        match (self.shards, self.ranges) {
            (_, Some(ranges)) => Shards::Ranges(ranges),
            // One of the two is given: the parser sees to it.
            (count, None) => Shards::Even(count.unwrap_or(0)),
        }
    }
}

impl Place {
    fn placed(self) -> terrane::Result<inspect::Placement> {
        let query = PlaceQuery {
            vindex: self.vindex,
            params: self.params,
            values: self.values,
        };
        inspect::place(&self.which.shards(), &query)
    }
}

impl Shard {
    /// Does it.
    pub(crate) fn run(self) -> terrane::Result<ExitCode> {
        let mut out = io::stdout().lock();
        // A reader that went away needs no answer.
        match self {
            Shard::Map(which) => {
                let _ = writeln!(out, "{}", inspect::shard_map(&which.shards())?);
            }
            Shard::Route(place) => {
                for shard in place.placed()?.shards {
                    let _ = writeln!(out, "{shard}");
                }
            }
            Shard::Explain(place) => {
                let _ = writeln!(out, "{}", place.placed()?);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Policy {
    /// Does it.
    pub(crate) fn run(self) -> terrane::Result<ExitCode> {
        let Policy::Check {
            policy,
            acks,
            readers,
            members,
        } = self;
        let report = inspect::policy(&policy, acks, readers, &members)?;
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{report}");
        for warning in report.warnings() {
            let _ = writeln!(out, "warning: {warning}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
