//! Which endpoint: evenly over all of them, or the same again for one client.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tests::cluster::Stack;
use tests::pod::Family;
use tests::proxy::{Backend, Endpoints, Mode, Options, Port, Service, Site, cluster_ip};
use tests::traffic::Transport::{self, Tcp, Udp};
use tests::traffic::{Outcome, knock_from};
use tests::{Namespace, eventually};

tests::on_every_mode!(
    even_distribution,
    affinity_sticks_and_moves_on,
    affinity_times_out,
);

/// What a client of one endpoint gets in a row, as the conformance tests have it.
const IN_A_ROW: u32 = 15;

/// Backends in turn on both nodes.
fn backends(site: &Site, count: usize) -> Result<Vec<Backend>> {
    (0..count)
        .map(|number| site.backend(number % 2, 8080))
        .collect()
}

fn web(name: &str, backends: &[Backend]) -> Endpoints {
    Endpoints::web(name, &backends.iter().collect::<Vec<_>>())
}

/// Pearson's statistic against equal shares.
fn chi_square(counts: &BTreeMap<SocketAddr, u32>, endpoints: usize) -> f64 {
    let total: u32 = counts.values().sum();
    let share = f64::from(total) / endpoints as f64;
    let missing = (endpoints - counts.len()) as f64 * share;
    let sum = counts.values().map(|count| {
        let off = f64::from(*count) - share;
        off * off / share
    });
    sum.sum::<f64>() + missing
}

fn even_distribution(mode: Mode) -> Result<()> {
    let Some(site) = Site::start(&Options::new(mode))? else {
        return Ok(());
    };
    let client = site.pod(0)?;
    let backends = backends(&site, 5)?;
    site.manifests
        .service(&Service::web("web", &site.cluster_ips(1)))?;
    // Five, then four and three: what is uneven for one count need not be for another.
    for count in [5, 4, 3] {
        let some = &backends[..count];
        site.manifests.endpoints(&web("web", some))?;
        for &family in site.families() {
            let at = SocketAddr::new(cluster_ip(family, 1), 80);
            let servers = some.iter().map(|backend| backend.address(family));
            let servers: BTreeSet<_> = servers.collect::<Result<_>>()?;
            // A new list is in force when as many knocks in a row find no one else.
            eventually("the list is in force", Duration::from_secs(10), || {
                let counts = site.spread(&client.namespace, at, Tcp, 40)?;
                let found: BTreeSet<_> = counts.keys().copied().collect();
                ensure!(found == servers, "{found:?}");
                Ok(())
            })
            .with_context(|| format!("{mode}: {servers:?}\n{}", site.logs()))?;
            for transport in [Tcp, Udp] {
                let counts = site.spread(&client.namespace, at, transport, 400)?;
                let statistic = chi_square(&counts, count);
                // With four degrees of freedom a fair balance exceeds this once in three million.
                ensure!(
                    statistic < 36.0,
                    "{mode}: {transport} to {at} over {count} endpoints: {counts:?}, χ² {statistic:.1}"
                );
            }
        }
    }
    Ok(())
}

/// Knocks until the one who answers has been the same so often in a row; fails if it changes.
fn sticks(
    site: &Site,
    from: &Namespace,
    at: SocketAddr,
    transport: Transport,
) -> Result<SocketAddr> {
    let counts = site.spread(from, at, transport, IN_A_ROW)?;
    let mut servers = counts.keys();
    match (servers.next(), servers.next()) {
        (Some(one), None) => Ok(*one),
        _ => anyhow::bail!(
            "{}: {at} ({transport}): {counts:?}\n{}",
            site.mode,
            site.logs()
        ),
    }
}

fn affinity_sticks_and_moves_on(mode: Mode) -> Result<()> {
    let Some(site) = Site::start(&Options::new(mode))? else {
        return Ok(());
    };
    let clients = [site.pod(0)?, site.pod(1)?];
    let mut all = backends(&site, 4)?;
    let service = Service::new("web", &site.cluster_ips(1))
        .node_port(Port::tcp("http", 80), 30080)
        .node_port(Port::udp("dns", 80), 30080)
        .affinity(10_800);
    site.manifests.service(&service)?;
    site.manifests.endpoints(&web("web", &all))?;
    let outside = &site.underlay.outside;
    for &family in site.families() {
        let inner = SocketAddr::new(cluster_ip(family, 1), 80);
        let port = SocketAddr::new(site.nodes[0].ip(family), 30080);
        for transport in [Tcp, Udp] {
            for client in &clients {
                let servers = all.iter().map(|backend| backend.address(family));
                let servers = servers.collect::<Result<Vec<_>>>()?;
                site.answers(&client.namespace, inner, transport, &servers)?;
                sticks(&site, &client.namespace, inner, transport)?;
            }
            let servers = all.iter().map(|backend| backend.address(family));
            let servers = servers.collect::<Result<Vec<_>>>()?;
            site.answers(outside, port, transport, &servers)?;
            sticks(&site, outside, port, transport)?;
        }
    }
    // The chosen endpoint goes: another takes over, and sticks.
    let at = SocketAddr::new(cluster_ip(Family::V4, 1), 80);
    let client = &clients[0].namespace;
    let chosen = sticks(&site, client, at, Tcp)?;
    let mut gone = None;
    for (index, backend) in all.iter().enumerate() {
        if backend.address(Family::V4)? == chosen {
            gone = Some(index);
        }
    }
    drop(all.remove(gone.context("the chosen one is none of ours")?));
    site.manifests.endpoints(&web("web", &all))?;
    let left = all.iter().map(|backend| backend.address(Family::V4));
    let left = left.collect::<Result<Vec<_>>>()?;
    site.answers(client, at, Tcp, &left)?;
    let other = sticks(&site, client, at, Tcp)?;
    ensure!(other != chosen, "{mode}: {chosen} answers, but is gone");
    // Switched off and on again, live.
    site.manifests
        .service(&service.clone().set("sessionAffinity", "None"))?;
    eventually("clients are spread", Duration::from_secs(5), || {
        let counts = site.spread(client, at, Tcp, 30)?;
        ensure!(counts.len() > 1, "{counts:?}");
        Ok(())
    })
    .with_context(|| format!("{mode}: {}", site.logs()))?;
    site.manifests.service(&service)?;
    eventually("it sticks again", Duration::from_secs(5), || {
        sticks(&site, client, at, Tcp)
    })?;
    Ok(())
}

/// The time-out begins anew with each connection; after it, the client may go elsewhere.
fn affinity_times_out(mode: Mode) -> Result<()> {
    const SECONDS: u32 = 2;
    let options = Options::new(mode).stack(Stack::V4);
    let Some(site) = Site::start(&options)? else {
        return Ok(());
    };
    let client = site.pod(0)?;
    let backends = backends(&site, 5)?;
    let service = Service::web("web", &site.cluster_ips(1)).affinity(SECONDS);
    site.manifests.service(&service)?;
    site.manifests.endpoints(&web("web", &backends))?;
    let at = SocketAddr::new(cluster_ip(Family::V4, 1), 80);
    let servers = backends.iter().map(|backend| backend.address(Family::V4));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let mut answer = site.answers(&client.namespace, at, Tcp, &servers)?.by;
    // Used twice a second for longer than the time-out: still the same.
    for _ in 0..2 * SECONDS + 2 {
        std::thread::sleep(Duration::from_millis(500));
        let again = site.answers(&client.namespace, at, Tcp, &servers)?.by;
        ensure!(again == answer, "{mode}: {answer}, then {again}, in use");
    }
    // Left alone for longer. By chance it is the same once in five; eight times is no chance.
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(u64::from(SECONDS) * 1000 + 600));
        let next = site.answers(&client.namespace, at, Tcp, &servers)?.by;
        if next != answer {
            return Ok(());
        }
        answer = next;
    }
    anyhow::bail!(
        "{mode}: {answer} answers after every pause\n{}",
        site.logs()
    )
}

/// Affinity without a table of clients: the same client, the same endpoint; many clients, all of
/// them.
#[test]
fn affinity_by_hash() -> Result<()> {
    let options = Options::new(Mode::Nftables).flag("--session-affinity=hash");
    let Some(site) = Site::start(&options)? else {
        return Ok(());
    };
    let client = site.pod(0)?;
    let backends = backends(&site, 3)?;
    let service = Service::web("web", &site.cluster_ips(1)).affinity(10_800);
    site.manifests.service(&service)?;
    site.manifests.endpoints(&web("web", &backends))?;
    for (&family, more) in site.families().iter().zip(["10.244.1.", "fd44:0:0:1::"]) {
        let at = SocketAddr::new(cluster_ip(family, 1), 80);
        let servers = backends.iter().map(|backend| backend.address(family));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        site.answers(&client.namespace, at, Tcp, &servers)?;
        sticks(&site, &client.namespace, at, Tcp)?;
        // More clients: more addresses of the Pod.
        let mut found = BTreeSet::new();
        for number in 100..140 {
            let source: IpAddr = format!("{more}{number}").parse()?;
            let length = if source.is_ipv4() { 32 } else { 128 };
            let nodad = if source.is_ipv4() { "" } else { "nodad" };
            client
                .namespace
                .ip_batch(&format!("address add {source}/{length} dev eth0 {nodad}"))?;
            let device = &client.device;
            site.nodes[0]
                .namespace
                .ip_batch(&format!("route add {source}/{length} dev {device}"))?;
            let patience = Duration::from_secs(2);
            let mut own = BTreeSet::new();
            for _ in 0..3 {
                match knock_from(&client.namespace, source, at, Tcp, patience)? {
                    Outcome::Answered(answer) => own.insert(answer.by),
                    other => anyhow::bail!("{at} from {source}: {other}\n{}", site.logs()),
                };
            }
            ensure!(own.len() == 1, "{source} is answered by {own:?}");
            found.extend(own);
        }
        ensure!(
            found.len() == 3,
            "40 clients are answered by {found:?} only"
        );
    }
    Ok(())
}
