//! `weft delete`

use std::path::PathBuf;

use clap::ArgAction;
use reconciler::client::delete::{self, Options};

use crate::connection::Connection;

/// What `weft delete` understands.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// KIND NAME…, or KIND/NAME….
    #[arg(
        value_name = "WHAT",
        required_unless_present = "filename",
        conflicts_with = "filename"
    )]
    what: Vec<String>,
    /// Manifests of what is deleted: a file, a folder's .yaml, .yml and .json files, or - for standard input.
    #[arg(short, long, value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// Seconds that a Pod has to end; its own terminationGracePeriodSeconds if none.
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Whether to return only when all is gone.
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true"
    )]
    wait: bool,
    /// What is not there is no failure.
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Deletes; whether all of it.
pub fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let options = Options {
        what: arguments.what,
        files: arguments.filename,
        grace_period: arguments.grace_period,
        wait: arguments.wait,
        ignore_not_found: arguments.ignore_not_found,
    };
    arguments
        .connection
        .run(async |session| delete::run(session, &options).await)
}
