//! What must change for one family's TUN device and its routes, and what its workers must know: pure.

use std::{collections::BTreeMap, net::SocketAddr};

use ipnet::IpNet;
use kernel::{Change, Link, Mac, Route, RouteKind, SetLink, scope};
use tunnel::{Own, Peer, Table};

use crate::backend::{
    peer_routes,
    vxlan::{paths::Paths, plan::Tunnels},
};

/// The workers' table. Peers are sent to at `port`, which is the whole cluster's. The kernel's VXLAN
/// device, and a node like ours, finish checksums that a sender left to the hardware.
pub fn table(own: Option<IpNet>, mac: Option<Mac>, port: u16, tunnels: &Tunnels) -> Table {
    let (v4, v6) = families(own);
    let peers = tunnels.iter().map(|(subnet, tunnel)| {
        let (v4, v6) = families(Some(*subnet));
        Peer {
            address: SocketAddr::new(tunnel.public, port),
            v4,
            v6,
            mac: Some(tunnel.mac),
            finishes_checksums: true,
        }
    });
    Table::new(Own { v4, v6, mac }, peers.collect())
}

fn families(net: Option<IpNet>) -> (Option<ipnet::Ipv4Net>, Option<ipnet::Ipv6Net>) {
    match net {
        Some(IpNet::V4(net)) => (Some(net), None),
        Some(IpNet::V6(net)) => (None, Some(net)),
        None => (None, None),
    }
}

/// Sets the device's MTU where it differs.
pub fn mtu(link: &Link, mtu: u32) -> Vec<Change> {
    let set = SetLink {
        index: link.index,
        mtu: Some(mtu),
        ..SetLink::default()
    };
    let differs = link.mtu != mtu;
    differs
        .then_some(Change::SetLink(set))
        .into_iter()
        .collect()
}

/// The route to one peer's subnet.
fn route(dev: u32, subnet: IpNet) -> Route {
    Route {
        dev: Some(dev),
        // The kernel knows no such scope for IPv6.
        scope: match subnet {
            IpNet::V4(_) => scope::LINK,
            IpNet::V6(_) => scope::UNIVERSE,
        },
        ..Route::new(subnet)
    }
}

/// Changes that make the routes through the device those of `tunnels`: first what is missing or wrong,
/// then what is left over. `network` is this family's whole network.
pub fn routes(dev: u32, network: IpNet, tunnels: &Tunnels, found: &[Route]) -> Vec<Change> {
    let found: BTreeMap<IpNet, &Route> = found
        .iter()
        .filter(|route| is_ours(route, network))
        .map(|route| (route.dst, route))
        .collect();
    let is_there = |subnet: &IpNet| found.get(subnet).is_some_and(|route| route.via.is_none());
    let missing = tunnels.keys().filter(|subnet| !is_there(subnet));
    let stale = found.iter().filter(|(dst, _)| !tunnels.contains_key(dst));
    let missing = missing.map(|subnet| Change::ReplaceRoute(route(dev, *subnet)));
    missing
        .chain(stale.map(|(_, route)| Change::DeleteRoute(Route::clone(route))))
        .collect()
}

/// A route on our own device that no one but we make.
fn is_ours(route: &Route, network: IpNet) -> bool {
    route.table == Route::TABLE_MAIN
        && route.kind == RouteKind::Unicast
        && route.protocol == Route::PROTOCOL_BOOT
        && network.contains(&route.dst)
}

/// What some changed peers, reached by `old` before and by `new` now, cost: new routes first, so that
/// one that changes is never without.
pub fn update(dev: u32, uplink: u32, old: &Paths, new: &Paths) -> Vec<Change> {
    let all = |paths: &Paths| -> BTreeMap<IpNet, Route> {
        let tunnels = paths.tunnels.keys().map(|net| (*net, route(dev, *net)));
        let direct = paths.direct.iter();
        let direct = direct.map(|(net, via)| (*net, peer_routes::route(uplink, *net, *via)));
        tunnels.chain(direct).collect()
    };
    let (old, new) = (all(old), all(new));
    let gone = old.into_iter().filter(|(net, _)| !new.contains_key(net));
    let gone: Vec<_> = gone.map(|(_, route)| Change::DeleteRoute(route)).collect();
    let come = new.into_values().map(Change::ReplaceRoute);
    come.chain(gone).collect()
}

#[cfg(test)]
mod tests;
