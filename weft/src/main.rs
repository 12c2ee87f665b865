//! `weft`: one program for a whole cluster. Only wiring, and the process's [`limits`]: what it starts is in the other
//! crates.

mod apiserver;
mod apply;
mod cluster;
mod connection;
mod delete;
mod get;
mod limits;
mod logging;
mod node;
mod parts;
mod place;
mod server;
mod sys;

use std::ffi::OsString;
use std::path::Path;
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
    /// Brings up a whole cluster on this machine: each node a network namespace.
    Up(cluster::up::Arguments),
    /// Takes such a cluster away, or a few of its nodes as if their power had failed.
    Down(cluster::down::Arguments),
    /// Shows such a cluster at a glance: processes, nodes, leases, Pods that are not ready.
    Status(cluster::status::Arguments),
    /// Serves the Kubernetes API with the controllers and the scheduler.
    Server(server::Arguments),
    /// Runs this host as a node: the agent, flanneld-rs and the Service proxy.
    Node(node::Arguments),
    /// Serves the Kubernetes API alone, from an embedded store or etcd.
    Apiserver(apiserver::Arguments),
    /// Prints objects of a Kubernetes API server.
    Get(get::Arguments),
    /// Makes objects of a Kubernetes API server as manifests say, by server-side apply.
    Apply(apply::Arguments),
    /// Deletes objects of a Kubernetes API server.
    Delete(delete::Arguments),
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words
        .first()
        .and_then(|program| Path::new(program).file_name()?.to_str());
    // A node whose plugins are links to this program.
    if name.and_then(plugins::registry::find).is_some() {
        return plugins::main();
    }
    if let Some(code) = node::stage(words.get(1..).unwrap_or_default()) {
        return code;
    }
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Up(arguments) => cluster::up::run(&arguments).map(|()| true),
        Command::Down(arguments) => cluster::down::run(&arguments).map(|()| true),
        Command::Status(arguments) => cluster::status::run(&arguments),
        Command::Server(arguments) => server::run(&arguments).map(|()| true),
        Command::Node(arguments) => node::run(&arguments).map(|()| true),
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
