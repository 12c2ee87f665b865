//! `weft`: one program for a whole cluster. Only wiring, and the process's [`limits`]: what it starts is in the other
//! crates.

mod apiserver;
mod apply;
mod connection;
mod delete;
mod get;
mod limits;
mod logging;
mod sys;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Container networking for Linux, and a small Kubernetes around it.
#[derive(Debug, Parser)]
#[command(name = "weft", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the Kubernetes API from an embedded store or etcd.
    Apiserver(apiserver::Arguments),
    /// Prints objects of a Kubernetes API server.
    Get(get::Arguments),
    /// Makes objects of a Kubernetes API server as manifests say, by server-side apply.
    Apply(apply::Arguments),
    /// Deletes objects of a Kubernetes API server.
    Delete(delete::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Apiserver(arguments) => apiserver::run(&arguments).map(|()| true),
        Command::Get(arguments) => get::run(arguments),
        Command::Apply(arguments) => apply::run(arguments),
        Command::Delete(arguments) => delete::run(arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // It has been said what failed.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weft: {error:#}");
            ExitCode::FAILURE
        }
    }
}
