//! Which Pods, sandboxes and containers are on this node: kept by the agent, read by the server of logs, exec, attach
//! and port-forward. Cheap to clone; every clone shows the same.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::runtime::{ContainerState, ContainerStatus, PodRef, SandboxStatus};

/// By namespace and name.
type Entries = BTreeMap<(String, String), Arc<Entry>>;

/// The shared handle.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    pods: Arc<RwLock<Entries>>,
}

/// A Pod as last observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The Pod.
    pub pod: PodRef,
    /// Names of its containers, init containers first, and why each that does not run waits: `ContainerCreating`.
    pub names: Vec<(String, String)>,
    /// The first container that is no init container: for requests that name none.
    pub default_container: String,
    /// The newest sandbox.
    pub sandbox: Option<SandboxStatus>,
    /// Every container that exists, newest first for each name.
    pub containers: Vec<ContainerStatus>,
}

/// Why something cannot be had. The texts are those that clients of Kubernetes know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 404.
    #[error("pod {0:?} not found")]
    NoPod(String),
    /// 400: no container of this name in the Pod.
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer {
        /// The container.
        container: String,
        /// The Pod.
        pod: String,
    },
    /// 400: it has not begun yet.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting {
        /// The container.
        container: String,
        /// The Pod.
        pod: String,
        /// `ContainerCreating`
        reason: String,
    },
    /// 400: there was none before the present one.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// The container.
        container: String,
        /// The Pod.
        pod: String,
    },
    /// 404: exec and attach need it running.
    #[error("container not found ({0:?})")]
    NotRunning(String),
    /// The Pod has no sandbox that lives.
    #[error("pod {0:?} has no running sandbox")]
    NoSandbox(String),
}

impl Directory {
    /// The Pod of this name.
    ///
    /// # Errors
    /// [`Error::NoPod`].
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Entry>, Error> {
        self.read()
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
            .ok_or_else(|| Error::NoPod(name.to_owned()))
    }

    /// All Pods.
    pub fn pods(&self) -> Vec<Arc<Entry>> {
        self.read().values().cloned().collect()
    }

    /// Notes what has been observed of a Pod.
    pub fn put(&self, entry: Entry) {
        let key = (entry.pod.namespace.clone(), entry.pod.name.clone());
        self.write().insert(key, Arc::new(entry));
    }

    /// Forgets a Pod, unless another of its name has come.
    pub fn remove(&self, pod: &PodRef) {
        let key = (pod.namespace.clone(), pod.name.clone());
        let mut pods = self.write();
        if pods.get(&key).is_some_and(|entry| entry.pod.uid == pod.uid) {
            pods.remove(&key);
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Entries> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Entries> {
        self.pods.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The container whose log is asked for; an empty name is the default one. `previous`: the one before it.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::Waiting`], [`Error::NoPrevious`].
    pub fn container(&self, name: &str, previous: bool) -> Result<&ContainerStatus, Error> {
        let name = if name.is_empty() {
            &self.default_container
        } else {
            name
        };
        let reason = self
            .names
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, reason)| reason)
            .ok_or_else(|| Error::NoContainer {
                container: name.to_owned(),
                pod: self.pod.name.clone(),
            })?;
        let mut begun = self.containers.iter().filter(|container| {
            container.config.name == name && container.state != ContainerState::Created
        });
        if previous {
            // After a crash the newest is itself the last that has ended.
            let newest = begun.next();
            return begun
                .next()
                .or(newest
                    .filter(|newest| newest.state != ContainerState::Running && !reason.is_empty()))
                .ok_or_else(|| Error::NoPrevious {
                    container: name.to_owned(),
                    pod: self.pod.name.clone(),
                });
        }
        begun.next().ok_or_else(|| Error::Waiting {
            container: name.to_owned(),
            pod: self.pod.name.clone(),
            reason: match reason.as_str() {
                "" => "ContainerCreating",
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            }
            .to_owned(),
        })
    }

    /// The running container to exec in or attach to; an empty name is the default one.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::NotRunning`].
    pub fn running(&self, name: &str) -> Result<&ContainerStatus, Error> {
        let name = if name.is_empty() {
            &self.default_container
        } else {
            name
        };
        if !self.names.iter().any(|(known, _)| known == name) {
            return Err(Error::NoContainer {
                container: name.to_owned(),
                pod: self.pod.name.clone(),
            });
        }
        self.containers
            .iter()
            .find(|container| {
                container.config.name == name && container.state == ContainerState::Running
            })
            .ok_or_else(|| Error::NotRunning(name.to_owned()))
    }

    /// The sandbox that lives, for port-forward.
    ///
    /// # Errors
    /// [`Error::NoSandbox`].
    pub fn live_sandbox(&self) -> Result<&SandboxStatus, Error> {
        self.sandbox
            .as_ref()
            .filter(|sandbox| sandbox.ready)
            .ok_or_else(|| Error::NoSandbox(self.pod.name.clone()))
    }
}
