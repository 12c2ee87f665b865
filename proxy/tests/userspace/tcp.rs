//! TCP streams through the proxy: whole, in order, ended and broken as they would be without it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::lab::*;
use proxy::model::{Endpoint, Family, Protocol};

const MIB: usize = 1 << 20;

/// A stream of bytes, whose blocks begin at different places of a sequence without a pattern.
struct Sample(Vec<u8>);

impl Sample {
    fn new() -> Self {
        let word = |n: u32| (n.wrapping_mul(0x9e37_79b9) ^ n).to_be_bytes();
        Self((0..MIB as u32 / 2).flat_map(word).collect())
    }

    fn block(&self, number: usize) -> &[u8] {
        &self.0[number * 7919 % MIB..][..MIB]
    }

    fn send(&self, stream: &mut TcpStream, blocks: usize) {
        for number in 0..blocks {
            stream.write_all(self.block(number)).unwrap();
        }
    }

    fn expect(&self, stream: &mut TcpStream, blocks: usize) {
        let mut buffer = vec![0; MIB];
        for number in 0..blocks {
            stream.read_exact(&mut buffer).unwrap();
            assert!(buffer == self.block(number), "bytes of block {number}");
        }
    }
}

/// The connections that either endpoint gets.
fn accept_at_both(lab: &Lab) -> Receiver<TcpStream> {
    let (accepted, connections) = channel();
    for host in &lab.ends {
        let listener = host.listen("[::]:8080");
        let accepted = accepted.clone();
        thread::spawn(move || {
            let of_test = |stream: TcpStream| accepted.send(stream).is_ok();
            listener.incoming().flatten().all(of_test)
        });
    }
    connections
}

fn both_families(test: impl Fn(&mut Lab, &str, Family)) {
    for (family, front) in [(Family::V4, "10.96.0.10:80"), (Family::V6, "[fd96::10]:80")] {
        let Some(mut lab) = Lab::new(family) else {
            return;
        };
        assert_eq!(lab.set("web", Protocol::Tcp, web(family)).errors, [""; 0]);
        test(&mut lab, front, family);
    }
}

#[test]
fn a_hundred_megabytes_come_through_both_ways_at_once() {
    both_families(|lab, front, family| {
        for (host, n) in lab.ends.iter().zip(1..) {
            host.tcp_server(&format!("[::]:{}", end(family, n).port), "end");
        }
        let mut stream = lab.client.connect(front).unwrap();
        ask(&mut stream);
        let mut other = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            Sample::new().send(&mut other, 100);
            other.shutdown(Shutdown::Write).unwrap();
        });
        Sample::new().expect(&mut stream, 100);
        sender.join().unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        let counters = lab.counters();
        until("the connection is counted as ended", || {
            counters.open_tcp.get() == 0
        });
        assert_eq!(counters.tcp_bytes_to_endpoints.get(), 100 * MIB as u64);
        assert_eq!(
            counters.tcp_client_errors.get() + counters.tcp_endpoint_errors.get(),
            0
        );
    });
}

#[test]
fn each_side_may_end_first_and_still_hear_the_other() {
    both_families(|lab, front, _| {
        let server = accept_at_both(lab);
        // The client first.
        let mut client = lab.client.connect(front).unwrap();
        let mut endpoint = server.recv().unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        endpoint.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        thread::sleep(Duration::from_millis(50));
        endpoint.write_all(b"answer").unwrap();
        drop(endpoint);
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        // The endpoint first.
        let mut client = lab.client.connect(front).unwrap();
        let mut endpoint = server.recv().unwrap();
        endpoint.write_all(b"greeting").unwrap();
        endpoint.shutdown(Shutdown::Write).unwrap();
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "greeting");
        thread::sleep(Duration::from_millis(50));
        client.write_all(b"thanks").unwrap();
        drop(client);
        text.clear();
        endpoint.read_to_string(&mut text).unwrap();
        assert_eq!(text, "thanks");
        let counters = lab.counters();
        until("both are counted as ended", || counters.open_tcp.get() == 0);
        assert_eq!(
            counters.tcp_client_errors.get() + counters.tcp_endpoint_errors.get(),
            0
        );
    });
}

#[test]
fn a_reset_of_one_side_is_a_reset_for_the_other() {
    both_families(|lab, front, _| {
        let server = accept_at_both(lab);
        let reset = |stream: TcpStream| {
            let linger = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&stream, sockopt::Linger, &linger).unwrap();
        };
        let mut client = lab.client.connect(front).unwrap();
        let mut endpoint = server.recv().unwrap();
        // Once a byte has come through, it is not an attempt to connect any more.
        endpoint.write_all(b".").unwrap();
        client.read_exact(&mut [0]).unwrap();
        reset(endpoint);
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let mut client = lab.client.connect(front).unwrap();
        let mut endpoint = server.recv().unwrap();
        endpoint.set_read_timeout(Some(PATIENCE)).unwrap();
        endpoint.write_all(b".").unwrap();
        client.read_exact(&mut [0]).unwrap();
        reset(client);
        let error = endpoint.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let counters = lab.counters();
        until("both are counted as ended", || counters.open_tcp.get() == 0);
        assert_eq!(counters.tcp_client_errors.get(), 1);
        assert_eq!(counters.tcp_endpoint_errors.get(), 1);
    });
}

#[test]
fn a_reader_that_is_slow_holds_the_writer_up_and_nothing_is_lost() {
    both_families(|lab, front, _| {
        let server = accept_at_both(lab);
        let mut client = lab.client.connect(front).unwrap();
        let mut endpoint = server.recv().unwrap();
        client.set_nonblocking(true).unwrap();
        // Until the writer is stopped for a while: what the buffers on the way hold is bounded.
        let (mut sent, mut idle) = (0, Instant::now());
        let sample = Sample::new();
        let blocks: Vec<_> = (0..64).map(|number| sample.block(number)).collect();
        let bytes = blocks.concat();
        while idle.elapsed() < Duration::from_millis(300) {
            assert!(sent < 64 * MIB, "nobody holds the writer up");
            match client.write(&bytes[sent..]) {
                Ok(count) => (sent, idle) = (sent + count, Instant::now()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
        drop(client);
        let mut received = Vec::new();
        endpoint.read_to_end(&mut received).unwrap();
        assert!(
            received == bytes[..sent],
            "{} of {sent} bytes",
            received.len()
        );
    });
}

#[test]
fn a_thousand_connections_at_once() {
    both_families(|lab, front, _| {
        for host in &lab.ends {
            host.tcp_server("[::]:8080", "end");
        }
        let mut streams: Vec<_> = (0..1000)
            .map(|_| lab.client.connect(front).unwrap())
            .collect();
        let counters = lab.counters();
        for (n, stream) in streams.iter_mut().enumerate() {
            ask(stream);
            stream.write_all(&(n as u64).to_be_bytes()).unwrap();
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            stream.read_exact(&mut bytes).unwrap();
            assert_eq!(u64::from_be_bytes(bytes), n as u64);
        }
        assert_eq!(counters.tcp_accepted.get(), 1000);
        drop(streams);
        until("all are counted as ended", || counters.open_tcp.get() == 0);
    });
}

#[test]
fn an_endpoint_that_refuses_or_is_silent_is_passed_over() {
    let Some(mut lab) = Lab::new(Family::V4) else {
        return;
    };
    let mut b = web(Family::V4);
    lab.ends[1].tcp_server("10.244.2.2:8080", "two");
    // The first refuses (no listener), as would any address of its host.
    lab.set("web", Protocol::Tcp, b.clone());
    for _ in 0..6 {
        assert_eq!(lab.ask("10.96.0.10:80").0, "two");
    }
    let counters = lab.counters();
    assert_eq!(counters.tcp_connect_failures.get(), 3);
    // Silence: packets go to nobody.
    lab.node
        .ip("neigh add 10.244.1.9 lladdr 02:00:00:00:00:09 dev v1");
    let silent = Endpoint {
        ip: "10.244.1.9".parse().unwrap(),
        port: 8080,
        local: false,
    };
    b.cluster = vec![silent, b.cluster[1]];
    lab.set("web", Protocol::Tcp, b.clone());
    let start = Instant::now();
    let served: Vec<_> = (0..2).map(|_| lab.ask("10.96.0.10:80").0).collect();
    assert_eq!(served, ["two", "two"]);
    let waited = start.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(8)).contains(&waited),
        "{waited:?}"
    );
    // Nobody answers: the client is reset.
    b.cluster = vec![end(Family::V4, 1)];
    lab.set("web", Protocol::Tcp, b);
    let error = lab.try_ask("10.96.0.10:80").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    until("it is counted", || counters.tcp_unserved.get() == 1);
    until("all have ended", || counters.open_tcp.get() == 0);
}

#[test]
fn without_endpoints_a_client_is_refused_by_the_kernel_at_once() {
    both_families(|lab, front, family| {
        let mut b = web(family);
        b.cluster.clear();
        b.local.clear();
        b.any_endpoint = false;
        lab.set("web", Protocol::Tcp, b.clone());
        let error = lab.client.connect(front).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        // Nor does anyone answer on a port that no Service has.
        let error = lab
            .client
            .connect(&front.replace(":80", ":81"))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}
