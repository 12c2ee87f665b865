//! `portmap` by both backends: real connections through the host's ports.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use serde_json::{Value, json};

use crate::bed::{Args, Bed, NO_IPTABLES, NO_PROGRAMS, Space, Whose, skipped};

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

/// Binds a socket, though a process that another test just starts may hold on to the last one for a
/// moment, between fork and exec.
fn bind<T>(attempt: impl Fn() -> std::io::Result<T>) -> T {
    for _ in 0..100 {
        match attempt() {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome.unwrap(),
        }
    }
    attempt().unwrap()
}

/// Can `client` open a TCP connection to `target` that `server` gets on `port`? The peer's address
/// as the server sees it.
fn tcp(client: &Space, target: &str, server: &Space, port: u16) -> Option<IpAddr> {
    let bound: IpAddr = if target.starts_with('[') {
        "::".parse().unwrap()
    } else {
        "0.0.0.0".parse().unwrap()
    };
    let listener = bind(|| server.inside(|| TcpListener::bind((bound, port))));
    let target: SocketAddr = target.parse().unwrap();
    let stream = client.inside(move || TcpStream::connect_timeout(&target, WAIT));
    let stream = stream.ok()?;
    let peer = listener.accept().unwrap().1.ip();
    drop(stream);
    Some(peer)
}

/// Does a datagram from `socket` to `target` get an answer from `server` on `port`?
fn udp(socket: &UdpSocket, target: &str, server: &Space, port: u16) -> bool {
    let echo = bind(|| server.inside(|| UdpSocket::bind(("0.0.0.0", port))));
    echo.set_read_timeout(Some(WAIT)).unwrap();
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
        assert!(udp(&socket, "192.0.2.1:5353", pod, 53), "{backend}");
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
        assert!(udp(&socket, "192.0.2.1:5353", &mapped.pod, 53), "{backend}");
        mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
    }
}

#[test]
fn without_mappings_no_program_is_needed() {
    let Some(mapped) = Mapped::new() else { return };
    let mut args = mapped.args.clone();
    args.hide = NO_PROGRAMS;
    let none = mapped.config("iptables", json!([]));
    let before = mapped.bed.footprint();
    for verb in ["ADD", "CHECK", "DEL"] {
        mapped.bed.ours(verb, "portmap", &args, &none);
    }
    assert_eq!(before, mapped.bed.footprint());
    let one = mapped.config("iptables", json!([mapping(8080, 80, "tcp")]));
    let message = mapped.bed.refused("ADD", "portmap", &args, &one);
    assert!(message.contains("iptables"), "{message}");
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
fn options_of_the_iptables_backend() {
    let Some(mapped) = Mapped::new() else { return };
    let mut config = mapped.config("iptables", json!([mapping(8080, 80, "tcp")]));
    config["masqAll"] = json!(true);
    config["markMasqBit"] = json!(20);
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
fn mapped_ports_change_hands() {
    if Bed::with_reference().is_none() {
        return;
    }
    let Some(mapped) = Mapped::new() else { return };
    use Whose::{Ours, Reference};
    let mut config = mapped.config(
        "iptables",
        json!([mapping(8080, 80, "tcp"), mapping(53, 53, "udp")]),
    );
    config["prevResult"]["ips"]
        .as_array_mut()
        .unwrap()
        .truncate(1);
    let rules = |_: Whose| mapped.bed.host.must("iptables-save -t nat");
    let plain = |text: String| {
        text.lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with(':'))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let mut seen = Vec::new();
    for (adds, deletes) in [(Reference, Ours), (Ours, Reference)] {
        mapped
            .bed
            .call(adds, "ADD", "portmap", &mapped.args, &config)
            .unwrap();
        seen.push(plain(rules(adds)));
        // The CHECK of 1.1.1 wants both families, whatever the container has; so ours alone.
        mapped.bed.ours("CHECK", "portmap", &mapped.args, &config);
        mapped
            .bed
            .call(deletes, "DEL", "portmap", &mapped.args, &config)
            .unwrap();
        let left = plain(rules(deletes));
        assert!(
            !left.contains("CNI-DN-"),
            "{deletes:?} DEL of {adds:?}: {left}"
        );
    }
    assert_eq!(seen[0], seen[1], "the rules of both are the same");
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

#[test]
fn gc_removes_the_chains_of_containers_that_are_gone() {
    let Some(mapped) = Mapped::new() else { return };
    let mut config = mapped.config("iptables", json!([mapping(8080, 80, "tcp")]));
    config["cniVersion"] = json!("1.1.0");
    mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "mapped", "ifname": "eth0"}]);
    mapped.bed.ours("GC", "portmap", &mapped.args, &config);
    assert!(
        mapped
            .bed
            .host
            .must("iptables-save -t nat")
            .contains("CNI-DN-")
    );
    config["cni.dev/valid-attachments"] = json!([]);
    mapped.bed.ours("GC", "portmap", &mapped.args, &config);
    assert!(
        !mapped
            .bed
            .host
            .must("iptables-save -t nat")
            .contains("CNI-DN-")
    );
    assert!(
        !mapped
            .bed
            .host
            .must("ip6tables-save -t nat")
            .contains("CNI-DN-")
    );
}
