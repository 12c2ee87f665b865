//! How each runtime is configured, started and spoken to. Both keep all their files in the room.

use super::room::Room;
use super::{cgroup, first_process};
use crate::process::Process;
use crate::wait::eventually;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The network that a podman container asks for: the conflist's name.
const NETWORK: &str = "cbr0";

/// A container runtime in a room.
#[derive(Debug)]
pub enum Engine {
    /// containerd, spoken to by `ctr`, which calls the plugins itself.
    Containerd {
        /// Its folder.
        folder: PathBuf,
        /// Numbers the processes that are added to containers.
        execs: AtomicU32,
    },
    /// podman with its CNI network backend.
    Podman {
        /// Its folder.
        folder: PathBuf,
    },
}

impl Engine {
    /// containerd.
    pub fn containerd(room: &Room) -> Result<Self> {
        let folder = room.subfolder("containerd")?;
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("socket"),
        );
        write(&folder.join("config.toml"), &config)?;
        Ok(Self::Containerd {
            folder,
            execs: AtomicU32::new(0),
        })
    }

    /// podman.
    pub fn podman(room: &Room) -> Result<Self> {
        let folder = room.subfolder("podman")?;
        let config = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"/opt/cni/bin\"]\n\
             network_config_dir = \"/etc/cni/net.d\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\ntmp_dir = {:?}\n",
            folder.join("tmp").display().to_string(),
        );
        write(&folder.join("containers.conf"), &config)?;
        Ok(Self::Podman { folder })
    }

    /// Starts what must run all the time.
    pub(super) fn start(&self, room: &Room) -> Result<Option<Process>> {
        let Self::Containerd { folder, .. } = self else {
            return Ok(None);
        };
        let config = folder.join("config.toml").display().to_string();
        let log = folder.join("containerd.log");
        let mut daemon = room.spawn("containerd", &["--config", &config], &log)?;
        let mut ask = self.client()?;
        ask.push("version".to_owned());
        eventually("containerd answers", Duration::from_secs(20), || {
            daemon.ensure_alive()?;
            room.exec(self.program(), &ask)
        })
        .with_context(|| format!("containerd's log ends:\n{}", daemon.log_tail()))?;
        Ok(Some(daemon))
    }

    /// The client program.
    pub(super) fn program(&self) -> &'static str {
        match self {
            Self::Containerd { .. } => "ctr",
            // podman has no flag for its configuration file.
            Self::Podman { .. } => "env",
        }
    }

    /// The client's arguments that lead to this very runtime.
    fn client(&self) -> Result<Vec<String>> {
        let text = |path: PathBuf| {
            let text = path.to_str().map(str::to_owned);
            text.with_context(|| format!("{} is no UTF-8", path.display()))
        };
        Ok(match self {
            Self::Containerd { folder, .. } => {
                vec!["--address".to_owned(), text(folder.join("socket"))?]
            }
            Self::Podman { folder } => vec![
                format!("CONTAINERS_CONF={}", text(folder.join("containers.conf"))?),
                "podman".to_owned(),
                format!("--root={}", text(folder.join("root"))?),
                // The room's own /run: podman takes no path of more than 50 characters here.
                "--runroot=/run/podman".to_owned(),
                "--storage-driver=vfs".to_owned(),
            ],
        })
    }

    /// Arguments that start a container and stay with it.
    pub(super) fn run(&self, id: &str, rootfs: &Path, ports: &[&str]) -> Result<Vec<String>> {
        let rootfs = rootfs.to_str().context("the rootfs is no UTF-8")?;
        let mut args = self.client()?;
        let mut add = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
        let cgroup = cgroup::path(id);
        match self {
            Self::Containerd { .. } => {
                ensure!(ports.is_empty(), "ctr cannot map ports");
                add(&["run", "--cni", "--rm", "--cgroup", &cgroup, "--rootfs"]);
                add(&[rootfs, id]);
            }
            Self::Podman { .. } => {
                add(&["run", "--rm", "--network", NETWORK, "--name", id]);
                add(&["--cap-add=NET_RAW", "--cgroup-parent", &cgroup]);
                for port in ports {
                    add(&["--publish", port]);
                }
                add(&["--rootfs", rootfs]);
            }
        }
        add(&["/bin/sh", "-c", &first_process()]);
        Ok(args)
    }

    /// Arguments that run a line of shell in a container.
    pub(super) fn exec(&self, id: &str, line: &str) -> Result<Vec<String>> {
        let mut args = self.client()?;
        let mut add = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
        match self {
            Self::Containerd { execs, .. } => {
                let exec = format!("exec{}", execs.fetch_add(1, Ordering::Relaxed));
                add(&["task", "exec", "--exec-id", &exec, id]);
            }
            Self::Podman { .. } => add(&["exec", id]),
        }
        add(&["/bin/sh", "-c", line]);
        Ok(args)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
