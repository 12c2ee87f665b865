use std::net::IpAddr;

use super::*;
use crate::backend::vxlan::plan::Tunnel;

fn net(n: u8) -> IpNet {
    format!("10.244.{n}.0/24").parse().unwrap()
}

fn network() -> IpNet {
    "10.244.0.0/16".parse().unwrap()
}

fn public(n: u8) -> IpAddr {
    format!("192.168.66.1{n}").parse().unwrap()
}

fn tunnels(numbers: &[u8]) -> Tunnels {
    let tunnel = |n: u8| Tunnel {
        mac: Mac([2, 0, 0, 0, 0, n]),
        public: public(n),
    };
    numbers.iter().map(|n| (net(*n), tunnel(*n))).collect()
}

fn text(changes: &[Change]) -> Vec<String> {
    let name = |index| if index == 2 { "eth0" } else { "flannel.1" }.to_owned();
    changes
        .iter()
        .map(|change| change.describe(&name))
        .collect()
}

#[test]
fn the_workers_know_every_peer_by_subnet_address_and_mac() {
    let ours = Mac([2, 0, 0, 0, 0, 1]);
    let table = table(Some(net(1)), Some(ours), 4789, &tunnels(&[2, 3]));
    let own = Own {
        v4: Some("10.244.1.0/24".parse().unwrap()),
        v6: None,
        mac: Some(ours),
    };
    assert_eq!(*table.own(), own);
    let peer = table.peer("10.244.3.9".parse().unwrap()).unwrap();
    assert_eq!(peer.address, "192.168.66.13:4789".parse().unwrap());
    assert_eq!(peer.mac, Some(Mac([2, 0, 0, 0, 0, 3])));
    assert!(peer.finishes_checksums);
    assert_eq!(table.peer("10.244.1.1".parse().unwrap()), None);
    assert!(table.knows(public(2)) && !table.knows(public(1)));
}

#[test]
fn missing_routes_come_before_stale_ones_go() {
    let good = route(7, net(2));
    let onlink = Route {
        via: Some("10.244.3.0".parse().unwrap()),
        onlink: true,
        ..route(7, net(3))
    };
    let stale = route(7, net(9));
    let by_kernel = Route {
        protocol: Route::PROTOCOL_KERNEL,
        ..route(7, net(8))
    };
    let elsewhere = route(7, "10.9.0.0/24".parse().unwrap());
    let found = [good.clone(), onlink, stale, by_kernel, elsewhere];
    assert_eq!(
        text(&routes(7, network(), &tunnels(&[2, 3, 4]), &found)),
        [
            "replace route 10.244.3.0/24 dev flannel.1 scope link",
            "replace route 10.244.4.0/24 dev flannel.1 scope link",
            "delete route 10.244.9.0/24 dev flannel.1 scope link",
        ]
    );
    assert_eq!(routes(7, network(), &tunnels(&[2]), &[good]), []);
}

#[test]
fn a_change_costs_its_own_routes_only_and_leaves_no_gap() {
    let paths = |tunnel: &[u8], direct: &[u8]| Paths {
        tunnels: tunnels(tunnel),
        direct: direct.iter().map(|n| (net(*n), public(*n))).collect(),
        unusable: Vec::new(),
    };
    // Peer 2 moves from the tunnel to a direct route, 3 goes, 4 comes.
    let changes = update(7, 2, &paths(&[2, 3], &[]), &paths(&[4], &[2]));
    assert_eq!(
        text(&changes),
        [
            "replace route 10.244.2.0/24 via 192.168.66.12 dev eth0",
            "replace route 10.244.4.0/24 dev flannel.1 scope link",
            "delete route 10.244.3.0/24 dev flannel.1 scope link",
        ]
    );
    let back = update(7, 2, &paths(&[], &[2]), &paths(&[2], &[]));
    let back = text(&back);
    assert_eq!(
        back,
        ["replace route 10.244.2.0/24 dev flannel.1 scope link"]
    );
}

#[test]
fn ipv6_routes_have_no_scope_and_the_kernels_metric_is_no_difference() {
    let subnet: IpNet = "fd05:0:0:2::/64".parse().unwrap();
    let tunnel = Tunnel {
        mac: Mac([2, 0, 0, 0, 0, 2]),
        public: "fd66::12".parse().unwrap(),
    };
    let tunnels: Tunnels = [(subnet, tunnel)].into();
    let network = "fd05::/48".parse().unwrap();
    let wanted = routes(7, network, &tunnels, &[]);
    assert_eq!(
        text(&wanted),
        ["replace route fd05:0:0:2::/64 dev flannel.1"]
    );
    let found = Route {
        priority: Some(1024),
        ..route(7, subnet)
    };
    assert_eq!(routes(7, network, &tunnels, &[found]), []);
    let table = table(None, None, 8472, &tunnels);
    let peer = table.peer("fd05:0:0:2::9".parse().unwrap()).unwrap();
    assert_eq!(peer.address, "[fd66::12]:8472".parse().unwrap());
}

#[test]
fn the_mtu_is_set_only_where_it_differs() {
    let mut link = Link {
        index: 7,
        name: "flannel.1".into(),
        mac: None,
        mtu: 1450,
        up: true,
        running: true,
        loopback: false,
        promisc: false,
        master: None,
        parent: None,
        parent_netns: None,
        txqlen: 500,
        kind: kernel::LinkKind::Tun,
        port: None,
    };
    assert_eq!(mtu(&link, 1450), []);
    link.mtu = 1500;
    assert_eq!(text(&mtu(&link, 1450)), ["set link flannel.1 mtu 1450"]);
}
