//! `portmap` by both backends: real connections through the host's ports.

mod removal;

use std::{
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use serde_json::{Value, json};

use crate::bed::{Args, Bed, NO_IPTABLES, Space, skipped};

const BACKENDS: [&str; 2] = ["iptables", "nftables"];
const WAIT: Duration = Duration::from_secs(2);

/// A container behind a bridge, ready to have ports mapped to it.
struct Mapped {
    bed: Bed,
    world: Space,
    pod: Space,
    args: Args,
    result: Value,
}

impl Mapped {
    fn new() -> Option<Self> {
        let bed = Bed::new()?;
        let world = bed.world();
        let pod = bed.container();
        let args = Args::of("mapped", &pod);
        let config = json!({"cniVersion": "1.0.0", "name": "net1", "type": "bridge",
            "bridge": "br0", "isDefaultGateway": true, "hairpinMode": true,
            "ipam": bed.host_local(&["10.77.0.0/24", "fd77::/64"], json!({}))});
        let result = bed.ours("ADD", "bridge", &args, &config);
        bed.host.settle();
        Some(Self {
            bed,
            world,
            pod,
            args,
            result,
        })
    }

    fn config(&self, backend: &str, mappings: Value) -> Value {
        json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": backend,
            "capabilities": {"portMappings": true},
            "runtimeConfig": {"portMappings": mappings}, "prevResult": self.result})
    }
}

impl Mapped {
    /// Every rule about forwarded ports on the host that names the container or an address of it.
    fn rules(&self) -> String {
        [
            "iptables-save -t nat",
            "ip6tables-save -t nat",
            "nft list ruleset",
        ]
        .map(|command| self.bed.host.must(command))
        .concat()
        .lines()
        .filter(|line| {
            ["CNI-DN-", "mapped", "10.77.0.2", "fd77::2"]
                .iter()
                .any(|own| line.contains(own))
        })
        .map(|line| format!("{line}\n"))
        .collect()
    }
}

/// Can `client` open a TCP connection to `target` that `server` gets on `port`? The peer's address
/// as the server sees it.
fn tcp(client: &Space, target: &str, server: &Space, port: u16) -> Option<IpAddr> {
    let bound: IpAddr = if target.starts_with('[') {
        "::".parse().unwrap()
    } else {
        "0.0.0.0".parse().unwrap()
    };
    let listener = server.inside(|| TcpListener::bind((bound, port)).unwrap());
    let target: SocketAddr = target.parse().unwrap();
    let stream = client.inside(move || TcpStream::connect_timeout(&target, WAIT));
    let peer = stream
        .is_ok()
        .then(|| listener.accept().unwrap().1.ip().to_canonical());
    // Closing alone does not free the port: a process that another test is just starting has its
    // own copy of the socket until it calls exec, and the next bind would fail.
    TcpStream::from(OwnedFd::from(listener))
        .shutdown(Shutdown::Both)
        .unwrap();
    peer
}

/// A socket for [`udp`] to answer from; a test keeps one throughout, for the same reason.
fn echo(server: &Space, port: u16) -> UdpSocket {
    let echo = server.inside(|| UdpSocket::bind(("0.0.0.0", port)).unwrap());
    echo.set_read_timeout(Some(WAIT)).unwrap();
    echo
}

/// Does a datagram from `socket` to `target` get an answer from `echo`?
fn udp(socket: &UdpSocket, target: &str, echo: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.send_to(b"ping", target).unwrap();
    let mut buffer = [0; 16];
    let Ok((length, peer)) = echo.recv_from(&mut buffer) else {
        return false;
    };
    echo.send_to(&buffer[..length], peer).unwrap();
    socket.recv_from(&mut buffer).is_ok()
}

fn mapping(host: u16, container: u16, protocol: &str) -> Value {
    json!({"hostPort": host, "containerPort": container, "protocol": protocol})
}

#[test]
fn tcp_and_udp_from_outside_from_the_host_and_from_the_container_itself() {
    let Some(mapped) = Mapped::new() else { return };
    let dns = echo(&mapped.pod, 53);
    for backend in BACKENDS {
        let config = mapped.config(
            backend,
            json!([mapping(8080, 80, "tcp"), mapping(5353, 53, "udp")]),
        );
        let result = mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        assert_eq!(result, mapped.result, "the previous result is passed on");
        mapped.bed.ours("CHECK", "portmap", &mapped.args, &config);
        let (world, host, pod) = (&mapped.world, &mapped.bed.host, &mapped.pod);
        // From outside, in both families, with the client's own address.
        let seen = tcp(world, "192.0.2.1:8080", pod, 80);
        assert_eq!(seen, Some("192.0.2.2".parse().unwrap()), "{backend}");
        let seen = tcp(world, "[2001:db8::1]:8080", pod, 80);
        assert_eq!(seen, Some("2001:db8::2".parse().unwrap()), "{backend}");
        let socket = world.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        assert!(udp(&socket, "192.0.2.1:5353", &dns), "{backend}");
        // From the host, also by 127.0.0.1, which takes route_localnet and masquerading.
        assert!(tcp(host, "192.0.2.1:8080", pod, 80).is_some(), "{backend}");
        assert!(
            tcp(host, "127.0.0.1:8080", pod, 80).is_some(),
            "{backend} localhost"
        );
        // From the container to its own port on the host: a hairpin, masqueraded.
        let seen = tcp(pod, "192.0.2.1:8080", pod, 80);
        assert_eq!(
            seen,
            Some("10.77.0.1".parse().unwrap()),
            "{backend} hairpin"
        );
        assert!(
            tcp(pod, "[2001:db8::1]:8080", pod, 80).is_some(),
            "{backend} hairpin"
        );
        for _ in 0..2 {
            mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
        }
        assert_eq!(tcp(world, "192.0.2.1:8080", pod, 80), None, "{backend}");
        let left = mapped.bed.footprint() + &host.must("nft list ruleset ip");
        assert!(
            !left.contains("mapped") && !left.contains("10.77.0.2:80"),
            "{backend}: {left}"
        );
        assert!(!left.contains("CNI-DN-"), "{backend}: {left}");
        mapped
            .bed
            .refused("CHECK", "portmap", &mapped.args, &config);
    }
}

#[test]
fn only_traffic_to_the_host_itself_is_forwarded() {
    let Some(mapped) = Mapped::new() else { return };
    let (world, host, pod) = (&mapped.world, &mapped.bed.host, &mapped.pod);
    world.must("ip route add 10.77.0.0/24 via 192.0.2.1");
    world.must("ip -6 route add fd77::/64 via 2001:db8::1");
    for backend in BACKENDS {
        let with = |port, ip: &str| json!({"hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": ip});
        // The second's address is none of the host's.
        let config = mapped.config(
            backend,
            json!([mapping(8080, 80, "tcp"), with(8081, "192.0.2.2")]),
        );
        mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        assert!(tcp(world, "192.0.2.1:8080", pod, 80).is_some(), "{backend}");
        // Forwarded through the host, with the mapped port: from the container outwards, ...
        for (target, source) in [
            ("192.0.2.2:8080", "10.77.0.2"),
            ("[2001:db8::2]:8080", "fd77::2"),
            ("192.0.2.2:8081", "10.77.0.2"),
        ] {
            let port = target.parse::<SocketAddr>().unwrap().port();
            let seen = tcp(pod, target, world, port);
            assert_eq!(seen, Some(source.parse().unwrap()), "{backend} {target}");
        }
        // ... from outside to a container, ...
        for (target, source) in [
            ("10.77.0.2:8080", "192.0.2.2"),
            ("[fd77::2]:8080", "2001:db8::2"),
        ] {
            let seen = tcp(world, target, pod, 8080);
            assert_eq!(seen, Some(source.parse().unwrap()), "{backend} {target}");
        }
        // ... and what the host itself sends elsewhere.
        for target in ["192.0.2.2:8080", "[2001:db8::2]:8080"] {
            assert!(
                tcp(host, target, world, 8080).is_some(),
                "{backend} {target}"
            );
        }
        mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
    }
}

#[test]
fn a_host_address_limits_a_mapping() {
    let Some(mapped) = Mapped::new() else { return };
    mapped.bed.host.must("ip addr add 192.0.2.9/24 dev out");
    for backend in BACKENDS {
        let with = |port, ip: &str| json!({"hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": ip});
        let config = mapped.config(
            backend,
            json!([
                with(81, "192.0.2.9"),
                with(82, "0.0.0.0"),
                with(83, "::"),
                with(84, "2001:db8::1")
            ]),
        );
        mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        mapped.bed.ours("CHECK", "portmap", &mapped.args, &config);
        for (target, reached) in [
            ("192.0.2.9:81", true),
            ("192.0.2.1:81", false),
            ("192.0.2.1:82", true),
            ("[2001:db8::1]:82", false),
            ("192.0.2.1:83", false),
            ("[2001:db8::1]:83", true),
            ("[2001:db8::1]:84", true),
        ] {
            let seen = tcp(&mapped.world, target, &mapped.pod, 80);
            assert_eq!(seen.is_some(), reached, "{backend} {target}");
        }
        mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
    }
}

#[test]
fn a_udp_flow_finds_the_new_container() {
    let Some(mapped) = Mapped::new() else { return };
    let dns = echo(&mapped.pod, 53);
    for backend in BACKENDS {
        // The client keeps its source port throughout, as a resolver does; before the mapping
        // exists its datagrams make a flow that leads to the host itself.
        let socket = mapped
            .world
            .inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.send_to(b"early", "192.0.2.1:5353").unwrap();
        let config = mapped.config(backend, json!([mapping(5353, 53, "udp")]));
        mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        // The refusal of the early datagram is still in the socket.
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let _ = socket.recv_from(&mut [0; 16]);
        assert!(udp(&socket, "192.0.2.1:5353", &dns), "{backend}");
        mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
    }
}

#[test]
fn nftables_is_taken_where_there_is_no_iptables() {
    let Some(mapped) = Mapped::new() else { return };
    let mut config = mapped.config("", json!([mapping(8080, 80, "tcp")]));
    config.as_object_mut().unwrap().remove("backend");
    let mut args = mapped.args.clone();
    args.hide = NO_IPTABLES;
    mapped.bed.ours("ADD", "portmap", &args, &config);
    assert!(tcp(&mapped.world, "192.0.2.1:8080", &mapped.pod, 80).is_some());
    let rules = mapped.bed.host.must("nft list table ip cni_hostport");
    assert!(rules.contains("10.77.0.2:80"), "{rules}");
    mapped.bed.ours("CHECK", "portmap", &args, &config);
    mapped.bed.ours("DEL", "portmap", &args, &config);
    let rules = mapped.bed.host.must("nft list table ip cni_hostport");
    assert!(!rules.contains("10.77.0.2:80"), "{rules}");
    let mut config = crate::bridge::config(&mapped.bed, json!({"ipMasq": true, "name": "masq"}));
    config["bridge"] = json!("br1");
    config["ipam"] = mapped.bed.host_local(&["10.79.0.0/24"], json!({}));
    let space = mapped.bed.container();
    let mut args = Args::of("masq", &space);
    args.hide = NO_IPTABLES;
    mapped.bed.ours("ADD", "bridge", &args, &config);
    let seen = crate::masquerade::seen_by(&mapped.world, "192.0.2.2", &space);
    assert_eq!(seen, "192.0.2.1");
}

#[test]
fn masq_all_hides_the_source_of_what_is_forwarded() {
    let Some(mapped) = Mapped::new() else { return };
    mapped.world.must("ip route add 10.77.0.0/24 via 192.0.2.1");
    for backend in BACKENDS {
        let mut config = mapped.config(backend, json!([mapping(8080, 80, "tcp")]));
        config["masqAll"] = json!(true);
        mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        mapped.bed.ours("CHECK", "portmap", &mapped.args, &config);
        for (client, target, source) in [
            (&mapped.world, "192.0.2.1:8080", "10.77.0.1"),
            (&mapped.world, "[2001:db8::1]:8080", "fd77::1"),
            (&mapped.bed.host, "127.0.0.1:8080", "10.77.0.1"),
            (&mapped.pod, "192.0.2.1:8080", "10.77.0.1"),
            // Without the mapping the source is kept.
            (&mapped.world, "10.77.0.2:80", "192.0.2.2"),
        ] {
            let seen = tcp(client, target, &mapped.pod, 80);
            assert_eq!(seen, Some(source.parse().unwrap()), "{backend} {target}");
        }
        mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
    }
}

#[test]
fn options_of_the_iptables_backend() {
    let Some(mapped) = Mapped::new() else { return };
    let mut config = mapped.config("iptables", json!([mapping(8080, 80, "tcp")]));
    config["masqAll"] = json!(true);
    config["markMasqBit"] = json!(20);
    config["conditionsV4"] = json!(["!", "-s", "192.0.2.0/30"]);
    mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
    mapped.bed.ours("CHECK", "portmap", &mapped.args, &config);
    assert_eq!(tcp(&mapped.world, "192.0.2.1:8080", &mapped.pod, 80), None);
    mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
    config["conditionsV4"] = json!(["-s", "192.0.2.0/24"]);
    mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
    let seen = tcp(&mapped.world, "192.0.2.1:8080", &mapped.pod, 80);
    assert_eq!(
        seen,
        Some("10.77.0.1".parse().unwrap()),
        "every source is masqueraded"
    );
    let rules = mapped.bed.host.must("iptables-save -t nat");
    assert!(rules.contains("0x100000/0x100000"), "{rules}");
    mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
    mapped.bed.host.must("iptables -t nat -N ELSEWHERE");
    mapped.bed.host.must("ip6tables -t nat -N ELSEWHERE");
    config.as_object_mut().unwrap().remove("markMasqBit");
    config["externalSetMarkChain"] = json!("ELSEWHERE");
    mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
    let rules = mapped.bed.host.must("iptables-save -t nat");
    assert!(rules.contains("-j ELSEWHERE"), "{rules}");
    mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
}

#[test]
fn twelve_at_once_share_one_set_of_chains() {
    let Some(mapped) = Mapped::new() else { return };
    for backend in BACKENDS {
        std::thread::scope(|scope| {
            for number in 0..12 {
                let mapped = &mapped;
                scope.spawn(move || {
                    let config = mapped.config(backend, json!([mapping(9000 + number, 80, "tcp")]));
                    let mut args = mapped.args.clone();
                    args.id = format!("at-once-{number}");
                    mapped.bed.ours("ADD", "portmap", &args, &config);
                    mapped.bed.ours("CHECK", "portmap", &args, &config);
                });
            }
        });
        let rules = mapped.bed.host.must("iptables-save -t nat");
        if backend == "iptables" {
            for shared in [
                "-A PREROUTING",
                "-A OUTPUT",
                "-A CNI-HOSTPORT-SETMARK",
                "-A POSTROUTING",
            ] {
                assert_eq!(rules.matches(shared).count(), 1, "{shared}: {rules}");
            }
            assert_eq!(rules.matches("-A CNI-HOSTPORT-DNAT").count(), 12, "{rules}");
        }
        assert!(tcp(&mapped.world, "192.0.2.1:9011", &mapped.pod, 80).is_some());
        for number in 0..12 {
            let config = mapped.config(backend, json!([mapping(9000 + number, 80, "tcp")]));
            let mut args = mapped.args.clone();
            args.id = format!("at-once-{number}");
            mapped.bed.ours("DEL", "portmap", &args, &config);
        }
    }
}

#[test]
fn legacy_iptables_serves_too() {
    let Some(mut mapped) = Mapped::new() else {
        return;
    };
    let legacy = std::path::Path::new("/usr/sbin/xtables-legacy-multi");
    if !legacy.exists() {
        skipped(&format!("needs {}", legacy.display()));
        return;
    }
    let folder = mapped.bed.folder.path().join("legacy");
    std::fs::create_dir(&folder).unwrap();
    for family in ["iptables", "ip6tables"] {
        for suffix in ["", "-restore", "-save"] {
            let link = folder.join(format!("{family}{suffix}"));
            std::os::unix::fs::symlink(legacy, link).unwrap();
        }
    }
    let path = format!("{}:/usr/sbin:/usr/bin", folder.display());
    mapped.args = mapped.args.with("PATH", &path);
    let config = mapped.config("iptables", json!([mapping(8080, 80, "tcp")]));
    let save = format!("{}/iptables-save -t nat", folder.display());
    // Once with the shared chains to be made, once with them there.
    for _ in 0..2 {
        mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        mapped.bed.ours("CHECK", "portmap", &mapped.args, &config);
        assert!(mapped.bed.host.must(&save).contains("CNI-DN-"));
        assert!(tcp(&mapped.world, "192.0.2.1:8080", &mapped.pod, 80).is_some());
        mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
        assert!(!mapped.bed.host.must(&save).contains("CNI-DN-"));
        mapped
            .bed
            .refused("CHECK", "portmap", &mapped.args, &config);
    }
}
