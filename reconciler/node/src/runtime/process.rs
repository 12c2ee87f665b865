//! A runtime without a daemon: containers are processes in namespaces, looked after by shims that outlive the agent.
//!
//! Everything is on disk (see [`record`]) and in processes; an agent that comes back connects to their sockets and
//! sees them end. No mount, namespace or cgroup is held by anything but these processes, but for the cgroups' folders,
//! which the next [`Process::open`] removes. So `kill -9` of anything at any moment leaves nothing behind.
//!
//! What is not here: user namespaces, seccomp, AppArmor and SELinux, device cgroups, `Bidirectional` mounts, image
//! registries. On a read-only root of the node's own (`image: host`) mount points cannot be made below further file
//! systems of the node.

mod adopt;
mod cgroup;
mod container;
mod frame;
mod image;
mod log;
mod network;
mod proc;
mod record;
mod sandbox;
mod session;
mod socket;
mod stage;
mod start;
mod stop;
mod sys;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use nix::fcntl::Flock;
use tokio::sync::mpsc;

use super::{
    ContainerConfig, ContainerStatus, Error, Event, Image, Output, PodRef, Runtime, SandboxConfig,
    SandboxStatus, Session, Stream, Streams,
};
use crate::cni;
pub use stage::run as stage;

/// Where things are, and how much there may be of them.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the runtime keeps; of this node alone: `/var/lib/weft/n1/runtime`.
    pub root: PathBuf,
    /// Where images are looked for: `NAME` as a folder, `NAME.tar`.
    pub images: PathBuf,
    /// Containers' logs: `LOGS/NAMESPACE_POD_UID/CONTAINER/ATTEMPT.log`, as `/var/log/pods` has them.
    pub logs: PathBuf,
    /// Program and first arguments that lead to [`stage`]: `["/proc/self/exe"]`.
    pub stage: Vec<OsString>,
    /// Below which the containers' cgroups are, of this node alone: `weft/n1`.
    pub cgroup: String,
    /// Paths that `image: host` hides: the node's credentials and data. The runtime's root and images always are.
    pub masked: Vec<PathBuf>,
    /// Whether an absolute path of a folder may be an image.
    pub folders: bool,
    /// A log is rotated at this size in bytes.
    pub log_max_size: u64,
    /// So many files of a log are kept.
    pub log_max_files: u32,
    /// The Pods' network; without it they have `lo` and nothing else.
    pub cni: Option<cni::Config>,
    /// What Pods with `hostNetwork` have as addresses.
    pub node_ips: Vec<IpAddr>,
}

impl Config {
    /// The usual sizes, no CNI, this program itself for the stages, everything below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            images: root.join("images-source"),
            logs: root.join("logs"),
            root,
            stage: vec!["/proc/self/exe".into()],
            cgroup: "weft".into(),
            masked: Vec::new(),
            folders: false,
            log_max_size: 10 << 20,
            log_max_files: 5,
            cni: None,
            node_ips: Vec::new(),
        }
    }
}

/// The process runtime. Clones are the same one.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    cgroups: cgroup::Cgroups,
    images: image::Images,
    network: network::Network,
    sandboxes: Mutex<BTreeMap<String, sandbox::Sandbox>>,
    containers: Mutex<BTreeMap<String, container::Container>>,
    events: Mutex<Option<mpsc::Sender<Event>>>,
    /// A network could not be unmade, and is to be tried again.
    owes_networks: AtomicBool,
    _lock: Flock<File>,
}

impl Inner {
    fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<String, sandbox::Sandbox>> {
        lock(&self.sandboxes)
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, container::Container>> {
        lock(&self.containers)
    }

    fn sandbox_folder(&self, id: &str) -> PathBuf {
        self.config.root.join("sandboxes").join(id)
    }

    fn container_folder(&self, id: &str) -> PathBuf {
        self.config.root.join("containers").join(id)
    }

    async fn tell(&self, event: Event) {
        let sender = lock(&self.events).clone();
        if let Some(sender) = sender {
            // A receiver that is gone wants to know nothing more.
            let _ = sender.send(event).await;
        }
    }
}

/// What a lock protects is consistent between statements, also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs what blocks, but not for long, on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Failed(format!("a thread of the runtime: {error}"))),
    }
}

/// Does a thing to its end, also if whoever waits for it waits no longer: half-done things are hard to take up again.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Failed(format!("a task of the runtime: {error}"))),
    }
}

/// An error that trying again may mend: what was tried, and the cause.
fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Error {
    move |error| Error::Failed(format!("{what}: {error}"))
}

/// A new path-safe name, unique on the node.
fn new_id() -> String {
    format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..))
}

impl Process {
    /// Opens the runtime: finds what runs, learns what has ended meanwhile, removes what was half made.
    ///
    /// Must be called within a tokio runtime with I/O and time; one runtime a root at a time.
    ///
    /// # Errors
    /// The root cannot be made or read.
    pub async fn open(config: Config) -> Result<Self, Error> {
        adopt::open(config).await
    }

    /// Ends and removes everything of a root, also of an agent that is dead: processes, networks, cgroups, files.
    ///
    /// # Errors
    /// What could not be removed; the rest is.
    pub async fn destroy_all(config: Config) -> Result<(), Error> {
        adopt::destroy(config).await
    }
}

#[async_trait]
impl Runtime for Process {
    fn name(&self) -> (&'static str, &'static str) {
        ("weft", env!("CARGO_PKG_VERSION"))
    }

    async fn network_unready(&self) -> Option<String> {
        self.inner.network.unready().await
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(1024);
        self.inner.network.watch(sender.clone());
        *lock(&self.inner.events) = Some(sender);
        receiver
    }

    async fn ensure_image(&self, name: &str, always: bool) -> Result<Image, Error> {
        let (inner, name) = (self.inner.clone(), name.to_owned());
        blocking(move || inner.images.ensure(&name, always)).await
    }

    async fn images(&self) -> Result<Vec<(Vec<String>, u64)>, Error> {
        let inner = self.inner.clone();
        blocking(move || inner.images.list()).await
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, Error> {
        let (inner, config) = (self.inner.clone(), config.clone());
        whole(async move { inner.run_sandbox(&config).await }).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        whole(async move { inner.stop_sandbox(&id).await }).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        whole(async move { inner.remove_sandbox(&id).await }).await
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, Error> {
        Ok(self
            .inner
            .sandboxes()
            .values()
            .map(sandbox::Sandbox::status)
            .collect())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
    ) -> Result<String, Error> {
        let (inner, sandbox, config) = (self.inner.clone(), sandbox.to_owned(), config.clone());
        blocking(move || inner.create_container(&sandbox, config)).await
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        whole(async move { inner.start_container(&id).await }).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        self.inner.stop_container(id, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        whole(async move { inner.remove_container(&id).await }).await
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>, Error> {
        Ok(self
            .inner
            .containers()
            .values()
            .map(container::Container::status)
            .collect())
    }

    async fn container(&self, id: &str) -> Result<ContainerStatus, Error> {
        let containers = self.inner.containers();
        let found = containers.get(id).map(container::Container::status);
        found.ok_or_else(|| container::unknown(id))
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<Output, Error> {
        self.inner.exec_sync(id, command, limit).await
    }

    async fn exec(&self, id: &str, command: &[String], streams: Streams) -> Result<Session, Error> {
        self.inner.exec(id, command, streams).await
    }

    async fn attach(&self, id: &str, streams: Streams) -> Result<Session, Error> {
        self.inner.attach(id, streams).await
    }

    async fn dial(&self, sandbox: &str, port: u16) -> Result<Box<dyn Stream>, Error> {
        self.inner.dial(sandbox, port).await
    }

    async fn check_networks(&self) -> Vec<(PodRef, Error)> {
        self.inner.check_networks().await
    }
}
