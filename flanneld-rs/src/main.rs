//! `flanneld-rs`: reads the command line, opens the log and runs.

use std::process::ExitCode;

use flanneld_rs::cli::{self, Command, Options};
use flanneld_rs::{daemon, logging};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let (options, work) = match cli::parse("flanneld-rs", &args, |key| std::env::var(key).ok()) {
        Ok(Command::Run(options)) => (options, Work::Run),
        Ok(Command::Cleanup(options)) => (options, Work::Cleanup),
        Ok(Command::Version) => {
            eprintln!("flanneld-rs {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Ok(Command::Usage(text)) => {
            eprint!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("flanneld-rs: {error}");
            return ExitCode::FAILURE;
        }
    };
    logging::init(options.verbosity);
    for note in &options.notes {
        tracing::warn!("{note}");
    }
    match run(options, work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

enum Work {
    Run,
    Cleanup,
}

fn run(options: Options, work: Work) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match work {
            Work::Cleanup => daemon::cleanup::run(&options).await,
            Work::Run if options.dry_run => {
                daemon::dry_run::run(&options, &mut std::io::stdout().lock()).await
            }
            Work::Run => daemon::run(options).await,
        }
    })
}
