//! What runs containers: the seam between the agent, which decides, and a runtime, which does.
//!
//! It has the shape of the Container Runtime Interface (a sandbox, then containers in it), so that containerd can
//! stand here later. A runtime keeps all it has made on disk: whatever runs goes on when the agent ends, and is listed
//! again when it comes back. Calls for one Pod come one after another, those for several at the same time. Stopping
//! and removing what is not there is no error.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub mod process;

/// Which Pod a sandbox or container is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
}

/// What a sandbox is made from. All but `attempt` is of the Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// The Pod.
    pub pod: PodRef,
    /// Counts the sandboxes of the Pod, from 0.
    pub attempt: u32,
    /// Of its UTS namespace; with `host_network` the node's own stays.
    pub hostname: String,
    /// The Pod's full name if it has a subdomain, else empty: stands before the host name in `/etc/hosts`.
    #[serde(default)]
    pub full_name: String,
    /// The node's own network namespace, and no CNI.
    pub host_network: bool,
    /// One PID namespace for all containers; the pause process is 1 in it and reaps.
    pub share_processes: bool,
    /// The node's own PID namespace.
    pub host_pid: bool,
    /// The node's own IPC namespace.
    pub host_ipc: bool,
    /// Ports of the node that lead to the Pod (CNI capability `portMappings`).
    pub port_mappings: Vec<PortMapping>,
    /// `/etc/resolv.conf` of its containers.
    pub resolv_conf: String,
    /// `/etc/hosts` without the Pod's own line, which the runtime adds when it knows the address.
    pub hosts: String,
    /// `kubernetes.io/ingress-bandwidth` and the like, for CNI's capabilities.
    pub annotations: BTreeMap<String, String>,
    /// The Pod's part of the node's cgroups: bytes of memory, thousandths of a CPU; 0 is no limit.
    pub limits: Limits,
}

/// A port of the node that leads to a Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Of the node.
    pub host_port: u16,
    /// Of the Pod.
    pub container_port: u16,
    /// `tcp`, `udp`, `sctp`
    pub protocol: String,
    /// Address of the node; empty is every one.
    pub host_ip: String,
}

/// Limits of resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes; 0 is none.
    pub memory: u64,
    /// Thousandths of a CPU; 0 is none.
    pub cpu: u64,
    /// Thousandths of a CPU that are asked for: the weight among neighbours.
    pub cpu_request: u64,
}

/// A sandbox that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// The runtime's own name for it: path-safe, unique on the node.
    pub id: String,
    /// What it was made from.
    pub config: SandboxConfig,
    /// Whether its pause process lives and its network is made.
    pub ready: bool,
    /// The Pod's addresses, the primary one first; those of the node with `host_network`.
    pub ips: Vec<IpAddr>,
    /// When it was made.
    pub created: Timestamp,
}

/// What a container is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The container's name in the Pod.
    pub name: String,
    /// Counts its starts, from 0: `restartCount`.
    pub attempt: u32,
    /// As [`Runtime::ensure_image`] answered.
    pub image: Image,
    /// As written in the Pod.
    pub image_name: String,
    /// Program and its first arguments; empty is the image's entry point.
    pub command: Vec<String>,
    /// Further arguments; if both are empty, the image's.
    pub args: Vec<String>,
    /// Empty is the image's, else `/`.
    pub working_dir: String,
    /// On top of the image's own.
    pub env: Vec<(String, String)>,
    /// In order.
    pub mounts: Vec<Mount>,
    /// A terminal for it.
    pub tty: bool,
    /// Keeps its standard input open for `attach`; else it is /dev/null.
    pub stdin: bool,
    /// Closes it when the first that attached leaves.
    pub stdin_once: bool,
    /// Limits of its cgroup.
    pub limits: Limits,
    /// Who it runs as, and what it may.
    pub security: Security,
    /// Where in the container it leaves its last words, for [`ContainerStatus::message`].
    pub termination_message_path: String,
    /// Takes the end of the log for them if it left none and failed.
    pub message_from_log: bool,
}

/// Who a container runs as, and what it may do. What is absent is the image's or the runtime's own choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// All capabilities and devices, and writable /sys.
    pub privileged: bool,
    /// User id.
    pub user: Option<u32>,
    /// Group id.
    pub group: Option<u32>,
    /// Further groups; `fsGroup` among them.
    pub groups: Vec<u32>,
    /// No writes outside of mounts.
    pub read_only_root: bool,
    /// `NET_ADMIN`; `ALL`
    pub add_capabilities: Vec<String>,
    /// As above.
    pub drop_capabilities: Vec<String>,
    /// `no_new_privs`
    pub no_new_privileges: bool,
}

/// A file or folder of the node in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the node; it exists.
    pub source: PathBuf,
    /// In the container, absolute; made if missing.
    pub target: PathBuf,
    /// No writes.
    pub read_only: bool,
    /// Mounts made later on either side are seen on the other: `None`, `HostToContainer`, `Bidirectional`.
    pub propagation: String,
}

/// An image that is ready for use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `host`, `sha256:…` of what it holds, or `folder:/PATH` of a root that is used in place.
    pub id: String,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process lives.
    Running,
    /// It has ended; there is an exit code.
    Exited,
    /// What became of it cannot be known: its shim died.
    Unknown,
}

/// A container that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// The runtime's own name for it: path-safe, unique on the node.
    pub id: String,
    /// The sandbox it is in.
    pub sandbox: String,
    /// The Pod.
    pub pod: PodRef,
    /// What it was made from.
    pub config: ContainerConfig,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created: Timestamp,
    /// When its process began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Exit code; 128 + the signal's number when one ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it; 0 is none.
    pub signal: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`, `StartError`
    pub reason: String,
    /// Its last words, at most 4096 bytes; or why it could not start.
    pub message: String,
    /// Its log: lines of the form `2006-01-02T15:04:05.999999999Z stdout F text`; rotated to `….1`, `….2`.
    pub log: PathBuf,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such sandbox or container.
    #[error("{0}")]
    NotFound(String),
    /// The image's name is none: trying again will not help until the Pod changes.
    #[error("{0}")]
    InvalidImageName(String),
    /// No such image here. The text names the places that were looked at.
    #[error("{0}")]
    NoImage(String),
    /// A CNI plugin failed or took too long; what it had made has been undone. The text names plugin and network.
    #[error("{0}")]
    Network(String),
    /// What is asked for is wrong: the program of a container does not exist, a user is unknown.
    #[error("{0}")]
    Invalid(String),
    /// Took longer than allowed.
    #[error("{0}")]
    Timeout(String),
    /// Anything else; trying again may help.
    #[error("{0}")]
    Failed(String),
}

/// Something that happened without a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A container has started, or ended.
    Container(PodRef),
    /// A sandbox's pause process has ended.
    Sandbox(PodRef),
    /// Whether the network is configured has changed, or images have come.
    Ready,
}

/// What [`Runtime::exec`] and [`Runtime::attach`] are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// The client sends input.
    pub stdin: bool,
    /// The client wants output.
    pub stdout: bool,
    /// The client wants errors; never with `tty`.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// A readable end.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
/// A writable end; shutting it down is end of file for the process.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// A process one can talk to. Dropping it hangs up: an exec'd process is killed, an attached one lives on.
pub struct Session {
    /// Its standard input, if asked for.
    pub stdin: Option<Writer>,
    /// Its output, if asked for; of a terminal, all of it.
    pub stdout: Option<Reader>,
    /// Its errors, if asked for.
    pub stderr: Option<Reader>,
    /// Takes the terminal's new size, columns and rows.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// Ends with the exit code (128 + signal); for attach, when the container ends or its output does.
    pub end: Pin<Box<dyn Future<Output = Result<i32, Error>> + Send>>,
}

/// What a command in a container left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code, 128 + signal.
    pub code: i32,
    /// Output and errors, as they came, at most 16 KiB.
    pub text: String,
}

/// A stream to a port in a Pod.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What runs containers.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Name and version: `weft`, `0.1.0`; in the Node's status `weft://0.1.0`, in container ids `weft://ID`.
    fn name(&self) -> (&'static str, &'static str);

    /// Why Pods cannot get a network now, if they cannot: "no CNI configuration in /etc/cni/net.d".
    async fn network_unready(&self) -> Option<String>;

    /// What happens from now on. One receiver; it is told of nothing that is over.
    fn events(&self) -> mpsc::Receiver<Event>;

    /// Looks an image up, and unpacks it if need be. `always` looks again at its source.
    async fn ensure_image(&self, name: &str, always: bool) -> Result<Image, Error>;

    /// The images that are here: their names, and bytes.
    async fn images(&self) -> Result<Vec<(Vec<String>, u64)>, Error>;

    /// Makes a sandbox and its network. On failure nothing of it is left.
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, Error>;

    /// Ends its containers and processes, unmakes its network; it stays listed, not ready.
    async fn stop_sandbox(&self, id: &str) -> Result<(), Error>;

    /// Stops it and forgets it, its containers and their logs.
    async fn remove_sandbox(&self, id: &str) -> Result<(), Error>;

    /// All sandboxes.
    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, Error>;

    /// Makes a container in a sandbox.
    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
    ) -> Result<String, Error>;

    /// Starts its process. Returns once the program has been executed: a missing program is an error, and the
    /// container is then `Exited` with code 127 or 128 and a message.
    async fn start_container(&self, id: &str) -> Result<(), Error>;

    /// Sends SIGTERM, after `grace` SIGKILL, and returns when it has ended.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error>;

    /// Stops it at once and forgets it and its log.
    async fn remove_container(&self, id: &str) -> Result<(), Error>;

    /// All containers.
    async fn containers(&self) -> Result<Vec<ContainerStatus>, Error>;

    /// One container.
    async fn container(&self, id: &str) -> Result<ContainerStatus, Error>;

    /// Runs a command in a running container to its end; after `limit` kills it and fails with [`Error::Timeout`].
    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<Output, Error>;

    /// Runs a command in a running container.
    async fn exec(&self, id: &str, command: &[String], streams: Streams) -> Result<Session, Error>;

    /// Joins a running container's own streams.
    async fn attach(&self, id: &str, streams: Streams) -> Result<Session, Error>;

    /// Connects to a port on localhost in a sandbox.
    async fn dial(&self, sandbox: &str, port: u16) -> Result<Box<dyn Stream>, Error>;

    /// CNI CHECK of every sandbox, and GC of attachments and addresses that no sandbox has.
    async fn check_networks(&self) -> Vec<(PodRef, Error)>;
}
