//! How the peers of one family are reached: through the tunnel, or directly.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use kernel::{Change, Mac, Netlink};

use super::{
    data::VxlanData,
    plan::{self, Tunnel, Tunnels},
};
use crate::{
    backend::peer_routes::{self, Gateways},
    lease::{Lease, Subnet},
    uplink::Uplink,
};

/// How peers of one family are reached.
#[derive(Default)]
pub struct Paths {
    /// By the VXLAN device.
    pub tunnels: Tunnels,
    /// By a plain route, with DirectRouting.
    pub direct: Gateways,
    /// Leases that cannot be used, and why.
    pub unusable: Vec<String>,
}

impl Paths {
    /// Sorts the leases; `is_direct` tells whether a public address is a neighbour on the external
    /// interface.
    pub fn new<'a>(
        v6: bool,
        peers: impl Iterator<Item = &'a Arc<Lease>>,
        mut is_direct: impl FnMut(IpAddr) -> bool,
    ) -> Self {
        let mut paths = Self::default();
        for lease in peers {
            let Some(subnet) = subnet_of(v6, &lease.subnet) else {
                continue;
            };
            let attrs = &lease.attrs;
            let (public, data) = if v6 {
                (attrs.public_ipv6.map(IpAddr::from), &attrs.backend_v6_data)
            } else {
                (attrs.public_ip.map(IpAddr::from), &attrs.backend_data)
            };
            let Some(public) = public else {
                let why = format!("lease {subnet}: no public address");
                paths.unusable.push(why);
                continue;
            };
            if is_direct(public) {
                paths.direct.insert(subnet, public);
                continue;
            }
            match VxlanData::parse(data.as_ref()) {
                Ok(VxlanData { mac, .. }) => {
                    paths.tunnels.insert(subnet, Tunnel { mac, public });
                }
                Err(why) => paths.unusable.push(format!("lease {subnet}: {why}")),
            }
        }
        paths
    }

    /// The same, the kernel being asked which peers are direct neighbours if that is wanted.
    pub fn look_up<'a>(
        netlink: &mut Netlink,
        direct_routing: bool,
        v6: bool,
        uplink: &Uplink,
        peers: impl Iterator<Item = &'a Arc<Lease>>,
    ) -> Self {
        let mut known: BTreeMap<IpAddr, bool> = BTreeMap::new();
        Self::new(v6, peers, |public| {
            direct_routing
                && *known.entry(public).or_insert_with(|| {
                    // No route, or a failed look-up, is not a direct neighbour.
                    let route = netlink.route_to(public).ok().flatten();
                    route
                        .is_some_and(|route| route.via.is_none() && route.dev == Some(uplink.index))
                })
        })
    }

    /// Names the leases that cannot be used in the log.
    pub fn warn_unusable(&self) {
        for why in &self.unusable {
            tracing::warn!("peer ignored: {why}");
        }
    }

    fn has(&self, subnet: &IpNet) -> bool {
        self.tunnels.contains_key(subnet) || self.direct.contains_key(subnet)
    }
}

/// The part of a lease's subnet that is of one family.
pub fn subnet_of(v6: bool, subnet: &Subnet) -> Option<IpNet> {
    subnet.nets().find(|net| net.addr().is_ipv6() == v6)
}

/// Changes of both kinds of paths as one list. A direct route replaces the tunnel's in one step, and the
/// other way round: both have the same destination and metric. So the left-over of the one is not
/// removed where the other comes in its place.
pub fn side_by_side(paths: &Paths, direct: Vec<Change>, tunnels: Vec<Change>) -> Vec<Change> {
    let direct = direct.into_iter().filter(|change| match change {
        Change::DeleteRoute(route) => !paths.tunnels.contains_key(&route.dst),
        _ => true,
    });
    let tunnels = tunnels.into_iter().filter(|change| match change {
        Change::DeleteRoute(route) => !paths.direct.contains_key(&route.dst),
        _ => true,
    });
    direct.chain(tunnels).collect()
}

/// What the paths `old` had made and `new` does not need: routes first, so that no packet meets a
/// route without its neighbour. `in_use` are the MACs of all present peers: one that moved to another
/// subnet still needs its forwarding entry.
pub fn left_over(
    device: u32,
    uplink: u32,
    old: &Paths,
    new: &Paths,
    in_use: &BTreeSet<Mac>,
) -> Vec<Change> {
    let mut routes = Vec::new();
    let mut rest = Vec::new();
    for (subnet, tunnel) in &old.tunnels {
        let [neigh, fdb, route] = plan::entries_of(device, *subnet, *tunnel);
        if let Change::ReplaceRoute(route) = route
            && !new.has(subnet)
        {
            routes.push(Change::DeleteRoute(route));
        }
        if let Change::ReplaceFdb(fdb) = fdb
            && !in_use.contains(&tunnel.mac)
        {
            rest.push(Change::DeleteFdb(fdb));
        }
        if let Change::ReplaceNeigh(neigh) = neigh
            && !new.tunnels.contains_key(subnet)
        {
            rest.push(Change::DeleteNeigh(neigh));
        }
    }
    let direct = old.direct.iter().filter(|(subnet, _)| !new.has(subnet));
    routes.extend(direct.map(|(subnet, gateway)| {
        Change::DeleteRoute(peer_routes::route(uplink, *subnet, *gateway))
    }));
    routes.extend(rest);
    routes
}
