//! What the demo proves about the finished cluster.

use crate::screen::Screen;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tests::cluster::{Cluster, Node};
use tests::pod::{Family, Pod};
use tests::process::Process;
use tests::topology::OUTSIDE;
use tests::traffic::{Ping, TcpServer, seen_as};
use tests::{Namespace, eventually, requirement};

/// The port of n1 that leads to the first Pod.
pub const HOST_PORT: u16 = 8080;
/// The port it leads to.
pub const POD_PORT: u16 = 80;

/// A Pod and the index of its node.
pub struct Placed {
    pub pod: Pod,
    pub node: usize,
}

/// Who reaches whom, and how fast. Returns how many pairs do not.
pub fn reachability(screen: &Screen, pods: &[Placed]) -> Result<usize> {
    let mut failed = Vec::new();
    let mut head = vec!["from \\ to".to_owned()];
    head.extend(pods.iter().map(|to| to.pod.name.clone()));
    let mut rows = vec![head];
    for from in pods {
        let mut row = vec![from.pod.name.clone()];
        for to in pods {
            if from.pod.name == to.pod.name {
                row.push("·".to_owned());
                continue;
            }
            let ping = Ping::new(to.pod.ip(Family::V4)?);
            // The first packet resolves addresses; its time tells nothing of the path.
            let report = ping
                .clone()
                .count(1)
                .run(&from.pod.namespace)
                .and_then(|_| ping.count(3).run(&from.pod.namespace));
            match report {
                Ok(report) => row.push(match report.average_ms {
                    Some(time) => format!("{time:.3} ms"),
                    None => "reached".to_owned(),
                }),
                Err(error) => {
                    row.push("✗".to_owned());
                    failed.push(format!("{} to {}: {error:#}", from.pod.name, to.pod.name));
                }
            }
        }
        rows.push(row);
    }
    screen.table(&rows);
    for failure in &failed {
        screen.fails(failure);
    }
    Ok(failed.len())
}

/// Follows a packet from the first Pod to the first one of the second node.
pub fn path(screen: &Screen, cluster: &Cluster, pods: &[Placed], backend: &str) -> Result<()> {
    let [n1, n2, ..] = &cluster.nodes[..] else {
        screen.line("(one node: no packet leaves it)");
        return Ok(());
    };
    let from = &pods[0].pod;
    let to = &pods
        .iter()
        .find(|placed| placed.node == 1)
        .context("no Pod on n2")?
        .pod;
    let target = to.ip(Family::V4)?;
    screen.line(&format!(
        "from {} ({}) to {} ({target})",
        from.name,
        from.ip(Family::V4)?,
        to.name
    ));
    let show = |place: &str, namespace: &Namespace, command: &str| -> Result<()> {
        screen.command(place, command, &namespace.sh(command)?);
        Ok(())
    };
    show(
        &from.name,
        &from.namespace,
        &format!("ip route get {target}"),
    )?;
    show("n1", &n1.namespace, &format!("ip route get {target}"))?;
    if backend == "vxlan" {
        overlay_entries(screen, n1, n2)?;
    }
    on_the_wire(screen, cluster, from, &Ping::new(target).count(1), backend)?;
    show("n2", &n2.namespace, &format!("ip route get {target}"))?;
    show("n2", &n2.namespace, &format!("ip neigh show {target}"))?;
    show(&to.name, &to.namespace, "ip -brief -4 address show eth0")
}

/// The neighbour and forwarding entry on n1 that lead to n2.
fn overlay_entries(screen: &Screen, n1: &Node, n2: &Node) -> Result<()> {
    let gateway = n2.subnet(Family::V4)?.addr();
    let command = format!("ip neigh show {gateway} dev flannel.1");
    screen.command("n1", &command, &n1.namespace.sh(&command)?);
    let command = "bridge fdb show dev flannel.1";
    let all = n1.namespace.sh(command)?;
    let peer = format!("dst {} ", n2.ip(Family::V4));
    let line = all.lines().find(|line| line.contains(&peer));
    screen.command("n1", command, line.unwrap_or("no entry for n2"));
    Ok(())
}

/// One packet as it crosses the underlay.
fn on_the_wire(
    screen: &Screen,
    cluster: &Cluster,
    from: &Pod,
    ping: &Ping,
    backend: &str,
) -> Result<()> {
    if !requirement::is_in_path("tcpdump") {
        screen.line("(no tcpdump: the packet on the wire is not shown)");
        return Ok(());
    }
    let filter: &[&str] = match backend {
        "vxlan" => &["udp", "port", "8472"],
        "udp" => &["udp", "port", "8285"],
        _ => &["icmp"],
    };
    let mut command = Command::new("tcpdump");
    command
        .args(["-nn", "-l", "-c", "1", "-i", "n1"])
        .args(filter);
    let log = cluster.run.folder().join("tcpdump.log");
    let mut tcpdump: Process = cluster
        .underlay
        .namespace
        .spawn("tcpdump", &mut command, &log)?;
    eventually("tcpdump listens", Duration::from_secs(5), || {
        tcpdump
            .log()?
            .contains("listening on")
            .then_some(())
            .context("not yet")
    })?;
    ping.run(&from.namespace)?;
    tcpdump.wait(Duration::from_secs(5))?;
    let log = tcpdump.log()?;
    let packet: Vec<_> = log
        .lines()
        .skip_while(|line| !line.contains("listening on"))
        .skip(1)
        .take_while(|line| !line.contains("packet captured") && !line.contains("packets captured"))
        .collect();
    let line = format!("tcpdump -nn -c 1 -i n1 {}", filter.join(" "));
    screen.command("underlay", &line, &packet.join("\n"));
    Ok(())
}

/// Host port, masquerade, and the absence of NAT between Pods. Returns how many do not hold.
pub fn addresses(screen: &Screen, cluster: &Cluster, pods: &[Placed]) -> Result<usize> {
    let first = &pods[0].pod;
    let last = &pods[pods.len() - 1].pod;
    let own = first.ip(Family::V4)?;
    let node = &cluster.nodes[0];
    let outside = &cluster.underlay.outside;
    let mut failures = 0;
    let mut verdict = |good: bool, text: String| {
        if good {
            screen.holds(&text);
        } else {
            screen.fails(&text);
            failures += 1;
        }
    };

    let server = TcpServer::start(&last.namespace, last.ip(Family::V4)?, 0)?;
    let seen = seen_as(&first.namespace, server.address)?.ip();
    verdict(
        seen == own,
        format!(
            "no NAT: {} ({own}) is seen by {} as {seen}",
            first.name, last.name
        ),
    );

    let server = TcpServer::start(outside, OUTSIDE.into(), 0)?;
    let seen = seen_as(&first.namespace, server.address)?.ip();
    verdict(
        seen == node.ip(Family::V4),
        format!(
            "masquerade: {} ({own}) is seen by the outside ({OUTSIDE}) as {seen}",
            first.name
        ),
    );

    let _server = TcpServer::start(&first.namespace, own, POD_PORT)?;
    let port = SocketAddr::new(node.ip(Family::V4), HOST_PORT);
    match seen_as(outside, port) {
        Ok(seen) => verdict(
            true,
            format!(
                "host port: the outside asks {port}, {} answers on port {POD_PORT} and sees {}",
                first.name,
                seen.ip()
            ),
        ),
        Err(error) => verdict(
            false,
            format!("host port {port} does not answer: {error:#}"),
        ),
    }
    Ok(failures)
}
