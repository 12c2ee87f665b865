//! `weft`: one program for a whole cluster. Only wiring: what it starts is in the other crates.

mod apiserver;
mod logging;

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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Apiserver(arguments) => apiserver::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft: {error:#}");
            ExitCode::FAILURE
        }
    }
}
