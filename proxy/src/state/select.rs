//! Which endpoints a service port uses: readiness, termination, topology, locality.
//!
//! The rules are those of kube-proxy 1.36 (`pkg/proxy/topology.go`, `CategorizeEndpoints`).

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Endpoint, Protocol, Slice, SliceEndpoint};

/// From where endpoints are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Viewpoint<'a> {
    pub(super) node: &'a str,
    pub(super) zone: Option<&'a str>,
}

/// What has been chosen; both sorted, no double.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) cluster: Vec<Endpoint>,
    pub(super) local: Vec<Endpoint>,
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    ip: IpAddr,
    port: u16,
    local: bool,
    of: &'a SliceEndpoint,
}

impl Candidate<'_> {
    fn drains(&self) -> bool {
        self.of.serving && self.of.terminating
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            ip: self.ip,
            port: self.port,
            local: self.local,
        }
    }
}

/// Chooses among the endpoints of slices of one family for one service port. The local list is left
/// empty if it is not wanted.
pub(super) fn choose<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    (name, protocol): (&str, Protocol),
    view: Viewpoint<'_>,
    want_local: bool,
) -> Chosen {
    let all = candidates(slices, (name, protocol), view.node);
    let topology = topology(&all, view);
    let mut cluster = pick(&all, |one| one.of.ready && topology.admits(one.of, view));
    if cluster.is_empty() {
        cluster = pick(&all, |one| one.drains());
    }
    let mut local = Vec::new();
    if want_local {
        local = pick(&all, |one| one.local && one.of.ready);
        if local.is_empty() {
            local = pick(&all, |one| one.local && one.drains());
        }
    }
    Chosen { cluster, local }
}

/// Sorted by address and port, each once: of doubles the one that does not terminate, then the
/// readiest, then a local one, then that of the first slice by name.
fn candidates<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    (name, protocol): (&str, Protocol),
    node: &str,
) -> Vec<Candidate<'a>> {
    let mut all = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter();
        for port in ports.filter(|port| port.protocol == protocol && *port.name == *name) {
            all.extend(slice.endpoints.iter().map(|of| Candidate {
                ip: of.address,
                port: port.port,
                local: of.node.as_deref() == Some(node),
                of,
            }));
        }
    }
    // Stable, and quick on runs: slices are kept sorted by address.
    all.sort_by_key(|one| {
        let of = one.of;
        let merits = (of.terminating, !of.ready, !of.serving, !one.local);
        (one.ip, one.port, merits)
    });
    all.dedup_by_key(|one| (one.ip, one.port));
    all
}

fn pick(all: &[Candidate<'_>], usable: impl Fn(&Candidate<'_>) -> bool) -> Vec<Endpoint> {
    let mut picked: Vec<_> = all
        .iter()
        .filter(|one| usable(one))
        .map(Candidate::endpoint)
        .collect();
    picked.shrink_to_fit();
    picked
}

/// Which hints count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    Node,
    Zone,
    None,
}

impl Topology {
    fn admits(self, endpoint: &SliceEndpoint, view: Viewpoint<'_>) -> bool {
        match self {
            Self::Node => names(&endpoint.node_hints, Some(view.node)),
            Self::Zone => names(&endpoint.zone_hints, view.zone),
            Self::None => true,
        }
    }
}

/// Hints count only if every ready endpoint has some and one of them names this node (or zone):
/// half-written hints would pile all traffic on a few endpoints.
fn topology(all: &[Candidate<'_>], view: Viewpoint<'_>) -> Topology {
    let ready = || all.iter().map(|one| one.of).filter(|of| of.ready);
    let counts = |hints: fn(&SliceEndpoint) -> &[Arc<str>], here: Option<&str>| {
        ready().any(|of| names(hints(of), here)) && ready().all(|of| !hints(of).is_empty())
    };
    if counts(|of| &of.node_hints, Some(view.node)) {
        Topology::Node
    } else if counts(|of| &of.zone_hints, view.zone) {
        Topology::Zone
    } else {
        Topology::None
    }
}

fn names(hints: &[Arc<str>], here: Option<&str>) -> bool {
    hints.iter().any(|hint| Some(&**hint) == here)
}
