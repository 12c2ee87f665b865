//! Tracked connections: listed with their translation, forgotten one by one and many at once.

use std::net::{SocketAddr, UdpSocket};

use kernel::{
    Netlink,
    conntrack::{self, Flow, Tuple},
};

use crate::bed::Node;

const UDP: u8 = 17;
/// Port 53 of a service goes to port 5353 of the loopback address.
const RULES: &str = "
table inet weft-test {
    chain output {
        type nat hook output priority -100
        ip daddr 127.0.0.53 udp dport 53 dnat ip to 127.0.0.1:5353
        ip6 daddr fd00::53 udp dport 53 dnat ip6 to [::1]:5353
    }
}
";

/// A node where packets to itself, and to a service, are tracked.
fn node(test: &str, rules: &str) -> Option<Node> {
    let node = Node::new(test, &["nft", "conntrack", "ip"])?;
    let mut nl = Netlink::open_in(&node.netns).unwrap();
    let lo = nl.expect_link("lo").unwrap();
    nl.ensure_up(&lo).unwrap();
    node.output(
        "ip",
        &["-6", "route", "add", "local", "fd00::/16", "dev", "lo"],
    );
    node.nft(rules);
    Some(node)
}

/// Sends one datagram from each source to `destination`, and says from where.
fn knock(sources: impl IntoIterator<Item = SocketAddr>, destination: &str) -> Vec<SocketAddr> {
    let send = |source: SocketAddr| {
        let socket = UdpSocket::bind(source).unwrap();
        socket.send_to(b"knock", destination).unwrap();
        socket.local_addr().unwrap()
    };
    sources.into_iter().map(send).collect()
}

fn any(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 0)
}

fn all(ipv6: bool, protocol: u8) -> Vec<Flow> {
    let mut found = Vec::new();
    conntrack::flows(ipv6, protocol, |flow| found.push(*flow)).unwrap();
    found.sort();
    found
}

fn udp(source: SocketAddr, destination: &str) -> Tuple {
    Tuple {
        protocol: UDP,
        source,
        destination: destination.parse().unwrap(),
    }
}

#[test]
fn flows_are_listed_with_their_translation() {
    let Some(node) = node("ct-list", RULES) else {
        return;
    };
    node.netns
        .run(|| {
            assert_eq!(all(false, UDP), []);
            let client = knock([any("127.0.0.1")], "127.0.0.53:53")[0];
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let translated = Flow {
                original: udp(client, "127.0.0.53:53"),
                reply: Tuple {
                    protocol: UDP,
                    source: "127.0.0.1:5353".parse().unwrap(),
                    destination: client,
                },
            };
            assert_eq!(all(false, UDP), [translated]);
            let tcp = all(false, 6);
            assert_eq!(tcp.len(), 1);
            assert_eq!(tcp[0].original.source, stream.local_addr().unwrap());

            let client = knock([any("::1")], "[fd00::53]:53")[0];
            let flows = all(true, UDP);
            assert_eq!(flows.len(), 1);
            assert_eq!(flows[0].original, udp(client, "[fd00::53]:53"));
            assert_eq!(flows[0].reply.source, "[::1]:5353".parse().unwrap());
            assert_eq!(all(false, UDP), [translated]);
        })
        .unwrap();
}

#[test]
fn exact_flows_are_forgotten() {
    let Some(node) = node("ct-delete", RULES) else {
        return;
    };
    node.netns
        .run(|| {
            let clients = knock([any("127.0.0.1"); 3], "127.0.0.53:53");
            let other = knock([any("127.0.0.1")], "127.0.0.1:9")[0];
            let six = knock([any("::1")], "[fd00::53]:53")[0];
            let never = udp("127.0.0.1:1".parse().unwrap(), "127.0.0.53:53");
            let doomed = [
                udp(clients[0], "127.0.0.53:53"),
                never,
                udp(six, "[fd00::53]:53"),
            ];
            assert_eq!(conntrack::delete(&[]).unwrap(), 0);
            assert_eq!(conntrack::delete(&doomed).unwrap(), 2);
            assert_eq!(conntrack::delete(&doomed).unwrap(), 0);
            assert_eq!(all(true, UDP), []);
            let left: Vec<_> = all(false, UDP).iter().map(|flow| flow.original).collect();
            let mut wanted = vec![
                udp(clients[1], "127.0.0.53:53"),
                udp(clients[2], "127.0.0.53:53"),
                udp(other, "127.0.0.1:9"),
            ];
            wanted.sort();
            assert_eq!(left, wanted);

            let service = Some("127.0.0.53".parse().unwrap());
            assert_eq!(
                conntrack::delete_flows_to(false, UDP, service, 54).unwrap(),
                0
            );
            assert_eq!(
                conntrack::delete_flows_to(false, UDP, service, 53).unwrap(),
                2
            );
            assert_eq!(conntrack::delete_flows_to(false, UDP, None, 9).unwrap(), 1);
            assert_eq!(all(false, UDP), []);
        })
        .unwrap();
    assert_eq!(node.output("conntrack", &["-L", "-p", "udp"]), "");
}

#[test]
fn thousands_of_flows_at_once() {
    let Some(node) = node("ct-many", RULES) else {
        return;
    };
    node.netns
        .run(|| {
            let sources = (0..3000u32).map(|number| {
                let ip = std::net::Ipv4Addr::from_bits(0x7f01_0000 + number);
                SocketAddr::new(ip.into(), 5000)
            });
            knock(sources, "127.0.0.53:53");
            let mut flows = all(false, UDP);
            flows.dedup();
            assert_eq!(flows.len(), 3000);
            let originals: Vec<_> = flows.iter().map(|flow| flow.original).collect();
            assert_eq!(conntrack::delete(&originals).unwrap(), 3000);
            assert_eq!(all(false, UDP), []);
            assert_eq!(conntrack::delete(&originals).unwrap(), 0);
        })
        .unwrap();
}

#[test]
fn flows_of_another_zone_are_not_ours() {
    let zone = "
        table ip weft-zone {
            chain output {
                type filter hook output priority -300
                ip daddr 127.0.0.1 udp dport 7 ct zone set 5
            }
        }
    ";
    let Some(node) = node("ct-zone", &format!("{RULES}{zone}")) else {
        return;
    };
    node.netns
        .run(|| {
            knock([any("127.0.0.1")], "127.0.0.1:7");
            let ours = knock([any("127.0.0.1")], "127.0.0.1:9")[0];
            let flows = all(false, UDP);
            assert_eq!(flows.len(), 1);
            assert_eq!(flows[0].original, udp(ours, "127.0.0.1:9"));
            assert_eq!(conntrack::delete_flows_to(false, UDP, None, 9).unwrap(), 1);
        })
        .unwrap();
    let listed = node.output("conntrack", &["-L", "-p", "udp"]);
    assert!(listed.contains("zone=5"), "{listed}");
}
