//! Datagrams through the proxy: answers from the address asked, flows that end when they must.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::lab::*;
use proxy::mode::userspace::Options;
use proxy::model::{Balancer, Family, Protocol};

fn servers(lab: &Lab) {
    lab.ends[0].udp_server("[::]:8080", "one");
    lab.ends[1].udp_server("[::]:8080", "two");
}

fn only(mut balancer: Balancer, n: usize) -> Balancer {
    balancer.cluster = vec![balancer.cluster[n]];
    balancer
}

fn client(lab: &Lab, family: Family) -> UdpSocket {
    lab.client.udp(match family {
        Family::V4 => "0.0.0.0:0",
        Family::V6 => "[::]:0",
    })
}

#[test]
fn a_flow_stays_with_its_endpoint_and_moves_when_that_goes() {
    for (family, front) in [(Family::V4, "10.96.0.10:80"), (Family::V6, "[fd96::10]:80")] {
        let Some(mut lab) = Lab::new(family) else {
            return;
        };
        servers(&lab);
        let report = lab.set("dns", Protocol::Udp, web(family));
        assert_eq!(report.errors, [""; 0]);
        let socket = client(&lab, family);
        let (first, from) = exchange(&socket, front, "a").unwrap();
        assert_eq!(
            from,
            front.parse().unwrap(),
            "from the address that was asked"
        );
        for _ in 0..5 {
            assert_eq!(exchange(&socket, front, "a").unwrap().0, first);
        }
        let counters = lab.counters();
        assert_eq!((counters.udp_flows.get(), counters.open_udp.get()), (1, 1));
        // Another client has the other's turn.
        let (second, _) = exchange(&client(&lab, family), front, "a").unwrap();
        assert_ne!(first, second);
        // The first client's endpoint leaves: its socket is not stuck to a place where nobody is.
        let there = usize::from(first == "one a");
        lab.set("dns", Protocol::Udp, only(web(family), there));
        assert_eq!(exchange(&socket, front, "a").unwrap().0, second);
        // No endpoint: the kernel says that nobody listens.
        let mut none = web(family);
        none.cluster.clear();
        none.local.clear();
        none.any_endpoint = false;
        lab.set("dns", Protocol::Udp, none);
        assert_eq!(counters.open_udp.get(), 0);
        socket.connect(front).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        // Not for each datagram: the kernel sends only so many ICMP messages a second.
        until("the client is told", || {
            let told = socket.send(b"a").and_then(|_| socket.recv(&mut [0; 100]));
            told.unwrap_err().kind() == ErrorKind::ConnectionRefused
        });
        // It comes back.
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        lab.set("dns", Protocol::Udp, web(family));
        while socket.send(b"b").is_err() {}
        assert_eq!(socket.recv(&mut [0; 100]).unwrap(), "one b".len());
    }
}

#[test]
fn an_endpoint_where_nobody_listens_is_left_at_once() {
    let Some(mut lab) = Lab::new(Family::V4) else {
        return;
    };
    lab.ends[1].udp_server("10.244.2.2:8080", "two");
    lab.set("dns", Protocol::Udp, web(Family::V4));
    let counters = lab.counters();
    for _ in 0..4 {
        let socket = client(&lab, Family::V4);
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        // At most one datagram is lost on the endpoint that is not there.
        let mut answers = (0..3).filter_map(|_| exchange(&socket, "10.96.0.10:80", "x").ok());
        assert_eq!(answers.next().unwrap().0, "two x");
    }
    assert!(counters.udp_unreachable.get() >= 1);
    assert_eq!(counters.open_udp.get(), 4);
}

#[test]
fn a_server_that_is_replaced_answers_the_same_socket() {
    let Some(mut lab) = Lab::new(Family::V4) else {
        return;
    };
    servers(&lab);
    let socket = client(&lab, Family::V4);
    for round in 0..6 {
        lab.set("dns", Protocol::Udp, only(web(Family::V4), round % 2));
        let (answer, _) = exchange(&socket, "10.96.0.10:80", "x").unwrap();
        assert_eq!(answer, ["one x", "two x"][round % 2], "round {round}");
    }
}

#[test]
fn flows_end_when_idle_and_the_oldest_when_there_are_too_many() {
    let options = Options {
        threads: 1,
        udp_timeout: Duration::from_millis(1500),
        udp_flows: 3,
        ..Options::default()
    };
    let Some(mut lab) = Lab::with(Family::V4, options) else {
        return;
    };
    servers(&lab);
    lab.set("dns", Protocol::Udp, web(Family::V4));
    let counters = lab.counters();
    let sockets: Vec<_> = (0..5).map(|_| client(&lab, Family::V4)).collect();
    for socket in &sockets {
        exchange(socket, "10.96.0.10:80", "x").unwrap();
    }
    assert_eq!(
        (counters.open_udp.get(), counters.udp_evicted.get()),
        (3, 2)
    );
    // One of them goes on, and is the only one to stay.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(3500) {
        exchange(&sockets[4], "10.96.0.10:80", "x").unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(counters.open_udp.get(), 1);
    assert_eq!(counters.udp_flows.get(), 5);
    until("the last one ends", || counters.open_udp.get() == 0);
}

#[test]
fn large_datagrams_and_bursts_come_through_whole() {
    let Some(mut lab) = Lab::new(Family::V4) else {
        return;
    };
    servers(&lab);
    lab.set("dns", Protocol::Udp, only(web(Family::V4), 0));
    let socket = client(&lab, Family::V4);
    let mut buffer = vec![0; 65536];
    for length in [0, 1, 1472, 1473, 9000, 60_000] {
        let text = "x".repeat(length);
        socket.send_to(text.as_bytes(), "10.96.0.10:80").unwrap();
        let (count, _) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], format!("one {text}").as_bytes());
    }
    for n in 0..100 {
        socket
            .send_to(format!("{n}").as_bytes(), "10.96.0.10:80")
            .unwrap();
    }
    for n in 0..100 {
        let (count, _) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], format!("one {n}").as_bytes(), "in order");
    }
}
