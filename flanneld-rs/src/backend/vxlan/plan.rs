//! What must change for one family's VXLAN device and its entries: pure, tested as text.
//!
//! Per peer there are three entries, in this order, so that the first packet finds its way:
//! a permanent neighbour (peer subnet's base address → VTEP MAC), a forwarding entry (VTEP MAC → the
//! peer's public address) and an onlink route (peer subnet via its base address).

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kernel::{
    Address, Change, Fdb, Link, LinkKind, Mac, Neigh, NewLink, NewLinkKind, Route, RouteKind,
    SetLink, Vxlan,
};

/// One family's device as it must be.
#[derive(Clone, Debug)]
pub struct Device {
    /// `flannel.<VNI>` or `flannel-v6.<VNI>`.
    pub name: String,
    /// VXLAN options.
    pub options: Vxlan,
    /// MTU in bytes.
    pub mtu: u32,
    /// The MAC announced to the peers; none before it was chosen.
    pub mac: Option<Mac>,
    /// The base address of our own subnet, full length; none before there is a lease.
    pub address: Option<IpNet>,
    /// This family's whole network.
    pub network: IpNet,
}

/// How to reach one peer through the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The peer's VTEP.
    pub mac: Mac,
    /// Where outer packets go.
    pub public: IpAddr,
}

/// Peer subnet → tunnel.
pub type Tunnels = BTreeMap<IpNet, Tunnel>;

/// What the kernel has for a device.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Routes of this family in table main that leave by the device.
    pub routes: Vec<Route>,
    /// Its neighbours.
    pub neighbours: Vec<Neigh>,
    /// Its forwarding entries.
    pub fdb: Vec<Fdb>,
}

/// What to do about the device itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevicePlan {
    /// Make it; an unusable one of that name goes first.
    Make {
        /// Removal of the old one, if any.
        first: Option<Change>,
        /// The new one.
        link: NewLink,
    },
    /// Keep it, with these changes.
    Keep(Vec<Change>),
}

/// Compares the device found by name with the wanted one.
pub fn device(wanted: &Device, found: Option<&Link>) -> DevicePlan {
    let make = |first| DevicePlan::Make {
        first,
        link: NewLink {
            mtu: Some(wanted.mtu),
            mac: wanted.mac,
            txqlen: Some(0),
            ..NewLink::new(
                wanted.name.clone(),
                NewLinkKind::Vxlan(wanted.options.clone()),
            )
        },
    };
    let Some(link) = found else {
        return make(None);
    };
    let remove = Change::DeleteLink {
        index: link.index,
        name: link.name.clone(),
    };
    let LinkKind::Vxlan(options) = &link.kind else {
        return make(Some(remove));
    };
    // These cannot be changed on a living device.
    let fixed = |options: &Vxlan| Vxlan {
        learning: false,
        local: None,
        ..options.clone()
    };
    let same_family =
        options.local.map(|ip| ip.is_ipv4()) == wanted.options.local.map(|ip| ip.is_ipv4());
    if fixed(options) != fixed(&wanted.options) || !same_family {
        return make(Some(remove));
    }
    let set = SetLink {
        index: link.index,
        ..SetLink::default()
    };
    let mut change = set.clone();
    change.mtu = Some(wanted.mtu).filter(|mtu| *mtu != link.mtu);
    change.mac = wanted.mac.filter(|mac| Some(*mac) != link.mac);
    change.vxlan_learning =
        Some(wanted.options.learning).filter(|learning| *learning != options.learning);
    change.vxlan_local = wanted
        .options
        .local
        .filter(|local| Some(*local) != options.local);
    DevicePlan::Keep(if change == set {
        Vec::new()
    } else {
        vec![Change::SetLink(change)]
    })
}

/// Addresses and state of the device, which is to have the address `own` in `network`. `addresses` are
/// those it has.
pub fn addresses(
    network: IpNet,
    own: Option<IpNet>,
    link: &Link,
    addresses: &[Address],
) -> Vec<Change> {
    let v6 = network.addr().is_ipv6();
    let mut changes = Vec::new();
    // Before there is a lease nothing is known to be foreign; and with the last address of a device
    // the kernel would drop its routes.
    let known = own.is_some();
    let foreign = addresses.iter().filter(|_| known).filter(|address| {
        let ip = address.net.addr();
        let ours = match ip {
            // Of IPv4 only what lies in the network is ours to remove; of IPv6 all but link-local.
            IpAddr::V4(_) => !v6 && network.contains(&ip),
            IpAddr::V6(ip) => v6 && !ip.is_unicast_link_local(),
        };
        ours && Some(address.net) != own
    });
    if let Some(net) = own
        && !addresses.iter().any(|address| address.net == net)
    {
        changes.push(Change::AddAddress(Address {
            nodad: v6,
            ..Address::new(link.index, net)
        }));
    }
    // Last, for the same reason: the device is never without an address.
    changes.extend(foreign.cloned().map(Change::DeleteAddress));
    if !link.up {
        changes.push(Change::SetLink(SetLink {
            index: link.index,
            up: Some(true),
            ..SetLink::default()
        }));
    }
    changes
}

/// The three entries of one peer.
pub fn entries_of(dev: u32, subnet: IpNet, tunnel: Tunnel) -> [Change; 3] {
    let base = subnet.network();
    [
        Change::ReplaceNeigh(Neigh {
            dev,
            ip: base,
            mac: Some(tunnel.mac),
            permanent: true,
        }),
        Change::ReplaceFdb(Fdb {
            dev,
            mac: tunnel.mac,
            dst: Some(tunnel.public),
            permanent: true,
        }),
        Change::ReplaceRoute(Route {
            via: Some(base),
            dev: Some(dev),
            onlink: true,
            ..Route::new(subnet)
        }),
    ]
}

/// Changes that make the entries of the device those of `tunnels`: first what is missing or wrong,
/// then what is left over.
pub fn entries(dev: u32, network: IpNet, tunnels: &Tunnels, found: &Entries) -> Vec<Change> {
    let neighbours: BTreeMap<IpAddr, &Neigh> = found.neighbours.iter().map(|n| (n.ip, n)).collect();
    let fdb: BTreeMap<Mac, &Fdb> = found.fdb.iter().map(|e| (e.mac, e)).collect();
    let routes: BTreeMap<IpNet, &Route> = found
        .routes
        .iter()
        .filter(|route| is_ours(route, network))
        .map(|route| (route.dst, route))
        .collect();
    let mut changes = Vec::new();
    let mut macs = BTreeMap::new();
    for (subnet, tunnel) in tunnels {
        macs.insert(tunnel.mac, tunnel.public);
        let base = subnet.network();
        let [neigh, entry, route] = entries_of(dev, *subnet, *tunnel);
        let has_neigh = neighbours
            .get(&base)
            .is_some_and(|n| n.mac == Some(tunnel.mac) && n.permanent);
        let has_entry = fdb
            .get(&tunnel.mac)
            .is_some_and(|e| e.dst == Some(tunnel.public) && e.permanent);
        let has_route = routes
            .get(subnet)
            .is_some_and(|r| r.via == Some(base) && r.onlink);
        changes.extend((!has_neigh).then_some(neigh));
        changes.extend((!has_entry).then_some(entry));
        changes.extend((!has_route).then_some(route));
    }
    let stale_routes = routes.iter().filter(|(dst, _)| !tunnels.contains_key(dst));
    changes.extend(stale_routes.map(|(_, route)| Change::DeleteRoute(Route::clone(route))));
    let stale_fdb = found
        .fdb
        .iter()
        .filter(|entry| entry.permanent && entry.dst.is_some() && !macs.contains_key(&entry.mac));
    changes.extend(stale_fdb.cloned().map(Change::DeleteFdb));
    let bases: BTreeMap<IpAddr, ()> = tunnels.keys().map(|net| (net.network(), ())).collect();
    let stale_neighbours = found
        .neighbours
        .iter()
        .filter(|n| n.permanent && n.mac.is_some() && !bases.contains_key(&n.ip));
    changes.extend(stale_neighbours.cloned().map(Change::DeleteNeigh));
    changes
}

/// A route on our own device that no one but flannel makes; `network` is this family's whole network.
fn is_ours(route: &Route, network: IpNet) -> bool {
    route.table == Route::TABLE_MAIN
        && route.kind == RouteKind::Unicast
        && route.protocol == Route::PROTOCOL_BOOT
        && route.via.is_some()
        && network.contains(&route.dst)
}

#[cfg(test)]
mod tests;
