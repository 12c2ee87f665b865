//! `weft apply`

use std::path::PathBuf;

use clap::ValueEnum;
use reconciler::client::apply::{self, Options};

use crate::connection::Connection;

/// What `weft apply` understands.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Manifests in YAML or JSON: a file, a folder's .yaml, .yml and .json files, or - for standard input.
    #[arg(short, long, required = true, value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// As it is always done; taken for the sake of kubectl's command lines.
    #[arg(long)]
    server_side: bool,
    /// Take over fields that others manage.
    #[arg(long)]
    force_conflicts: bool,
    /// The server does all but keep it.
    #[arg(long, value_name = "WHERE")]
    dry_run: Option<DryRun>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DryRun {
    /// By the server.
    Server,
}

/// Applies manifests; whether all of them.
pub fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let options = Options {
        files: arguments.filename,
        force_conflicts: arguments.force_conflicts,
        dry_run: arguments.dry_run.is_some(),
    };
    arguments
        .connection
        .run(async |session| apply::run(session, &options).await)
}
