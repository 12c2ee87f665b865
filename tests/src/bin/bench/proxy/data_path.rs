//! What rules cost a packet: the first one of a flow, and new connections a second.
//!
//! All hosts are there at once and take turns in each round, so that what else the machine does
//! falls on all of them alike.

use super::host::{Host, Served};
use super::world::{self, ENDPOINT_PORT, PROBE_TCP};
use super::{FEW, Scale, TURNS, best, classic_iptables, classic_nft, median, packet};
use crate::connections;
use crate::outcome::Outcome;
use ::tests::Run;
use ::tests::proxy::Mode;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};

/// A host with rules, and what its packets cost so far.
struct Candidate {
    name: String,
    host: Host,
    _served: Option<Served>,
    /// Microseconds a packet, by turn.
    packets: Vec<f64>,
}

impl Candidate {
    fn new(run: &Run, name: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            host: Host::new(run, name)?,
            _served: None,
            packets: Vec::new(),
        })
    }

    fn ours(run: &Run, mode: Mode, count: u32) -> Result<Self> {
        let mut candidate = Self::new(run, &format!("ours-{count}"))?;
        let services = world::services(count);
        candidate._served = Some(candidate.host.serve(mode, &services, |_| false)?);
        Ok(candidate)
    }

    fn classic(run: &Run, words: &[&str], text: &str, count: u32) -> Result<Self> {
        let candidate = Self::new(run, &format!("classic-{count}"))?;
        candidate.host.load(words, text)?;
        Ok(candidate)
    }

    fn best(&self) -> f64 {
        best(&self.packets)
    }
}

/// Packets of each, in turns; the first candidate has no rules and no connection tracking.
fn packets(candidates: &mut [Candidate], scale: &Scale) -> Result<()> {
    for turn in 0..scale.rounds * TURNS {
        for (index, candidate) in candidates.iter_mut().enumerate() {
            let cost = packet::measure(&candidate.host, scale.packets, index > 0)
                .with_context(|| format!("turn {turn} of {}", candidate.name))?;
            candidate.packets.push(cost);
        }
    }
    Ok(())
}

fn remark(outcome: &mut Outcome, kind: &str, candidates: &[Candidate]) {
    for candidate in candidates {
        let text = format!("{kind}, first packet, {}", candidate.name);
        outcome.remark(&text, candidate.best(), "µs");
    }
}

/// First packets with few and with many Services, ours and classic; connections with few.
pub fn nftables(run: &Run, scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    let nft = ["nft", "-f", "-"];
    let classic = |count| {
        let text = classic_nft::render(&world::services(count));
        Candidate::classic(run, &nft, &text, count)
    };
    let mut candidates = [
        Candidate::new(run, "no-rules")?,
        Candidate::ours(run, Mode::Nftables, FEW)?,
        Candidate::ours(run, Mode::Nftables, scale.more)?,
        classic(FEW)?,
        classic(scale.more)?,
    ];
    packets(&mut candidates, scale)?;
    remark(outcome, "nftables", &candidates);
    let [_, few, more, classic_few, classic_more] = &candidates;
    let against = |text: String, other: &Candidate, limit: f64, outcome: &mut Outcome| {
        outcome.promise(&text, more.best() / other.best(), limit, "×");
    };
    let count = scale.more;
    let text = format!("first packet with {count} Services, of that with {FEW}");
    against(text, few, 1.1, outcome);
    let text = format!("first packet with {count} Services, of classic with {count}");
    against(text, classic_more, 1.0, outcome);

    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, ENDPOINT_PORT));
    // A rate swings more than a packet's cost: many short turns rather than a few long ones.
    let mut ratios = Vec::new();
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..scale.rounds * TURNS {
        let mut pair = [(0, few), (1, classic_few)];
        if round % 2 == 1 {
            pair.reverse();
        }
        let mut found = [0.0; 2];
        for (index, Candidate { host, .. }) in pair {
            let front = Some(PROBE_TCP.into());
            let (near, far) = (&host.namespace, &host.peer);
            found[index] = connections::measure(near, far, listen, front, scale.time / 4)?;
            rates[index].push(found[index]);
            host.forget_flows()?;
        }
        ratios.push(found[0] / found[1]);
    }
    outcome.promise_at_least(
        &format!("connections a second with {FEW} Services, of classic"),
        median(&ratios),
        0.95,
        "×",
    );
    for (name, rates) in ["ours", "classic"].iter().zip(&rates) {
        let text = format!("nftables, connections a second, {name}");
        outcome.remark(&text, median(rates), "");
    }
    Ok(())
}

/// First packets by the legacy binaries: what many Services add to few.
pub fn iptables(run: &Run, scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    let restore = ["iptables-legacy-restore", "--noflush"];
    let classic = |count| {
        let text = classic_iptables::render(&world::services(count));
        Candidate::classic(run, &restore, &text, count)
    };
    let mut candidates = [
        Candidate::new(run, "no-rules")?,
        classic(FEW)?,
        classic(scale.many)?,
        Candidate::ours(run, Mode::IptablesLegacy, scale.many)?,
    ];
    packets(&mut candidates, scale)?;
    remark(outcome, "iptables legacy", &candidates);
    let [_, few, linear, ours] = &candidates;
    let added = |candidate: &Candidate| candidate.best() - few.best();
    outcome.promise(
        &format!(
            "iptables, added to a first packet by {} Services, of the linear chain",
            scale.many
        ),
        added(ours) / added(linear),
        0.1,
        "×",
    );
    Ok(())
}
