//! What someone deletes from a node's data path comes back.

use anyhow::{Context, Result, ensure};
use tests::cluster::{Node, Stack};
use tests::pod::{Family, Pod};
use tests::{Cluster, Options, requirement};

/// Two nodes with a Pod each, connected.
fn connected(options: &Options) -> Result<Option<(Cluster, Pod, Pod)>> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl", "ping"]) {
        return Ok(None);
    }
    let mut options = options.clone();
    // Five times as often as by default: the firewall tests wait for many of them.
    options.flags.push("--iptables-resync=1".to_owned());
    let cluster = Cluster::start(&options)?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], options.stack)?;
    Ok(Some((cluster, a, b)))
}

/// Remembers what `observe` prints, does the `damage`, which must show, and waits for the same
/// output again.
fn heals(node: &Node, observe: &str, damage: &str) -> Result<()> {
    let before = sorted(&node.namespace.sh(observe)?);
    node.namespace.sh(damage)?;
    let damaged = sorted(&node.namespace.sh(observe).unwrap_or_default());
    // A daemon may be quicker than our look; then the damage is already healed.
    if damaged == before {
        return Ok(());
    }
    let what = format!(
        "`{damage}` is healed, `{observe}` again says\n{}",
        before.join("\n")
    );
    node.wait_for(&what, observe, |now| sorted(now) == before)
        .map(drop)
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

#[test]
fn vxlan_route_neighbour_and_fdb_entry() -> Result<()> {
    let Some((cluster, a, b)) = connected(&Options::new("vxlan"))? else {
        return Ok(());
    };
    let n1 = &cluster.nodes[0];
    let peer = cluster.nodes[1].subnet(Family::V4)?;
    heals(
        n1,
        &format!("ip route show {peer}"),
        &format!("ip route del {peer}"),
    )?;
    heals(
        n1,
        "ip neigh show dev flannel.1 nud permanent",
        &format!("ip neigh del {} dev flannel.1", peer.addr()),
    )?;
    let fdb = n1.namespace.sh("bridge fdb show dev flannel.1")?;
    let mac = fdb.lines().find(|line| line.contains("dst 192.168.66.12"));
    let mac = mac.and_then(|line| line.split_whitespace().next());
    let mac = mac.with_context(|| format!("no entry for n2 in {fdb:?}"))?;
    heals(
        n1,
        "bridge fdb show dev flannel.1",
        &format!("bridge fdb del {mac} dev flannel.1 dst 192.168.66.12"),
    )?;
    cluster.wait_connected(&[&a, &b], Stack::V4)
}

#[test]
fn vxlan_route_and_neighbour_v6() -> Result<()> {
    let Some((cluster, a, b)) = connected(&Options::new("vxlan").stack(Stack::Dual))? else {
        return Ok(());
    };
    let n1 = &cluster.nodes[0];
    let peer = cluster.nodes[1].subnet(Family::V6)?;
    heals(
        n1,
        &format!("ip -6 route show {peer}"),
        &format!("ip -6 route del {peer}"),
    )?;
    heals(
        n1,
        "ip -6 neigh show dev flannel-v6.1 nud permanent",
        &format!("ip -6 neigh del {} dev flannel-v6.1", peer.addr()),
    )?;
    cluster.wait_connected(&[&a, &b], Stack::Dual)
}

#[test]
fn vxlan_device_with_all_its_entries() -> Result<()> {
    let Some((cluster, a, b)) = connected(&Options::new("vxlan").stack(Stack::Dual))? else {
        return Ok(());
    };
    for device in ["flannel.1", "flannel-v6.1"] {
        let n1 = &cluster.nodes[0];
        n1.namespace.sh(&format!("ip link del {device}"))?;
        let line = format!("bridge fdb show dev {device}");
        n1.wait_for(&format!("{device} is back"), &line, |now| {
            now.contains(" dst ")
        })?;
        cluster.wait_connected(&[&a, &b], Stack::Dual)?;
    }
    Ok(())
}

#[test]
fn vxlan_device_set_down_and_without_address() -> Result<()> {
    let Some((cluster, a, b)) = connected(&Options::new("vxlan"))? else {
        return Ok(());
    };
    let n1 = &cluster.nodes[0];
    heals(
        n1,
        "ip -4 -oneline address show dev flannel.1",
        "ip -4 address flush dev flannel.1",
    )?;
    heals(
        n1,
        "ip route show dev flannel.1",
        "ip link set flannel.1 down",
    )?;
    cluster.wait_connected(&[&a, &b], Stack::V4)
}

#[test]
fn host_gw_routes() -> Result<()> {
    let Some((cluster, a, b)) = connected(&Options::new("host-gw").stack(Stack::Dual))? else {
        return Ok(());
    };
    let n1 = &cluster.nodes[0];
    let peer = cluster.nodes[1].subnet(Family::V4)?;
    heals(
        n1,
        &format!("ip route show {peer}"),
        &format!("ip route del {peer}"),
    )?;
    let peer = cluster.nodes[1].subnet(Family::V6)?;
    heals(
        n1,
        &format!("ip -6 route show {peer}"),
        &format!("ip -6 route del {peer}"),
    )?;
    cluster.wait_connected(&[&a, &b], Stack::Dual)
}

#[test]
fn iptables_rules_and_jumps() -> Result<()> {
    let Some((cluster, _a, _b)) = connected(&Options::new("host-gw").stack(Stack::Dual))? else {
        return Ok(());
    };
    let n1 = &cluster.nodes[0];
    for program in ["iptables", "ip6tables"] {
        let nat = format!("{program} -w -t nat -S FLANNEL-POSTRTG");
        let rules = n1.namespace.sh(&nat)?;
        ensure!(rules.contains("MASQUERADE"), "{nat}:\n{rules}");
        heals(
            n1,
            &nat,
            &format!("{program} -w -t nat -D FLANNEL-POSTRTG 2"),
        )?;
        heals(n1, &nat, &format!("{program} -w -t nat -F FLANNEL-POSTRTG"))?;
        let jumps = format!("{program} -w -t nat -S POSTROUTING");
        let jump = n1.namespace.sh(&jumps)?;
        let jump = jump.lines().find(|line| line.contains("FLANNEL-POSTRTG"));
        ensure!(jump.is_some(), "no jump in {jumps}");
        n1.namespace
            .sh(&format!("{program} -w -t nat -F POSTROUTING"))?;
        jump_is_back(n1, &jumps, "FLANNEL-POSTRTG")?;
        let forward = format!("{program} -w -S FLANNEL-FWD");
        heals(n1, &forward, &format!("{program} -w -F FLANNEL-FWD"))?;
        let jumps = format!("{program} -w -S FORWARD");
        n1.namespace.sh(&format!("{program} -w -F FORWARD"))?;
        jump_is_back(n1, &jumps, "FLANNEL-FWD")?;
    }
    Ok(())
}

/// After a flush of a built-in chain only our own jump comes back; others are not ours to mend.
fn jump_is_back(node: &Node, observe: &str, chain: &str) -> Result<()> {
    let what = format!("the jump to {chain} is back");
    node.wait_for(&what, observe, |now| now.contains(chain))
        .map(drop)
}

#[test]
fn nftables_rules_chains_and_tables() -> Result<()> {
    let Some((cluster, _a, _b)) =
        connected(&Options::new("host-gw").stack(Stack::Dual).nftables())?
    else {
        return Ok(());
    };
    let n1 = &cluster.nodes[0];
    for table in ["ip flannel-ipv4", "ip6 flannel-ipv6"] {
        let list = format!("nft -s list table {table}");
        let rules = n1.namespace.sh(&list)?;
        ensure!(rules.contains("masquerade"), "{list}:\n{rules}");
        heals(n1, &list, &format!("nft flush chain {table} postrtg"))?;
        heals(n1, &list, &format!("nft flush chain {table} forward"))?;
        heals(n1, &list, &format!("nft delete table {table}"))?;
    }
    Ok(())
}

#[test]
fn udp_device_addresses_and_routes() -> Result<()> {
    let Some((cluster, a, b)) = connected(&Options::new("udp").stack(Stack::Dual))? else {
        return Ok(());
    };
    let n1 = &cluster.nodes[0];
    let (v4, v6) = ("ip -4 route show 10.5.0.0/16", "ip -6 route show fd05::/48");
    let addresses = "ip -brief address show dev flannel0 scope global";
    for (damage, observe) in [
        ("ip route del 10.5.0.0/16 dev flannel0", v4),
        ("ip -6 route del fd05::/48 dev flannel0", v6),
        ("ip -4 address flush dev flannel0", addresses),
        ("ip -6 address flush dev flannel0 scope global", addresses),
        ("ip link set flannel0 down", v6),
        ("ip link del flannel0", v6),
    ] {
        heals(n1, observe, damage).context(damage)?;
        cluster.wait_connected(&[&a, &b], Stack::Dual)?;
    }
    Ok(())
}
