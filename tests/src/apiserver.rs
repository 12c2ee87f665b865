//! `weft apiserver` on loopback, on a folder of its own: start, stop, crash, restart; and `kubectl` for it.

pub mod etcd;

use crate::namespace::Namespace;
use crate::process::Process;
use crate::subject;
use crate::wait::eventually;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// An API server; it is killed with the value, and its folder goes.
#[derive(Debug)]
pub struct ApiServer {
    folder: TempDir,
    flags: Vec<String>,
    /// None: the machine's own.
    namespace: Option<Namespace>,
    ip: String,
    port: u16,
    process: Option<Process>,
}

impl ApiServer {
    /// Starts one on a free port of loopback, with more flags, and waits until it is ready.
    pub fn start(flags: &[&str]) -> Result<Self> {
        Self::start_at(None, "127.0.0.1", flags)
    }

    /// Starts one on a free port of an address in a namespace.
    pub fn start_in(namespace: &Namespace, ip: &str, flags: &[&str]) -> Result<Self> {
        Self::start_at(Some(namespace.clone()), ip, flags)
    }

    fn start_at(namespace: Option<Namespace>, ip: &str, flags: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("weft-api").tempdir()?;
        let mut server = Self {
            folder,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            namespace,
            ip: ip.to_owned(),
            port: 0,
            process: None,
        };
        server.resume()?;
        Ok(server)
    }

    /// Its data folder.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join("admin.kubeconfig")
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.ip, self.port)
    }

    /// The process, while it runs.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the API server does not run")
    }

    /// What it has logged.
    pub fn log(&self) -> Result<String> {
        let path = self.folder.path().join("log");
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Starts it again on the data and the port that it had.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = Command::new(subject::program("weft")?);
        command
            .arg("apiserver")
            .arg("--data")
            .arg(self.folder())
            .arg(format!("--listen={}:{}", self.ip, self.port))
            .args(&self.flags);
        let log = self.folder.path().join("log");
        let before = std::fs::metadata(&log).map_or(0, |metadata| metadata.len()) as usize;
        let name = "weft apiserver";
        let mut process = match &self.namespace {
            Some(namespace) => namespace.spawn(name, &mut command, &log)?,
            None => Process::spawn(name, &mut command, &log)?,
        };
        let ready = format!("ready at {}:", self.ip);
        let port = |process: &mut Process| -> Result<u16> {
            process.ensure_alive()?;
            let log = process.log()?;
            let (_, rest) = log[before..]
                .split_once(&ready)
                .context("it is not ready")?;
            let end = rest.find(|letter: char| !letter.is_ascii_digit());
            Ok(rest[..end.unwrap_or(rest.len())].parse()?)
        };
        self.port = eventually("the API server is ready", Duration::from_secs(20), || {
            port(&mut process)
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it as an operator does.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let Some(mut process) = self.process.take() else {
            bail!("the API server does not run");
        };
        process.signal(Signal::SIGTERM)?;
        process.wait(Duration::from_secs(15))
    }

    /// Ends it in the middle of what it does.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            bail!("the API server does not run");
        };
        process.kill()
    }

    /// `kubectl` with the administrator's kubeconfig and a cache of its own.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `kubectl` to its end, whatever it says.
    pub fn kubectl_output(&self, args: &[&str]) -> Result<Output> {
        self.kubectl_command(args)
            .output()
            .with_context(|| format!("start kubectl {}", args.join(" ")))
    }

    /// Runs `kubectl`, which must succeed; its standard output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = self.kubectl_output(args)?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        if !output.status.success() {
            bail!("kubectl {}: {}: {err}{out}", args.join(" "), output.status);
        }
        Ok(out)
    }

    /// Writes a manifest into its folder; the path.
    pub fn manifest(&self, name: &str, text: &str) -> Result<String> {
        let path: &Path = self.folder.path();
        let path = path.join(name);
        std::fs::write(&path, text)?;
        path.to_str()
            .map(str::to_owned)
            .context("a path that is no text")
    }
}
