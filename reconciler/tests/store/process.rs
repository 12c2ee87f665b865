//! A real etcd (Debian's etcd-server) on loopback; the process ends with the value.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::fixture::PATIENCE;

pub struct Etcd {
    folder: TempDir,
    /// Of clients and of peers.
    ports: [u16; 2],
    scheme: &'static str,
    options: Vec<String>,
    process: Option<Child>,
}

impl Etcd {
    /// Starts etcd with more options and waits until it listens.
    pub async fn start(options: &[&str]) -> Self {
        let secure = options
            .iter()
            .any(|option| option.starts_with("--cert-file"));
        let mut etcd = Self {
            folder: tempfile::tempdir().expect("make a folder"),
            ports: [0; 2],
            scheme: if secure { "https" } else { "http" },
            options: options.iter().map(|&option| option.to_owned()).collect(),
            process: None,
        };
        // Somebody may take a free port before etcd does.
        for _ in 0..5 {
            etcd.ports = [free_port(), free_port()];
            if etcd.resume().await {
                return etcd;
            }
        }
        panic!("etcd does not start: {}", etcd.log());
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.ports[0])
    }

    /// Where clients connect, without the scheme.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Starts the process on the data that is there; false if it ended at once.
    pub async fn resume(&mut self) -> bool {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("make a log");
        let peers = format!("http://127.0.0.1:{}", self.ports[1]);
        let mut process = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args(["--listen-client-urls", &self.url()])
            .args(["--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .args(&self.options)
            .env_remove("ETCDCTL_API")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start etcd (Debian's etcd-server)");
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(self.address()).is_err() {
            if process.try_wait().expect("ask for etcd").is_some() {
                return false;
            }
            assert!(Instant::now() < end, "etcd does not listen: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process = Some(process);
        true
    }

    /// Ends the process and keeps the data.
    pub fn stop(&mut self, signal: Signal) {
        self.signal(signal);
        if let Some(mut process) = self.process.take() {
            process.wait().expect("wait for etcd");
        }
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            let pid = Pid::from_raw(i32::try_from(process.id()).expect("a pid"));
            // It may have ended by itself.
            let _ = kill(pid, signal);
        }
    }

    /// Kills it and starts it again.
    pub async fn restart(&mut self) {
        self.stop(Signal::SIGKILL);
        assert!(
            self.resume().await,
            "etcd does not start again: {}",
            self.log()
        );
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop(Signal::SIGKILL);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
