//! A real etcd (Debian's etcd-server) with a data folder of its own.

use crate::namespace::Namespace;
use crate::process::{self, Process};
use crate::wait::eventually;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One etcd member; the process ends with the value.
#[derive(Debug)]
pub struct Etcd {
    namespace: Namespace,
    listen: Vec<String>,
    folder: PathBuf,
    process: Option<Process>,
}

impl Etcd {
    /// Starts etcd in `namespace`, serving on port 2379 of loopback and of `addresses` (IPv6 ones
    /// in brackets), its data and log in `folder`.
    pub fn start(namespace: &Namespace, addresses: &[&str], folder: &Path) -> Result<Self> {
        let mut listen = vec!["http://127.0.0.1:2379".to_owned()];
        listen.extend(
            addresses
                .iter()
                .map(|address| format!("http://{address}:2379")),
        );
        let mut etcd = Self {
            namespace: namespace.clone(),
            listen,
            folder: folder.to_owned(),
            process: None,
        };
        etcd.resume()?;
        Ok(etcd)
    }

    /// Starts the process, on the data that is there, and waits until it answers.
    pub fn resume(&mut self) -> Result<()> {
        let listen = self.listen.join(",");
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .args(["--listen-client-urls", &listen])
            .args(["--advertise-client-urls", &listen])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
            .args(["--max-txn-ops", "20000"])
            .args(["--max-request-bytes", "16777216"])
            .env_remove("ETCDCTL_API");
        let log = self.folder.join("etcd.log");
        let mut process = self.namespace.spawn("etcd", &mut command, &log)?;
        eventually("etcd answers", Duration::from_secs(20), || {
            process.ensure_alive()?;
            self.ctl(&["endpoint", "health"]).map(drop)
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends the process and keeps the data.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            bail!("etcd is not running");
        };
        process.signal(Signal::SIGTERM)?;
        process.wait(Duration::from_secs(10)).map(drop)
    }

    /// Throws the data away; etcd must be stopped.
    pub fn wipe(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("etcd still runs");
        }
        let data = self.folder.join("data");
        std::fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))
    }

    /// Runs `etcdctl` with API 3 and returns its output.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        self.namespace
            .run(|| process::run(Self::etcdctl().args(args)))
    }

    fn etcdctl() -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", "http://127.0.0.1:2379"])
            .args(["--command-timeout", "20s"]);
        command
    }

    /// Writes a key.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.ctl(&["put", "--", key, value]).map(drop)
    }

    /// Reads a key; `None` if it is not there.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let value = self.ctl(&["get", "--print-value-only", "--", key])?;
        Ok(value.strip_suffix('\n').map(str::to_owned))
    }

    /// The keys below a prefix.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let keys = self.ctl(&["get", "--prefix", "--keys-only", "--", prefix])?;
        Ok(keys
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Removes a key.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.ctl(&["del", "--", key]).map(drop)
    }

    /// Grants a lease of `seconds`; returns its id as etcdctl writes it.
    pub fn grant(&self, seconds: u32) -> Result<String> {
        let answer = self.ctl(&["lease", "grant", &seconds.to_string()])?;
        let id = answer.split_whitespace().nth(1);
        id.map(str::to_owned)
            .with_context(|| format!("no lease id in {answer:?}"))
    }

    /// Writes many keys in one transaction, all under `lease`.
    pub fn put_all<'a>(
        &self,
        lease: &str,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        // etcdctl's form: comparisons, an empty line, operations, an empty line, else-operations.
        let mut script = String::from("\n");
        for (key, value) in pairs {
            writeln!(script, "put --lease={lease} {key} {value:?}")?;
        }
        script.push_str("\n\n");
        self.namespace
            .run(|| process::run_with_input(Self::etcdctl().arg("txn"), &script).map(drop))
    }

    /// Drops the history before the current revision.
    pub fn compact(&self) -> Result<()> {
        let status: serde_json::Value =
            serde_json::from_str(&self.ctl(&["endpoint", "status", "--write-out", "json"])?)?;
        let revision = &status[0]["Status"]["header"]["revision"];
        self.ctl(&["compaction", &revision.to_string()]).map(drop)
    }
}
