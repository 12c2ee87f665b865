//! An API server, a node's server behind it, and kubectl.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kube::Client;
use node::directory::{Directory, Entry};
use node::runtime::{
    ContainerConfig, ContainerState, ContainerStatus, PodRef, SandboxConfig, SandboxStatus,
};
use node::serve;
use serde_json::json;
use tests::ApiServer;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::client::{self, SOON, ask};
use crate::host::Host;

/// An API server, and a node's server behind it with the Pod `p` of containers `c` and `later`.
pub struct Bed {
    pub server: ApiServer,
    pub host: Arc<Host>,
    pub directory: Directory,
    pub logs: tempfile::TempDir,
    pub port: u16,
    pub end: Option<oneshot::Sender<()>>,
    pub served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Bed {
    pub async fn start() -> Result<Self> {
        let server = ApiServer::start(&[])?;
        let admin = client::client(&server.kubeconfig()).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        // The server's own certificate names 127.0.0.1 too.
        let pem = |name: &str| std::fs::read_to_string(server.folder().join("pki").join(name));
        let tls = serve::server_config(
            &pem("apiserver.crt")?,
            &pem("apiserver.key")?,
            &pem("ca.crt")?,
        )?;
        let (_, tls) = watch::channel(tls);
        let (host, directory) = (Arc::new(Host::default()), Directory::default());
        let (end, ended) = oneshot::channel::<()>();
        let config = serve::Config {
            listeners: vec![listener],
            tls,
            runtime: host.clone(),
            directory: directory.clone(),
        };
        let served = tokio::spawn(serve::serve(config, async {
            // Either way it is over.
            let _ = ended.await;
        }));
        let bed = Self {
            server,
            host,
            directory,
            logs: tempfile::tempdir()?,
            port,
            end: Some(end),
            served,
        };
        bed.objects(&admin).await?;
        Ok(bed)
    }

    /// What the agent would have written.
    pub async fn objects(&self, admin: &Client) -> Result<()> {
        let node = json!({"metadata": {"name": "n1"}});
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}}}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "image": "host"}, {"name": "later", "image": "host"}]}});
        let pods = "/api/v1/namespaces/default/pods";
        for (method, path, body) in [
            ("POST", "/api/v1/nodes", &node),
            ("PATCH", "/api/v1/nodes/n1/status", &status),
            ("POST", pods, &pod),
            (
                "PATCH",
                "/api/v1/namespaces/default/pods/p/status",
                &json!({"status": {"phase": "Running"}}),
            ),
        ] {
            let answer = ask(admin, method, path, body).await?;
            ensure!(answer.code < 300, "{method} {path}: {answer:?}");
        }
        self.observe(ContainerState::Running);
        Ok(())
    }

    pub fn status(&self, attempt: u32, state: ContainerState) -> ContainerStatus {
        ContainerStatus {
            id: format!("id-{attempt}"),
            sandbox: "s".to_owned(),
            pod: self.pod(),
            config: ContainerConfig {
                name: "c".to_owned(),
                attempt,
                ..ContainerConfig::default()
            },
            state,
            created: jiff::Timestamp::UNIX_EPOCH,
            started: None,
            finished: None,
            exit_code: None,
            signal: 0,
            reason: String::new(),
            message: String::new(),
            log: self.logs.path().join(format!("{attempt}.log")),
        }
    }

    pub fn pod(&self) -> PodRef {
        PodRef {
            namespace: "default".to_owned(),
            name: "p".to_owned(),
            uid: "uid-1".to_owned(),
        }
    }

    /// The second start of `c` is in this state.
    pub fn observe(&self, state: ContainerState) {
        let containers = vec![
            self.status(1, state),
            self.status(0, ContainerState::Exited),
        ];
        for status in &containers {
            self.host.set(status.clone());
        }
        self.directory.put(Entry {
            pod: self.pod(),
            names: vec![
                ("c".to_owned(), String::new()),
                ("later".to_owned(), "ContainerCreating".to_owned()),
            ],
            default_container: "c".to_owned(),
            sandbox: Some(SandboxStatus {
                id: "s".to_owned(),
                config: SandboxConfig::default(),
                ready: true,
                ips: Vec::new(),
                created: jiff::Timestamp::UNIX_EPOCH,
            }),
            containers,
        });
    }

    pub fn log(&self, name: &str, lines: &[&str]) -> Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.logs.path().join(name))?;
        for line in lines {
            writeln!(file, "2026-01-01T00:00:00.5Z stdout F {line}")?;
        }
        Ok(())
    }

    /// Runs kubectl; by SPDY where it is asked for.
    pub fn kubectl(&self, spdy: bool, input: &[u8], args: &[&str]) -> Result<Output> {
        tokio::task::block_in_place(|| {
            let mut child = self
                .command(spdy, args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let mut stdin = child.stdin.take().context("no input")?;
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    // One that does not read it is judged by its output.
                    let _ = stdin.write_all(input);
                });
                Ok(child.wait_with_output()?)
            })
        })
    }

    pub fn command(&self, spdy: bool, args: &[&str]) -> Command {
        let mut command = self.server.kubectl_command(args);
        if spdy {
            command
                .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
                .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        }
        command
    }

    /// Runs kubectl, which must end so.
    pub fn must(
        &self,
        spdy: bool,
        input: &[u8],
        args: &[&str],
        code: i32,
        out: &str,
        err: &str,
    ) -> Result<()> {
        let output = self.kubectl(spdy, input, args)?;
        let said = (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        ensure!(
            said.0 == Some(code) && said.1 == out && said.2.contains(err),
            "kubectl {args:?} (spdy: {spdy}): {said:?}"
        );
        Ok(())
    }

    pub async fn stop(mut self) -> Result<()> {
        drop(self.end.take());
        tokio::time::timeout(SOON, &mut self.served).await???;
        ensure!(!self.server.log()?.contains("panicked"));
        Ok(())
    }
}
