//! Sites by table: what is configured, what is on the node, what comes of it.

use super::*;
use crate::config::{Parsed, parse};

fn checked(args: &[&str]) -> Checked {
    let args = std::iter::once("weft-proxy").chain(args.iter().copied());
    match parse(args.map(Into::into), "node", |_| {
        unreachable!("no --config")
    }) {
        Ok(Parsed::Do(checked, _)) => *checked,
        other => panic!("{other:?}"),
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn node() -> NodeInfo {
    NodeInfo {
        addresses: ips(&["192.0.2.1", "fd00::1", "198.51.100.1"]),
        pod_cidrs: nets(&["10.244.3.0/24", "fd00:3::/64"]),
        ..NodeInfo::default()
    }
}

const LOCAL: [&str; 7] = [
    "127.0.0.1",
    "192.0.2.1",
    "198.51.100.1",
    "10.244.3.1",
    "::1",
    "fd00::1",
    "fe80::1",
];

fn plan(args: &[&str], mode: ModeName, node: Option<&NodeInfo>, family: Family) -> Site {
    let local = ips(&LOCAL);
    let around = Surroundings {
        node,
        local_addresses: &local,
        ..Surroundings::default()
    };
    site(&checked(args), mode, &around, family)
}

#[test]
fn node_port_addresses_by_list_and_family() {
    use Family::{V4, V6};
    use ModeName::{Iptables, Nftables, Userspace};
    let node = node();
    let v4_node = NodeInfo {
        addresses: ips(&["192.0.2.1"]),
        ..NodeInfo::default()
    };
    let all: Option<&[&str]> = None;
    for (args, mode, node, family, wanted) in [
        (&[][..], Iptables, Some(&node), V4, all),
        (&[], Iptables, Some(&node), V6, all),
        (&[], Nftables, Some(&node), V4, Some(&["192.0.2.1"][..])),
        (&[], Userspace, Some(&node), V6, Some(&["fd00::1"])),
        (
            &["--bind-address=192.0.2.9"],
            Nftables,
            Some(&node),
            V4,
            Some(&["192.0.2.9"]),
        ),
        (
            &["--bind-address=192.0.2.9"],
            Nftables,
            Some(&node),
            V6,
            Some(&["fd00::1"]),
        ),
        // A node of one family answers on none of the other.
        (&[], Nftables, Some(&v4_node), V6, Some(&[])),
        // Without a control plane: everything but loopback and link-local.
        (
            &[],
            Nftables,
            None,
            V4,
            Some(&["10.244.3.1", "192.0.2.1", "198.51.100.1"]),
        ),
        (&[], Nftables, None, V6, Some(&["fd00::1"])),
        // A list without a network of the family lets that family answer everywhere.
        (
            &["--nodeport-addresses=192.0.2.0/24"],
            Nftables,
            Some(&node),
            V6,
            all,
        ),
        (
            &["--nodeport-addresses=192.0.2.0/24,10.0.0.0/8"],
            Iptables,
            Some(&node),
            V4,
            Some(&["10.244.3.1", "192.0.2.1"]),
        ),
        (
            &["--nodeport-addresses=203.0.113.0/24"],
            Iptables,
            Some(&node),
            V4,
            Some(&[]),
        ),
        (
            &["--nodeport-addresses=primary,127.0.0.0/8"],
            Iptables,
            Some(&node),
            V4,
            Some(&["127.0.0.1", "192.0.2.1"]),
        ),
        (
            &["--nodeport-addresses=primary,127.0.0.0/8"],
            Iptables,
            Some(&node),
            V6,
            Some(&["fd00::1"]),
        ),
        // Loopback cannot be translated to everywhere.
        (
            &["--nodeport-addresses=primary,localhost"],
            Nftables,
            Some(&node),
            V4,
            Some(&["192.0.2.1"]),
        ),
        (
            &["--nodeport-addresses=localhost"],
            Userspace,
            Some(&node),
            V6,
            Some(&["::1"]),
        ),
        (
            &["--nodeport-addresses=localhost"],
            Iptables,
            Some(&node),
            V6,
            Some(&[]),
        ),
        (
            &[
                "--nodeport-addresses=localhost",
                "--iptables-localhost-nodeports=false",
            ],
            Iptables,
            Some(&node),
            V4,
            Some(&[]),
        ),
        (
            &["--nodeport-addresses=all"],
            Nftables,
            Some(&node),
            V4,
            all,
        ),
        (
            &["--nodeport-addresses=all"],
            Nftables,
            Some(&node),
            V6,
            all,
        ),
    ] {
        let found = plan(args, mode, node, family).node_port_addresses;
        let wanted = wanted.map_or(NodePortAddresses::All, |texts| {
            NodePortAddresses::Some(ips(texts).into_iter().collect())
        });
        assert_eq!(found, wanted, "{args:?} {mode} {family:?}");
    }
}

#[test]
fn detectors_of_each_family() {
    let node = node();
    let cidrs = |texts: &[&str]| LocalDetector::Cidrs(nets(texts));
    for (args, node, family, wanted) in [
        (&[][..], Some(&node), Family::V4, LocalDetector::None),
        (
            &["--cluster-cidr=10.244.0.0/16"],
            None,
            Family::V4,
            cidrs(&["10.244.0.0/16"]),
        ),
        (
            &["--cluster-cidr=10.244.0.0/16"],
            None,
            Family::V6,
            LocalDetector::None,
        ),
        (
            &["--detect-local-mode=NodeCIDR"],
            Some(&node),
            Family::V6,
            cidrs(&["fd00:3::/64"]),
        ),
        (
            &["--detect-local-mode=NodeCIDR"],
            None,
            Family::V4,
            LocalDetector::None,
        ),
        (
            &[
                "--detect-local-mode=BridgeInterface",
                "--pod-bridge-interface=cni0",
            ],
            None,
            Family::V6,
            LocalDetector::Interface("cni0".to_owned()),
        ),
        (
            &[
                "--detect-local-mode=InterfaceNamePrefix",
                "--pod-interface-name-prefix=veth",
            ],
            None,
            Family::V4,
            LocalDetector::InterfacePrefix("veth".to_owned()),
        ),
    ] {
        let found = plan(args, ModeName::Nftables, node, family).local;
        assert_eq!(found, wanted, "{args:?} {family:?}");
    }
}

#[test]
fn node_ports_on_loopback() {
    use Family::{V4, V6};
    use ModeName::{Iptables, Nftables};
    for (args, mode, family, wanted) in [
        (&[][..], Iptables, V4, true),
        (&[], Iptables, V6, false),
        (
            &["--iptables-localhost-nodeports=false"],
            Iptables,
            V4,
            false,
        ),
        (&["--nodeport-addresses=primary"], Iptables, V4, false),
        (&["--nodeport-addresses=192.0.2.0/24"], Iptables, V4, false),
        (&["--nodeport-addresses=fd00::/64"], Iptables, V4, true),
        (&["--nodeport-addresses=localhost"], Iptables, V4, true),
        (&["--nodeport-addresses=0.0.0.0/0"], Iptables, V4, true),
        (&[], Nftables, V4, false),
        (&["--localhost-nodeports"], Nftables, V4, true),
        (&["--localhost-nodeports"], Nftables, V6, true),
        (&["--nodeport-addresses=localhost"], Nftables, V4, true),
        (&["--nodeport-addresses=127.0.0.0/8"], Nftables, V6, false),
        (&["--nodeport-addresses=all"], Nftables, V4, false),
    ] {
        let found = plan(args, mode, Some(&node()), family).localhost_node_ports;
        assert_eq!(found, wanted, "{args:?} {mode} {family:?}");
    }
}

#[test]
fn the_rest_is_taken_over() {
    let checked = checked(&[
        "--masquerade-all",
        "--iptables-masquerade-bit=3",
        "--service-cidr=10.96.0.0/12,fd00:96::/108",
        "--session-affinity=hash",
    ]);
    let cluster = nets(&["10.96.0.0/12", "10.100.0.0/16", "fd00:9::/108"]);
    let around = Surroundings {
        service_cidrs: &cluster,
        conntrack_liberal: true,
        ..Surroundings::default()
    };
    let site = site(&checked, ModeName::Nftables, &around, Family::V4);
    assert_eq!(site.service_cidrs, nets(&["10.96.0.0/12", "10.100.0.0/16"]));
    assert_eq!((site.masquerade_mark, &*site.node), (8, "node"));
    assert!(site.masquerade_all && site.affinity_by_hash && site.conntrack_liberal);
}
