//! `weft-proxy`: reads the command line, opens the log and runs.

use std::process::ExitCode;

use anyhow::Context;
use proxy::config::{self, Checked, Parsed, Verb};
use proxy::daemon::{self, modes, snapshot};
use proxy::{logging, show};

fn main() -> ExitCode {
    let hostname = match nix::sys::utsname::uname() {
        Ok(names) => names.nodename().to_string_lossy().into_owned(),
        Err(error) => return failed(&format!("ask for the host's name: {error}")),
    };
    let parsed = config::parse(std::env::args_os(), &hostname, |path| std::fs::read(path));
    let (checked, verb) = match parsed {
        Ok(Parsed::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Parsed::Do(checked, verb)) => (*checked, verb),
        Err(error) => return failed(&error.to_string()),
    };
    logging::init(checked.verbosity);
    for note in &checked.notes {
        tracing::warn!("{note}");
    }
    match run(checked, verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("weft-proxy: {why}");
    ExitCode::FAILURE
}

fn run(checked: Checked, verb: Verb) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match verb {
            Verb::Cleanup { kube_proxy } => modes::remove_all(kube_proxy),
            Verb::WriteConfig(path) => {
                let text = format!("{:#}\n", checked.as_configuration());
                std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
            }
            Verb::Show { service } => {
                let snapshot = snapshot::take(&checked).await?;
                print!("{}", show::show(&snapshot, service.as_ref())?);
                Ok(())
            }
            Verb::Trace(trace) => {
                let snapshot = snapshot::take(&checked).await?;
                print!("{}", show::trace(&snapshot, &trace)?);
                Ok(())
            }
            Verb::Run if checked.dry_run => {
                print!("{}", snapshot::dry_run(&checked).await?);
                Ok(())
            }
            Verb::Run if checked.init_only => {
                daemon::set_up_node(&checked);
                Ok(())
            }
            Verb::Run if checked.once => snapshot::once(&checked).await,
            Verb::Run => daemon::run(checked).await,
        }
    })
}
