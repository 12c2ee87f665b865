//! The overlay daemon on one node: start, stop, crash, restart, readiness.

use crate::http;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::subject;
use crate::wait::eventually;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// How a node's daemon is started; what it needs to be started again the same way.
#[derive(Clone, Debug)]
pub struct Flanneld {
    node: Namespace,
    folder: PathBuf,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A running daemon; it is killed with the value.
pub type Daemon = Process;

impl Flanneld {
    /// A daemon for `node` that keeps its files in `folder`.
    pub fn new(node: &Namespace, folder: PathBuf, flags: Vec<String>) -> Self {
        Self {
            node: node.clone(),
            folder,
            flags,
            environment: Vec::new(),
        }
    }

    /// The subnet.env it writes.
    pub fn subnet_file(&self) -> PathBuf {
        self.folder.join("subnet.env")
    }

    /// The flags, for tests that change one.
    pub fn flags_mut(&mut self) -> &mut Vec<String> {
        &mut self.flags
    }

    /// Sets a variable of its environment.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Its command line, without starting it.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(subject::flanneld()?);
        command
            .arg(format!("--subnet-file={}", self.subnet_file().display()))
            .args(["--healthz-ip=127.0.0.1", "--healthz-port=8471"])
            .args(&self.flags)
            // No settings of the person who runs the tests.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().cloned());
        Ok(command)
    }

    /// Starts it and does not wait.
    pub fn spawn(&self) -> Result<Daemon> {
        let log = self.folder.join("flanneld.log");
        self.node.spawn("flanneld", &mut self.command()?, &log)
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(&self) -> Result<Daemon> {
        let mut daemon = self.spawn()?;
        self.wait_ready(&mut daemon)?;
        Ok(daemon)
    }

    /// Waits until `/readyz` answers 200 and subnet.env is there.
    pub fn wait_ready(&self, daemon: &mut Daemon) -> Result<()> {
        let limit = Duration::from_secs(20);
        let ready = eventually("flanneld is ready", limit, || {
            daemon.ensure_alive()?;
            if !self.subnet_file().is_file() {
                bail!("no {}", self.subnet_file().display());
            }
            match self.health("readyz")? {
                (200, _) => Ok(()),
                (status, body) => bail!("/readyz says {status} {body:?}"),
            }
        });
        ready.with_context(|| format!("flanneld's log ends:\n{}", daemon.log_tail()))
    }

    /// Asks `/healthz`, `/readyz` or `/metrics`; returns status and body.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        let page = self.node.run(|| http::get("127.0.0.1:8471", path))?;
        Ok((page.status, page.body))
    }

    /// The value of a key of subnet.env.
    pub fn subnet_env(&self, key: &str) -> Result<String> {
        let path = self.subnet_file();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(str::to_owned)
            .with_context(|| format!("no {key} in {}:\n{text}", path.display()))
    }
}

/// Ends a daemon as a service manager does; it must end by itself within ten seconds.
pub fn terminate(mut daemon: Daemon) -> Result<ExitStatus> {
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait(Duration::from_secs(10))
}
