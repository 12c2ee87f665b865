//! A runtime that only keeps books: no process runs. It stands in for the real one where a test is about the agent
//! and the API server, and where faults have to come exactly when the test wants them.
//!
//! A container's command says what becomes of it: `exit N` ends at once, anything else runs until it is stopped.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use node::runtime::{
    ContainerConfig, ContainerState, ContainerStatus, Error, Event, Image, Output, PodRef, Runtime,
    SandboxConfig, SandboxStatus, Session, Stream, Streams,
};
use tokio::sync::mpsc;

/// The books.
#[derive(Default)]
pub struct Books {
    pub sandboxes: Vec<SandboxStatus>,
    pub containers: Vec<ContainerStatus>,
    pub unready: Option<String>,
    /// So many times will a sandbox fail.
    pub fail_sandboxes: u32,
    /// Commands that succeed as probes.
    pub healthy: BTreeSet<String>,
    /// Every call that changes something.
    pub calls: Vec<String>,
    listeners: Vec<mpsc::Sender<Event>>,
    next: u32,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Paper(Arc<Mutex<Books>>);

impl Paper {
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap()
    }

    pub fn tell(&self, event: &Event) {
        for listener in &self.books().listeners {
            let _ = listener.try_send(event.clone());
        }
    }

    /// Ends a container from outside.
    pub fn end(&self, pod: &str, name: &str, code: i32) {
        let mut found = None;
        for container in &mut self.books().containers {
            if container.pod.name == pod
                && container.config.name == name
                && container.state == ContainerState::Running
            {
                finish(container, code);
                found = Some(container.pod.clone());
            }
        }
        self.tell(&Event::Container(found.expect("it runs")));
    }

    /// Ends a sandbox's pause process; what is in it goes on.
    pub fn kill_sandbox(&self, pod: &str) {
        let mut found = None;
        for sandbox in &mut self.books().sandboxes {
            if sandbox.config.pod.name == pod && sandbox.ready {
                sandbox.ready = false;
                found = Some(sandbox.config.pod.clone());
            }
        }
        self.tell(&Event::Sandbox(found.expect("it lives")));
    }
}

fn finish(container: &mut ContainerStatus, code: i32) {
    container.state = ContainerState::Exited;
    container.exit_code = Some(code);
    container.finished = Some(Timestamp::now());
    container.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
}

#[async_trait]
impl Runtime for Paper {
    fn name(&self) -> (&'static str, &'static str) {
        ("paper", "1")
    }

    async fn network_unready(&self) -> Option<String> {
        self.books().unready.clone()
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(1000);
        self.books().listeners.push(sender);
        receiver
    }

    async fn ensure_image(&self, name: &str, _: bool) -> Result<Image, Error> {
        match name {
            "missing" => Err(Error::NoImage("no image missing in /images".to_owned())),
            "../evil" => Err(Error::InvalidImageName("leads upwards".to_owned())),
            _ => Ok(Image {
                id: format!("sha256:{name}"),
            }),
        }
    }

    async fn images(&self) -> Result<Vec<(Vec<String>, u64)>, Error> {
        Ok(Vec::new())
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, Error> {
        let mut books = self.books();
        if books.fail_sandboxes > 0 {
            books.fail_sandboxes -= 1;
            return Err(Error::Network(
                "plugin bridge: no more addresses".to_owned(),
            ));
        }
        books.next += 1;
        let number = books.next;
        let status = SandboxStatus {
            id: format!("s{number}"),
            config: config.clone(),
            ready: true,
            ips: vec![IpAddr::V4(Ipv4Addr::from(0x7f01_0000 + number))],
            created: Timestamp::now(),
        };
        books.sandboxes.push(status.clone());
        books
            .calls
            .push(format!("run sandbox of {}", config.pod.name));
        Ok(status)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        let mut books = self.books();
        books.calls.push(format!("stop sandbox {id}"));
        for sandbox in books
            .sandboxes
            .iter_mut()
            .filter(|sandbox| sandbox.id == id)
        {
            sandbox.ready = false;
        }
        for container in &mut books.containers {
            if container.sandbox == id && container.state == ContainerState::Running {
                finish(container, 137);
            }
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let mut books = self.books();
        books.calls.push(format!("remove sandbox {id}"));
        books.sandboxes.retain(|sandbox| sandbox.id != id);
        books.containers.retain(|container| container.sandbox != id);
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, Error> {
        Ok(self.books().sandboxes.clone())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
    ) -> Result<String, Error> {
        let mut books = self.books();
        books.next += 1;
        let id = format!("c{}", books.next);
        let pod: PodRef = books
            .sandboxes
            .iter()
            .find(|known| known.id == sandbox && known.ready)
            .map(|known| known.config.pod.clone())
            .ok_or_else(|| Error::NotFound(format!("no sandbox {sandbox}")))?;
        books
            .calls
            .push(format!("create {} of {}", config.name, pod.name));
        books.containers.push(ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.to_owned(),
            pod,
            config: config.clone(),
            state: ContainerState::Created,
            created: Timestamp::now(),
            started: None,
            finished: None,
            exit_code: None,
            signal: 0,
            reason: String::new(),
            message: String::new(),
            log: PathBuf::new(),
        });
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        let pod = {
            let mut books = self.books();
            let container = books
                .containers
                .iter_mut()
                .find(|container| container.id == id)
                .ok_or_else(|| Error::NotFound(id.to_owned()))?;
            container.started = Some(Timestamp::now());
            container.state = ContainerState::Running;
            match container
                .config
                .command
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()[..]
            {
                ["exit", code] => finish(container, code.parse().unwrap()),
                ["nowhere"] => {
                    finish(container, 127);
                    container.reason = "StartError".to_owned();
                    return Err(Error::Invalid("exec nowhere: no such file".to_owned()));
                }
                _ => {}
            }
            container.pod.clone()
        };
        self.tell(&Event::Container(pod));
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let stubborn = self
            .books()
            .containers
            .iter()
            .any(|container| container.id == id && container.config.command == ["stubborn"]);
        if stubborn {
            tokio::time::sleep(grace).await;
        }
        let mut books = self.books();
        let name = books
            .containers
            .iter_mut()
            .find(|container| container.id == id)
            .map(|container| {
                if container.state == ContainerState::Running {
                    finish(container, if stubborn { 137 } else { 0 });
                }
                container.config.name.clone()
            });
        books.calls.extend(name.map(|name| format!("stop {name}")));
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), Error> {
        self.books()
            .containers
            .retain(|container| container.id != id);
        Ok(())
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>, Error> {
        Ok(self.books().containers.clone())
    }

    async fn container(&self, id: &str) -> Result<ContainerStatus, Error> {
        let books = self.books();
        let found = books.containers.iter().find(|container| container.id == id);
        found.cloned().ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    async fn exec_sync(&self, _: &str, command: &[String], _: Duration) -> Result<Output, Error> {
        let is_well = self.books().healthy.contains(&command.join(" "));
        Ok(Output {
            code: i32::from(!is_well),
            text: if is_well {
                String::new()
            } else {
                "not well\n".to_owned()
            },
        })
    }

    async fn exec(&self, _: &str, _: &[String], _: Streams) -> Result<Session, Error> {
        Err(Error::Failed("only books".to_owned()))
    }

    async fn attach(&self, _: &str, _: Streams) -> Result<Session, Error> {
        Err(Error::Failed("only books".to_owned()))
    }

    async fn dial(&self, _: &str, _: u16) -> Result<Box<dyn Stream>, Error> {
        Err(Error::Failed("only books".to_owned()))
    }

    async fn check_networks(&self) -> Vec<(PodRef, Error)> {
        Vec::new()
    }
}
