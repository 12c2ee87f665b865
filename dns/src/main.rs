//! `weft-dns`: reads the command line, opens the log and the sockets, and runs.

use std::process::ExitCode;

use anyhow::Context;
use dns::config::{self, Config, PORT, Parsed};
use dns::daemon;
use dns::listen::Sockets;
use dns::{local, logging};
use listenfd::ListenFd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    // Before there are threads: the sockets that systemd passes on are named by the environment.
    let passed = ListenFd::from_env();
    let host = match nix::sys::utsname::uname() {
        Ok(names) => names.nodename().to_string_lossy().into_owned(),
        Err(error) => return failed(&format!("ask for the host's name: {error}")),
    };
    let config = match config::parse(std::env::args_os(), &host) {
        Ok(Parsed::Run(config)) => *config,
        Ok(Parsed::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Parsed::Cleanup(addresses)) => {
            return match local::remove(&addresses) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&format!("{error:#}")),
            };
        }
        Err(error) => return failed(&format!("{error:#}")),
    };
    logging::init(config.verbosity);
    // Each query that waits for upstreams has sockets of its own.
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("raise the limit of open files: {error}");
    }
    match run(config, passed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("weft-dns: {why}");
    ExitCode::FAILURE
}

fn run(config: Config, mut passed: ListenFd) -> anyhow::Result<()> {
    let mut runtime = match config.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    let runtime = runtime.enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("install signal handlers")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("install signal handlers")?;
        let end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        local::set_up(&config.local_addresses, PORT)?;
        let sockets = Sockets::inherited(&config.listen, &mut passed)?;
        daemon::run_until(config, sockets, daemon::signals()?, end).await
    })
}
