//! The health ports of Services (`healthCheckNodePort`): a load balancer outside asks there whether
//! this node has endpoints of a Service whose external policy is Local.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;
use tokio::task::JoinHandle;

use super::Health;
use super::pages::json_answer;
use super::server::{self, Answer, Purpose};
use crate::model::{Family, NodePortAddresses, ObjectName};

/// The weight that a balancer may give this node.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// The listeners of one family. Dropping it closes them.
#[derive(Debug)]
pub struct NodePortHealth {
    family: Family,
    health: Arc<Health>,
    listeners: BTreeMap<(ObjectName, SocketAddr), Listener>,
}

#[derive(Debug)]
struct Listener {
    local_endpoints: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NodePortHealth {
    /// No listener yet.
    pub fn new(family: Family, health: Arc<Health>) -> Self {
        Self {
            family,
            health,
            listeners: BTreeMap::new(),
        }
    }

    /// Opens, changes and closes listeners, so that each Service of `services` (its port, and how
    /// many of its endpoints on this node are ready, by distinct address) answers on the addresses
    /// of node ports; those that stay are not touched. An address that cannot be bound is logged,
    /// counted and tried again every five seconds.
    pub async fn update(
        &mut self,
        addresses: &NodePortAddresses,
        services: &BTreeMap<ObjectName, (u16, usize)>,
    ) {
        let mut wanted = BTreeMap::new();
        for (name, (port, count)) in services {
            for ip in self.addresses(addresses) {
                wanted.insert((name.clone(), SocketAddr::new(ip, *port)), *count);
            }
        }
        let listeners = std::mem::take(&mut self.listeners);
        for (key, mut listener) in listeners {
            if wanted.contains_key(&key) {
                self.listeners.insert(key, listener);
            } else {
                // Waited for, so that another Service can have the port at once. It ends by being
                // cancelled, which is an error to tokio only.
                listener.task.abort();
                let _ = (&mut listener.task).await;
            }
        }
        for ((name, address), count) in wanted {
            let key = (name, address);
            match self.listeners.get(&key) {
                Some(listener) => listener.local_endpoints.store(count, Relaxed),
                None => {
                    let listener = self.listen(&key.0, address, count);
                    self.listeners.insert(key, listener);
                }
            }
        }
    }

    fn addresses(&self, addresses: &NodePortAddresses) -> Vec<IpAddr> {
        match (addresses, self.family) {
            (NodePortAddresses::All, Family::V4) => vec![Ipv4Addr::UNSPECIFIED.into()],
            (NodePortAddresses::All, Family::V6) => vec![Ipv6Addr::UNSPECIFIED.into()],
            (NodePortAddresses::Some(some), family) => {
                let some = some.iter().copied();
                some.filter(|ip| Family::of(*ip) == family).collect()
            }
        }
    }

    fn listen(&self, name: &ObjectName, address: SocketAddr, count: usize) -> Listener {
        let local_endpoints = Arc::new(AtomicUsize::new(count));
        let purpose = Purpose {
            metric: "node_port_health",
            text: format!("the health of {name} (healthCheckNodePort)"),
            address,
            only_v6: true,
        };
        let pages = {
            let (name, health) = (name.clone(), Arc::clone(&self.health));
            let local_endpoints = Arc::clone(&local_endpoints);
            Arc::new(move |_: &str| answer(&name, &health, local_endpoints.load(Relaxed)))
        };
        let metrics = Arc::clone(&self.health.metrics);
        let kept = server::keep(purpose, pages, metrics, false);
        let task = tokio::spawn(async move {
            match kept.await {
                Ok(never) => match never {},
                Err(error) => tracing::error!("{error:#}"),
            }
        });
        Listener {
            local_endpoints,
            task,
        }
    }
}

/// As kube-proxy answers, to any path.
fn answer(name: &ObjectName, health: &Health, local_endpoints: usize) -> Answer {
    let proxy_healthy = health.report().healthy;
    let body = json!({
        "service": { "namespace": name.namespace.as_ref(), "name": name.name.as_ref() },
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": proxy_healthy,
    });
    let mut answer = json_answer(&body, local_endpoints > 0 && proxy_healthy);
    answer
        .headers
        .push((WEIGHT, HeaderValue::from(local_endpoints)));
    answer
}

#[cfg(test)]
mod tests;
