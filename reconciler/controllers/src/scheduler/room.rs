//! What a node has, and what is left of it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, Node, Pod, Taint};

use crate::placement::{affinity, amount, amount::Amounts, taints};

const NANO: u128 = 1_000_000_000;
/// What a Pod that asks for nothing is taken to use when nodes are compared, as in Kubernetes: 0.1 CPU, 200 MB.
const USUAL: [(&str, u128); 2] = [("cpu", NANO / 10), ("memory", 200_000_000 * NANO)];

/// A Pod, read for being placed.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The object.
    pub pod: &'a Pod,
    /// The nodes that its claims are on.
    pub homes: Vec<String>,
    asks: Amounts,
    ports: Vec<HostPort>,
    owner: Option<String>,
}

/// A port of a node that a Pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    fn of(port: &ContainerPort) -> Option<Self> {
        let number = port.host_port.filter(|number| *number > 0)?;
        let or = |field: &Option<String>, other: &str| {
            let field = field.as_deref().filter(|text| !text.is_empty());
            field.unwrap_or(other).to_owned()
        };
        Some(Self {
            ip: or(&port.host_ip, "0.0.0.0"),
            protocol: or(&port.protocol, "TCP"),
            port: number,
        })
    }

    fn clashes(&self, other: &Self) -> bool {
        let everywhere = |ip: &str| ["0.0.0.0", "::"].contains(&ip);
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || everywhere(&self.ip) || everywhere(&other.ip))
    }
}

impl<'a> Wanted<'a> {
    /// Reads a Pod.
    pub fn of(pod: &'a Pod) -> Self {
        let spec = pod.spec.as_ref();
        let containers = spec.map(|spec| {
            let starting = spec.init_containers.iter().flatten();
            let starting = starting.filter(|one| one.restart_policy.as_deref() == Some("Always"));
            spec.containers.iter().chain(starting)
        });
        let ports = containers.into_iter().flatten();
        let ports = ports.flat_map(|container| container.ports.iter().flatten());
        let owners = pod.metadata.owner_references.iter().flatten();
        Self {
            pod,
            homes: Vec::new(),
            asks: amount::requests(pod),
            ports: ports.filter_map(HostPort::of).collect(),
            owner: owners
                .filter(|owner| owner.controller == Some(true))
                .map(|owner| owner.uid.clone())
                .next(),
        }
    }
}

/// A node, and what is taken of it.
#[derive(Debug)]
pub struct Room<'a> {
    /// The object.
    pub node: &'a Node,
    /// Its name.
    pub name: &'a str,
    taints: Vec<Taint>,
    has: Amounts,
    taken: Amounts,
    /// `taken`, with what is usual for Pods that ask for nothing.
    likely: Amounts,
    ports: Vec<HostPort>,
    pods: u32,
    /// Pods by the uid of what controls them.
    owners: BTreeMap<String, u32>,
}

impl<'a> Room<'a> {
    /// An empty node.
    pub fn of(node: &'a Node) -> Self {
        let status = node.status.as_ref();
        let has =
            status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        Self {
            node,
            name: node.metadata.name.as_deref().unwrap_or_default(),
            taints: taints::of(node),
            has: amount::amounts(has),
            taken: Amounts::new(),
            likely: Amounts::new(),
            ports: Vec::new(),
            pods: 0,
            owners: BTreeMap::new(),
        }
    }

    /// Puts a Pod on it, whether there is room or not.
    pub fn take(&mut self, wanted: &Wanted<'_>) {
        amount::add(&mut self.taken, &wanted.asks);
        amount::add(&mut self.likely, &likely(&wanted.asks));
        self.ports.extend(wanted.ports.iter().cloned());
        self.pods += 1;
        if let Some(owner) = &wanted.owner {
            *self.owners.entry(owner.clone()).or_default() += 1;
        }
    }

    /// Why a Pod cannot be here: the reasons of the first rule that it breaks, as Kubernetes words them; none if it can.
    pub fn refuses(&self, wanted: &Wanted<'_>) -> Vec<String> {
        let spec = wanted.pod.spec.as_ref();
        let tolerations = spec
            .and_then(|spec| spec.tolerations.as_deref())
            .unwrap_or_default();
        let effects = [taints::NO_SCHEDULE, taints::NO_EXECUTE];
        let cordoned = self
            .taints
            .iter()
            .filter(|taint| taint.key == taints::UNSCHEDULABLE);
        let cordoned: Vec<_> = cordoned.cloned().collect();
        if taints::untolerated(&cordoned, tolerations, &effects).is_some() {
            return vec!["node(s) were unschedulable".to_owned()];
        }
        if taints::untolerated(&self.taints, tolerations, &effects).is_some() {
            return vec!["node(s) had untolerated taint(s)".to_owned()];
        }
        if !affinity::allows(wanted.pod, self.node) {
            return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
        }
        if wanted.homes.iter().any(|home| home != self.name) {
            return vec!["node(s) didn't match PersistentVolume's node affinity".to_owned()];
        }
        let taken = |port: &HostPort| self.ports.iter().any(|other| other.clashes(port));
        if wanted.ports.iter().any(taken) {
            return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
        }
        let mut reasons = Vec::new();
        let most = self.has.get("pods").copied().unwrap_or(0);
        if u128::from(self.pods + 1) * NANO > most {
            reasons.push("Too many pods".to_owned());
        }
        for (name, amount) in &wanted.asks {
            let left = self.has.get(name).copied().unwrap_or(0);
            let left = left.saturating_sub(self.taken.get(name).copied().unwrap_or(0));
            if *amount > left {
                reasons.push(format!("Insufficient {name}"));
            }
        }
        reasons
    }

    /// How much of its CPU and memory is left with the Pod on it, of 100.
    pub fn free(&self, wanted: &Wanted<'_>) -> i64 {
        let asks = likely(&wanted.asks);
        let shares = USUAL.map(|(name, _)| {
            let has = self.has.get(name).copied().unwrap_or(0);
            let taken = self.likely.get(name).copied().unwrap_or(0);
            let left = has
                .saturating_sub(taken)
                .saturating_sub(asks.get(name).copied().unwrap_or(0));
            i64::try_from((left * 100).checked_div(has).unwrap_or(0)).unwrap_or(0)
        });
        (shares[0] + shares[1]) / 2
    }

    /// How many Pods of the same owner are here.
    pub fn siblings(&self, wanted: &Wanted<'_>) -> i64 {
        let owner = wanted.owner.as_ref();
        owner
            .and_then(|owner| self.owners.get(owner))
            .map_or(0, |count| i64::from(*count))
    }

    /// How many taints would rather have the Pod elsewhere.
    pub fn dislikes(&self, wanted: &Wanted<'_>) -> i64 {
        let spec = wanted.pod.spec.as_ref();
        let tolerations = spec
            .and_then(|spec| spec.tolerations.as_deref())
            .unwrap_or_default();
        let unwanted = self.taints.iter().filter(|taint| {
            taint.effect == taints::PREFER_NO_SCHEDULE
                && !tolerations.iter().any(|one| taints::tolerates(one, taint))
        });
        i64::try_from(unwanted.count()).unwrap_or(i64::MAX)
    }

    /// How many Pods are here.
    pub fn pods(&self) -> u32 {
        self.pods
    }
}

fn likely(asks: &Amounts) -> Amounts {
    USUAL
        .iter()
        .map(|(name, usual)| {
            let asked = asks.get(*name).copied().filter(|amount| *amount > 0);
            ((*name).to_owned(), asked.unwrap_or(*usual))
        })
        .collect()
}
