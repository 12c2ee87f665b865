//! Which endpoint a connection gets.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::lab::*;
use proxy::mode::Mode as _;
use proxy::model::{Changed, Family, Protocol};

const FRONT: &str = "10.96.0.10:80";

fn lab() -> Option<Lab> {
    let lab = Lab::new(Family::V4)?;
    lab.ends[0].tcp_server("10.244.1.2:8080", "one");
    lab.ends[1].tcp_server("10.244.2.2:8080", "two");
    Some(lab)
}

#[test]
fn endpoints_take_turns_and_see_the_node() {
    let Some(mut lab) = lab() else { return };
    lab.set("web", Protocol::Tcp, web(Family::V4));
    let mut seen = BTreeMap::new();
    for _ in 0..10 {
        let (name, from) = lab.ask(FRONT);
        *seen.entry((name, from.to_string())).or_insert(0) += 1;
    }
    let expected = [("one", "10.244.1.1"), ("two", "10.244.2.1")];
    let expected = expected.map(|(name, from)| ((name.to_owned(), from.to_owned()), 5));
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn with_affinity_a_client_stays_until_its_endpoint_goes() {
    for by_hash in [false, true] {
        let Some(mut lab) = lab() else { return };
        lab.wanted.site.affinity_by_hash = by_hash;
        let mut b = web(Family::V4);
        b.affinity = Some(10800);
        lab.set("web", Protocol::Tcp, b.clone());
        let first = lab.ask(FRONT).0;
        for _ in 0..14 {
            assert_eq!(lab.ask(FRONT).0, first);
        }
        // A change elsewhere, and a comparison of everything, leave it.
        lab.set("other", Protocol::Tcp, {
            let mut other = web(Family::V4);
            other.fronts[0].port = 81;
            other
        });
        lab.sync(&Changed::All);
        assert_eq!(lab.ask(FRONT).0, first);
        let gone = usize::from(first == "two");
        b.cluster.remove(gone);
        lab.set("web", Protocol::Tcp, b.clone());
        let second = lab.ask(FRONT).0;
        assert_ne!(second, first);
        // By table it stays with the second also when the first is back; by hash it goes home.
        lab.set("web", Protocol::Tcp, {
            let mut b = web(Family::V4);
            b.affinity = Some(10800);
            b
        });
        let expected = if by_hash { &first } else { &second };
        assert_eq!(lab.ask(FRONT).0, *expected);
    }
}

#[test]
fn with_affinity_a_dead_endpoint_loses_its_clients() {
    let Some(mut lab) = lab() else { return };
    let mut b = web(Family::V4);
    b.affinity = Some(10800);
    lab.set("web", Protocol::Tcp, b);
    let first = lab.ask(FRONT).0;
    let counters = lab.counters();
    // Its host refuses what arrives for it; the list still has it.
    let n = if first == "one" { 1 } else { 2 };
    lab.ends[n - 1].ip(&format!("address delete 10.244.{n}.2/24 dev eth0"));
    lab.ends[n - 1].ip(&format!("address add 10.244.{n}.3/24 dev eth0"));
    lab.ends[n - 1].ip("route replace local 10.244.0.0/16 dev lo");
    for _ in 0..3 {
        assert_ne!(lab.ask(FRONT).0, first);
    }
    assert_eq!(counters.tcp_connect_failures.get(), 1, "tried once only");
}

#[test]
fn connections_go_on_when_their_endpoint_leaves_the_list() {
    let Some(mut lab) = lab() else { return };
    lab.set("web", Protocol::Tcp, web(Family::V4));
    let mut streams: Vec<TcpStream> = (0..2).map(|_| lab.client.connect(FRONT).unwrap()).collect();
    let names: Vec<String> = streams.iter_mut().map(|stream| ask(stream).0).collect();
    let mut b = web(Family::V4);
    b.cluster.remove(0);
    let report = lab.set("web", Protocol::Tcp, b);
    assert_eq!((report.changes, report.full), (0, false), "a table only");
    for _ in 0..4 {
        assert_eq!(lab.ask(FRONT).0, "two");
    }
    // Gone altogether, too.
    lab.unset("web", Protocol::Tcp);
    assert!(lab.client.connect(FRONT).is_err());
    for (stream, name) in streams.iter_mut().zip(names) {
        stream.write_all(b"still").unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"still", "{name}");
    }
    // Its address stays the node's as long as that is needed.
    let route = |lab: &Lab| lab.node.ip("route show table local proto 87");
    assert_eq!(lab.mode().disturbed(), None);
    assert!(route(&lab).contains("10.96.0.10"));
    assert_eq!(lab.sync(&Changed::All).changes, 0);
    drop(streams);
    until("the route goes with the last stream", || {
        assert_eq!(lab.mode().disturbed(), None);
        route(&lab).is_empty()
    });
}
