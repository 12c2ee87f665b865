//! The proxy's own life: restart, crash, change of mode, damage by others, clean-up.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tests::cluster::Stack;
use tests::pod::Family;
use tests::proxy::{Backend, Endpoints, Mode, Options, Pod, Port, Service, Site, cluster_ip};
use tests::traffic::Transport::{Tcp, Udp};
use tests::traffic::{Conversation, Knocker, Outcome, Stream, knock};
use tests::{eventually, snapshot};

tests::on_every_mode!(
    cleanup_leaves_nothing; kernel:
    restart_and_crash_refuse_nobody,
    damage_is_repaired
);

/// A site with a client on n1, and a Service with a node port before a backend on each node.
fn site(mode: Mode, stack: Stack) -> Result<Option<(Site, Pod, [Backend; 2])>> {
    let Some(site) = Site::start(&Options::new(mode).stack(stack))? else {
        return Ok(None);
    };
    let client = site.pod(0)?;
    let backends = [site.backend(0, 8080)?, site.backend(1, 8080)?];
    site.manifests.service(&service(&site))?;
    let endpoints = Endpoints::web("web", &[&backends[0], &backends[1]]);
    site.manifests.endpoints(&endpoints)?;
    for &family in site.families() {
        served(&site, &client, &backends, family)?;
    }
    Ok(Some((site, client, backends)))
}

/// With all that a mode has rules for.
fn service(site: &Site) -> Service {
    Service::new("web", &site.cluster_ips(1))
        .node_port(Port::tcp("http", 80), 30080)
        .node_port(Port::udp("dns", 80), 30080)
        .load_balancer(&site.external_ips(1))
        .set(
            "loadBalancerSourceRanges",
            serde_json::json!(["203.0.113.0/24", "2001:db8:113::/64"]),
        )
        .affinity(10_800)
}

fn at(family: Family) -> SocketAddr {
    SocketAddr::new(cluster_ip(family, 1), 80)
}

fn served(site: &Site, client: &Pod, backends: &[Backend; 2], family: Family) -> Result<()> {
    let servers = [backends[0].address(family)?, backends[1].address(family)?];
    for transport in [Tcp, Udp] {
        site.answers(&client.namespace, at(family), transport, &servers)?;
        let port = SocketAddr::new(site.nodes[0].ip(family), 30080);
        site.answers(&site.underlay.outside, port, transport, &servers)?;
    }
    Ok(())
}

fn restart_and_crash_refuse_nobody(mode: Mode) -> Result<()> {
    let Some((mut site, client, backends)) = site(mode, Stack::Dual)? else {
        return Ok(());
    };
    let before = snapshot::of_firewall(&site.nodes[0].namespace)?;
    let streams = site.families().iter().map(|family| {
        anyhow::Ok((
            Stream::start(&client.namespace, at(*family))?,
            Knocker::start(&client.namespace, at(*family)),
        ))
    });
    let streams = streams.collect::<Result<Vec<_>>>()?;
    // By the service manager; by a crash; and by a crash with a change meanwhile.
    let node = &mut site.nodes[0];
    node.stop_proxy()?;
    node.start_proxy()?;
    node.take_proxy()?.kill()?;
    node.start_proxy()?;
    let after = snapshot::of_firewall(&node.namespace)?;
    snapshot::ensure_same(&format!("{mode}: rules after restarts"), &before, &after)?;
    node.take_proxy()?.kill()?;
    let remaining = Endpoints::web("web", &[&backends[1]]);
    site.manifests.endpoints(&remaining)?;
    site.nodes[0].start_proxy()?;
    for (stream, knocker) in streams {
        stream.finish().context(format!("{mode}: the stream"))?;
        let report = knocker
            .finish()
            .context(format!("{mode}: new connections"))?;
        ensure!(
            report.longest < Duration::from_millis(900),
            "{mode}: one connection took {:?}: a SYN was lost",
            report.longest
        );
    }
    // What changed while nobody looked is in force.
    for &family in site.families() {
        let server = backends[1].address(family)?;
        site.answers(&client.namespace, at(family), Tcp, &[server])?;
        let counts = site.spread(&client.namespace, at(family), Tcp, 10)?;
        ensure!(counts.len() == 1, "{mode}: {counts:?}");
    }
    Ok(())
}

/// From each kernel mode to the next and back: the stream lives, the former mode's rules are gone.
#[test]
fn change_of_mode() -> Result<()> {
    let Some((mut site, client, backends)) = site(Mode::Nftables, Stack::Dual)? else {
        return Ok(());
    };
    let streams = site.families().iter();
    let streams = streams.map(|family| Stream::start(&client.namespace, at(*family)));
    let streams = streams.collect::<Result<Vec<_>>>()?;
    for mode in [
        Mode::IptablesNft,
        Mode::IptablesLegacy,
        Mode::Nftables,
        Mode::IptablesLegacy,
        Mode::IptablesNft,
        Mode::Nftables,
    ] {
        site.switch_mode(0, mode)?;
        for &family in site.families() {
            served(&site, &client, &backends, family)?;
        }
        // The former mode's rules go once the new ones are there.
        eventually("the former mode is gone", Duration::from_secs(5), || {
            let lines = snapshot::of_firewall(&site.nodes[0].namespace)?;
            let of_others = |line: &&String| mode_of(line).is_some_and(|other| other != mode);
            let left: Vec<_> = lines.iter().filter(of_others).collect();
            ensure!(left.is_empty(), "{left:#?}");
            Ok(())
        })
        .with_context(|| format!("to {mode}\n{}", site.logs()))?;
    }
    for stream in streams {
        stream.finish().context("the stream over all changes")?;
    }
    // To userspace and back: its connections are another matter, but everything is served.
    for mode in [Mode::Userspace, Mode::Nftables] {
        site.switch_mode(0, mode)?;
        for &family in site.families() {
            served(&site, &client, &backends, family)?;
        }
    }
    Ok(())
}

/// Which mode a line of the snapshot is of.
fn mode_of(line: &str) -> Option<Mode> {
    let of_table = ["table", "name"].map(|key| format!("\"{key}\":\"weft-proxy\""));
    if of_table.iter().any(|part| line.contains(part)) {
        return Some(Mode::Nftables);
    }
    match line.contains("KUBE-") {
        true if line.starts_with("nft ") => Some(Mode::IptablesNft),
        true => Some(Mode::IptablesLegacy),
        false => None,
    }
}

/// What others flush or delete is back within a second or so, and connections that were quiet
/// meanwhile live. (An answer that is on the way when its translation vanishes reaches the client
/// from an address that it never spoke to; the client resets it, and no proxy can help that.)
fn damage_is_repaired(mode: Mode) -> Result<()> {
    let Some((site, client, backends)) = site(mode, Stack::Dual)? else {
        return Ok(());
    };
    let damages: &[&str] = match mode {
        Mode::Nftables => &[
            "nft flush ruleset",
            "nft delete table ip weft-proxy",
            "nft delete table ip6 weft-proxy",
            "nft flush map ip weft-proxy service-ips",
            "nft flush map ip6 weft-proxy service-ips",
            "nft flush table ip weft-proxy",
        ],
        Mode::IptablesNft => &[
            "nft flush ruleset",
            "iptables-nft -t nat -F",
            "iptables-nft -t nat -F PREROUTING",
            "iptables-nft -t nat -F KUBE-SERVICES",
            "ip6tables-nft -t nat -F KUBE-SERVICES",
            "ip6tables-nft -t nat -F",
        ],
        Mode::IptablesLegacy | Mode::Userspace => &[
            "iptables-legacy -t nat -F",
            "iptables-legacy -t nat -F PREROUTING",
            "iptables-legacy -t nat -F KUBE-SERVICES",
            "ip6tables-legacy -t nat -F KUBE-SERVICES",
            "ip6tables-legacy -t nat -F",
        ],
    };
    let node = &site.nodes[0].namespace;
    let before = snapshot::of_firewall(node)?;
    for damage in damages {
        let streams = site.families().iter();
        let streams = streams.map(|family| Conversation::begin(&client.namespace, at(*family)));
        let streams = streams.collect::<Result<Vec<_>>>()?;
        node.sh(damage)?;
        let done = Instant::now();
        for &family in site.families() {
            let what = format!("`{damage}` is repaired");
            eventually(&what, Duration::from_secs(5), || {
                let patience = Duration::from_millis(100);
                match knock(&client.namespace, at(family), Tcp, patience)? {
                    Outcome::Answered(_) => Ok(()),
                    other => anyhow::bail!("{other}"),
                }
            })
            .with_context(|| format!("{mode} {family:?}\n{}", site.logs()))?;
        }
        // A knock that was lost while it lasted costs its patience, and the machine is shared.
        let spent = done.elapsed();
        ensure!(
            spent < Duration::from_millis(1500),
            "{mode}: `{damage}` took {spent:?}\n{}",
            site.logs()
        );
        eventually("all rules are back", Duration::from_secs(2), || {
            let after = snapshot::of_firewall(node)?;
            snapshot::ensure_same(&format!("after `{damage}`"), &before, &after)
        })
        .with_context(|| format!("{mode}\n{}", site.logs()))?;
        for &family in site.families() {
            served(&site, &client, &backends, family)?;
        }
        for (mut stream, family) in streams.into_iter().zip(site.families()) {
            let what = format!("{mode} {family:?}: the stream, over `{damage}`");
            stream.beat().context(what)?;
        }
    }
    Ok(())
}

fn cleanup_leaves_nothing(mode: Mode) -> Result<()> {
    let options = Options::new(mode);
    let Some(mut site) = Site::prepare(&options)? else {
        return Ok(());
    };
    let client = site.pod(0)?;
    let backends = [site.backend(0, 8080)?, site.backend(1, 8080)?];
    // Someone else's rules, in every place that we write to.
    let namespace = site.nodes[0].namespace.clone();
    namespace.sh("nft add table inet foreign")?;
    namespace.sh("nft add chain inet foreign input { type filter hook input priority 0; }")?;
    for program in [
        "iptables-nft",
        "ip6tables-nft",
        "iptables-legacy",
        "ip6tables-legacy",
    ] {
        let has = tests::requirement::is_in_path(program);
        for line in [
            "-t nat -A PREROUTING -p tcp --dport 9 -j RETURN",
            "-A FORWARD -m mark --mark 9 -j ACCEPT",
            "-N FOREIGN",
        ] {
            if has {
                namespace.sh(&format!("{program} -w {line}"))?;
            }
        }
    }
    let node = &mut site.nodes[0];
    let before = snapshot::of_firewall(&namespace)?;
    node.start_proxy()?;
    site.manifests.service(&service(&site).external_local())?;
    let empty = Service::web("empty", &site.cluster_ips(2));
    site.manifests.service(&empty)?;
    let endpoints = Endpoints::web("web", &[&backends[0], &backends[1]]);
    site.manifests.endpoints(&endpoints)?;
    for &family in site.families() {
        served(&site, &client, &backends, family)?;
        let refused = SocketAddr::new(cluster_ip(family, 2), 80);
        site.refused(&client.namespace, refused, Udp)?;
    }
    let during = snapshot::of_firewall(&namespace)?;
    ensure!(
        during != before,
        "{mode}: the snapshot shows nothing of the proxy"
    );
    site.nodes[0].stop_proxy()?;
    site.nodes[0].proxy.cleanup(&[])?;
    let after = snapshot::of_firewall(&namespace)?;
    snapshot::ensure_same(&format!("{mode}: after clean-up"), &before, &after)?;
    // A second time there is nothing to do, and that is no error.
    site.nodes[0].proxy.cleanup(&["--kube-proxy"])?;
    let again = snapshot::of_firewall(&namespace)?;
    snapshot::ensure_same(&format!("{mode}: after a second clean-up"), &before, &again)
}
