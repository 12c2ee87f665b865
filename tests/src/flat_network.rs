//! The network that every backend must provide, as checks on a running cluster: Pods reach each
//! other under their own addresses, in packets of full size; the way out is masqueraded; a host
//! port leads in.

use crate::cluster::{Cluster, Stack};
use crate::pod::{Family, Pod};
use crate::topology::outside_for;
use crate::traffic::{Ping, TcpServer, UdpServer, bulk, fragments, seen_as, seen_as_udp};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;

const HOST_PORT: u16 = 8080;
const BULK_BYTES: usize = 16 << 20;

/// Two Pods on the first node, one on every other; the very first has host port 8080.
pub fn pods<S>(cluster: &Cluster<S>) -> Result<Vec<Pod>> {
    let mut pods = vec![
        cluster.pod_with_host_port(0, "p1a", HOST_PORT, 80)?,
        cluster.pod(0, "p1b")?,
    ];
    for index in 1..cluster.nodes.len() {
        pods.push(cluster.pod(index, &format!("p{}a", index + 1))?);
    }
    Ok(pods)
}

/// Makes [`pods`] and carries out all checks in every family of `stack`; `mtu` is what subnet.env
/// must say.
pub fn check<S>(cluster: &Cluster<S>, stack: Stack, mtu: u32) -> Result<()> {
    let pods = pods(cluster)?;
    cluster.wait_connected(&pods.iter().collect::<Vec<_>>(), stack)?;
    for node in &cluster.nodes {
        let found = node.mtu()?;
        ensure!(
            found == mtu,
            "n{}: FLANNEL_MTU is {found}, not {mtu}",
            node.number
        );
    }
    for &family in stack.families() {
        each_pair(&pods, family, mtu)
            .and_then(|()| way_out(cluster, &pods, family))
            .and_then(|()| way_in(cluster, &pods, family))
            .with_context(|| format!("{family:?}\n{}", cluster.state()))?;
    }
    let namespaces = pods.iter().map(|pod| &pod.namespace);
    let namespaces = namespaces.chain(cluster.nodes.iter().map(|node| &node.namespace));
    let cut = fragments(namespaces)?;
    ensure!(cut == 0, "{cut} IP fragments were made");
    Ok(())
}

/// Every Pod to every other: full-size ping, TCP and UDP under its own address; bulk both ways
/// between nodes.
fn each_pair(pods: &[Pod], family: Family, mtu: u32) -> Result<()> {
    for to in pods {
        let ip = to.ip(family)?;
        let tcp = TcpServer::start(&to.namespace, ip, 0)?;
        let udp = UdpServer::start(&to.namespace, ip, 0)?;
        for from in pods.iter().filter(|from| from.name != to.name) {
            let pair = || format!("{} to {}", from.name, to.name);
            let full = mtu - family.ping_overhead();
            Ping::new(ip)
                .payload(full)
                .run(&from.namespace)
                .with_context(pair)?;
            let larger = Ping::new(ip)
                .count(1)
                .payload(full + 1)
                .run(&from.namespace);
            ensure!(
                larger.is_err(),
                "{}: a packet above the MTU got through",
                pair()
            );
            let own = from.ip(family)?;
            let seen = seen_as(&from.namespace, tcp.address).with_context(pair)?;
            ensure!(
                seen.ip() == own,
                "{}: TCP from {own} is seen as {seen}",
                pair()
            );
            let seen = seen_as_udp(&from.namespace, udp.address).with_context(pair)?;
            ensure!(
                seen.ip() == own,
                "{}: UDP from {own} is seen as {seen}",
                pair()
            );
            bulk(&from.namespace, tcp.address, BULK_BYTES).with_context(pair)?;
        }
    }
    Ok(())
}

/// Pod to outside comes from the node's address.
fn way_out<S>(cluster: &Cluster<S>, pods: &[Pod], family: Family) -> Result<()> {
    let ip = outside_for(pods[0].ip(family)?);
    let server = TcpServer::start(&cluster.underlay.outside, ip, 0)?;
    let node = cluster.nodes[0].ip(family);
    let seen = seen_as(&pods[0].namespace, server.address)?;
    ensure!(
        seen.ip() == node,
        "the outside sees {seen}, not the node {node}"
    );
    Ok(())
}

/// The host port answers the outside (which is seen under its own address), another node and a Pod
/// of another node; a node reaches a Pod of another node directly.
fn way_in<S>(cluster: &Cluster<S>, pods: &[Pod], family: Family) -> Result<()> {
    let [target, .., far] = pods else {
        anyhow::bail!("fewer than two Pods");
    };
    let ip = target.ip(family)?;
    let tcp = TcpServer::start(&target.namespace, ip, 80)?;
    let _udp = UdpServer::start(&target.namespace, ip, 80)?;
    let port = SocketAddr::new(cluster.nodes[0].ip(family), HOST_PORT);
    let outside = &cluster.underlay.outside;
    let own = outside_for(ip);
    let seen = seen_as(outside, port).context("host port from the outside")?;
    ensure!(
        seen.ip() == own,
        "host port: the Pod sees {seen}, not {own}"
    );
    let seen = seen_as_udp(outside, port).context("UDP host port from the outside")?;
    ensure!(
        seen.ip() == own,
        "UDP host port: the Pod sees {seen}, not {own}"
    );
    if let [_, .., last] = &cluster.nodes[..] {
        seen_as(&last.namespace, port).context("host port from another node")?;
        seen_as(&far.namespace, port).context("host port from a Pod of another node")?;
        seen_as(&last.namespace, tcp.address).context("a Pod from another node")?;
    }
    // Through the host port of its own node the Pod must be reachable too: that needs hairpin.
    seen_as(&target.namespace, port).context("host port from the Pod itself")?;
    seen_as(&pods[1].namespace, port).context("host port from a Pod of the same node")?;
    seen_as(&cluster.nodes[0].namespace, port).context("host port from its own node")?;
    Ok(())
}
