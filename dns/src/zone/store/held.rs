//! Objects as the store holds them.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Endpoint, ObjectName, Pod, Port, Target};

/// What is known of one Service: itself, its slices, or both.
#[derive(Debug)]
pub(in crate::zone) struct Entry {
    pub(in crate::zone) name: ObjectName,
    /// The Service, if it has been told.
    pub(in crate::zone) front: Option<Front>,
    /// Numbers of its slices.
    pub(super) slices: Vec<u32>,
}

/// A Service without its name.
#[derive(Debug)]
pub(in crate::zone) struct Front {
    pub(in crate::zone) target: Target,
    pub(in crate::zone) ports: Box<[Port]>,
    pub(in crate::zone) publish_not_ready: bool,
    /// The list, or the time after it, that it was told in.
    pub(super) round: u32,
}

impl Front {
    /// The endpoint has names. Those of an ExternalName Service never have: its own name is another's.
    pub(in crate::zone) fn takes(&self, host: &Host) -> bool {
        (host.ready || self.publish_not_ready) && !matches!(self.target, Target::External(_))
    }
}

/// An EndpointSlice.
#[derive(Debug)]
pub(in crate::zone) struct Held {
    pub(in crate::zone) name: Arc<str>,
    /// Number of its entry.
    pub(in crate::zone) entry: u32,
    /// Sorted.
    pub(in crate::zone) hosts: Box<[Host]>,
    pub(in crate::zone) ports: Box<[Port]>,
    /// The list, or the time after it, that it was told in.
    pub(super) round: u32,
}

impl Held {
    /// The hosts of this name.
    pub(in crate::zone) fn named(&self, label: &str) -> &[Host] {
        self.between(|host| host.hostname.as_deref().cmp(&Some(label)))
    }

    /// The hosts of this address that have no name.
    pub(in crate::zone) fn unnamed(&self, ip: IpAddr) -> &[Host] {
        self.between(|host| match host.hostname {
            Some(_) => Ordering::Greater,
            None => host.address.cmp(&ip),
        })
    }

    /// Those that compare equal.
    fn between(&self, compare: impl Fn(&Host) -> Ordering) -> &[Host] {
        let first = self.hosts.partition_point(|host| compare(host).is_lt());
        let end = self.hosts.partition_point(|host| compare(host).is_le());
        self.hosts.get(first..end).unwrap_or_default()
    }
}

/// One address of an endpoint. Ordered by host name, so that a host name is found quickly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::zone) struct Host {
    /// The host name that the Pod asked for.
    pub(in crate::zone) hostname: Option<Arc<str>>,
    pub(in crate::zone) address: IpAddr,
    pub(in crate::zone) ready: bool,
}

/// A Pod.
#[derive(Debug)]
pub(super) struct HeldPod {
    pub(super) pod: Pod,
    /// The list, or the time after it, that it was told in.
    pub(super) round: u32,
}

/// The addresses of endpoints, sorted, each once.
pub(super) fn hosts(endpoints: &[Endpoint]) -> Box<[Host]> {
    let hosts = endpoints.iter().flat_map(|endpoint| {
        endpoint.addresses.iter().map(|&address| Host {
            hostname: endpoint.hostname.clone(),
            address,
            ready: endpoint.ready,
        })
    });
    let mut hosts: Vec<_> = hosts.collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.into()
}
