//! What a person asks: where does a Service lead on this node, what becomes of this packet.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::config::{ModeName, Trace};
use crate::daemon::snapshot::Snapshot;
use crate::mode::iptables::trace::Chains;
use crate::mode::nftables::{self, elements, layout};
use crate::model::{Balancer, Fate, FrontKind, List, ObjectName, PortName, Wanted};
use crate::trace::Packet;

/// One Service, or all.
pub fn show(snapshot: &Snapshot, service: Option<&ObjectName>) -> anyhow::Result<String> {
    let mut out = String::new();
    for wanted in &snapshot.wanted {
        for (name, balancer) in &wanted.balancers {
            if service.is_none_or(|service| name.service == *service) {
                port(
                    &mut out,
                    snapshot,
                    wanted,
                    name,
                    balancer,
                    service.is_some(),
                );
            }
        }
    }
    if let (true, Some(service)) = (out.is_empty(), service) {
        anyhow::bail!(
            "there is no Service {service} that is proxied (headless and ExternalName ones, and those of another proxy, are not)"
        );
    }
    Ok(out)
}

fn port(
    out: &mut String,
    snapshot: &Snapshot,
    wanted: &Wanted,
    name: &PortName,
    balancer: &Balancer,
    details: bool,
) {
    let family = wanted.site.family.label();
    let _ = writeln!(out, "{name} ({}, {family})", name.protocol);
    for front in &balancer.fronts {
        let kind = kind_word(front.kind);
        let fate = match front.kind {
            FrontKind::ClusterIp => balancer.internal(),
            _ => balancer.external(),
        };
        let at = match front.ip {
            Some(ip) => SocketAddr::new(ip, front.port).to_string(),
            None => format!("*:{}", front.port),
        };
        let fate = match fate {
            Fate::Balance(List::Cluster) => format!("→ {} endpoints", balancer.cluster.len()),
            Fate::Balance(List::Local) => format!("→ {} local endpoints", balancer.local.len()),
            Fate::Reject => "refused: no endpoint is ready".to_owned(),
            Fate::Drop => "dropped: no endpoint on this node".to_owned(),
        };
        let _ = writeln!(out, "  {kind:<16} {at:<28} {fate}");
    }
    if let Some(seconds) = balancer.affinity {
        let _ = writeln!(out, "  {:<16} by client address, {seconds} s", "affinity");
    }
    if !balancer.source_ranges.is_empty() {
        let ranges: Vec<_> = balancer
            .source_ranges
            .iter()
            .map(ToString::to_string)
            .collect();
        let _ = writeln!(out, "  {:<16} {}", "source ranges", ranges.join(", "));
    }
    for endpoint in balancer.reachable() {
        let at = SocketAddr::new(endpoint.ip, endpoint.port);
        let place = if endpoint.local { "on this node" } else { "" };
        let _ = writeln!(out, "  {:<16} {:<28} {place}", "endpoint", at.to_string());
    }
    if details {
        let _ = writeln!(out, "  {} mode:", snapshot.mode.as_str());
        for line in entries(snapshot, wanted, name, balancer) {
            let _ = writeln!(out, "    {line}");
        }
    }
    out.push('\n');
}

/// The map entries, rules or listeners that say so.
fn entries(
    snapshot: &Snapshot,
    wanted: &Wanted,
    name: &PortName,
    balancer: &Balancer,
) -> Vec<String> {
    match snapshot.mode {
        ModeName::Nftables => {
            let slots = elements::Slots::default().next(balancer, &wanted.site);
            let all = elements::elements(name.protocol, balancer, &slots, &wanted.site);
            let table = layout::ip_word(wanted.site.family);
            let lines = all.into_iter().map(|each| {
                let set = each.set.name();
                match each.data {
                    layout::Data::None => format!("{table} {set} {{ {} }}", each.key),
                    data => format!("{table} {set} {{ {} : {data} }}", each.key),
                }
            });
            lines.collect()
        }
        ModeName::Iptables => Chains::planned(wanted, &snapshot.iptables).of(name),
        ModeName::Userspace => {
            let fronts = balancer.fronts.iter();
            let listeners = fronts.map(|front| match front.ip {
                Some(ip) => format!(
                    "listens on {} {}",
                    SocketAddr::new(ip, front.port),
                    name.protocol
                ),
                None => format!("listens on node port {} {}", front.port, name.protocol),
            });
            listeners.collect()
        }
    }
}

/// The way of an imaginary packet.
pub fn trace(snapshot: &Snapshot, asked: &Trace) -> anyhow::Result<String> {
    let destination = SocketAddr::new(asked.to.ip, asked.to.port);
    let is_local = |ip| snapshot.addresses.contains(&ip);
    let packet = Packet {
        source: SocketAddr::new(asked.from.ip, asked.from.port.unwrap_or(40_000)),
        destination,
        protocol: asked.to.protocol,
        interface: match (&asked.interface, is_local(asked.from.ip)) {
            (Some(name), _) => Some(name.clone()),
            (None, true) => None,
            (None, false) => Some("?".to_owned()),
        },
        source_is_local: is_local(asked.from.ip),
        destination_is_local: is_local(asked.to.ip),
    };
    anyhow::ensure!(
        asked.from.ip.is_ipv4() == asked.to.ip.is_ipv4(),
        "{} and {} are of different families: name two of one",
        asked.from.ip,
        asked.to.ip
    );
    let family = crate::model::Family::of(asked.to.ip);
    let wanted = snapshot
        .wanted
        .iter()
        .find(|wanted| wanted.site.family == family);
    let Some(wanted) = wanted else {
        anyhow::bail!("this host does not serve {}", family.label());
    };
    let outcome = match snapshot.mode {
        ModeName::Nftables => nftables::trace::trace(wanted, &packet),
        ModeName::Iptables => Chains::planned(wanted, &snapshot.iptables)
            .trace(&packet)
            .map_err(anyhow::Error::msg)?,
        ModeName::Userspace => anyhow::bail!(
            "userspace mode has no rules to follow; weft-proxy show names its listeners and endpoints"
        ),
    };
    let mut text = format!("{packet}\n");
    for (name, kind) in owners(wanted, &packet) {
        let _ = writeln!(text, "  {kind} of {name}");
    }
    for step in &outcome.steps {
        let _ = writeln!(text, "  {step}");
    }
    let _ = writeln!(text, "{outcome}");
    Ok(text)
}

/// Whose front the packet is for: one Service port's, or nobody's.
fn owners<'a>(wanted: &'a Wanted, packet: &Packet) -> Vec<(&'a PortName, &'static str)> {
    let to = packet.destination;
    let mut found = Vec::new();
    for (name, balancer) in &wanted.balancers {
        for front in &balancer.fronts {
            let same = front.port == to.port() && name.protocol == packet.protocol;
            let here = match front.ip {
                Some(ip) => ip == to.ip(),
                None => packet.destination_is_local,
            };
            if same && here {
                found.push((name, kind_word(front.kind)));
            }
        }
    }
    found
}

fn kind_word(kind: FrontKind) -> &'static str {
    match kind {
        FrontKind::ClusterIp => "cluster IP",
        FrontKind::ExternalIp => "external IP",
        FrontKind::LoadBalancer => "load balancer IP",
        FrontKind::NodePort => "node port",
    }
}
