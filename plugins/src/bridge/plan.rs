//! What the host's side of an attachment needs: pure functions from what is asked for and what is
//! there to changes.

use std::net::IpAddr;

use kernel::{
    Address, BridgeVlan, Change, Link, Mac, NewLink, NewLinkKind, SetLink,
    ipnet::{IpNet, Ipv4Net, Ipv6Net},
};

use super::config::Config;
use crate::cni::{CniResult, Error, Result, Route};

/// Completes an IPAM result: every address belongs to the container's interface (number 2), has its
/// gateway, and the default route is there if the bridge is to be it. Gives the addresses that the
/// bridge needs.
pub fn gateways(config: &Config, result: &mut CniResult) -> Vec<IpNet> {
    let mut addresses = Vec::new();
    for at in 0..result.ips.len() {
        let ip = &mut result.ips[at];
        ip.interface = Some(2);
        if !config.gateway {
            continue;
        }
        let gateway = *ip.gateway.get_or_insert_with(|| first_host(ip.address));
        let own = with_length(gateway, ip.address.prefix_len());
        let default = default_net(ip.address.addr());
        let has_default = result
            .routes
            .iter()
            .any(|route| route.gw.is_some() && route.dst == default);
        if config.default_gateway && !has_default {
            result.routes.push(Route {
                gw: Some(gateway),
                ..Route::new(default)
            });
        }
        addresses.extend(own);
    }
    // The reference sets the addresses of the bridge by family.
    addresses.sort_by_key(|net| net.addr().is_ipv6());
    addresses
}

/// The address after the network's own.
fn first_host(address: IpNet) -> IpAddr {
    match address.network() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip).wrapping_add(1)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip).wrapping_add(1)).into()),
    }
}

fn with_length(ip: IpAddr, length: u8) -> Option<IpNet> {
    match ip {
        IpAddr::V4(ip) => Ipv4Net::new(ip, length).map(Into::into).ok(),
        IpAddr::V6(ip) => Ipv6Net::new(ip, length).map(Into::into).ok(),
    }
}

fn default_net(of: IpAddr) -> IpNet {
    match of {
        IpAddr::V4(_) => Ipv4Net::default().into(),
        IpAddr::V6(_) => Ipv6Net::default().into(),
    }
}

/// The bridge to be made where there is none. As a gateway of its own it keeps the address it is made with:
/// otherwise a bridge takes the lowest of its ports', and changes as they come and go.
pub fn new_bridge(config: &Config, mac: Mac) -> NewLink {
    NewLink {
        mtu: config.mtu,
        mac: keeps_its_mac(config).then_some(mac),
        up: true,
        ..NewLink::new(
            &config.bridge,
            NewLinkKind::Bridge {
                vlan_filtering: config.vlan_filtering().then_some(true),
            },
        )
    }
}

/// Is the bridge itself the gateway, and so has a hardware address that stays?
pub fn keeps_its_mac(config: &Config) -> bool {
    config.gateway && config.vlan == 0
}

/// What an existing bridge lacks.
pub fn bridge_flags(config: &Config, bridge: &Link) -> Vec<Change> {
    let up = (!bridge.up).then_some(true);
    let promisc = (config.promisc && !bridge.promisc).then_some(true);
    if up.is_none() && promisc.is_none() {
        return Vec::new();
    }
    vec![Change::SetLink(SetLink {
        index: bridge.index,
        up,
        promisc,
        ..SetLink::default()
    })]
}

/// What lets `link` (the bridge, or a VLAN's interface on it) have the gateway's addresses.
///
/// Several IPv6 subnets may live on a bridge side by side; another IPv4 address or an overlapping
/// IPv6 one is replaced if the configuration says so, and is an error otherwise.
pub fn gateway_addresses(
    link: &Link,
    wanted: &[IpNet],
    observed: &[Address],
    force: bool,
    spare: Mac,
) -> Result<Vec<Change>> {
    let mut there: Vec<_> = observed.to_vec();
    let mut changes = Vec::new();
    for net in wanted {
        if there.iter().any(|address| address.net == *net) {
            continue;
        }
        let conflicts = |address: &Address| match (address.net, net) {
            (IpNet::V4(_), IpNet::V4(_)) => true,
            (IpNet::V6(a), IpNet::V6(b)) => a.contains(&b.addr()) || b.contains(&a.addr()),
            _ => false,
        };
        if let Some(other) = there.iter().find(|address| conflicts(address))
            && !force
        {
            return Err(Error::generic(format!(
                "add address {net} dev {}: it already has {} (set forceAddress to replace it)",
                link.name, other.net
            )));
        }
        let (replaced, kept) = there.into_iter().partition(conflicts);
        there = kept;
        changes.extend(replaced.into_iter().map(Change::DeleteAddress));
        let address = Address::new(link.index, *net);
        there.push(address.clone());
        changes.push(Change::AddAddress(address));
    }
    if !changes.is_empty() {
        // Setting its own address again makes it permanent, see `new_bridge`. A bridge that has lost
        // its last port has none.
        let mac = link.mac.filter(|mac| *mac != Mac([0; 6])).unwrap_or(spare);
        changes.push(Change::SetLink(SetLink {
            index: link.index,
            mac: Some(mac),
            ..SetLink::default()
        }));
    }
    Ok(changes)
}

/// Does the port differ from one that the kernel makes?
pub fn has_port_options(config: &Config) -> bool {
    config.hairpin || config.port_isolation || config.vlan_filtering()
}

/// The options of the bridge port that differ from a new port's.
pub fn port_options(config: &Config, port: u32) -> Vec<Change> {
    if !config.hairpin && !config.port_isolation {
        return Vec::new();
    }
    vec![Change::SetLink(SetLink {
        index: port,
        hairpin: config.hairpin.then_some(true),
        isolated: config.port_isolation.then_some(true),
        ..SetLink::default()
    })]
}

/// The VLANs of a port: untagged frames belong to `vlan`, or to the bridge's default VLAN if that is
/// kept; the trunk's VLANs come tagged.
pub fn port_vlans(
    vlan: u16,
    trunk: impl IntoIterator<Item = u16>,
    preserve_default: bool,
    port: u32,
    observed: &[BridgeVlan],
) -> Vec<Change> {
    let untagged = |vid| BridgeVlan {
        vid,
        pvid: true,
        untagged: true,
    };
    let mut desired: Vec<BridgeVlan> = match vlan {
        0 => Vec::new(),
        vid => vec![untagged(vid)],
    };
    // A VLAN that is untagged and one that is kept stay so, even if the trunk names them too.
    let kept = |vid: u16| preserve_default && observed.iter().any(|there| there.vid == vid);
    desired.extend(
        trunk
            .into_iter()
            .filter(|&vid| vid != vlan && !kept(vid))
            .map(|vid| BridgeVlan {
                vid,
                pvid: false,
                untagged: false,
            }),
    );
    let surplus = observed
        .iter()
        .filter(|there| !preserve_default && !desired.iter().any(|vlan| vlan.vid == there.vid))
        .map(|there| Change::DeleteBridgeVlan {
            dev: port,
            vid: there.vid,
            on_bridge: false,
        });
    let missing = desired
        .iter()
        .filter(|vlan| !observed.contains(vlan))
        .map(|vlan| Change::AddBridgeVlan {
            dev: port,
            vlan: *vlan,
            on_bridge: false,
        });
    surplus.chain(missing).collect()
}

#[cfg(test)]
mod tests;
