//! Containers of a real container runtime, containerd or podman, which calls the plugins under test.
//!
//! The runtimes look for plugins and network configurations in fixed places of the machine. So each
//! runs in a mount and a process-id namespace of its own ([`room`]) where those places show folders
//! of the run, and in the node's network namespace. A container's file system is one static busybox.

mod cgroup;
mod engine;
mod room;

pub use engine::Engine;
pub use room::Room;

pub(crate) use cgroup::remove_where as remove_cgroups_where;

use crate::process::{self, Process};
use crate::requirement;
use crate::run::Run;
use crate::wait::eventually;
use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A runtime that is ready to start containers on one node. The room ends all that runs in it.
#[derive(Debug)]
pub struct Containers<'a> {
    engine: Engine,
    /// The runtime's daemon, if it has one; it ends before the room does.
    daemon: Option<Process>,
    room: &'a Room,
    run: &'a Run,
}

impl<'a> Containers<'a> {
    /// Starts the runtime's daemon in `room`, if it has one, and waits until it answers.
    pub fn start(run: &'a Run, room: &'a Room, engine: Engine) -> Result<Self> {
        let daemon = engine.start(room)?;
        Ok(Self {
            engine,
            daemon,
            room,
            run,
        })
    }

    /// Starts a container and waits until its first process runs. `name` is unique in the run;
    /// `ports` are `HOST:CONTAINER` pairs, for an engine that can map them.
    pub fn container(&self, name: &str, ports: &[&str]) -> Result<Container<'_>> {
        let id = format!("{}{name}", self.run.prefix());
        let rootfs = busybox_root(&self.room.subfolder(&format!("{name}.rootfs"))?)?;
        let args = self.engine.run(&id, &rootfs, ports)?;
        let log = self.room.folder().join(format!("{name}.log"));
        let client = self.room.spawn(self.engine.program(), &args, &log)?;
        let mut container = Container {
            id,
            rootfs,
            client,
            owner: self,
        };
        // Not by running something in it: runc allows that before the network is there.
        let up = eventually("the container runs", Duration::from_secs(20), || {
            container.client.ensure_alive()?;
            ensure!(container.rootfs.join(STARTED).exists(), "it has not begun");
            Ok(())
        });
        up.with_context(|| match &self.daemon {
            Some(daemon) => format!("the runtime's log ends:\n{}", daemon.log_tail()),
            None => format!("the client's log:\n{}", container.client.log_tail()),
        })?;
        Ok(container)
    }
}

/// A running container.
#[derive(Debug)]
pub struct Container<'a> {
    /// Its name; the CNI container ID is or ends with it, as the runtime pleases.
    pub id: String,
    rootfs: PathBuf,
    /// The runtime's client in the foreground: it ends after the container, when DEL has been done.
    client: Process,
    owner: &'a Containers<'a>,
}

impl Container<'_> {
    /// Runs a line of shell in the container; returns what it printed.
    pub fn exec(&self, line: &str) -> Result<String> {
        let engine = &self.owner.engine;
        let args = engine.exec(&self.id, line)?;
        let mut command = self.owner.room.command(engine.program());
        process::run(command.args(args)).with_context(|| format!("in container {}", self.id))
    }

    /// The IPv4 address of its `eth0`.
    pub fn address(&self) -> Result<IpNet> {
        // More than once: `ctr` may end before it has copied what a short-lived process printed.
        let limit = Duration::from_secs(5);
        eventually("the container has an address", limit, || {
            let output = self.exec("ip -4 -o address show dev eth0")?;
            let mut words = output.split_whitespace().skip_while(|word| *word != "inet");
            let address = words.nth(1);
            let address = address.with_context(|| format!("no inet address in {output:?}"))?;
            address.parse().with_context(|| format!("of {output:?}"))
        })
    }

    /// Sends three pings; all must be answered.
    pub fn ping(&self, to: IpAddr) -> Result<()> {
        let output = self.exec(&format!("ping -c 3 -i 0.1 -W 2 {to}"))?;
        ensure!(output.contains(" 0% packet loss"), "ping {to}: {output}");
        Ok(())
    }

    /// The address under which a [`crate::traffic::TcpServer`] sees the container.
    pub fn seen_as(&self, server: SocketAddr) -> Result<SocketAddr> {
        let (ip, port) = (server.ip(), server.port());
        let answer = self.exec(&format!("printf w | nc -w 5 {ip} {port}"))?;
        answer
            .parse()
            .with_context(|| format!("answer of {server}: {answer:?}"))
    }

    /// Lets its first process end by itself, and waits until the runtime has taken the network away.
    pub fn end(mut self) -> Result<()> {
        std::fs::write(self.rootfs.join(END), "")?;
        let status = self.client.wait(Duration::from_secs(20))?;
        // The clients only log it when DEL fails.
        let log = self.client.log()?;
        ensure!(
            status.success() && log.trim().is_empty(),
            "the client of {} ended with {status}: {log}",
            self.id
        );
        Ok(())
    }
}

/// The file with which a container says that its first process runs: the runtime lets it begin when
/// the plugins have done ADD.
const STARTED: &str = "started";
/// The file whose appearance ends a container.
const END: &str = "end";

/// What a container runs.
fn first_process() -> String {
    format!(": >/{STARTED}; while [ ! -e /{END} ]; do sleep 0.05; done")
}

/// Fills `folder` with busybox under the names of its applets.
fn busybox_root(folder: &Path) -> Result<PathBuf> {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin)?;
    let Some(busybox) = requirement::find_in_path("busybox") else {
        bail!("no busybox in PATH");
    };
    std::fs::copy(&busybox, bin.join("busybox"))
        .with_context(|| format!("copy {}", busybox.display()))?;
    for applet in [
        "sh", "true", "sleep", "ip", "ping", "nc", "printf", "timeout",
    ] {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    Ok(folder.to_owned())
}

/// True when busybox is there and needs no library; otherwise a loud skip.
pub fn has_static_busybox(run: &Run) -> Result<bool> {
    if !requirement::has_programs(&["busybox"]) {
        return Ok(false);
    }
    let root = busybox_root(&run.subfolder("busybox.rootfs")?)?;
    let alone = process::run(
        Command::new("chroot")
            .arg(root)
            .args(["/bin/sh", "-c", ":"]),
    );
    if let Err(error) = &alone {
        requirement::skip(&format!(
            "needs busybox-static (apt-get install): {error:#}"
        ));
    }
    Ok(alone.is_ok())
}
