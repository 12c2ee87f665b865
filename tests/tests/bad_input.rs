//! What is missing, malformed or in the way gives a clear message, and nothing is lost or half-made.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;
use tests::cluster::{PREFIX, Stack, config_key};
use tests::flanneld::Daemon;
use tests::pod::Family;
use tests::process::Process;
use tests::{Cluster, Options, eventually, requirement};

const SOON: Duration = Duration::from_secs(10);

fn can_run() -> bool {
    requirement::is_root() && requirement::has_programs(&["etcd", "etcdctl", "ping"])
}

/// Waits until the daemon's log names every one of `parts`.
fn wait_log(daemon: &Process, parts: &[&str]) -> Result<()> {
    eventually(&format!("the log names {parts:?}"), SOON, || {
        let log = daemon.log()?;
        for part in parts {
            ensure!(
                log.contains(part),
                "{part:?} is not in the log:\n{}",
                daemon.log_tail()
            );
        }
        Ok(())
    })
}

/// A daemon that waits, and says for what, becomes ready when it comes.
fn waits_then_starts(
    cluster: &Cluster,
    parts: &[&str],
    mend: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let node = &cluster.nodes[0];
    let mut daemon = node.flanneld.spawn()?;
    wait_log(&daemon, parts)?;
    daemon.ensure_alive()?;
    ensure!(
        !node.flanneld.subnet_file().exists(),
        "subnet.env without a lease"
    );
    let (status, body) = node.flanneld.health("readyz")?;
    ensure!(
        status == 503,
        "/readyz says {status} {body:?} while the daemon waits"
    );
    let (status, _) = node.flanneld.health("healthz")?;
    ensure!(
        status == 200,
        "/healthz says {status} while the daemon waits"
    );
    mend()?;
    node.flanneld.wait_ready(&mut daemon)
}

#[test]
fn missing_configuration_is_waited_for() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let options = Options::new("vxlan").nodes(1);
    let cluster = Cluster::prepare(&options)?;
    cluster.store.delete(&config_key())?;
    waits_then_starts(&cluster, &[&config_key()], || {
        cluster
            .store
            .put(&config_key(), &options.network_config().to_string())
    })
}

#[test]
fn absent_etcd_is_waited_for() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut cluster = Cluster::prepare(&Options::new("vxlan").nodes(1))?;
    cluster.store.stop()?;
    let node = &cluster.nodes[0];
    let mut daemon = node.flanneld.spawn()?;
    wait_log(&daemon, &["192.168.66.1:2379"])?;
    daemon.ensure_alive()?;
    cluster.store.resume()?;
    cluster.nodes[0].flanneld.wait_ready(&mut daemon)
}

/// Each malformed configuration is named with its key; the daemon either ends or waits for a
/// better one, and makes nothing meanwhile.
#[test]
fn malformed_configuration_is_named() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let options = Options::new("vxlan").nodes(1);
    let cluster = Cluster::prepare(&options)?;
    let node = &cluster.nodes[0];
    for (config, complaint) in [
        ("{\"Network\":", "config"),
        ("{\"Network\": 7}", "Network"),
        ("{\"Network\": \"10.5.0.0/33\"}", "10.5.0.0/33"),
        (
            "{\"Network\": \"10.5.0.0/16\", \"SubnetLen\": 12}",
            "SubnetLen",
        ),
        (
            "{\"Network\": \"10.5.0.0/16\", \"SubnetMin\": \"10.6.0.0\"}",
            "SubnetMin",
        ),
        (
            "{\"Network\": \"10.5.0.0/16\", \"Backend\": {\"Type\": \"pigeon\"}}",
            "pigeon",
        ),
    ] {
        cluster.store.put(&config_key(), config)?;
        let mut daemon = node.flanneld.spawn()?;
        wait_log(&daemon, &[complaint]).with_context(|| format!("configuration {config}"))?;
        ensure!(
            !node.flanneld.subnet_file().exists(),
            "{config}: subnet.env is there"
        );
        let links = node.namespace.sh("ip -brief link show type vxlan")?;
        ensure!(links.is_empty(), "{config}: a device is there: {links}");
        // It may have ended by itself; then there is nothing to kill.
        if daemon.ensure_alive().is_ok() {
            daemon.kill()?;
        }
    }
    let leases = cluster.store.keys(&format!("{PREFIX}/subnets/"))?;
    ensure!(leases.is_empty(), "a lease was taken: {leases:?}");
    cluster
        .store
        .put(&config_key(), &options.network_config().to_string())?;
    let mut daemon = node.flanneld.spawn()?;
    node.flanneld.wait_ready(&mut daemon)
}

#[test]
fn configuration_changed_while_running_breaks_nothing() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let options = Options::new("vxlan");
    let mut cluster = Cluster::start(&options)?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::V4)?;
    let subnet = cluster.nodes[0].subnet(Family::V4)?;
    let mut changed = options.network_config();
    changed["Network"] = json!("10.77.0.0/16");
    cluster.store.put(&config_key(), &changed.to_string())?;
    let daemon = cluster.nodes[0].daemon.as_mut().context("the daemon")?;
    wait_log(daemon, &["config"])?;
    std::thread::sleep(Duration::from_secs(1));
    daemon.ensure_alive()?;
    cluster.store.put(&config_key(), "{ not json")?;
    std::thread::sleep(Duration::from_secs(1));
    let daemon = cluster.nodes[0].daemon.as_mut().context("the daemon")?;
    daemon.ensure_alive()?;
    ensure!(cluster.nodes[0].subnet(Family::V4)? == subnet);
    cluster.wait_connected(&[&a, &b], Stack::V4)
}

/// Leases that cannot be read, or that would cut this node off, are ignored, named and counted.
#[test]
fn harmful_leases_are_ignored_and_the_others_served() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut cluster = Cluster::prepare(&Options::new("vxlan"))?;
    let lease = |ip: &str, mac: &str| {
        json!({
            "PublicIP": ip, "PublicIPv6": null, "BackendType": "vxlan",
            "BackendData": { "VNI": 1, "VtepMAC": mac },
        })
        .to_string()
    };
    let good = lease("192.168.66.99", "02:00:00:00:00:99");
    for (key, value) in [
        ("10.5.200.0-24", "{ garbage"),
        ("10.5.201.0-24", "{\"PublicIP\": \"no address\"}"),
        ("10.5.202.0-24", &lease("192.168.66.98", "no mac")),
        ("nonsense", &good),
        ("10.5.204.0-99", &good),
        ("10.5.210.0-24", &good),
    ] {
        cluster
            .store
            .put(&format!("{PREFIX}/subnets/{key}"), value)?;
    }
    for node in &mut cluster.nodes {
        node.start_daemon()?;
    }
    let n1 = &cluster.nodes[0];
    // A part of the node's own subnet, claimed by someone else while the daemon runs.
    let own = n1.subnet(Family::V4)?;
    let part = format!("{}-25", own.addr());
    cluster
        .store
        .put(&format!("{PREFIX}/subnets/{part}"), &good)?;

    n1.wait_for(
        "the good lease is served",
        "ip route show 10.5.210.0/24",
        |now| now.contains("flannel.1"),
    )?;
    let daemon = n1.daemon.as_ref().context("the daemon")?;
    let names = [
        "10.5.200.0-24",
        "10.5.201.0-24",
        "10.5.202.0",
        "10.5.204.0-99",
        &part,
    ];
    wait_log(daemon, &names)?;
    let routes = n1.namespace.sh("ip route")?;
    for bad in [
        "10.5.200.0",
        "10.5.201.0",
        "10.5.202.0",
        "10.5.204.0",
        &format!("{}/25", own.addr()),
    ] {
        ensure!(!routes.contains(bad), "a route to {bad}:\n{routes}");
    }
    let (_, metrics) = n1.flanneld.health("metrics")?;
    let counted = metrics
        .lines()
        .find_map(|line| {
            line.strip_prefix("flanneld_ignored_leases ")?
                .parse::<f64>()
                .ok()
        })
        .with_context(|| format!("no count of ignored leases in\n{metrics}"))?;
    ensure!(counted >= 4.0, "only {counted} ignored leases are counted");
    // To n2 both that lease and n1's are other nodes' and both name 10.5.x.0; once it is gone,
    // nothing of it may stay.
    cluster.store.delete(&format!("{PREFIX}/subnets/{part}"))?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], Stack::V4)
}

/// A daemon that must end, with a message that names the cause.
fn must_end(mut daemon: Daemon, parts: &[&str]) -> Result<()> {
    let status = daemon.wait(SOON)?;
    ensure!(
        !status.success(),
        "it ended with success:\n{}",
        daemon.log_tail()
    );
    let log = daemon.log()?;
    for part in parts {
        ensure!(log.contains(part), "{part:?} is not in the log:\n{log}");
    }
    Ok(())
}

#[test]
fn lack_of_rights_is_said() -> Result<()> {
    if !can_run() || !requirement::has_programs(&["setpriv"]) {
        return Ok(());
    }
    let cluster = Cluster::prepare(&Options::new("vxlan").nodes(1))?;
    let node = &cluster.nodes[0];
    let inner = node.flanneld.command()?;
    let mut command = Command::new("setpriv");
    // Root by name but with no capability at all.
    command
        .args(["--bounding-set=-all", "--inh-caps=-all", "--"])
        .arg(inner.get_program())
        .args(inner.get_args());
    let log = cluster.run.folder().join("powerless.log");
    let daemon = node.namespace.spawn("flanneld", &mut command, &log)?;
    must_end(daemon, &["root"])?;
    let leases = cluster.store.keys(&format!("{PREFIX}/subnets/"))?;
    ensure!(
        leases.is_empty(),
        "a lease was taken without the rights to use it: {leases:?}"
    );
    Ok(())
}

#[test]
fn taken_health_port_is_named() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let cluster = Cluster::prepare(&Options::new("vxlan").nodes(1))?;
    let node = &cluster.nodes[0];
    let _taken = node
        .namespace
        .run(|| Ok(std::net::TcpListener::bind("127.0.0.1:8471")?))?;
    must_end(node.flanneld.spawn()?, &["127.0.0.1:8471"])
}

#[test]
fn taken_udp_port_is_named_until_it_is_free() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let cluster = Cluster::prepare(&Options::new("udp").nodes(1))?;
    let node = &cluster.nodes[0];
    let taken = node
        .namespace
        .run(|| Ok(UdpSocket::bind("0.0.0.0:8285")?))?;
    let mut daemon = node.flanneld.spawn()?;
    wait_log(&daemon, &["8285"])?;
    eventually("/readyz names the port", SOON, || {
        let (status, body) = node.flanneld.health("readyz")?;
        ensure!(
            status == 503 && body.contains("8285"),
            "/readyz says {status} {body:?}"
        );
        Ok(())
    })?;
    drop(taken);
    node.flanneld.wait_ready(&mut daemon)
}

#[test]
fn unknown_interface_is_named() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut cluster = Cluster::prepare(&Options::new("vxlan").nodes(1))?;
    let node = &mut cluster.nodes[0];
    node.flanneld
        .flags_mut()
        .retain(|flag| !flag.starts_with("--iface"));
    node.flanneld.flags_mut().push("--iface=nosuch0".to_owned());
    let daemon = node.flanneld.spawn()?;
    wait_log(&daemon, &["nosuch0"])?;
    ensure!(
        !node.flanneld.subnet_file().exists(),
        "subnet.env without an interface"
    );
    Ok(())
}

/// The plugin says that the daemon is not ready, and what to look at.
#[test]
fn flannel_plugin_without_subnet_env() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let cluster = Cluster::prepare(&Options::new("vxlan").nodes(1))?;
    let node = &cluster.nodes[0];
    let Err(error) = cluster.pod(0, "a") else {
        anyhow::bail!("ADD succeeded without subnet.env");
    };
    let message = format!("{error:#}");
    let file = node.flanneld.subnet_file();
    for part in ["flanneld", &file.display().to_string()] {
        ensure!(message.contains(part), "{part:?} is not in {message:?}");
    }
    let links = node.namespace.sh("ip -brief link show type bridge")?;
    ensure!(links.is_empty(), "a failed ADD left {links}");
    Ok(())
}
