//! The life of a node with VXLAN in user space: crash, stop, change of the data path, repair, removal.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::Duration;
use tests::cluster::{Node, PREFIX, Stack};
use tests::flanneld::{Daemon, terminate};
use tests::pod::{Family, Pod};
use tests::traffic::{Stream, TcpServer};
use tests::{Cluster, Options, eventually, process, requirement, snapshot, subject};

fn can_run() -> bool {
    requirement::is_root() && requirement::has_programs(&["etcd", "etcdctl", "ping"])
}

/// n1 in user space, n2 on the kernel's device, a Pod on each, connected.
fn connected(options: &Options) -> Result<Option<(Cluster, Pod, Pod)>> {
    if !can_run() {
        return Ok(None);
    }
    let cluster = Cluster::start_with(options, |index| {
        let path = if index == 0 { "tun" } else { "kernel" };
        vec![format!("--data-path={path}")]
    })?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], options.stack)?;
    Ok(Some((cluster, a, b)))
}

fn has_link(node: &Node, name: &str) -> Result<bool> {
    let links = node.namespace.sh("ip -o link show")?;
    Ok(links.contains(&format!(": {name}:")))
}

/// Kind and index of `flannel.1`.
fn device(node: &Node) -> Result<(String, String)> {
    let text = node.namespace.sh("ip -d -o link show flannel.1")?;
    let kind = ["vxlan", "tun"].into_iter().find(|kind| {
        let mut words = text.split_whitespace();
        words.any(|word| word == *kind)
    });
    let index = text.split(':').next().unwrap_or_default();
    let kind = kind.with_context(|| format!("neither vxlan nor TUN: {text}"))?;
    Ok((kind.to_owned(), index.to_owned()))
}

/// What the node has announced.
fn lease(cluster: &Cluster, at: usize) -> Result<String> {
    let subnet = cluster.nodes[at].subnet(Family::V4)?.to_string();
    let key = format!("{PREFIX}/subnets/{}", subnet.replace('/', "-"));
    let value = cluster.store.get(&key)?;
    value.with_context(|| format!("no {key}"))
}

#[test]
fn a_killed_daemons_successor_takes_device_and_stream_over() -> Result<()> {
    let Some((mut cluster, a, b)) = connected(&Options::new("vxlan"))? else {
        return Ok(());
    };
    let before = (device(&cluster.nodes[0])?, lease(&cluster, 0)?);
    let server = TcpServer::start(&b.namespace, b.ip(Family::V4)?, 0)?;
    let stream = Stream::start(&a.namespace, server.address)?;
    std::thread::sleep(Duration::from_millis(300));
    let node = &mut cluster.nodes[0];
    node.take_daemon()?.kill()?;
    std::thread::sleep(Duration::from_millis(300));
    node.start_daemon()?;
    std::thread::sleep(Duration::from_secs(1));
    stream.finish().with_context(|| cluster.state())?;
    let after = (device(&cluster.nodes[0])?, lease(&cluster, 0)?);
    ensure!(after == before, "{after:?}, before {before:?}");
    Ok(())
}

/// Between start and first reconcile the routes of the life before lead to workers that know nobody yet:
/// senders lose packets then, and are not told that there is no way.
#[test]
fn a_restart_refuses_nobody() -> Result<()> {
    let Some((mut cluster, a, b)) = connected(&Options::new("vxlan"))? else {
        return Ok(());
    };
    let ip = b.ip(Family::V4)?.to_string();
    let log = cluster.run.folder().join("ping.log");
    let mut command = Command::new("ping");
    command.args(["-n", "-i", "0.001", "-w", "20", &ip]);
    let mut ping = a.namespace.spawn("ping", &mut command, &log)?;
    for _ in 0..3 {
        let node = &mut cluster.nodes[0];
        node.take_daemon()?.kill()?;
        node.start_daemon()?;
        cluster.wait_connected(&[&a, &b], Stack::V4)?;
    }
    ping.kill()?;
    let log = ping.log()?;
    ensure!(log.contains("bytes from"), "no answer at all: {log}");
    let refused = log.lines().find(|line| line.contains("nreachable"));
    ensure!(refused.is_none(), "{refused:?}");
    Ok(())
}

/// From one data path to the other and back: the node keeps subnet and MAC, so no peer notices.
#[test]
fn the_data_path_can_be_changed() -> Result<()> {
    let Some((mut cluster, a, b)) = connected(&Options::new("vxlan"))? else {
        return Ok(());
    };
    let announced = lease(&cluster, 0)?;
    // Stopped in order, a TUN goes; killed, a kernel's device stays and must be replaced.
    for (path, kind, kill) in [
        ("kernel", "vxlan", false),
        ("tun", "tun", true),
        ("auto", "vxlan", true),
    ] {
        let node = &mut cluster.nodes[0];
        let mut daemon = node.take_daemon()?;
        if kill {
            daemon.kill()?;
            ensure!(
                has_link(node, "flannel.1")?,
                "flannel.1 went with the process"
            );
        } else {
            let status = terminate(daemon)?;
            ensure!(status.success(), "SIGTERM: flanneld ended with {status}");
            ensure!(!has_link(node, "flannel.1")?, "flannel.1 was left");
        }
        set_flag(node, "--data-path", path);
        node.start_daemon()?;
        cluster.wait_connected(&[&a, &b], Stack::V4)?;
        let found = device(&cluster.nodes[0])?.0;
        ensure!(found == kind, "{path}: flannel.1 is of kind {found}");
        let now = lease(&cluster, 0)?;
        ensure!(now == announced, "{path}: {now}, before {announced}");
    }
    Ok(())
}

/// Gives a flag of the node's daemon another value.
fn set_flag(node: &mut Node, name: &str, value: &str) {
    let start = format!("{name}=");
    let flags = node.flanneld.flags_mut();
    flags.retain(|flag| !flag.starts_with(&start));
    flags.push(format!("{start}{value}"));
}

/// What a start would do.
fn dry_run(node: &Node) -> Result<String> {
    let mut command = node.flanneld.command()?;
    command.arg("--dry-run");
    node.namespace.run(|| process::run(&mut command))
}

fn wait_logged(daemon: &Daemon, text: &str) -> Result<()> {
    let what = format!("the log has {text:?}");
    eventually(&what, Duration::from_secs(15), || {
        ensure!(daemon.log()?.contains(text), "{}", daemon.log_tail());
        Ok(())
    })
}

/// A daemon that never had the device is told to stop: the kernel's, left by a life before, stays.
#[test]
fn a_stop_before_the_start_removes_nothing() -> Result<()> {
    let Some((mut cluster, a, b)) = connected(&Options::new("vxlan"))? else {
        return Ok(());
    };
    let node = &mut cluster.nodes[1];
    node.take_daemon()?.kill()?;
    let before = device(node)?;
    set_flag(node, "--data-path", "tun");
    set_flag(node, "--iface", "eth9");
    let daemon = node.flanneld.spawn()?;
    wait_logged(&daemon, "waiting, no external interface")?;
    ensure!(terminate(daemon)?.success(), "SIGTERM: a failure");
    let after = device(&cluster.nodes[1])?;
    ensure!(after == before, "{after:?}, before {before:?}");
    cluster.wait_connected(&[&a, &b], Stack::V4)
}

/// Without TUN devices, or with the port in other hands, the kernel's device of a life before goes on;
/// it goes when user space can take its place.
#[test]
fn what_works_is_kept_until_user_space_can_start() -> Result<()> {
    let Some((mut cluster, a, b)) = connected(&Options::new("vxlan"))? else {
        return Ok(());
    };
    let node = &mut cluster.nodes[1];
    node.take_daemon()?.kill()?;
    let before = device(node)?;
    set_flag(node, "--data-path", "tun");
    let plain = node.flanneld.command()?;
    let mut command = Command::new("unshare");
    let hide = r#"mount -t tmpfs none /dev/net && exec "$0" "$@""#;
    command
        .args(["--mount", "sh", "-c", hide])
        .arg(plain.get_program())
        .args(plain.get_args());
    let log = cluster.run.folder().join("without-tun.log");
    let mut daemon = node.namespace.spawn("flanneld", &mut command, &log)?;
    wait_logged(&daemon, "there is no /dev/net/tun")?;
    daemon.kill()?;
    ensure!(device(&cluster.nodes[1])? == before, "without /dev/net/tun");
    cluster.wait_connected(&[&a, &b], Stack::V4)?;

    let node = &mut cluster.nodes[1];
    node.namespace.ip_batch(
        "link add other type vxlan id 99 dstport 8472 dev eth0
         link set other up",
    )?;
    let mut daemon = node.flanneld.spawn()?;
    wait_logged(&daemon, "the vxlan device other uses the port")?;
    ensure!(device(&cluster.nodes[1])? == before, "with the port in use");
    let plan = dry_run(&cluster.nodes[1])?;
    let wanted = "# flannel.1 cannot start: bind udp 192.168.66.12:8472: the vxlan device other";
    ensure!(
        plan.contains(wanted) && !plan.contains("delete link"),
        "{plan}"
    );
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let node = &mut cluster.nodes[1];
    node.namespace.sh("ip link del other")?;
    node.flanneld.wait_ready(&mut daemon)?;
    node.daemon = Some(daemon);
    ensure!(device(node)?.0 == "tun", "flannel.1 was not replaced");
    cluster.wait_connected(&[&a, &b], Stack::V4)
}

#[test]
fn what_is_deleted_comes_back() -> Result<()> {
    let mut options = Options::new("vxlan").stack(Stack::Dual);
    options.flags.push("--iptables-resync=1".to_owned());
    let Some((cluster, a, b)) = connected(&options)? else {
        return Ok(());
    };
    let node = &cluster.nodes[0];
    let v4 = (
        cluster.nodes[1].subnet(Family::V4)?,
        node.subnet(Family::V4)?,
    );
    let v6 = (
        cluster.nodes[1].subnet(Family::V6)?,
        node.subnet(Family::V6)?,
    );
    let routes = format!("ip route show {}", v4.0);
    let wanted = format!("{} dev flannel.1 scope link", v4.0);
    let route_is_back = |found: &str| found.trim() == wanted;
    for damage in [
        format!("ip route del {}", v4.0),
        "ip link set flannel.1 down".to_owned(),
        "ip link del flannel.1".to_owned(),
    ] {
        node.namespace.sh(&damage)?;
        node.wait_for(
            &format!("the route is back after `{damage}`"),
            &routes,
            route_is_back,
        )?;
        cluster
            .wait_connected(&[&a, &b], Stack::Dual)
            .with_context(|| damage.clone())?;
    }
    for (device, ip, (peer, own)) in [("flannel.1", "ip -4", v4), ("flannel-v6.1", "ip -6", v6)] {
        let full = ipnet::IpNet::from(own.addr()).to_string();
        node.namespace
            .sh(&format!("ip address del {full} dev {device}"))?;
        let addresses = format!("ip -o address show dev {device}");
        let shown = full.trim_end_matches("/32").to_owned();
        node.wait_for("the address is back", &addresses, |now| {
            now.contains(&shown)
        })?;
        let route = node
            .namespace
            .sh(&format!("{ip} route show {peer} dev {device}"))?;
        ensure!(!route.is_empty(), "no route to {peer}");
    }
    cluster.wait_connected(&[&a, &b], Stack::Dual)
}

#[test]
fn a_peer_that_goes_loses_its_route_and_its_place() -> Result<()> {
    let Some((mut cluster, a, b)) = connected(&Options::new("vxlan"))? else {
        return Ok(());
    };
    let peer = cluster.nodes[1].subnet(Family::V4)?;
    cluster.nodes[1].take_daemon()?.kill()?;
    let key = peer.to_string().replace('/', "-");
    cluster.store.delete(&format!("{PREFIX}/subnets/{key}"))?;
    let node = &cluster.nodes[0];
    let routes = format!("ip route show {peer}");
    node.wait_for("the route goes", &routes, |now| now.trim().is_empty())?;
    // The kernel on the other side still sends; nobody here knows it any more.
    let ip = a.ip(Family::V4)?;
    let ping = tests::traffic::Ping::new(ip).count(1).run(&b.namespace);
    ensure!(ping.is_err(), "a node without a lease was served");
    let (_, page) = node.flanneld.health("metrics")?;
    let series = "flanneld_tunnel_dropped_total{reason=\"unknown_peer\"} ";
    let dropped = page.lines().find_map(|line| line.strip_prefix(series));
    ensure!(dropped.is_some_and(|n| n != "0"), "not counted:\n{page}");
    Ok(())
}

#[test]
fn the_plan_is_printed_and_cleanup_removes_the_devices() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut options = Options::new("vxlan").stack(Stack::Dual);
    options.backend["DataPath"] = "tun".into();
    let mut cluster = Cluster::prepare(&options)?;
    cluster.nodes[1].start_daemon()?;
    let node = &cluster.nodes[0];
    let before = snapshot::of(&node.namespace)?;
    let plan = dry_run(node)?;
    let peer = cluster.nodes[1].subnet(Family::V4)?;
    for part in [
        "add link flannel.1 mtu 1450 type tun".to_owned(),
        "add link flannel-v6.1 mtu 1430 type tun".to_owned(),
        "start datapath offload flannel.1 on 192.168.66.11:8472".to_owned(),
        "start datapath offload flannel-v6.1 on [fd66::11]:8472".to_owned(),
        format!("replace route {peer} dev flannel.1 scope link"),
    ] {
        ensure!(plan.contains(&part), "no {part:?} in the plan:\n{plan}");
    }
    snapshot::ensure_same(
        "after the dry run: the node",
        &before,
        &snapshot::of(&node.namespace)?,
    )?;

    let node = &mut cluster.nodes[0];
    node.start_daemon()?;
    node.take_daemon()?.kill()?;
    ensure!(has_link(node, "flannel.1")? && has_link(node, "flannel-v6.1")?);
    clean_up(node)
}

/// `GBP` can be had of the kernel's device only, and the node had that: `cleanup` needs no data path.
#[test]
fn cleanup_after_a_data_path_that_the_configuration_refuses() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut options = Options::new("vxlan").nodes(1);
    options.backend["DataPath"] = "tun".into();
    options.backend["GBP"] = true.into();
    options.flags.push("--data-path=kernel".to_owned());
    let mut cluster = Cluster::start(&options)?;
    cluster.nodes[0].take_daemon()?.kill()?;
    ensure!(has_link(&cluster.nodes[0], "flannel.1")?);
    clean_up(&cluster.nodes[0])
}

/// Nothing of flannel's is left after `cleanup`.
fn clean_up(node: &Node) -> Result<()> {
    let mut command = Command::new(subject::flanneld()?);
    let file = node.flanneld.subnet_file();
    command
        .arg(format!("--subnet-file={}", file.display()))
        .arg("cleanup");
    node.namespace.run(|| process::run(&mut command))?;
    let left = snapshot::of(&node.namespace)?;
    let left: Vec<_> = left
        .iter()
        .filter(|line| line.contains("flannel"))
        .collect();
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

#[test]
fn what_a_tun_cannot_do_is_refused_with_a_sentence() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    for (key, value, sentence) in [
        (
            "GBP",
            serde_json::json!(true),
            "\"GBP\" needs the kernel's vxlan device",
        ),
        (
            "DataPath",
            "fast".into(),
            "\"fast\" is none of auto, kernel, tun",
        ),
    ] {
        let mut options = Options::new("vxlan");
        options.backend["DataPath"] = "tun".into();
        options.backend[key] = value;
        let cluster = Cluster::prepare(&options)?;
        let daemon = cluster.nodes[0].flanneld.spawn()?;
        wait_logged(&daemon, sentence)?;
        ensure!(
            !has_link(&cluster.nodes[0], "flannel.1")?,
            "flannel.1 was made"
        );
    }
    Ok(())
}
