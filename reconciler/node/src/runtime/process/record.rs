//! What the runtime keeps on disk, one JSON file a fact, each replaced as a whole.
//!
//! ```text
//! ROOT/sandboxes/ID/config.json    SandboxRecord: written first, removed first; without it the folder is half-made
//!                   pause.json     Proc of the pause process
//!                   network.json   Network: the sandbox has been ready
//!                   sock           held open by the pause process: who is connected sees it end
//!                   hosts, hostname, resolv.conf
//! ROOT/containers/ID/config.json   ContainerRecord: as above
//!                    start.json    Start: what shim and exec-in need to know
//!                    started.json  Started: the program has been executed
//!                    exit.json     Exit: it has ended
//!                    sock          the shim's: watch, attach, signals
//!                    rootfs, upper, work, scratch, termination, shim.log
//! ROOT/images/                     unpacked images: see `image`
//! ```
//! Processes hold what is in the kernel (namespaces, mounts), so a process that ends leaves none of it.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::proc::Proc;
use crate::runtime::{ContainerConfig, Mount, PodRef, SandboxConfig, Security};

/// A sandbox as it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) id: String,
    pub(super) config: SandboxConfig,
    pub(super) created: Timestamp,
}

/// A sandbox's network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NetworkRecord {
    pub(super) ips: Vec<IpAddr>,
}

/// A container as it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) id: String,
    pub(super) sandbox: String,
    pub(super) pod: PodRef,
    pub(super) config: ContainerConfig,
    pub(super) created: Timestamp,
    pub(super) log: PathBuf,
}

/// Which PID namespace a container's process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Processes {
    /// One of its own; all in it end with the container's first process.
    Own,
    /// That of the pause process.
    Sandbox,
    /// The node's.
    Host,
}

/// What a container's root is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Root {
    /// The node's own file system, read-only, with these paths hidden.
    Host { masked: Vec<PathBuf> },
    /// A folder below, and the container's own changes.
    Folder(PathBuf),
}

/// All that the stages need to start a container's process, or another one beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) pause: Proc,
    pub(super) processes: Processes,
    pub(super) host_ipc: bool,
    pub(super) root: Root,
    pub(super) arguments: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) working_dir: String,
    /// The image's `User`, for what `security` leaves open.
    pub(super) user: String,
    pub(super) security: Security,
    pub(super) mounts: Vec<Mount>,
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) stdin_once: bool,
    /// Folders of its cgroups, one a hierarchy.
    pub(super) cgroups: Vec<PathBuf>,
    pub(super) log: PathBuf,
    pub(super) log_max_size: u64,
    pub(super) log_max_files: u32,
}

/// A container's process, and the shim that looks after it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) process: Proc,
    pub(super) shim: Proc,
    pub(super) at: Timestamp,
}

/// How a container ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) signal: i32,
    pub(super) finished: Timestamp,
    /// The kernel has killed for want of memory in its cgroup.
    pub(super) oom: bool,
    /// Why it could not start.
    pub(super) failure: Option<String>,
}

/// Makes a folder that only root may look into.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Replaces a file as a whole. A crash leaves the old one or the new one.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&bytes)?;
    fs::rename(&new, path)
}

/// Reads a file; `None` if there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(naming(path, error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| naming(path, io::Error::other(error)))
}

fn naming(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("read {}: {error}", path.display()))
}
