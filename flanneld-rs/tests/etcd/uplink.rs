//! The external interface goes and comes back, or cannot be used. Needs root.

use std::net::UdpSocket;
use std::time::Duration;

use kernel::{Address, Change, Netlink, NewLink, NewLinkKind, SetLink};

use crate::node::{Daemon, get, in_a_node, routes_of};
use crate::server::Etcd;

const HOST_GW: &str = r#"{"Network":"10.3.0.0/16","Backend":{"Type":"host-gw"}}"#;
const UDP: &str = r#"{"Network":"10.3.0.0/16","Backend":{"Type":"udp"}}"#;
const PEER: &str = r#"{"PublicIP":"192.168.66.12","PublicIPv6":null,"BackendType":"host-gw"}"#;
const ROUTE: &str = "10.3.250.0/24";

fn eth0() -> u32 {
    let mut netlink = Netlink::open().unwrap();
    netlink.expect_link("eth0").unwrap().index
}

fn apply(change: Change) {
    Netlink::open().unwrap().apply(&change).unwrap();
}

fn address(net: &str) -> Address {
    Address::new(eth0(), net.parse().unwrap())
}

fn set_up(up: bool) {
    apply(Change::SetLink(SetLink {
        index: eth0(),
        up: Some(up),
        ..SetLink::default()
    }));
}

async fn with_a_route(etcd: &Etcd) -> Daemon {
    etcd.put("config", HOST_GW).await;
    etcd.put("subnets/10.3.250.0-24", PEER).await;
    let daemon = Daemon::start(etcd, &["--iface=eth0"]);
    daemon.ready().await;
    route_is_there(&daemon).await;
    daemon
}

fn routes() -> Vec<String> {
    routes_of(eth0())
}

async fn route_is_there(daemon: &Daemon) {
    let there = async || routes().iter().any(|dst| dst == ROUTE);
    daemon.until("route to the peer", there).await;
}

#[test]
fn an_address_that_is_taken_and_given_back_gets_its_routes_again() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        let daemon = with_a_route(&etcd).await;
        for pause in [0, 1500] {
            apply(Change::DeleteAddress(address("192.168.66.11/24")));
            assert!(!routes().iter().any(|dst| dst == ROUTE));
            tokio::time::sleep(Duration::from_millis(pause)).await;
            apply(Change::AddAddress(address("192.168.66.11/24")));
            route_is_there(&daemon).await;
            daemon.ready().await;
        }
    });
}

#[test]
fn a_link_that_goes_down_and_up_gets_its_routes_again() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        let daemon = with_a_route(&etcd).await;
        set_up(false);
        tokio::time::sleep(Duration::from_millis(500)).await;
        set_up(true);
        route_is_there(&daemon).await;
        daemon.ready().await;
    });
}

#[test]
fn an_interface_made_anew_is_followed_when_its_address_comes() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        let daemon = with_a_route(&etcd).await;
        apply(Change::DeleteLink {
            index: eth0(),
            name: "eth0".to_owned(),
        });
        daemon.logged("keeping eth0 as it was").await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let kind = NewLinkKind::Bridge {
            vlan_filtering: None,
        };
        apply(Change::AddLink(NewLink {
            up: true,
            ..NewLink::new("eth0", kind)
        }));
        assert!(get("/readyz").contains("Uplink:"), "{}", get("/readyz"));
        tokio::time::sleep(Duration::from_millis(1200)).await;
        apply(Change::AddAddress(address("192.168.66.11/24")));
        let since = std::time::Instant::now();
        route_is_there(&daemon).await;
        assert!(since.elapsed() < Duration::from_secs(1), "by a timer only");
        daemon.ready().await;
    });
}

#[test]
fn a_node_whose_backend_cannot_follow_is_not_ready_until_it_can() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", UDP).await;
        let daemon = Daemon::start(&etcd, &["--iface=eth0"]);
        daemon.ready().await;
        apply(Change::AddAddress(address("192.168.77.99/24")));
        let taken = UdpSocket::bind("192.168.77.99:8285").unwrap();
        apply(Change::DeleteAddress(address("192.168.66.11/24")));
        let refused = async || get("/readyz").contains("Backend:");
        daemon.until("not ready", refused).await;
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(refused().await, "{}\n{}", get("/readyz"), daemon.log());
        }
        drop(taken);
        daemon.ready().await;
    });
}
