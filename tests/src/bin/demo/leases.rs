//! The cluster as the container runtimes of others build it: flanneld-rs over a real etcd, Pods by CNI, weft-proxy.

use crate::Arguments;
use crate::report::{self, Placed};
use crate::screen::Screen;
use crate::services::Services;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tests::cluster::{NETWORK, config_key, kube_flannel_conflist};
use tests::pod::Family;
use tests::{Cluster, Options, eventually, topology};

/// Builds it, proves it, and takes it away.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut screen = Screen::new();
    let (cluster, pods, services, failures) = show(&mut screen, arguments)?;
    if arguments.keep {
        screen.headline("The cluster stays until Ctrl-C (or SIGTERM to this process)");
        screen.line("In another terminal, as root:");
        for placed in &pods {
            let name = placed.pod.namespace.name();
            screen.line(&format!(
                "ip netns exec {name} bash    # Pod {}",
                placed.pod.name
            ));
        }
        for node in &cluster.nodes {
            let name = node.namespace.name();
            screen.line(&format!(
                "ip netns exec {name} bash    # node n{}",
                node.number
            ));
        }
        for line in services.invitation() {
            screen.line(&line);
        }
        screen.line(&format!(
            "files and logs: {}",
            cluster.run.folder().display()
        ));
        loop {
            std::thread::park();
        }
    }
    screen.headline("Clean up");
    let since = Instant::now();
    drop(services);
    drop(cluster);
    screen.done("nothing is left", since);
    ensure!(failures == 0, "{failures} of the checks above failed");
    Ok(())
}

/// Builds the cluster and proves it; returns it with the number of failed checks.
fn show(
    screen: &mut Screen,
    arguments: &Arguments,
) -> Result<(Cluster, Vec<Placed>, Services, usize)> {
    let options = Options::new(&arguments.backend).nodes(arguments.nodes);

    screen.headline("Underlay 192.168.66.0/24 and etcd, each in a namespace of its own");
    let since = Instant::now();
    let mut cluster = Cluster::empty(&options)?;
    screen.done(
        &format!(
            "bridge, outside {}, etcd at {}:2379",
            topology::OUTSIDE,
            topology::ROUTER
        ),
        since,
    );
    screen.line(&format!("{} = {}", config_key(), options.network_config()));

    screen.headline(&format!("{} nodes, flanneld-rs on each", arguments.nodes));
    for _ in 0..arguments.nodes {
        let since = Instant::now();
        let node = cluster.join(&options)?;
        node.start_daemon()?;
        screen.done(
            &format!(
                "n{} {}: leased {} of {NETWORK}, Pod MTU {}",
                node.number,
                node.ip(Family::V4),
                node.subnet(Family::V4)?,
                node.mtu()?
            ),
            since,
        );
    }

    screen.headline("Two Pods a node, by the kube-flannel conflist: flannel → bridge + host-local, then portmap");
    let list = kube_flannel_conflist("/run/flannel/subnet.env".as_ref(), "/var/lib/cni".as_ref());
    screen.line(&list.to_string());
    let mut pods = Vec::new();
    for index in 0..cluster.nodes.len() {
        for letter in ["a", "b"] {
            let since = Instant::now();
            let name = format!("p{}{letter}", index + 1);
            let (pod, port) = if pods.is_empty() {
                let pod = cluster.pod_with_host_port(
                    index,
                    &name,
                    report::HOST_PORT,
                    report::POD_PORT,
                )?;
                (pod, format!(", host port {}", report::HOST_PORT))
            } else {
                (cluster.pod(index, &name)?, String::new())
            };
            let ip = pod.ip(Family::V4)?;
            screen.done(&format!("{name} on n{}: {ip}{port}", index + 1), since);
            pods.push(Placed { pod, node: index });
        }
    }
    wait_for_peers(&cluster)?;

    screen.headline("Who reaches whom: round-trip times, Pod × Pod");
    let mut failures = report::reachability(screen, &pods)?;
    screen.headline("The path of a packet");
    report::path(screen, &cluster, &pods, &arguments.backend)?;
    screen.headline("Addresses");
    failures += report::addresses(screen, &cluster, &pods)?;
    screen.headline("A Service before the Pods of all nodes, weft-proxy on each node");
    let services = Services::start(screen, &cluster, &pods)?;
    failures += services.prove(screen, &cluster, &pods)?;
    Ok((cluster, pods, services, failures))
}

/// Every node must know the way to every other one's subnet.
fn wait_for_peers(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        for peer in cluster
            .nodes
            .iter()
            .filter(|peer| peer.number != node.number)
        {
            let gateway = peer.subnet(Family::V4)?.addr();
            eventually("all peers are known", Duration::from_secs(15), || {
                let route = node.namespace.sh(&format!("ip route get {gateway}"))?;
                let by_default = format!("via {} ", topology::ROUTER);
                ensure!(!route.contains(&by_default), "n{}: {route}", node.number);
                Ok(())
            })
            .with_context(|| cluster.state())?;
        }
    }
    Ok(())
}
