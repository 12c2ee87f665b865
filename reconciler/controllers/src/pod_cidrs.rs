//! Gives each node its part of the Pod network (`spec.podCIDR`): the first that is free, in order.
//!
//! What a node has it keeps, be it inside the network or not. A part is free again when its node is gone. Parts that
//! were given a moment ago count as taken until the observed nodes show them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::Cluster;

/// The component that events name.
const SOURCE: &str = "cidrAllocator";
/// Until a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The length of a node's part of an IPv6 network.
const IPV6_LENGTH: u8 = 64;

/// The networks that parts are taken from, and how long the prefix of a part is in each.
#[derive(Clone, Debug)]
pub struct Pool(Vec<(IpNet, u8)>);

impl Pool {
    /// Of the networks, at most one of each family; `length` is that of an IPv4 part.
    pub fn new(networks: &[IpNet], length: u8) -> Self {
        let part = |network: &IpNet| {
            let wanted = if network.addr().is_ipv4() {
                length
            } else {
                IPV6_LENGTH
            };
            // A network that is smaller than a part is one part.
            let wanted = wanted.clamp(network.prefix_len(), network.max_prefix_len());
            (network.trunc(), wanted)
        };
        Self(networks.iter().map(part).collect())
    }
}

/// A node: its name, and the uid that tells it from another of its name.
pub type Key = (String, String);

/// Parts by node.
pub type Given = BTreeMap<Key, Vec<IpNet>>;

/// What is to be done about the nodes without a part.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Which node gets which parts, one of each network.
    pub give: Given,
    /// Nodes that nothing is left for.
    pub exhausted: Vec<Key>,
}

/// The parts that a node has.
pub fn parts(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let all = spec.pod_cidrs.as_deref().unwrap_or_default().iter();
    let mut parts: Vec<IpNet> = all
        .chain(&spec.pod_cidr)
        .filter_map(|text| text.parse().ok())
        .collect();
    parts.dedup();
    parts
}

fn has_none(node: &Node) -> bool {
    node.spec
        .as_ref()
        .is_none_or(|spec| spec.pod_cidr.as_deref().unwrap_or_default().is_empty())
}

/// Plans for all nodes that have none; `given` was written before and need not be observed yet.
pub fn plan(pool: &Pool, nodes: &[Arc<Node>], given: &Given) -> Plan {
    let mut plan = Plan::default();
    if pool.0.is_empty() {
        return plan;
    }
    let mut taken: Vec<IpNet> = nodes.iter().flat_map(|node| parts(node)).collect();
    taken.extend(given.values().flatten().copied());
    let mut without: Vec<Key> = nodes
        .iter()
        .filter(|node| has_none(node) && node.metadata.deletion_timestamp.is_none())
        .map(|node| key(node))
        .filter(|key| !given.contains_key(key))
        .collect();
    without.sort();
    for key in without {
        let found: Option<Vec<IpNet>> = pool.0.iter().map(|part| free(*part, &taken)).collect();
        match found {
            Some(parts) => {
                taken.extend(&parts);
                plan.give.insert(key, parts);
            }
            None => plan.exhausted.push(key),
        }
    }
    plan
}

/// The first part that overlaps nothing taken.
fn free((network, length): (IpNet, u8), taken: &[IpNet]) -> Option<IpNet> {
    let overlaps = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
    network
        .subnets(length)
        .ok()?
        .find(|part| !taken.iter().any(|taken| overlaps(taken, part)))
}

/// Drops what the observed nodes show by now: the node has its part, or is gone.
pub fn forget(given: &mut Given, nodes: &[Arc<Node>]) {
    given.retain(|wanted, _| {
        nodes
            .iter()
            .any(|node| key(node) == *wanted && has_none(node))
    });
}

fn key(node: &Node) -> Key {
    (node.name_any(), node.uid().unwrap_or_default())
}

/// Gives parts until it is dropped.
pub async fn run(cluster: Cluster, pool: Pool) {
    cluster.nodes.ready().await;
    let mut changes = std::pin::pin!(cluster.nodes.changes().ready_chunks(1024));
    let mut given = Given::new();
    let mut unwritten = Given::new();
    let mut exhausted: Vec<Key> = Vec::new();
    loop {
        tokio::select! {
            Some(_) = changes.next() => {}
            () = tokio::time::sleep(AGAIN), if !unwritten.is_empty() => {}
        }
        let nodes = cluster.nodes.all();
        forget(&mut given, &nodes);
        unwritten.retain(|key, _| given.contains_key(key));
        let plan = plan(&pool, &nodes, &given);
        given.extend(plan.give.clone());
        unwritten.extend(plan.give);
        // A write of which the answer was lost may have taken effect: the part stays the node's.
        for (key, parts) in std::mem::take(&mut unwritten) {
            if let Err(error) = write(&cluster, &key, &parts).await {
                tracing::warn!("give node {} its part of the Pod network: {error}", key.0);
                unwritten.insert(key, parts);
            }
        }
        for key in plan.exhausted.iter().filter(|key| !exhausted.contains(key)) {
            let Some(node) = cluster.nodes.get("", &key.0) else {
                continue;
            };
            tracing::warn!("the Pod network has no part left for node {}", key.0);
            let message = format!("Node {} status is now: CIDRNotAvailable", key.0);
            let recorder = &cluster.recorder;
            recorder.normal(SOURCE, node.as_ref(), "CIDRNotAvailable", message);
        }
        exhausted = plan.exhausted;
    }
}

async fn write(cluster: &Cluster, (name, uid): &Key, parts: &[IpNet]) -> kube::Result<()> {
    let patch = json!({
        "metadata": {"uid": uid}, "spec": {"podCIDR": parts.first(), "podCIDRs": parts},
    });
    let api = cluster.api_all::<Node>();
    match api
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        // Gone, replaced, or given a part by somebody else: the observed nodes will show it.
        Err(kube::Error::Api(status)) if [404, 409, 422].contains(&status.code) => {
            tracing::debug!(
                "give node {name} its part of the Pod network: {}",
                status.message
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn node(name: &str, spec: Value) -> Arc<Node> {
        incarnation(name, 0, spec)
    }

    fn incarnation(name: &str, uid: usize, spec: Value) -> Arc<Node> {
        let metadata = json!({"name": name, "uid": uid.to_string()});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    fn first(name: &str) -> Key {
        (name.to_owned(), "0".to_owned())
    }

    fn pool(network: &str, length: u8) -> Pool {
        Pool::new(&[network.parse().unwrap()], length)
    }

    #[test]
    fn the_first_free_part_is_given_and_parts_are_kept() {
        let nodes = [
            node("n1", json!({})),
            node(
                "n2",
                json!({"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}),
            ),
            node("n3", json!({})),
            node("n4", json!({"podCIDR": "10.244.2.128/25"})),
        ];
        let plan = plan(&pool("10.244.0.0/16", 24), &nodes, &Given::new());
        let text: Vec<_> = plan
            .give
            .iter()
            .map(|(name, parts)| format!("{} {}", name.0, parts[0]))
            .collect();
        assert_eq!(text, ["n1 10.244.1.0/24", "n3 10.244.3.0/24"]);
    }

    #[test]
    fn a_full_network_says_so_and_what_was_given_counts() {
        let nodes = ["n1", "n2", "n3"].map(|name| node(name, json!({})));
        let given = Given::from([(first("n1"), vec!["10.0.0.0/24".parse().unwrap()])]);
        let plan = plan(&pool("10.0.0.0/23", 24), &nodes, &given);
        assert_eq!(plan.give[&first("n2")], ["10.0.1.0/24".parse().unwrap()]);
        assert_eq!(plan.exhausted, [first("n3")]);
    }

    #[test]
    fn each_family_has_a_part() {
        let pool = Pool::new(
            &[
                "10.244.0.0/16".parse().unwrap(),
                "fd00:10::/48".parse().unwrap(),
            ],
            24,
        );
        let plan = plan(&pool, &[node("n1", json!({}))], &Given::new());
        let parts: Vec<_> = plan.give[&first("n1")]
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(parts, ["10.244.0.0/24", "fd00:10::/64"]);
    }

    proptest! {
        /// However nodes come, go and are observed, no two have overlapping parts; and in the end each has one.
        #[test]
        fn parts_are_never_shared(steps in prop::collection::vec((0_usize..6, 0_u8..3), 1..60)) {
            let pool = pool("10.0.0.0/21", 24);
            let mut truth: BTreeMap<String, (usize, Option<IpNet>)> = BTreeMap::new();
            let mut seen: BTreeMap<String, Arc<Node>> = BTreeMap::new();
            let mut given = Given::new();
            // At the end all is observed, planned for, and observed.
            let all = |what| (0..6).map(move |which| (which, what));
            let end = all(1).chain([(0, 2)]).chain(all(1));
            for (uid, (which, what)) in steps.into_iter().chain(end).enumerate() {
                let name = format!("n{which}");
                match what {
                    0 => {
                        if truth.remove(&name).is_none() {
                            truth.insert(name, (uid, None));
                        }
                    }
                    1 => {
                        match truth.get(&name) {
                            Some((uid, part)) => {
                                let spec = part.map_or(json!({}), |part| json!({"podCIDR": part}));
                                seen.insert(name.clone(), incarnation(&name, *uid, spec))
                            }
                            None => seen.remove(&name),
                        };
                        let nodes: Vec<_> = seen.values().cloned().collect();
                        forget(&mut given, &nodes);
                    }
                    _ => {
                        let nodes: Vec<_> = seen.values().cloned().collect();
                        for (key, parts) in plan(&pool, &nodes, &given).give {
                            // The server refuses to change a part, or another node of the name.
                            if let Some((uid, part @ None)) = truth.get_mut(&key.0)
                                && uid.to_string() == key.1
                            {
                                *part = Some(parts[0]);
                            }
                            given.insert(key, parts);
                        }
                    }
                }
                let mut parts: Vec<_> = truth.values().filter_map(|(_, part)| *part).collect();
                let count = parts.len();
                parts.sort();
                parts.dedup();
                prop_assert_eq!(parts.len(), count);
            }
            prop_assert!(truth.values().all(|(_, part)| part.is_some()), "{:?}", truth);
        }
    }
}
