//! `weft-proxy` on one node: start, stop, crash, restart, readiness, what it tells.

use super::mode::Mode;
use crate::http;
use crate::namespace::Namespace;
use crate::process::{self, Process};
use crate::subject;
use crate::wait::eventually;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How a node's proxy is started; what it needs to be started again the same way.
#[derive(Clone, Debug)]
pub struct Proxy {
    node: Namespace,
    log: PathBuf,
    flags: Vec<String>,
    mode: Option<Mode>,
}

/// A running proxy; it is killed with the value.
pub type Daemon = Process;

impl Proxy {
    /// The proxy of the node `name`, which reads `manifests` and writes its log to `log`; in its
    /// default mode.
    pub fn new(node: &Namespace, name: &str, manifests: &Path, log: PathBuf) -> Self {
        let flags = vec![
            format!("--source=dir:{}", manifests.display()),
            format!("--hostname-override={name}"),
            "--healthz-bind-address=127.0.0.1:10256".to_owned(),
            "--metrics-bind-address=127.0.0.1:10249".to_owned(),
        ];
        Self {
            node: node.clone(),
            log,
            flags,
            mode: None,
        }
    }

    /// Reading from an API server instead of the folder.
    pub fn from_api(mut self, kubeconfig: &Path) -> Self {
        self.flags.retain(|flag| !flag.starts_with("--source="));
        self.flag(format!("--kubeconfig={}", kubeconfig.display()))
    }

    /// With one more flag.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// In this mode.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Its command line, with a subcommand or more flags at the end, without starting it.
    pub fn command(&self, more: &[&str]) -> Result<Command> {
        let mut command = Command::new(subject::program("weft-proxy")?);
        command
            .args(self.mode.map_or(&[][..], Mode::flags))
            .args(&self.flags)
            .args(more)
            // No settings of the person who runs the tests.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Ok(command)
    }

    /// Runs it to its end; returns what it printed.
    pub fn run(&self, more: &[&str]) -> Result<String> {
        self.node.run(|| process::run(&mut self.command(more)?))
    }

    /// `weft-proxy cleanup`, which wants no source.
    pub fn cleanup(&self, more: &[&str]) -> Result<String> {
        let program = subject::program("weft-proxy")?;
        self.node
            .run(|| process::run(Command::new(&program).arg("cleanup").args(more)))
    }

    /// Starts it and does not wait.
    pub fn spawn(&self) -> Result<Daemon> {
        self.node
            .spawn("weft-proxy", &mut self.command(&[])?, &self.log)
    }

    /// Starts it and waits until its first sync is done.
    pub fn start(&self) -> Result<Daemon> {
        self.start_within(Duration::from_secs(20))
    }

    /// The same, waiting for as long as `limit`.
    pub fn start_within(&self, limit: Duration) -> Result<Daemon> {
        let mut daemon = self.spawn()?;
        self.wait_ready(&mut daemon, limit)?;
        Ok(daemon)
    }

    /// Waits until it is healthy and both families have been synced once.
    fn wait_ready(&self, daemon: &mut Daemon, limit: Duration) -> Result<()> {
        let ready = eventually("weft-proxy has synced", limit, || {
            // Once it has ended there is nothing to wait for.
            if let Err(ended) = daemon.ensure_alive() {
                return Ok(Err(ended));
            }
            let health = self.node.run(|| http::get("127.0.0.1:10256", "healthz"))?;
            ensure!(
                health.status == 200,
                "/healthz says {} {}",
                health.status,
                health.body
            );
            let synced = self.series("kubeproxy_sync_proxy_rules_last_timestamp_seconds")?;
            ensure!(
                synced.len() == 2 && synced.iter().all(|(_, value)| *value > 0.0),
                "not synced: {synced:?}"
            );
            Ok(Ok(()))
        });
        ready.with_context(|| format!("weft-proxy's log ends:\n{}", daemon.log_tail()))?
    }

    /// The `/metrics` page.
    pub fn metrics(&self) -> Result<String> {
        let page = self.node.run(|| http::get("127.0.0.1:10249", "metrics"))?;
        ensure!(
            page.status == 200,
            "/metrics says {} {}",
            page.status,
            page.body
        );
        Ok(page.body)
    }

    /// All series of one metric: labels (with their brackets, or empty) and value. None, before the
    /// first value.
    pub fn series(&self, name: &str) -> Result<Vec<(String, f64)>> {
        series(&self.metrics()?, name)
    }

    /// The sum over all series of one metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        Ok(self.series(name)?.iter().map(|(_, value)| value).sum())
    }
}

fn series(page: &str, name: &str) -> Result<Vec<(String, f64)>> {
    let lines = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then_some((labels, value))
    });
    lines
        .map(|(labels, value)| Ok((labels.to_owned(), value.parse()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::series;

    #[test]
    fn series_of_other_metrics_with_the_same_beginning_are_left_out() {
        let page = "# HELP a x\na 1\na_total 2\na{f=\"v 4\"} 3\n";
        assert_eq!(
            series(page, "a").expect("numbers"),
            [(String::new(), 1.0), ("{f=\"v 4\"}".to_owned(), 3.0)]
        );
    }
}
