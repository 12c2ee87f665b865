//! The Service `kube-dns`, and behind it the nodes that run the cluster DNS.
//!
//! A node says so by the label [`SERVES`], and counts while it is Ready. Pods ask the server on their own node first,
//! at an address that needs no Service; this one is for when that is away, and for whoever knows the usual name.
//! A Service of the name that is there already is left as it is, and so are EndpointSlices of others.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::kept::{Kept, Kind};

/// The label of a node that runs the cluster DNS; its value is `true`.
pub const SERVES: &str = "weft.dev/cluster-dns";
const NAMESPACE: &str = "kube-system";
/// Of the Service; slices are called after it.
const NAME: &str = "kube-dns";
const MANAGER: &str = "cluster-dns.weft.dev";
/// Until a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Named as in Kubernetes' own add-on, `(name, protocol, number)`.
const PORTS: [(&str, &str, u16); 3] = [
    ("dns", "UDP", 53),
    ("dns-tcp", "TCP", 53),
    ("metrics", "TCP", 9153),
];

/// The Service, at these addresses: one for each family of the Service network.
pub fn service(addresses: &[IpAddr]) -> Value {
    let ports = PORTS.map(|(name, protocol, port)| {
        json!({"name": name, "protocol": protocol, "port": port, "targetPort": port})
    });
    json!({
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {
            "k8s-app": NAME, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
        }},
        "spec": {
            "clusterIP": addresses.first(), "clusterIPs": addresses, "ports": ports,
            "ipFamilyPolicy": if addresses.len() > 1 { "RequireDualStack" } else { "SingleStack" },
        },
    })
}

/// The slice of a family that is wanted for these nodes; none if no node has an address of it.
///
/// # Errors
/// It is no EndpointSlice: a defect.
pub fn slice(nodes: &[Arc<Node>], v4: bool) -> serde_json::Result<Option<EndpointSlice>> {
    let mut serving: Vec<(String, IpAddr)> = nodes
        .iter()
        .filter(|node| {
            node.labels()
                .get(SERVES)
                .is_some_and(|value| value == "true")
        })
        .filter(|node| is_ready(node))
        .filter_map(|node| Some((node.name_any(), address(node, v4)?)))
        .collect();
    serving.sort();
    if serving.is_empty() {
        return Ok(None);
    }
    let endpoints: Vec<_> = serving
        .iter()
        .map(|(node, ip)| {
            let conditions = json!({"ready": true, "serving": true, "terminating": false});
            json!({"addresses": [ip], "conditions": conditions, "nodeName": node})
        })
        .collect();
    let ports = PORTS
        .map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}));
    let family = if v4 { "IPv4" } else { "IPv6" };
    serde_json::from_value(json!({
        "metadata": {"name": slice_name(v4), "namespace": NAMESPACE, "labels": {
            "kubernetes.io/service-name": NAME, "endpointslice.kubernetes.io/managed-by": MANAGER, "k8s-app": NAME,
        }},
        "addressType": family, "endpoints": endpoints, "ports": ports,
    }))
    .map(Some)
}

fn slice_name(v4: bool) -> &'static str {
    if v4 {
        "kube-dns-nodes-ipv4"
    } else {
        "kube-dns-nodes-ipv6"
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
    })
}

fn address(node: &Node, v4: bool) -> Option<IpAddr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|one| one.type_ == "InternalIP");
    internal
        .filter_map(|one| one.address.parse().ok())
        .find(|ip: &IpAddr| ip.is_ipv4() == v4)
}

/// Keeps the Service and its slices until it is dropped; without addresses there is none.
pub async fn run(cluster: Cluster, addresses: Vec<IpAddr>) {
    if addresses.is_empty() {
        std::future::pending::<()>().await;
    }
    cluster.nodes.ready().await;
    cluster.services.ready().await;
    cluster.endpoint_slices.ready().await;
    let all = futures_util::stream::select_all([
        ours(&cluster.services).boxed(),
        ours(&cluster.endpoint_slices).boxed(),
        cluster.nodes.changes().map(drop).boxed(),
    ]);
    let mut changes = std::pin::pin!(all.ready_chunks(1024));
    let mut said = None;
    loop {
        let done = settle(&cluster, &addresses).await;
        let failed = done.err().map(|error| error.to_string());
        if let Some(error) = failed
            .as_ref()
            .filter(|error| said.as_ref() != Some(*error))
        {
            tracing::warn!(
                "make Service {NAMESPACE}/{NAME} for the cluster DNS: {error}; trying again"
            );
        }
        said = failed;
        tokio::select! {
            Some(_) = changes.next() => {}
            () = tokio::time::sleep(AGAIN), if said.is_some() => {}
        }
    }
}

/// Whenever the Service, or a slice that is called after it, has changed.
fn ours<K: Kind>(kept: &Kept<K>) -> impl Stream<Item = ()> + Send + use<K> {
    kept.changes().filter_map(|change| {
        let is = change.latest().is_some_and(|object| {
            object.namespace().as_deref() == Some(NAMESPACE) && object.name_any().starts_with(NAME)
        });
        std::future::ready(is.then_some(()))
    })
}

/// Writes what differs.
async fn settle(cluster: &Cluster, addresses: &[IpAddr]) -> kube::Result<()> {
    if cluster.services.get(NAMESPACE, NAME).is_none() {
        let service: Service =
            serde_json::from_value(service(addresses)).map_err(kube::Error::SerdeError)?;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match cluster
            .api::<Service>(NAMESPACE)
            .create(&params, &service)
            .await
        {
            Ok(made) => cluster.services.seen(&made).await,
            // It is about to be seen.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(error) => return Err(error),
        }
    }
    let nodes = cluster.nodes.all();
    let api = cluster.api::<EndpointSlice>(NAMESPACE);
    for v4 in [true, false] {
        let known = cluster.endpoint_slices.get(NAMESPACE, slice_name(v4));
        match (slice(&nodes, v4).map_err(kube::Error::SerdeError)?, known) {
            (Some(wanted), known)
                if known.as_deref().is_none_or(|known| differ(&wanted, known)) =>
            {
                let params = PatchParams::apply(FIELD_MANAGER).force();
                let written = api
                    .patch(slice_name(v4), &params, &Patch::Apply(&wanted))
                    .await?;
                cluster.endpoint_slices.seen(&written).await;
            }
            (None, Some(known)) => {
                match api.delete(slice_name(v4), &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => drop(other?),
                }
                cluster.endpoint_slices.seen_gone(&known).await;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the slice has to be written.
fn differ(wanted: &EndpointSlice, known: &EndpointSlice) -> bool {
    wanted.endpoints != known.endpoints
        || wanted.ports != known.ports
        || wanted
            .labels()
            .iter()
            .any(|(key, value)| known.labels().get(key) != Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, label: &str, ready: &str, ip: &str) -> Arc<Node> {
        let status = json!({
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}],
        });
        let metadata = json!({"name": name, "labels": {SERVES: label}});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap())
    }

    fn serving(nodes: &[Arc<Node>], v4: bool) -> Vec<String> {
        let slice = slice(nodes, v4).unwrap();
        let endpoints = slice
            .into_iter()
            .filter_map(|slice| slice.endpoints)
            .flatten();
        endpoints.flat_map(|endpoint| endpoint.addresses).collect()
    }

    #[test]
    fn ready_nodes_that_say_so_serve() {
        let nodes = [
            node("n3", "true", "True", "10.0.0.3"),
            node("n1", "true", "True", "10.0.0.1"),
            node("n2", "true", "Unknown", "10.0.0.2"),
            node("n4", "false", "True", "10.0.0.4"),
            node("n5", "true", "True", "fd00::5"),
        ];
        assert_eq!(serving(&nodes, true), ["10.0.0.1", "10.0.0.3"]);
        assert_eq!(serving(&nodes, false), ["fd00::5"]);
        assert!(
            slice(&nodes[3..4], true).unwrap().is_none(),
            "an empty slice is none"
        );
    }

    #[test]
    fn a_slice_as_it_was_written_is_not_written_again() {
        let nodes = [node("n1", "true", "True", "10.0.0.1")];
        let one = slice(&nodes, true).unwrap().unwrap();
        let mut other = one.clone();
        other.metadata.resource_version = Some("5".to_owned());
        assert!(!differ(&one, &other));
        other.endpoints = None;
        assert!(differ(&one, &other));
    }

    #[test]
    fn the_service_is_the_usual_one() {
        let service: Service =
            serde_json::from_value(service(&["10.96.0.10".parse().unwrap()])).unwrap();
        let spec = service.spec.unwrap();
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.10"));
        let ports: Vec<_> = spec
            .ports
            .unwrap_or_default()
            .iter()
            .map(|port| port.port)
            .collect();
        assert_eq!(ports, [53, 53, 9153]);
        assert!(spec.selector.is_none(), "its endpoints are nodes");
    }
}
