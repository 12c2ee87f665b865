//! From objects in memory to all in the kernel, one Service more, and what it takes.

use super::host::{Host, Served};
use super::world::{self, Service};
use super::{FEW, Scale, classic_iptables, classic_nft};
use crate::lines::Lines;
use crate::outcome::{Outcome, Series};
use ::tests::Run;
use ::tests::proxy::Mode;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Services added one by one.
const ADDED: u32 = 10;
const PARTIAL: &str = "kubeproxy_sync_partial_proxy_rules_duration_seconds";

/// Loading, linearity, one Service more, the number of rules, and memory.
pub fn nftables(run: &Run, scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    let many = world::services(scale.many);
    let most = world::services(scale.most);
    let classic = classic_nft::render(&many);
    let mut bare = Series::new(&format!("bare nft -f, {} Services, classic", scale.many));
    let mut ours = Series::new(&format!("ours: nftables, {} Services", scale.many));
    let mut largest = Series::new(&format!("ours: nftables, {} Services", scale.most));
    for round in 0..scale.rounds.min(3) {
        let host = Host::new(run, &format!("bare{round}"))?;
        bare.push(host.load(&["nft", "-f", "-"], &classic)?);
        host.remove(run)?;

        let host = Host::new(run, &format!("ours{round}"))?;
        let served = host.serve(Mode::Nftables, &many, |_| false)?;
        ours.push(Duration::from_secs_f64(served.first_sync()?));
        ensure_all(&host, &many)?;
        if round == 0 {
            let resident = served.daemon.resident_bytes()? as f64 / 1e6;
            let text = format!("resident memory, {} × {}", scale.many, world::ENDPOINTS);
            outcome.promise(&text, resident, 40.0, "MB");
            one_more(&host, &served, scale.many, outcome)?;
        }
        drop(served);
        host.remove(run)?;

        let host = Host::new(run, &format!("most{round}"))?;
        let served = host.serve(Mode::Nftables, &most, |_| false)?;
        largest.push(Duration::from_secs_f64(served.first_sync()?));
        ensure_all(&host, &most)?;
        if round == 0 {
            let few = Host::new(run, "few")?;
            let serving_few = few.serve(Mode::Nftables, &world::services(FEW), |_| false)?;
            let (many, few_rules) = (rules(&host)? as f64, rules(&few)? as f64);
            let text = format!("rules with {} Services, of those with {FEW}", scale.most);
            outcome.promise(&text, many / few_rules, 1.0, "×");
            outcome.remark(
                &format!("nftables, rules with {FEW} Services"),
                few_rules,
                "",
            );
            drop(serving_few);
            few.remove(run)?;
        }
        drop(served);
        host.remove(run)?;
    }
    outcome.promise(
        &format!("nftables, {} Services, of bare nft -f", scale.many),
        ours.median() / bare.median(),
        0.25,
        "×",
    );
    let times = scale.most / scale.many;
    outcome.promise(
        &format!("nftables, {times} times as many Services"),
        largest.median() / ours.median(),
        4.5,
        "×",
    );
    outcome.series.extend([bare, ours, largest]);
    Ok(())
}

/// One Service with its endpoints is added, again and again: by the proxy's clock, and from outside.
fn one_more(host: &Host, served: &Served, count: u32, outcome: &mut Outcome) -> Result<()> {
    let mut monitor = Lines::start(&host.namespace, &["nft", "monitor"])?;
    // The monitor has no sign of being ready; it reads the whole ruleset first.
    std::thread::sleep(Duration::from_secs(2));
    let mut seen = Series::new("ours: nftables, one Service more, file renamed until event");
    let before = (
        served.proxy.metric(&format!("{PARTIAL}_sum"))?,
        served.proxy.metric(&format!("{PARTIAL}_count"))?,
    );
    for number in count..count + ADDED {
        let service = world::service(number);
        let list = serde_json::json!({
            "apiVersion": "v1", "kind": "List", "items": service.objects(),
        });
        let renamed = Instant::now();
        world::place(&host.manifests(), &format!("more-{number}"), &list)?;
        let address = service.front.ip().to_string();
        let event = monitor.first(&address, Duration::from_secs(10))?;
        seen.push(event.saturating_duration_since(renamed));
        std::thread::sleep(Duration::from_millis(200));
    }
    let sum = served.proxy.metric(&format!("{PARTIAL}_sum"))? - before.0;
    let syncs = served.proxy.metric(&format!("{PARTIAL}_count"))? - before.1;
    ensure!(
        syncs >= f64::from(ADDED),
        "{ADDED} Services were added in {syncs} partial syncs"
    );
    outcome.promise(
        &format!("one Service added among {count}, watch event until kernel"),
        sum / f64::from(ADDED) * 1000.0,
        10.0,
        "ms",
    );
    outcome.series.push(seen);
    Ok(())
}

/// Loading by the legacy binaries.
pub fn iptables(run: &Run, scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    let many = world::services(scale.many);
    let classic = classic_iptables::render(&many);
    let mut bare = Series::new(&format!(
        "bare iptables-legacy-restore, {} Services, kube-proxy's chains",
        scale.many
    ));
    let mut ours = Series::new(&format!("ours: iptables legacy, {} Services", scale.many));
    for round in 0..scale.rounds.min(3) {
        let host = Host::new(run, &format!("bare{round}"))?;
        bare.push(host.load(&["iptables-legacy-restore", "--noflush"], &classic)?);
        host.remove(run)?;
        let host = Host::new(run, &format!("ours{round}"))?;
        let served = host.serve(Mode::IptablesLegacy, &many, |_| false)?;
        ours.push(Duration::from_secs_f64(served.first_sync()?));
        let rules = host.namespace.sh("iptables-legacy-save -t nat")?;
        for service in &many {
            let front = format!("-d {}/32 ", service.front.ip());
            ensure!(rules.contains(&front), "no rule with {front:?}");
        }
        drop(served);
        host.remove(run)?;
    }
    outcome.promise(
        &format!("iptables legacy, {} Services, of bare restore", scale.many),
        ours.median() / bare.median(),
        1.2,
        "×",
    );
    outcome.series.extend([bare, ours]);
    Ok(())
}

/// The number of rules of our tables, elements not counted.
fn rules(host: &Host) -> Result<usize> {
    let text = host.namespace.sh("nft -j -t list ruleset")?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let objects = all["nftables"].as_array().context("nft -j: no list")?;
    let count = objects
        .iter()
        .filter(|object| object.get("rule").is_some())
        .count();
    ensure!(count > 0, "no rule is there");
    Ok(count)
}

/// Every front and every endpoint must be in the kernel, or the time means nothing.
fn ensure_all(host: &Host, services: &[Service]) -> Result<()> {
    let text = host.namespace.sh("nft list ruleset")?;
    let addresses: std::collections::HashSet<&str> = text
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .collect();
    let mut wanted = services.iter().flat_map(|service| {
        std::iter::once(service.front.ip())
            .chain(service.endpoints.iter().map(|endpoint| endpoint.ip()))
    });
    match wanted.find(|ip| !addresses.contains(ip.to_string().as_str())) {
        Some(ip) => anyhow::bail!("the ruleset lacks {ip}"),
        None => Ok(()),
    }
}
