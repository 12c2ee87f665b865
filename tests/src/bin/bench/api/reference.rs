//! kube-apiserver, if there is one (`KUBE_APISERVER`), over a real etcd on loopback.

use super::client::Client;
use ::tests::eventually;
use ::tests::process::{self, Process};
use anyhow::{Context, Result};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const TOKEN: &str = "bench-token-of-this-run";

/// Both processes; they end with the value.
pub struct Reference {
    folder: TempDir,
    port: u16,
    server: Process,
    _etcd: Process,
}

impl Reference {
    /// Starts etcd and the server at `path`, and waits until it is ready.
    pub fn start(path: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("weft-api").tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let (clients, peers, port) = (free_port()?, free_port()?, free_port()?);
        let urls = [
            format!("http://127.0.0.1:{clients}"),
            format!("http://127.0.0.1:{peers}"),
        ];
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(file("etcd"));
        etcd.args([
            "--listen-client-urls",
            &urls[0],
            "--advertise-client-urls",
            &urls[0],
        ]);
        etcd.args([
            "--listen-peer-urls",
            &urls[1],
            "--initial-advertise-peer-urls",
            &urls[1],
        ]);
        etcd.args(["--initial-cluster", &format!("default={}", urls[1])]);
        let etcd = Process::spawn("etcd", &mut etcd, &file("etcd.log"))?;
        let key = file("sa.key");
        process::run(
            Command::new("openssl")
                .args(["genrsa", "-out"])
                .arg(&key)
                .arg("2048"),
        )?;
        std::fs::write(
            file("tokens.csv"),
            format!("{TOKEN},bench,1,\"system:masters\"\n"),
        )?;
        let mut server = Command::new(path);
        server.args(["--bind-address=127.0.0.1", &format!("--secure-port={port}")]);
        server.args([
            &format!("--etcd-servers={}", urls[0]),
            "--service-cluster-ip-range=10.96.0.0/16",
        ]);
        server.args([
            "--service-account-issuer=bench",
            "--authorization-mode=RBAC",
        ]);
        for flag in [
            "--service-account-key-file",
            "--service-account-signing-key-file",
        ] {
            server.arg(flag).arg(&key);
        }
        server.arg("--token-auth-file").arg(file("tokens.csv"));
        server.arg("--cert-dir").arg(file("certificates"));
        let mut server = Process::spawn("kube-apiserver", &mut server, &file("server.log"))?;
        eventually("kube-apiserver is ready", Duration::from_secs(60), || {
            server.ensure_alive()?;
            let url = format!("https://127.0.0.1:{port}/readyz");
            let token = format!("Authorization: Bearer {TOKEN}");
            process::run(Command::new("curl").args(["-sfk", "-H", &token, &url])).map(drop)
        })?;
        Ok(Self {
            folder,
            port,
            server,
            _etcd: etcd,
        })
    }

    /// A client of it.
    pub fn client(&self) -> Result<Client> {
        let path = self.folder.path().join("certificates/apiserver.crt");
        let authority = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Client::with_token(
            &format!("https://127.0.0.1:{}", self.port),
            &authority,
            TOKEN,
        )
    }

    /// What it holds in memory, without etcd.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.server.resident_bytes()
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
