//! Who is served, who is refused, and who hears nothing.

use std::io::ErrorKind;
use std::time::Duration;

use super::lab::*;
use proxy::model::{
    Balancer, Changed, Family, FrontKind, LocalDetector, NodePortAddresses, Policy, Protocol,
};

const VIP: &str = "203.0.113.5";

fn lab(family: Family) -> Option<Lab> {
    let lab = Lab::new(family)?;
    for (host, name) in lab.ends.iter().zip(["one", "two"]) {
        host.tcp_server("[::]:8080", name);
        host.udp_server("[::]:8080", name);
    }
    Some(lab)
}

fn balanced_at(kind: FrontKind) -> Balancer {
    balancer(
        front(kind, VIP, 80),
        &[end(Family::V4, 1), end(Family::V4, 2)],
    )
}

#[test]
fn source_ranges_meet_others_with_silence_and_go_live() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    let mut b = balanced_at(FrontKind::LoadBalancer);
    b.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert_eq!(lab.set("web", protocol, b.clone()).errors, [""; 0]);
    }
    let at = format!("{VIP}:80");
    assert!(lab.client.hears_nothing(&at));
    let socket = lab.client.udp("0.0.0.0:0");
    socket.connect(&at).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    socket.send(b"x").unwrap();
    let error = socket.recv(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(lab.counters().udp_refused.get(), 1);
    assert!(lab.node.hears_nothing(&at), "the node is not in the range");
    // The range is changed on the listening socket.
    b.source_ranges
        .push(format!("{CLIENT}/32").parse().unwrap());
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        lab.set("web", protocol, b.clone());
    }
    lab.ask(&at);
    socket.send(b"x").unwrap();
    assert_eq!(socket.recv(&mut [0; 10]).unwrap(), "one x".len());
    // A range with the node's own address lets in what the node sends to the address from the address.
    b.source_ranges = vec![format!("{}/32", NODE[0]).parse().unwrap()];
    lab.set("web", Protocol::Tcp, b.clone());
    assert!(lab.client.hears_nothing(&at));
    ask(&mut lab.node.connect(&at).unwrap());
    b.source_ranges.clear();
    lab.set("web", Protocol::Tcp, b);
    lab.ask(&at);
}

#[test]
fn local_policy_without_local_endpoints_is_silence_but_not_for_local_clients() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    lab.wanted.site.local = LocalDetector::Cidrs(vec!["10.244.1.0/24".parse().unwrap()]);
    let mut b = balanced_at(FrontKind::ExternalIp);
    b.external_policy = Policy::Local;
    b.local.clear();
    lab.set("web", Protocol::Tcp, b.clone());
    let at = format!("{VIP}:80");
    assert!(lab.client.hears_nothing(&at));
    ask(&mut lab.ends[0].connect(&at).unwrap());
    ask(&mut lab.node.connect(&at).unwrap());
    assert!(lab.ends[1].hears_nothing(&at), "a Pod of another node");
    // A local endpoint comes: outsiders get that one only, local clients any.
    b.local = vec![end(Family::V4, 1)];
    lab.set("web", Protocol::Tcp, b);
    for _ in 0..4 {
        assert_eq!(lab.ask(&at).0, "one");
    }
    let mut names: Vec<_> = (0..2)
        .map(|_| ask(&mut lab.ends[0].connect(&at).unwrap()).0)
        .collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);
}

#[test]
fn local_clients_told_by_interface_are_served_and_others_reset() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    let mut b = balanced_at(FrontKind::ExternalIp);
    b.external_policy = Policy::Local;
    b.local.clear();
    for detector in [
        LocalDetector::Interface("v1".into()),
        LocalDetector::InterfacePrefix("v1".into()),
    ] {
        lab.wanted.site.local = detector;
        lab.wanted.balancers.clear();
        lab.sync(&Changed::All);
        lab.set("web", Protocol::Tcp, b.clone());
        let at = format!("{VIP}:80");
        ask(&mut lab.ends[0].connect(&at).unwrap());
        let error = lab.try_ask(&at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn internal_policy_without_local_endpoints_is_silence_for_all() {
    let Some(mut lab) = lab(Family::V6) else {
        return;
    };
    let mut b = web(Family::V6);
    b.internal_policy = Policy::Local;
    b.local.clear();
    lab.set("web", Protocol::Tcp, b.clone());
    assert!(lab.client.hears_nothing("[fd96::10]:80"));
    assert!(lab.node.hears_nothing("[fd96::10]:80"));
    b.local = vec![end(Family::V6, 1)];
    lab.set("web", Protocol::Tcp, b);
    assert_eq!(lab.ask("[fd96::10]:80").0, "one");
}

#[test]
fn node_ports_answer_from_the_address_that_was_asked() {
    for family in Family::ALL {
        let Some(mut lab) = lab(family) else { return };
        let endpoints = [end(family, 1), end(family, 2)];
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let report = lab.set("web", protocol, balancer(node_port(30080), &endpoints));
            assert_eq!(report.errors, [""; 0]);
        }
        let addresses = match family {
            Family::V4 => NODE.map(|ip| format!("{ip}:30080")),
            Family::V6 => [NODE6, "fd44:1::1"].map(|ip| format!("[{ip}]:30080")),
        };
        let socket = match family {
            Family::V4 => lab.client.udp("0.0.0.0:0"),
            Family::V6 => lab.client.udp("[::]:0"),
        };
        for at in &addresses {
            lab.ask(at);
            let (_, from) = exchange(&socket, at, "x").unwrap();
            assert_eq!(from.to_string(), *at);
        }
        let loopback = match family {
            Family::V4 => "127.0.0.1:30080",
            Family::V6 => "[::1]:30080",
        };
        let error = lab.node.connect(loopback).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        // One of the addresses only, and loopback.
        let named = addresses[1].parse::<std::net::SocketAddr>().unwrap().ip();
        lab.wanted.site.node_port_addresses = NodePortAddresses::Some([named].into());
        lab.wanted.site.localhost_node_ports = true;
        assert_eq!(lab.sync(&Changed::All).errors, [""; 0]);
        lab.ask(&addresses[1]);
        assert!(lab.client.connect(&addresses[0]).is_err());
        ask(&mut lab.node.connect(loopback).unwrap());
    }
}

#[test]
fn a_node_port_is_no_port_of_a_service_address_and_both_may_have_the_same_number() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    let mut b = web(Family::V4);
    b.fronts.push(node_port(30080));
    lab.set("web", Protocol::Tcp, b);
    let error = lab.client.connect("10.96.0.10:30080").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let same = front(FrontKind::ClusterIp, "10.96.0.11", 30080);
    let report = lab.set("same", Protocol::Tcp, balancer(same, &[end(Family::V4, 2)]));
    assert_eq!(report.errors, [""; 0]);
    assert_eq!(lab.ask("10.96.0.11:30080").0, "two");
    lab.ask(&format!("{}:30080", NODE[0]));
}

#[test]
fn source_ranges_of_ipv6() {
    let Some(mut lab) = lab(Family::V6) else {
        return;
    };
    let vip = front(FrontKind::LoadBalancer, "fd05::5", 80);
    let mut b = balancer(vip, &[end(Family::V6, 2)]);
    b.source_ranges = vec![
        "fd03::/16".parse().unwrap(),
        "fd44:1::/64".parse().unwrap(),
        "fd44:2::2/128".parse().unwrap(),
    ];
    assert_eq!(lab.set("web", Protocol::Tcp, b).errors, [""; 0]);
    assert!(lab.client.hears_nothing("[fd05::5]:80"));
    for host in &lab.ends {
        ask(&mut host.connect("[fd05::5]:80").unwrap());
    }
}
