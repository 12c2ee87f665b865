//! Leases from Kubernetes, `--kube-subnet-mgr`: on our own API server, in namespaces.

mod bed;

use anyhow::{Context, Result, ensure};
use bed::Bed;
use serde_json::json;
use std::time::{Duration, Instant};
use tests::cluster::Stack;
use tests::flanneld::terminate;
use tests::pod::Family;
use tests::traffic::{Stream, TcpServer};
use tests::{Options, eventually, flat_network, process};

/// Three nodes; everything that a backend must provide.
fn flat(options: Options, mtu: u32) -> Result<Option<Bed>> {
    let stack = options.stack;
    let Some(bed) = Bed::start(options.nodes(3))? else {
        return Ok(None);
    };
    flat_network::check(&bed.cluster, stack, mtu)?;
    Ok(Some(bed))
}

/// The MAC of a node's VXLAN device.
fn mac(bed: &Bed, index: usize) -> Result<String> {
    let line = "ip -o link show dev flannel.1";
    let line = bed.cluster.nodes[index].namespace.sh(line)?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "link/ether");
    words
        .next()
        .map(str::to_owned)
        .with_context(|| format!("no MAC in {line}"))
}

#[test]
fn vxlan() -> Result<()> {
    let Some(bed) = flat(Options::new("vxlan"), 1450)? else {
        return Ok(());
    };
    let data = format!(r#"backend-data={{"VNI":1,"VtepMAC":"{}"}}"#, mac(&bed, 1)?);
    let annotations = [
        &data,
        "backend-type=vxlan",
        "kube-subnet-manager=true",
        "public-ip=192.168.66.12",
    ];
    assert_eq!(bed.annotations(2)?, annotations);
    let conditions = bed.node(2)?["status"]["conditions"].take();
    let mut condition = conditions[0].clone();
    for time in ["lastHeartbeatTime", "lastTransitionTime"] {
        let at = condition[time].take();
        ensure!(at.as_str().is_some_and(|at| at.len() == 20), "{time}: {at}");
    }
    let wanted = json!({
        "type": "NetworkUnavailable",
        "status": "False",
        "lastHeartbeatTime": null,
        "lastTransitionTime": null,
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
    });
    assert_eq!(condition, wanted);
    assert_eq!(conditions.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn vxlan_dual_stack() -> Result<()> {
    let Some(bed) = flat(Options::new("vxlan").stack(Stack::Dual), 1430)? else {
        return Ok(());
    };
    let found = bed.annotations(3)?;
    let names: Vec<_> = found
        .iter()
        .filter_map(|line| line.split('=').next())
        .collect();
    let wanted = [
        "backend-data",
        "backend-type",
        "backend-v6-data",
        "kube-subnet-manager",
        "public-ip",
        "public-ipv6",
    ];
    assert_eq!(names, wanted);
    assert_eq!(found[5], "public-ipv6=fd66::13");
    Ok(())
}

#[test]
fn host_gw_with_nftables() -> Result<()> {
    let Some(bed) = flat(Options::new("host-gw").nftables(), 1500)? else {
        return Ok(());
    };
    let annotations = [
        "backend-data=null",
        "backend-type=host-gw",
        "kube-subnet-manager=true",
        "public-ip=192.168.66.11",
    ];
    assert_eq!(bed.annotations(1)?, annotations);
    Ok(())
}

#[test]
fn host_gw_v6() -> Result<()> {
    flat(Options::new("host-gw").stack(Stack::V6), 1500).map(drop)
}

#[test]
fn udp() -> Result<()> {
    let Some(bed) = flat(Options::new("udp"), 1472)? else {
        return Ok(());
    };
    let annotations = [
        r#"backend-data={"FinishesChecksums":true}"#,
        "backend-type=",
        "kube-subnet-manager=true",
        "public-ip=192.168.66.11",
    ];
    assert_eq!(bed.annotations(1)?, annotations);
    Ok(())
}

#[test]
fn alloc_and_extension() -> Result<()> {
    let Some(bed) = Bed::start(Options::new("alloc"))? else {
        return Ok(());
    };
    bed.wait_annotations(
        1,
        &[
            "backend-data=null",
            "backend-type=",
            "kube-subnet-manager=true",
            "public-ip=192.168.66.11",
        ],
    )?;
    drop(bed);
    let mut options = Options::new("extension");
    options.backend["PreStartupCommand"] = json!("echo a&b");
    options.backend["SubnetAddCommand"] = json!("ip route replace $SUBNET via $PUBLIC_IP");
    let Some(bed) = Bed::start(options)? else {
        return Ok(());
    };
    bed.wait_annotations(
        1,
        &[
            r#"backend-data="a\u0026b""#,
            "backend-type=extension",
            "kube-subnet-manager=true",
            "public-ip=192.168.66.11",
        ],
    )?;
    let line = "ip route show 10.5.2.0/24";
    bed.cluster.nodes[0]
        .wait_for("the command has run", line, |now| {
            now.contains("192.168.66.12")
        })
        .map(drop)
}

#[test]
fn nodes_come_change_and_go() -> Result<()> {
    let Some(mut bed) = Bed::start(Options::new("vxlan").nodes(3))? else {
        return Ok(());
    };
    let (a, b) = (bed.cluster.pod(0, "a")?, bed.cluster.pod(1, "b")?);
    bed.cluster.wait_connected(&[&a, &b], Stack::V4)?;
    // Gone: its route, neighbour and forwarding entry too.
    bed.cluster.nodes[2].take_daemon()?.kill()?;
    bed.unregister(3)?;
    let n1 = &bed.cluster.nodes[0];
    n1.wait_for("n3's route is gone", "ip route show 10.5.3.0/24", |now| {
        now.trim().is_empty()
    })?;
    n1.wait_for(
        "n3's entry is gone",
        "bridge fdb show dev flannel.1",
        |now| !now.contains("dst 192.168.66.13") && now.contains("dst 192.168.66.12"),
    )?;
    // Back, with another podCIDR.
    bed.register(3, &["10.5.33.0/24".to_owned()])?;
    bed.cluster.nodes[2].start_daemon()?;
    let c = bed.cluster.pod(2, "c")?;
    ensure!(c.ip(Family::V4)?.to_string().starts_with("10.5.33."));
    bed.cluster.wait_connected(&[&a, &b, &c], Stack::V4)?;
    // The operator says another address for it.
    bed.cluster.nodes[2]
        .namespace
        .sh("ip address add 192.168.66.113/24 dev eth0")?;
    bed.annotate(3, "public-ip-overwrite", json!("192.168.66.113"))?;
    let n1 = &bed.cluster.nodes[0];
    n1.wait_for(
        "n3's other address",
        "bridge fdb show dev flannel.1",
        |now| now.contains("dst 192.168.66.113") && !now.contains("dst 192.168.66.13 "),
    )?;
    bed.annotate(3, "public-ip-overwrite", json!(null))?;
    let n1 = &bed.cluster.nodes[0];
    n1.wait_for("n3's own address", "bridge fdb show dev flannel.1", |now| {
        now.contains("dst 192.168.66.13 ")
    })?;
    bed.cluster.wait_connected(&[&a, &c], Stack::V4)
}

#[test]
fn what_others_do_to_our_node_is_undone() -> Result<()> {
    let Some(bed) = Bed::start(Options::new("host-gw"))? else {
        return Ok(());
    };
    let published = bed.annotations(1)?;
    let published: Vec<_> = published.iter().map(String::as_str).collect();
    let (a, b) = (bed.cluster.pod(0, "a")?, bed.cluster.pod(1, "b")?);
    bed.cluster.wait_connected(&[&a, &b], Stack::V4)?;
    bed.annotate(1, "public-ip", json!("10.9.9.9"))?;
    bed.wait_annotations(1, &published)?;
    bed.annotate(1, "kube-subnet-manager", json!(null))?;
    bed.wait_annotations(1, &published)?;
    // A Node that is deleted: what it had goes on here, and it is annotated as soon as it is back.
    bed.unregister(1)?;
    let what = "n1 is not ready without its Node";
    eventually(what, Duration::from_secs(15), || {
        let (status, page) = bed.cluster.nodes[0].flanneld.health("readyz")?;
        ensure!(
            status == 503 && page.contains("Node n1 is not there"),
            "{status} {page}"
        );
        Ok(())
    })?;
    let line = "ip route show 10.5.2.0/24";
    let route = bed.cluster.nodes[0].namespace.sh(line)?;
    ensure!(
        route.contains("192.168.66.12"),
        "n2's route is gone: {route}"
    );
    bed.register(1, &bed.pod_cidrs(1))?;
    bed.wait_annotations(1, &published)?;
    let what = "the condition is back";
    eventually(what, Duration::from_secs(15), || {
        let node = bed.node(1)?;
        let reason = &node["status"]["conditions"][0]["reason"];
        ensure!(reason == "FlannelIsUp", "{node}");
        Ok(())
    })?;
    bed.cluster.wait_connected(&[&a, &b], Stack::V4)
}

#[test]
fn server_away_and_back() -> Result<()> {
    let Some(mut bed) = Bed::start(Options::new("vxlan").nodes(3))? else {
        return Ok(());
    };
    let (a, b) = (bed.cluster.pod(0, "a")?, bed.cluster.pod(1, "b")?);
    bed.cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let server = TcpServer::start(&b.namespace, b.ip(Family::V4)?, 0)?;
    let stream = Stream::start(&a.namespace, server.address)?;
    bed.cluster.store.kill()?;
    bed.wait_log(0, "the data path is kept")?;
    // A daemon that starts now waits for the server and leaves alone what is there.
    bed.cluster.nodes[0].take_daemon()?.kill()?;
    let daemon = bed.cluster.nodes[0].flanneld.spawn()?;
    bed.cluster.nodes[0].daemon = Some(daemon);
    bed.wait_log(0, "waiting, the lease store does not answer")?;
    std::thread::sleep(Duration::from_secs(2));
    bed.cluster.store.resume()?;
    // Before anybody is back.
    bed.unregister(3)?;
    bed.join()?;
    bed.register(4, &bed.pod_cidrs(4))?;
    bed.cluster.nodes[3].start_daemon()?;
    for index in [0, 1] {
        let node = &mut bed.cluster.nodes[index];
        let daemon = node.daemon.as_mut().context("a daemon")?;
        node.flanneld.wait_ready(daemon)?;
        node.wait_for("n4's route", "ip route show 10.5.4.0/24", |now| {
            now.contains("flannel.1")
        })?;
        node.wait_for("n3's route is gone", "ip route show 10.5.3.0/24", |now| {
            now.trim().is_empty()
        })?;
    }
    let d = bed.cluster.pod(3, "d")?;
    bed.cluster.wait_connected(&[&a, &b, &d], Stack::V4)?;
    stream.finish().with_context(|| bed.cluster.state())?;
    Ok(())
}

#[test]
fn a_restart_keeps_mac_and_connections() -> Result<()> {
    let Some(mut bed) = Bed::start(Options::new("vxlan"))? else {
        return Ok(());
    };
    let (a, b) = (bed.cluster.pod(0, "a")?, bed.cluster.pod(1, "b")?);
    bed.cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let server = TcpServer::start(&b.namespace, b.ip(Family::V4)?, 0)?;
    let stream = Stream::start(&a.namespace, server.address)?;
    let before = mac(&bed, 0)?;
    let status = terminate(bed.cluster.nodes[0].take_daemon()?)?;
    ensure!(status.success(), "SIGTERM: flanneld ended with {status}");
    bed.cluster.nodes[0].start_daemon()?;
    assert_eq!(mac(&bed, 0)?, before);
    stream.finish().with_context(|| bed.cluster.state())?;
    // As after the host's restart: neither device nor files are there, only the annotation.
    bed.cluster.nodes[0].take_daemon()?.kill()?;
    bed.cluster.nodes[0]
        .namespace
        .sh("ip link delete flannel.1")?;
    let files = bed.cluster.nodes[0].flanneld.subnet_file();
    let record = files.with_extension("env.record");
    for file in [files, record] {
        std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
    }
    bed.cluster.nodes[0].start_daemon()?;
    assert_eq!(mac(&bed, 0)?, before);
    bed.cluster.wait_connected(&[&a, &b], Stack::V4)
}

#[test]
fn a_pod_cidr_that_is_missing_or_wrong_is_named() -> Result<()> {
    let Some(mut bed) = Bed::prepare(Options::new("vxlan").nodes(3))? else {
        return Ok(());
    };
    for number in [2, 3] {
        bed.unregister(number)?;
    }
    let daemon = bed.cluster.nodes[1].flanneld.spawn()?;
    bed.cluster.nodes[1].daemon = Some(daemon);
    bed.wait_log(1, "waiting for a subnet: Node n2 is not there")?;
    bed.register(2, &[])?;
    bed.wait_log(1, "waiting for a subnet: Node n2: it has no podCIDR")?;
    let (status, page) = bed.cluster.nodes[1].flanneld.health("readyz")?;
    ensure!(
        status == 503 && page.contains("no podCIDR"),
        "{status} {page}"
    );
    // It comes, as from a controller manager, and is taken at once.
    let given = Instant::now();
    bed.patch(
        2,
        json!({"spec": {"podCIDR": "10.5.2.0/24", "podCIDRs": ["10.5.2.0/24"]}}),
    )?;
    let node = &mut bed.cluster.nodes[1];
    node.flanneld
        .wait_ready(node.daemon.as_mut().context("a daemon")?)?;
    let took = given.elapsed();
    ensure!(took < Duration::from_secs(5), "ready only after {took:?}");
    // Outside of the network: said by its own daemon, and by the others when it is marked all the same.
    bed.register(3, &["10.244.3.0/24".to_owned()])?;
    let daemon = bed.cluster.nodes[2].flanneld.spawn()?;
    bed.cluster.nodes[2].daemon = Some(daemon);
    let why = "its podCIDR 10.244.3.0/24 is not part of the network 10.5.0.0/16";
    bed.wait_log(2, &format!("waiting for a subnet: Node n3: {why}"))?;
    bed.annotate(3, "kube-subnet-manager", json!("true"))?;
    bed.wait_log(1, &format!("lease of Node n3 is ignored: {why}"))?;
    // Two Nodes with one podCIDR.
    bed.register(4, &["10.5.9.0/24".to_owned()])?;
    bed.register(5, &["10.5.9.0/24".to_owned()])?;
    for number in [4, 5] {
        for (last, value) in [
            ("backend-type", "vxlan"),
            ("backend-data", r#"{"VtepMAC":"0a:00:00:00:00:01"}"#),
            ("public-ip", "192.168.66.99"),
            ("kube-subnet-manager", "true"),
        ] {
            bed.annotate(number, last, json!(value))?;
        }
    }
    bed.wait_log(
        1,
        "lease of Node n5 is ignored: its podCIDR 10.5.9.0/24 is that of Node n4",
    )
}

#[test]
fn the_node_of_a_pod_and_its_operators_address() -> Result<()> {
    let Some(mut bed) = Bed::prepare(Options::new("host-gw"))? else {
        return Ok(());
    };
    let pod = json!({
        "metadata": {"name": "kube-flannel-ds-x"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "flannel"}]},
    });
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod)?;
    bed.ask(async |client| {
        let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client, "default");
        pods.create(&Default::default(), &pod).await.map(drop)
    })?;
    // A private and a public address on one interface.
    bed.cluster.nodes[0]
        .namespace
        .sh("ip address add 192.168.66.111/24 dev eth0")?;
    bed.annotate(1, "node-public-ip", json!("192.168.66.111"))?;
    let flanneld = &mut bed.cluster.nodes[0].flanneld;
    flanneld.set_env("NODE_NAME", "");
    flanneld.set_env("POD_NAME", "kube-flannel-ds-x");
    flanneld.set_env("POD_NAMESPACE", "default");
    flanneld
        .flags_mut()
        .retain(|flag| !flag.starts_with("--iface"));
    let daemon = flanneld.spawn()?;
    bed.cluster.nodes[0].daemon = Some(daemon);
    bed.wait_log(0, "our Node is n1")?;
    bed.wait_annotations(
        1,
        &[
            "backend-data=null",
            "backend-type=host-gw",
            "kube-subnet-manager=true",
            "node-public-ip=192.168.66.111",
            "public-ip=192.168.66.111",
        ],
    )
}

#[test]
fn dry_run_changes_nothing_and_cleanup_removes_all() -> Result<()> {
    let Some(mut bed) = Bed::prepare(Options::new("vxlan"))? else {
        return Ok(());
    };
    bed.cluster.nodes[1].start_daemon()?;
    let run = |bed: &Bed, argument: &str| {
        let node = &bed.cluster.nodes[0];
        let mut command = node.flanneld.command()?;
        command.arg(argument);
        node.namespace.run(|| process::run(&mut command))
    };
    let plan = run(&bed, "--dry-run")?;
    for part in [
        "# 10.5.1.0/24 is the podCIDR of Node n1",
        "annotate flannel.alpha.coreos.com/public-ip=192.168.66.11",
        "flannel.1",
        "10.5.2.0/24",
    ] {
        ensure!(plan.contains(part), "no {part} in the plan:\n{plan}");
    }
    assert_eq!(bed.annotations(1)?, [""; 0]);
    bed.cluster.nodes[0].start_daemon()?;
    terminate(bed.cluster.nodes[0].take_daemon()?)?;
    run(&bed, "cleanup")?;
    let links = bed.cluster.nodes[0].namespace.sh("ip -brief link")?;
    ensure!(!links.contains("flannel"), "{links}");
    let rules = bed.cluster.nodes[0].namespace.sh("iptables-save")?;
    ensure!(!rules.contains("FLANNEL"), "{rules}");
    ensure!(!bed.cluster.nodes[0].flanneld.subnet_file().exists());
    Ok(())
}
