//! Services as clients meet them: cluster IPs, node ports, external addresses; who answers, and what
//! address the endpoint sees.

use anyhow::Result;
use std::net::SocketAddr;
use tests::cluster::Stack;
use tests::pod::Family;
use tests::proxy::{
    Backend, Endpoints, Mode, Options, Pod, Port, Service, Site, cluster_ip, external_ip,
};
use tests::traffic::{Transport, exchange};

tests::on_every_mode!(
    cluster_ip_v4_only,
    cluster_ip_v6_only,
    cluster_ip_dual_stack,
    node_ports,
    node_port_addresses,
    node_ports_on_loopback,
    host_network_endpoints,
    external_addresses,
    ports_and_large_requests; kernel: hairpin
);

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// A site with a client Pod on each node.
fn site(mode: Mode, stack: Stack) -> Result<Option<(Site, Pod, Pod)>> {
    let Some(site) = Site::start(&Options::new(mode).stack(stack))? else {
        return Ok(None);
    };
    let (a, b) = (site.pod(0)?, site.pod(1)?);
    Ok(Some((site, a, b)))
}

fn cluster_ip_v4_only(mode: Mode) -> Result<()> {
    cluster_ip_answers(mode, Stack::V4)
}

fn cluster_ip_v6_only(mode: Mode) -> Result<()> {
    cluster_ip_answers(mode, Stack::V6)
}

fn cluster_ip_dual_stack(mode: Mode) -> Result<()> {
    cluster_ip_answers(mode, Stack::Dual)
}

/// From Pods and nodes, TCP and UDP; Pods keep their address, nodes are masqueraded.
fn cluster_ip_answers(mode: Mode, stack: Stack) -> Result<()> {
    let Some((site, client1, client2)) = site(mode, stack)? else {
        return Ok(());
    };
    // One endpoint for each Service, so that who must answer is known.
    for (index, name) in [(0, "near"), (1, "far")] {
        let backend = site.backend(index, 8080)?;
        let number = 10 + u8::try_from(index)?;
        site.manifests
            .service(&Service::web(name, &site.cluster_ips(number)))?;
        site.manifests
            .endpoints(&Endpoints::web(name, &[&backend]))?;
        for &family in site.families() {
            let at = SocketAddr::new(cluster_ip(family, number), 80);
            let server = backend.address(family)?;
            for transport in BOTH {
                for (node, pod) in [(0, &client1), (1, &client2)] {
                    let forwarder = site.masqueraded(node, &backend.pod, family);
                    let seen = match mode.keeps_source() {
                        true => pod.ip(family)?,
                        false => forwarder,
                    };
                    site.answers_seeing(&pod.namespace, at, transport, server, seen)?;
                    let namespace = &site.nodes[node].namespace;
                    site.answers_seeing(namespace, at, transport, server, forwarder)?;
                }
            }
        }
    }
    Ok(())
}

/// Node ports answer on every node's address from everywhere, and not on other addresses.
fn node_ports(mode: Mode) -> Result<()> {
    let Some((site, client1, client2)) = site(mode, Stack::Dual)? else {
        return Ok(());
    };
    // Another address of n1, which no Node object names.
    site.nodes[0].namespace.ip_batch(
        "address add 192.168.66.99/24 dev eth0\naddress add fd66::99/64 dev eth0 nodad",
    )?;
    let backend = site.backend(0, 8080)?;
    let service = Service::new("web", &site.cluster_ips(1))
        .node_port(Port::tcp("http", 80), 30080)
        .node_port(Port::udp("dns", 80), 30080);
    site.manifests.service(&service)?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&backend]))?;
    let outside = &site.underlay.outside;
    let clients = [
        outside,
        &client1.namespace,
        &client2.namespace,
        &site.nodes[0].namespace,
        &site.nodes[1].namespace,
    ];
    for &family in site.families() {
        let server = backend.address(family)?;
        for transport in BOTH {
            for (index, node) in site.nodes.iter().enumerate() {
                let at = SocketAddr::new(node.ip(family), 30080);
                let seen = site.masqueraded(index, &backend.pod, family);
                // Whoever the client is: the policy Cluster masquerades on the node that is asked.
                for client in clients {
                    site.answers_seeing(client, at, transport, server, seen)?;
                }
            }
            let other: SocketAddr = match family {
                Family::V4 => "192.168.66.99:30080".parse()?,
                Family::V6 => "[fd66::99]:30080".parse()?,
            };
            // kube-proxy's defaults: the Node's own addresses in nftables mode, all in iptables mode.
            match mode {
                Mode::IptablesNft | Mode::IptablesLegacy => {
                    site.answers(&client2.namespace, other, transport, &[server])?;
                }
                Mode::Nftables | Mode::Userspace => {
                    site.refused(&client2.namespace, other, transport)?;
                }
            }
        }
    }
    Ok(())
}

/// Node ports answer on the addresses that are asked for, and on no others.
fn node_port_addresses(mode: Mode) -> Result<()> {
    let options = Options::new(mode).flag("--nodeport-addresses=192.168.66.96/28,fd66::90/124");
    let Some(mut site) = Site::prepare(&options)? else {
        return Ok(());
    };
    let client = site.pod(1)?;
    let backend = site.backend(1, 8080)?;
    let node = &mut site.nodes[0];
    node.namespace.ip_batch(
        "address add 192.168.66.99/24 dev eth0\naddress add fd66::99/64 dev eth0 nodad",
    )?;
    node.start_proxy()?;
    let service = Service::new("web", &site.cluster_ips(1)).node_port(Port::tcp("http", 80), 30080);
    site.manifests.service(&service)?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&backend]))?;
    for (&family, ip) in site.families().iter().zip(["192.168.66.99", "fd66::99"]) {
        let at = SocketAddr::new(ip.parse()?, 30080);
        let server = backend.address(family)?;
        site.answers(&client.namespace, at, Transport::Tcp, &[server])?;
        let other = SocketAddr::new(site.nodes[0].ip(family), 30080);
        site.refused(&client.namespace, other, Transport::Tcp)?;
    }
    Ok(())
}

/// On 127.0.0.1 by rules in iptables mode (IPv4 only, as kube-proxy's default has it), by a small
/// forwarder elsewhere, and there only when it is asked for.
fn node_ports_on_loopback(mode: Mode) -> Result<()> {
    let by_rules = matches!(mode, Mode::IptablesNft | Mode::IptablesLegacy);
    let options = match by_rules {
        true => Options::new(mode),
        false => Options::new(mode).flag("--localhost-nodeports"),
    };
    let Some(site) = Site::start(&options)? else {
        return Ok(());
    };
    let backend = site.backend(1, 8080)?;
    let service = Service::new("web", &site.cluster_ips(1)).node_port(Port::tcp("http", 80), 30080);
    site.manifests.service(&service)?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&backend]))?;
    let node = &site.nodes[0].namespace;
    for (&family, loopback) in site.families().iter().zip(["127.0.0.1", "::1"]) {
        let at = SocketAddr::new(loopback.parse()?, 30080);
        if by_rules && family == Family::V6 {
            site.refused(node, at, Transport::Tcp)?;
        } else {
            let seen = site.masqueraded(0, &backend.pod, family);
            let server = backend.address(family)?;
            site.answers_seeing(node, at, Transport::Tcp, server, seen)?;
        }
        // The node's own addresses answer all the same.
        let at = SocketAddr::new(site.nodes[0].ip(family), 30080);
        site.answers(
            &site.underlay.outside,
            at,
            Transport::Tcp,
            &[backend.address(family)?],
        )?;
    }
    Ok(())
}

/// Endpoints in a node's own namespace, for clients there and elsewhere.
fn host_network_endpoints(mode: Mode) -> Result<()> {
    let Some((site, client1, client2)) = site(mode, Stack::Dual)? else {
        return Ok(());
    };
    let node = &site.nodes[1];
    let place = Pod {
        namespace: node.namespace.clone(),
        node: node.name.clone(),
        device: "lo".to_owned(),
        ips: site
            .families()
            .iter()
            .map(|family| node.ip(*family))
            .collect(),
    };
    let backend = Backend::start(place, 8080)?;
    site.manifests
        .service(&Service::web("web", &site.cluster_ips(1)))?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&backend]))?;
    for &family in site.families() {
        let at = SocketAddr::new(cluster_ip(family, 1), 80);
        let server = backend.address(family)?;
        for transport in BOTH {
            for client in [
                &client1.namespace,
                &client2.namespace,
                &site.nodes[0].namespace,
                &site.nodes[1].namespace,
            ] {
                site.answers(client, at, transport, &[server])?;
            }
        }
    }
    Ok(())
}

/// External IPs and load balancer addresses, from the outside and short-circuited inside.
fn external_addresses(mode: Mode) -> Result<()> {
    let Some((site, client1, client2)) = site(mode, Stack::Dual)? else {
        return Ok(());
    };
    let backend = site.backend(1, 8080)?;
    let outside = &site.underlay.outside;
    let ranged = Service::new("ranged", &site.cluster_ips(2))
        .port(Port::tcp("http", 80))
        .load_balancer(&site.external_ips(3))
        .set(
            "loadBalancerSourceRanges",
            // With a blank, as people write them, and without the outside.
            serde_json::json!(["10.244.0.0/16", " fd44::/48"]),
        );
    site.manifests.service(
        &Service::web("web", &site.cluster_ips(1))
            .external_ips(&site.external_ips(1))
            .load_balancer(&site.external_ips(2)),
    )?;
    site.manifests.service(&ranged)?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&backend]))?;
    site.manifests
        .endpoints(&Endpoints::web("ranged", &[&backend]))?;
    for &family in site.families() {
        let server = backend.address(family)?;
        for number in [1, 2] {
            let at = SocketAddr::new(external_ip(family, number), 80);
            for transport in BOTH {
                // They are routed to n1, which masquerades.
                let seen = site.masqueraded(0, &backend.pod, family);
                site.answers_seeing(outside, at, transport, server, seen)?;
                for client in [&client1.namespace, &client2.namespace] {
                    site.answers(client, at, transport, &[server])?;
                }
                for node in &site.nodes {
                    site.answers(&node.namespace, at, transport, &[server])?;
                }
            }
        }
        let at = SocketAddr::new(external_ip(family, 3), 80);
        site.answers(&client1.namespace, at, Transport::Tcp, &[server])?;
        site.silent(outside, at, Transport::Tcp)?;
        // The ranges are about the load balancer's address alone.
        let inner = SocketAddr::new(cluster_ip(family, 2), 80);
        site.answers(&site.nodes[0].namespace, inner, Transport::Tcp, &[server])?;
    }
    // The outside is let in: the ranges are followed live.
    let open = ranged.set(
        "loadBalancerSourceRanges",
        serde_json::json!(["203.0.113.0/24", "2001:db8:113::/64"]),
    );
    site.manifests.service(&open)?;
    for &family in site.families() {
        let at = SocketAddr::new(external_ip(family, 3), 80);
        site.answers(outside, at, Transport::Tcp, &[backend.address(family)?])?;
        site.silent(&client1.namespace, at, Transport::Tcp)?;
    }
    Ok(())
}

/// A Pod that is its own Service's endpoint reaches itself, and sees its node as the client.
fn hairpin(mode: Mode) -> Result<()> {
    let Some((site, ..)) = site(mode, Stack::Dual)? else {
        return Ok(());
    };
    let backend = site.backend(0, 8080)?;
    site.manifests
        .service(&Service::web("web", &site.cluster_ips(1)))?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&backend]))?;
    for &family in site.families() {
        let at = SocketAddr::new(cluster_ip(family, 1), 80);
        let gateway = site.masqueraded(0, &backend.pod, family);
        for transport in BOTH {
            let pod = &backend.pod.namespace;
            site.answers_seeing(pod, at, transport, backend.address(family)?, gateway)?;
        }
    }
    Ok(())
}

/// Named ports that differ between endpoints, one number for two protocols with different
/// endpoints, ports added and removed, and megabytes through a cluster IP.
fn ports_and_large_requests(mode: Mode) -> Result<()> {
    let Some((site, client, _)) = site(mode, Stack::V4)? else {
        return Ok(());
    };
    let (first, second) = (site.backend(0, 8080)?, site.backend(1, 9090)?);
    let (v4, at) = (Family::V4, SocketAddr::new(cluster_ip(Family::V4, 1), 80));
    let servers = [first.address(v4)?, second.address(v4)?];
    site.manifests
        .service(&Service::web("web", &site.cluster_ips(1)))?;
    // Two slices with one port name and two numbers, as for a named targetPort.
    let slices = [&first, &second].map(|backend| {
        let mut list = Endpoints::of("web")
            .port(backend.tcp("http"))
            .at(&backend.pod)
            .value();
        list["items"][0]["metadata"]["name"] = format!("web-{}", backend.port).into();
        list["items"][0].clone()
    });
    // TCP goes to either, UDP of the same number to the second alone.
    let mut datagrams = Endpoints::of("web")
        .port(second.udp("dns"))
        .at(&second.pod)
        .value();
    datagrams["items"][0]["metadata"]["name"] = "web-dns".into();
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "List",
        "items": [slices[0], slices[1], datagrams["items"][0]],
    });
    site.manifests.object("slices.json", &list)?;
    for server in servers {
        site.answers(&client.namespace, at, Transport::Tcp, &[server])?;
    }
    for _ in 0..10 {
        site.answers(&client.namespace, at, Transport::Udp, &servers[1..])?;
    }
    for seed in 0..4 {
        exchange(&client.namespace, at, 4 << 20, seed)?;
    }

    // A port more, and one less.
    let more = Service::web("web", &site.cluster_ips(1)).port(Port::tcp("http", 81));
    let more = more.set(
        "ports",
        serde_json::json!([
            { "name": "http", "protocol": "TCP", "port": 81 },
            { "name": "dns", "protocol": "UDP", "port": 80 },
        ]),
    );
    site.manifests.service(&more)?;
    let moved = SocketAddr::new(at.ip(), 81);
    site.answers(&client.namespace, moved, Transport::Tcp, &servers)?;
    site.unanswered(&client.namespace, at, Transport::Tcp)?;
    site.answers(&client.namespace, at, Transport::Udp, &servers)?;
    site.manifests.remove_service("web")?;
    site.unanswered(&client.namespace, moved, Transport::Tcp)?;
    site.unanswered(&client.namespace, at, Transport::Udp)?;
    Ok(())
}
