//! `--dry-run` changes nothing; `cleanup` removes all that the daemon has made, and only that.

use anyhow::{Result, ensure};
use std::process::Command;
use tests::cluster::{Node, PREFIX, Stack};
use tests::{Cluster, Options, process, requirement, snapshot, subject};

fn can_run() -> bool {
    requirement::is_root() && requirement::has_programs(&["etcd", "etcdctl", "ping", "nft"])
}

fn state(node: &Node) -> Result<Vec<String>> {
    let mut lines = snapshot::of(&node.namespace)?;
    for command in [
        "nft -s list ruleset",
        "bridge fdb",
        "ip neigh show nud permanent",
        "tc qdisc show",
    ] {
        let output = node.namespace.sh(command)?;
        let entries = output.lines().map(snapshot::normal);
        lines.extend(entries.map(|line| format!("{command}: {line}")));
    }
    lines.sort();
    Ok(lines)
}

#[test]
fn dry_run_prints_the_plan_and_changes_nothing() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut cluster = Cluster::prepare(&Options::new("vxlan"))?;
    cluster.nodes[1].start_daemon()?;
    let leases = cluster.store.keys(&format!("{PREFIX}/subnets/"))?;
    let node = &cluster.nodes[0];
    let before = state(node)?;
    let mut command = node.flanneld.command()?;
    command.arg("--dry-run");
    let plan = node.namespace.run(|| process::run(&mut command))?;
    for part in ["flannel.1", "FLANNEL-POSTRTG"] {
        ensure!(plan.contains(part), "no {part} in the plan:\n{plan}");
    }
    snapshot::ensure_same("after the dry run: the node", &before, &state(node)?)?;
    ensure!(
        cluster.store.keys(&format!("{PREFIX}/subnets/"))? == leases,
        "a lease was written"
    );
    ensure!(
        !node.flanneld.subnet_file().exists(),
        "subnet.env was written"
    );
    Ok(())
}

/// Asked is what this process may do here, and a device that a start would refuse is refused.
#[test]
fn dry_run_of_udp_asks_the_kernel() -> Result<()> {
    if !can_run() || !requirement::has_programs(&["setpriv"]) {
        return Ok(());
    }
    let cluster = Cluster::prepare(&Options::new("udp"))?;
    let node = &cluster.nodes[0];
    let before = state(node)?;
    let mut command = Command::new("setpriv");
    let plain = node.flanneld.command()?;
    command
        .arg("--bounding-set=-bpf,-sys_admin")
        .arg(plain.get_program())
        .args(plain.get_args())
        .arg("--dry-run");
    let plan = node.namespace.run(|| process::run(&mut command))?;
    ensure!(
        plan.contains("\nstart datapath offload flannel0 on ")
            && plan.contains("\n# ebpf refused: ")
            && !plan.contains("attach ebpf"),
        "{plan}"
    );
    snapshot::ensure_same("after the dry run: the node", &before, &state(node)?)?;
    node.namespace.sh("ip link add flannel0 type veth")?;
    let mut command = node.flanneld.command()?;
    command.arg("--dry-run");
    let refused = node.namespace.run(|| process::run(&mut command));
    let text = refused.unwrap_or_else(|error| format!("{error:#}"));
    ensure!(
        text.contains("flannel0 exists and is no TUN device"),
        "{text}"
    );
    Ok(())
}

fn cleanup(options: &Options) -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut cluster = Cluster::prepare(&options.clone().stack(Stack::Dual))?;
    let node = &cluster.nodes[0];
    // Someone else's things, in the same tables and beside them.
    node.namespace
        .sh("ip route add 10.99.0.0/24 via 192.168.66.12")?;
    node.namespace
        .sh("iptables -w -t nat -A POSTROUTING -s 10.99.0.0/24 -j MASQUERADE")?;
    node.namespace.sh("nft add table ip theirs")?;
    let before = state(node)?;
    for node in &mut cluster.nodes {
        node.start_daemon()?;
    }
    ensure!(state(&cluster.nodes[0])? != before);
    cluster.nodes[0].take_daemon()?.kill()?;
    let node = &cluster.nodes[0];
    let mut command = Command::new(subject::flanneld()?);
    command
        .arg(format!(
            "--subnet-file={}",
            node.flanneld.subnet_file().display()
        ))
        .arg("cleanup");
    node.namespace.run(|| process::run(&mut command))?;
    let built_in = |line: &String| !is_empty_built_in(line);
    let (mut before, mut after) = (before, state(node)?);
    before.retain(built_in);
    after.retain(built_in);
    snapshot::ensure_same("after cleanup: the node", &before, &after)?;
    ensure!(!node.flanneld.subnet_file().exists(), "subnet.env is left");
    Ok(())
}

/// iptables makes its tables and built-in chains at the first look and never removes them.
fn is_empty_built_in(line: &str) -> bool {
    let Some(rule) = line.strip_prefix("nft -s list ruleset: ") else {
        return false;
    };
    rule.starts_with("table ip filter")
        || rule.starts_with("table ip nat")
        || rule.starts_with("table ip6 filter")
        || rule.starts_with("table ip6 nat")
        || rule.starts_with("chain ")
        || rule.starts_with("type ")
        || rule.starts_with('}')
        || rule.starts_with("# Warning")
        || rule.is_empty()
}

#[test]
fn cleanup_after_vxlan() -> Result<()> {
    cleanup(&Options::new("vxlan"))
}

#[test]
fn cleanup_after_host_gw_with_nftables() -> Result<()> {
    cleanup(&Options::new("host-gw").nftables())
}

#[test]
fn cleanup_after_udp() -> Result<()> {
    cleanup(&Options::new("udp"))
}
