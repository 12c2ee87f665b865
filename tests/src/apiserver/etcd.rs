//! A real etcd on loopback, for API servers over it; [`crate::etcd`] is the one in a namespace.

use crate::process::{self, Process};
use crate::wait::eventually;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// One member on two free ports; it ends with the value, and its folder goes.
#[derive(Debug)]
pub struct LoopbackEtcd {
    folder: TempDir,
    client: u16,
    peer: u16,
    process: Option<Process>,
}

impl LoopbackEtcd {
    /// Starts one, and waits until it answers.
    pub fn start() -> Result<Self> {
        let mut failure = None;
        // Another program may take a port between the look and the start.
        for _ in 0..5 {
            let mut etcd = Self {
                folder: tempfile::Builder::new().prefix("weft-etcd").tempdir()?,
                client: free_port()?,
                peer: free_port()?,
                process: None,
            };
            match etcd.resume() {
                Ok(()) => return Ok(etcd),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no attempt was made")?)
    }

    /// The flag that makes an API server use it.
    pub fn flag(&self) -> String {
        format!("--store=etcd://127.0.0.1:{}", self.client)
    }

    /// Starts it again on its data and ports.
    pub fn resume(&mut self) -> Result<()> {
        let [client, peer] =
            [self.client, self.peer].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .env_remove("ETCDCTL_API");
        let mut process = Process::spawn("etcd", &mut command, &self.folder.path().join("log"))?;
        eventually("etcd answers", Duration::from_secs(30), || {
            process.ensure_alive()?;
            self.ctl(&["endpoint", "health"]).map(drop)
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it and keeps its data.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            bail!("etcd does not run");
        };
        process.signal(Signal::SIGTERM)?;
        process.wait(Duration::from_secs(20)).map(drop)
    }

    /// The keys below a prefix.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let keys = self.ctl(&["get", "--prefix", "--keys-only", "--", prefix])?;
        let filled = keys.lines().filter(|line| !line.is_empty());
        Ok(filled.map(str::to_owned).collect())
    }

    /// Drops the history before the current revision.
    pub fn compact(&self) -> Result<()> {
        let status: serde_json::Value =
            serde_json::from_str(&self.ctl(&["endpoint", "status", "--write-out", "json"])?)?;
        let revision = &status[0]["Status"]["header"]["revision"];
        self.ctl(&["compaction", &revision.to_string()]).map(drop)
    }

    fn ctl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=http://127.0.0.1:{}", self.client))
            .args(["--command-timeout", "20s"])
            .args(args);
        process::run(&mut command)
    }
}

/// A port that nobody listens on, below those that outgoing connections get: it is to be free after a restart too.
fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = fastrand::u16(15_000..30_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on loopback")
}
