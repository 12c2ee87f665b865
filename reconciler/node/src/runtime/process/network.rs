//! The sandboxes' networks: CNI for those that have one of their own.
//!
//! The namespace's path is `SANDBOX/netns`, a link to that of the pause process; it is removed when that process has
//! ended, so that a DEL never reaches into the namespace of another process that was given its id.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::cni::{self, Attachment, Cni};
use crate::runtime::{Error, Event, SandboxConfig};

const INTERFACE: &str = "eth0";

pub(super) struct Network {
    cni: Option<Arc<Cni>>,
    node_ips: Vec<IpAddr>,
}

impl Network {
    pub(super) fn new(config: Option<cni::Config>, node_ips: Vec<IpAddr>) -> Self {
        Self {
            cni: config.map(|config| Arc::new(Cni::new(config))),
            node_ips,
        }
    }

    pub(super) async fn unready(&self) -> Option<String> {
        self.cni.as_ref()?.unready().await
    }

    pub(super) fn watch(&self, events: mpsc::Sender<Event>) {
        if let Some(cni) = self.cni.clone() {
            tokio::spawn(async move { cni.watch(&events).await });
        }
    }

    /// Attaches a sandbox; its addresses.
    pub(super) async fn add(
        &self,
        id: &str,
        netns: &Path,
        config: &SandboxConfig,
    ) -> Result<Vec<IpAddr>, Error> {
        match &self.cni {
            _ if config.host_network => Ok(self.node_ips.clone()),
            Some(cni) => Ok(cni.add(&Attachment::of(id, netns, config)).await?.ips),
            None => Ok(Vec::new()),
        }
    }

    /// Detaches it; nothing to do if it is not attached.
    pub(super) async fn del(&self, id: &str, config: &SandboxConfig) -> Result<(), Error> {
        match &self.cni {
            Some(cni) if !config.host_network => cni.del(id, INTERFACE).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn check(&self, id: &str, config: &SandboxConfig) -> Result<(), Error> {
        match &self.cni {
            Some(cni) if !config.host_network => cni.check(id, INTERFACE).await,
            _ => Ok(()),
        }
    }

    /// Detaches all but these, and what plugins hold for none of them.
    pub(super) async fn keep(&self, ids: &BTreeSet<String>) -> Result<(), Error> {
        match &self.cni {
            Some(cni) => cni.gc(|id| ids.contains(id)).await,
            None => Ok(()),
        }
    }
}
