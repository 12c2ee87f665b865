//! A runtime whose containers are the test's own: it runs plain processes of the machine.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use node::runtime::{
    ContainerConfig, ContainerStatus, Error, Event, Image, Output, PodRef, Runtime, SandboxConfig,
    SandboxStatus, Session, Stream, Streams,
};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;

/// Containers by id, as the test says they are.
#[derive(Default)]
pub struct Host {
    containers: Mutex<HashMap<String, ContainerStatus>>,
}

impl Host {
    /// Says what a container is.
    pub fn set(&self, status: ContainerStatus) {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(status.id.clone(), status);
    }
}

fn run(command: &[String], streams: Streams) -> Result<Session, Error> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Error::Invalid("no command".to_owned()))?;
    let pipe = |wanted: bool| match wanted {
        true => Stdio::piped(),
        false => Stdio::null(),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(pipe(streams.stdin))
        .stdout(pipe(streams.stdout))
        .stderr(pipe(streams.stderr))
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::Invalid(format!("exec: {program:?}: {error}")))?;
    Ok(Session {
        stdin: child.stdin.take().map(|end| Box::pin(end) as _),
        stdout: child.stdout.take().map(|end| Box::pin(end) as _),
        stderr: child.stderr.take().map(|end| Box::pin(end) as _),
        resize: None,
        end: Box::pin(async move {
            let status = child
                .wait()
                .await
                .map_err(|error| Error::Failed(error.to_string()))?;
            Ok(status.code().unwrap_or(137))
        }),
    })
}

fn unused<T>() -> Result<T, Error> {
    Err(Error::Failed("not a part of this test".to_owned()))
}

#[async_trait]
impl Runtime for Host {
    fn name(&self) -> (&'static str, &'static str) {
        ("host", "0")
    }

    async fn network_unready(&self) -> Option<String> {
        None
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        mpsc::channel(1).1
    }

    async fn ensure_image(&self, _name: &str, _always: bool) -> Result<Image, Error> {
        unused()
    }

    async fn images(&self) -> Result<Vec<(Vec<String>, u64)>, Error> {
        unused()
    }

    async fn run_sandbox(&self, _config: &SandboxConfig) -> Result<SandboxStatus, Error> {
        unused()
    }

    async fn stop_sandbox(&self, _id: &str) -> Result<(), Error> {
        unused()
    }

    async fn remove_sandbox(&self, _id: &str) -> Result<(), Error> {
        unused()
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, Error> {
        unused()
    }

    async fn create_container(
        &self,
        _sandbox: &str,
        _config: &ContainerConfig,
    ) -> Result<String, Error> {
        unused()
    }

    async fn start_container(&self, _id: &str) -> Result<(), Error> {
        unused()
    }

    async fn stop_container(&self, _id: &str, _grace: Duration) -> Result<(), Error> {
        unused()
    }

    async fn remove_container(&self, _id: &str) -> Result<(), Error> {
        unused()
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>, Error> {
        unused()
    }

    async fn container(&self, id: &str) -> Result<ContainerStatus, Error> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
            .ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    async fn exec_sync(
        &self,
        _id: &str,
        _command: &[String],
        _limit: Duration,
    ) -> Result<Output, Error> {
        unused()
    }

    async fn exec(
        &self,
        _id: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, Error> {
        run(command, streams)
    }

    async fn attach(&self, _id: &str, streams: Streams) -> Result<Session, Error> {
        let script = "echo attached; echo aside >&2; cat; exit 0";
        run(&["sh", "-c", script].map(str::to_owned), streams)
    }

    async fn dial(&self, _sandbox: &str, port: u16) -> Result<Box<dyn Stream>, Error> {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(Error::Failed(format!(
                "dial tcp 127.0.0.1:{port}: connect: {error}"
            ))),
        }
    }

    async fn check_networks(&self) -> Vec<(PodRef, Error)> {
        Vec::new()
    }
}
