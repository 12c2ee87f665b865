//! What the plugins have wired carries traffic. Runs on the subject of `WEFT_CNI_SUBJECT`: ours, or
//! the reference, on which each of these tests must hold too.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tests::conflist::{Conflist, Runtime};
use tests::pod::{Family, Pod};
use tests::traffic::{Ping, TcpServer, seen_as};
use tests::{Run, eventually, requirement, subject};

struct Node {
    run: Run,
    runtime: Runtime,
}

impl Node {
    fn new() -> Result<Option<Self>> {
        if !requirement::is_root() || !requirement::has_programs(&["ping", "iptables"]) {
            return Ok(None);
        }
        let run = Run::new()?;
        let plugins = subject::plugin_folder(subject::plugins(), run.folder())?;
        let node = run.namespace("node")?;
        Ok(Some(Self {
            runtime: Runtime::new(&node, plugins),
            run,
        }))
    }

    fn list(&self, plugins: Value) -> Result<Conflist> {
        Conflist::parse(&json!({ "name": "n", "cniVersion": "1.0.0", "plugins": plugins }))
    }

    fn host_local(&self, subnets: &[&str]) -> Value {
        let ranges: Vec<_> = subnets
            .iter()
            .map(|subnet| json!([{ "subnet": subnet }]))
            .collect();
        json!({ "type": "host-local", "ranges": ranges, "dataDir": self.run.folder().join("ipam") })
    }

    fn pod(&self, list: &Conflist, name: &str) -> Result<Pod> {
        Pod::add(&self.run, &self.runtime, list, name, Map::new())
    }
}

#[test]
fn two_pods_on_a_bridge_reach_each_other_and_the_node() -> Result<()> {
    let Some(node) = Node::new()? else {
        return Ok(());
    };
    let list = node.list(json!([{
        "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
        "ipam": node.host_local(&["10.5.1.0/24", "fd05:1::/64"]),
    }]))?;
    let (a, b) = (node.pod(&list, "a")?, node.pod(&list, "b")?);
    for family in [Family::V4, Family::V6] {
        Ping::new(b.ip(family)?).run(&a.namespace)?;
        // The bridge's own IPv6 address is tentative for a second or two.
        let ping = Ping::new(a.ip(family)?);
        eventually("the node reaches its Pod", Duration::from_secs(5), || {
            ping.run(&node.runtime.node)
        })?;
    }
    let server = TcpServer::start(&b.namespace, b.ip(Family::V4)?, 0)?;
    ensure!(seen_as(&a.namespace, server.address)?.ip() == a.ip(Family::V4)?);
    Ok(())
}

#[test]
fn two_pods_by_ptp_reach_each_other_through_the_node() -> Result<()> {
    let Some(node) = Node::new()? else {
        return Ok(());
    };
    let mut ipam = node.host_local(&["10.5.1.0/24"]);
    ipam["routes"] = json!([{ "dst": "0.0.0.0/0" }]);
    let list = node.list(json!([{ "type": "ptp", "ipam": ipam }]))?;
    let (a, b) = (node.pod(&list, "a")?, node.pod(&list, "b")?);
    Ping::new(b.ip(Family::V4)?).run(&a.namespace)?;
    Ping::new(a.ip(Family::V4)?).run(&node.runtime.node)?;
    Ok(())
}

#[test]
fn a_host_port_leads_to_its_pod_until_del() -> Result<()> {
    let Some(node) = Node::new()? else {
        return Ok(());
    };
    let client = node.run.namespace("client")?;
    client.ip_batch(&format!(
        "link add eth0 type veth peer name up0 netns {}
         address add 192.0.2.2/24 dev eth0
         link set eth0 up",
        node.runtime.node.name()
    ))?;
    node.runtime
        .node
        .ip_batch("address add 192.0.2.1/24 dev up0\nlink set up0 up")?;
    let list = node.list(json!([
        {
            "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
            "ipam": node.host_local(&["10.5.1.0/24"]),
        },
        { "type": "portmap", "capabilities": { "portMappings": true } },
    ]))?;
    let mut capabilities = Map::new();
    capabilities.insert(
        "portMappings".to_owned(),
        json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]),
    );
    let pod = Pod::add(&node.run, &node.runtime, &list, "a", capabilities)?;
    let _server = TcpServer::start(&pod.namespace, pod.ip(Family::V4)?, 80)?;
    let port: SocketAddr = "192.0.2.1:8080".parse()?;
    ensure!(seen_as(&client, port)?.ip().to_string() == "192.0.2.2");
    seen_as(&pod.namespace, port).context("the Pod by its own host port")?;
    seen_as(&node.runtime.node, "127.0.0.1:8080".parse()?).context("by the node's loopback")?;
    // The reference's CHECK (1.1.1) wants IPv6 chains also for a Pod that has no IPv6 address.
    if subject::plugins() == subject::Subject::Ours {
        node.runtime.check(&list, &pod.attachment)?;
    }
    pod.detach(&node.runtime, &list)?;
    ensure!(
        seen_as(&client, port).is_err(),
        "the host port still answers"
    );
    Ok(())
}

#[test]
fn fifty_adds_at_once_get_fifty_addresses() -> Result<()> {
    let Some(node) = Node::new()? else {
        return Ok(());
    };
    let list = node.list(json!([{
        "type": "bridge", "bridge": "cni0", "isGateway": true,
        "ipam": node.host_local(&["10.5.1.0/24"]),
    }]))?;
    let pods: Vec<Pod> = std::thread::scope(|scope| {
        let adds: Vec<_> = (0..50)
            .map(|number| {
                let (node, list) = (&node, &list);
                scope.spawn(move || node.pod(list, &format!("p{number}")))
            })
            .collect();
        adds.into_iter()
            .map(|add| match add.join() {
                Ok(pod) => pod,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect::<Result<_>>()
    })?;
    let addresses: BTreeSet<_> = pods.iter().flat_map(|pod| &pod.addresses).collect();
    ensure!(
        addresses.len() == 50,
        "50 Pods have {} addresses",
        addresses.len()
    );
    Ping::new(pods[49].ip(Family::V4)?).run(&pods[0].namespace)?;
    std::thread::scope(|scope| {
        let dels: Vec<_> = pods
            .iter()
            .map(|pod| {
                let (node, list) = (&node, &list);
                scope.spawn(move || pod.detach(&node.runtime, list))
            })
            .collect();
        dels.into_iter().try_for_each(|del| match del.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let left = node.runtime.node.sh("ip -brief link show type veth")?;
    ensure!(left.is_empty(), "DEL left {left}");
    let mut files = tests::snapshot::of_folder(&node.run.folder().join("ipam"))?;
    files.retain(|file| !file.contains("lock") && !file.contains("last_reserved"));
    ensure!(files.is_empty(), "DEL left reservations: {files:?}");
    Ok(())
}

#[test]
fn del_succeeds_when_the_namespace_is_gone() -> Result<()> {
    let Some(node) = Node::new()? else {
        return Ok(());
    };
    let list = node.list(json!([{
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
        "ipam": node.host_local(&["10.5.1.0/24"]),
    }]))?;
    let pod = node.pod(&list, "a")?;
    node.run.remove(&pod.namespace)?;
    pod.detach(&node.runtime, &list)?;
    pod.detach(&node.runtime, &list).context("a second time")?;
    let again = node.run.namespace("again")?;
    ensure!(again.path() != pod.namespace.path());
    Ok(())
}
