//! From the configuration and what the node has to the [`Site`] of a family.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Checked, DetectLocal, ModeName, NodePortAddress};
use crate::model::{Family, LocalDetector, NodeInfo, NodePortAddresses, Site};

/// What is seen on the node and in the cluster, and may change while we run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The own Node, if it is known.
    pub node: Option<&'a NodeInfo>,
    /// The addresses of all interfaces, both families.
    pub local_addresses: &'a [IpAddr],
    /// The cluster's ServiceCIDRs, both families; `--service-cidr` is added to them.
    pub service_cidrs: &'a [IpNet],
    /// What net.netfilter.nf_conntrack_tcp_be_liberal is.
    pub conntrack_liberal: bool,
}

/// What all Services of a family have in common.
pub fn site(checked: &Checked, mode: ModeName, around: &Surroundings<'_>, family: Family) -> Site {
    let list = checked.node_port_addresses(mode);
    let localhost_node_ports = match mode {
        ModeName::Iptables => {
            family == Family::V4 && checked.iptables_localhost_node_ports && has_loopback(&list)
        }
        ModeName::Nftables | ModeName::Userspace => {
            checked.localhost_node_ports || names_loopback(&list, family)
        }
    };
    let mut node_port_addresses = node_port_addresses(checked, &list, around, family);
    // Translation of what is for loopback needs route_localnet, which nftables mode does without.
    let is_translated =
        mode == ModeName::Userspace || (mode == ModeName::Iptables && localhost_node_ports);
    if let NodePortAddresses::Some(some) = &mut node_port_addresses {
        some.retain(|ip| is_translated || !ip.is_loopback());
    }
    let mut service_cidrs = of_family(&checked.service_cidrs, family);
    service_cidrs.extend(of_family(around.service_cidrs, family));
    service_cidrs.sort();
    service_cidrs.dedup();
    Site {
        family,
        node: checked.node.clone(),
        masquerade_all: checked.masquerade_all,
        masquerade_mark: checked.masquerade_mark,
        local: detector(checked, around.node, family),
        node_port_addresses,
        service_cidrs,
        affinity_by_hash: checked.affinity_by_hash,
        localhost_node_ports,
        conntrack_liberal: checked.conntrack.tcp_be_liberal || around.conntrack_liberal,
    }
}

/// The node's primary address of a family: `--bind-address`, else the first of the Node's.
pub fn primary_address(
    checked: &Checked,
    node: Option<&NodeInfo>,
    family: Family,
) -> Option<IpAddr> {
    let addresses = node.map_or(&[][..], |node| &node.addresses);
    checked
        .bind_address
        .iter()
        .chain(addresses)
        .copied()
        .find(|ip| Family::of(*ip) == family)
}

fn of_family(nets: &[IpNet], family: Family) -> Vec<IpNet> {
    let nets = nets.iter().filter(|net| Family::of_net(net) == family);
    nets.copied().collect()
}

fn detector(checked: &Checked, node: Option<&NodeInfo>, family: Family) -> LocalDetector {
    let nets = match &checked.detect_local {
        DetectLocal::ClusterCidr(nets) => nets,
        DetectLocal::NodeCidr => node.map_or(&[][..], |node| &node.pod_cidrs),
        DetectLocal::Interface(name) => return LocalDetector::Interface(name.clone()),
        DetectLocal::InterfacePrefix(name) => return LocalDetector::InterfacePrefix(name.clone()),
    };
    match of_family(nets, family) {
        nets if nets.is_empty() => LocalDetector::None,
        nets => LocalDetector::Cidrs(nets),
    }
}

fn node_port_addresses(
    checked: &Checked,
    list: &[NodePortAddress],
    around: &Surroundings<'_>,
    family: Family,
) -> NodePortAddresses {
    let nets: Vec<_> = list
        .iter()
        .filter_map(|item| match item {
            NodePortAddress::Net(net) if Family::of_net(net) == family => Some(net),
            _ => None,
        })
        .collect();
    let is_primary = list.contains(&NodePortAddress::Primary);
    // A list that says nothing of this family lets it answer everywhere.
    if (nets.is_empty() && !is_primary) || nets.iter().any(|net| net.prefix_len() == 0) {
        return NodePortAddresses::All;
    }
    let local = around.local_addresses.iter().copied();
    let local = local.filter(|ip| Family::of(*ip) == family);
    let mut addresses: BTreeSet<IpAddr> = local
        .clone()
        .filter(|ip| nets.iter().any(|net| net.contains(ip)))
        .collect();
    if is_primary {
        match primary_address(checked, around.node, family) {
            Some(ip) => _ = addresses.insert(ip),
            // A Node of the other family only has no primary address of this one.
            None if around.node.is_some_and(|node| !node.addresses.is_empty()) => {}
            // Nobody says which one is primary: a host without a control plane.
            None => addresses.extend(local.filter(|ip| is_global(*ip))),
        }
    }
    NodePortAddresses::Some(addresses)
}

/// Neither loopback nor link-local.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

/// Whether node ports of IPv4 answer on 127.0.0.1 by the list, as iptables mode takes it: everywhere
/// includes loopback.
fn has_loopback(list: &[NodePortAddress]) -> bool {
    let mut v4 = list.iter().filter_map(|item| match item {
        NodePortAddress::Net(net) if net.addr().is_ipv4() => Some(net),
        _ => None,
    });
    let none_of_v4 = v4.clone().next().is_none() && !list.contains(&NodePortAddress::Primary);
    none_of_v4 || v4.any(|net| net.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

/// Whether the list has loopback of the family, and not for having everything.
fn names_loopback(list: &[NodePortAddress], family: Family) -> bool {
    let loopback = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    list.iter().any(|item| match item {
        NodePortAddress::Net(net) => net.prefix_len() > 0 && net.contains(&loopback),
        NodePortAddress::Primary => false,
    })
}

#[cfg(test)]
mod tests;
