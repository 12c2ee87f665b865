//! The steps before the first lease where leases come from Kubernetes.

use std::path::Path;
use std::sync::Arc;

use super::{NO_STORE, Waiting};
use crate::cli::IfaceOptions;
use crate::config::NetworkConfig;
use crate::health::{Health, Part};
use crate::kubernetes::annotations::{NODE_PUBLIC_IP, NODE_PUBLIC_IPV6};
use crate::kubernetes::api::{Change, Scope};
use crate::kubernetes::{Annotations, Node, Nodes, Settings};
use crate::lease::Lease;
use crate::lease::store::Error;

/// The network configuration's file.
pub fn read_config(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Unavailable(format!(
            "read {}: {error}",
            path.display()
        ))),
    }
}

/// Waits until it is known where the API server is and which Node is ours.
pub async fn connect(settings: &Settings, health: &Health) -> Nodes {
    let mut waiting = Waiting::default();
    loop {
        match Nodes::connect(settings, Arc::clone(&health.metrics)).await {
            Ok(nodes) => {
                let (server, own) = (nodes.server(), nodes.own_name());
                tracing::info!("leases come from {server}; our Node is {own}");
                return nodes;
            }
            Err(error) => {
                let why = format!("{error:#}");
                let kind = "the API server cannot be used";
                waiting.pause(health, Part::Store, kind, why).await;
            }
        }
    }
}

/// Waits until our Node is there and has a podCIDR that can be used. flannel ends without one; here a Node
/// that is given its podCIDR late, or another one, is served at once.
pub async fn own_node(nodes: &Nodes, config: &NetworkConfig, health: &Health) -> Node {
    let mut waiting = Waiting::default();
    loop {
        match usable(nodes, config, health).await {
            Ok(Some(node)) => return node,
            Ok(None) => {}
            Err(error) => {
                let why = error.to_string();
                waiting.pause(health, Part::Store, NO_STORE, why).await;
            }
        }
    }
}

/// `None` when the server has ended the watch.
async fn usable(
    nodes: &Nodes,
    config: &NetworkConfig,
    health: &Health,
) -> Result<Option<Node>, Error> {
    let name = nodes.own_name();
    let (mut own, revision) = nodes.own().await?;
    health.set(Part::Store, Ok(()));
    let mut watch = None;
    loop {
        let why = match own.as_ref().map(|node| node.subnet(config)) {
            Some(Ok(_)) => return Ok(own),
            Some(Err(why)) => format!("Node {name}: {why}"),
            None => format!("Node {name} is not there: register it, or set NODE_NAME to its name"),
        };
        if health.set(Part::Lease, Err(why.clone())) {
            tracing::warn!("waiting for a subnet: {why}");
        }
        let watch = match &mut watch {
            Some(watch) => watch,
            None => watch.insert(nodes.watch(Scope::Own, &revision).await?),
        };
        own = match watch.next().await? {
            None => return Ok(None),
            Some(Change::Nothing(_)) => own,
            Some(Change::Set(node)) => Some(*node),
            Some(Change::Gone(_)) => None,
        };
    }
}

/// The operator's annotations of our Node replace `--public-ip` and `--public-ipv6`.
pub fn choose_addresses(iface: &mut IfaceOptions, names: &Annotations, own: &Node) {
    let v4 = own.address(names, NODE_PUBLIC_IP);
    let v6 = own.address(names, NODE_PUBLIC_IPV6);
    for error in [v4.as_ref().err(), v6.as_ref().err()].into_iter().flatten() {
        tracing::warn!("{error}; it is ignored");
    }
    if let Ok(Some(ip)) = v4 {
        tracing::info!("announcing {ip}, as {} says", names.name(NODE_PUBLIC_IP));
        iface.public_ip = Some(ip);
    }
    if let Ok(Some(ip)) = v6 {
        tracing::info!("announcing {ip}, as {} says", names.name(NODE_PUBLIC_IPV6));
        iface.public_ipv6 = Some(ip);
    }
}

/// What our Node announced in an earlier life, so that the backend can keep its MAC.
pub fn previous(names: &Annotations, config: &NetworkConfig, own: &Node) -> Option<Lease> {
    let lease = own.lease(names, config)?;
    let lease = lease.inspect_err(|why| tracing::warn!("what our Node announced before: {why}"));
    lease.ok()
}
