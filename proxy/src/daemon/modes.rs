//! The mode: chosen, built, and what others left removed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use super::kube_proxy;
use crate::config::{self, Checked, IptablesVariant, ModeName};
use crate::metrics::{Metrics, UserspaceTotals};
use crate::mode::iptables::{self, IptablesMode};
use crate::mode::nftables::{self, Nftables};
use crate::mode::userspace::{self, Counters, Loopback, Userspace};
use crate::mode::with_loopback::WithLoopback;
use crate::mode::{Mode, Report};
use crate::model::{Family, Site};

/// The mode to run, and why.
pub fn choose(checked: &Checked) -> anyhow::Result<(ModeName, String)> {
    if let Some(mode) = checked.mode {
        if mode == ModeName::Nftables {
            nftables::probe(&site(checked, Family::V4)).context(
                "--proxy-mode=nftables: this kernel does not do it; --proxy-mode=auto takes the best that works",
            )?;
        }
        return Ok((mode, "as --proxy-mode says".to_owned()));
    }
    let nftables = match nftables::probe(&site(checked, Family::V4)) {
        Ok(()) => return Ok((ModeName::Nftables, "the best that works here".to_owned())),
        Err(error) => error,
    };
    let found = kernel::iptables::Iptables::find(false);
    match found.and_then(|iptables| iptables.save("nat")) {
        Ok(_) => Ok((ModeName::Iptables, format!("no nftables: {nftables}"))),
        Err(error) => Ok((
            ModeName::Userspace,
            format!("no nftables: {nftables}; no iptables: {error}"),
        )),
    }
}

/// A site of the mode, before anything is known of the node.
fn site(checked: &Checked, family: Family) -> Site {
    config::site(
        checked,
        ModeName::Nftables,
        &config::Surroundings::default(),
        family,
    )
}

/// The families that this host has.
pub fn families() -> Vec<Family> {
    let usable = Path::new("/proc/net/if_inet6").exists();
    if !usable {
        tracing::warn!("this host has no IPv6: only IPv4 is served");
    }
    Family::ALL
        .into_iter()
        .filter(|family| *family == Family::V4 || usable)
        .collect()
}

/// The mode of one family.
pub fn build(
    mode: ModeName,
    checked: &Checked,
    family: Family,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Box<dyn Mode>> {
    Ok(match mode {
        // The forwarder stands by: a Node's addresses, learnt later, may name loopback.
        ModeName::Nftables => {
            let loopback = Loopback::new(family, userspace::Options::default());
            let counters = loopback.counters();
            metrics.on_render(move |metrics| metrics.userspace(family, &totals(&counters)));
            Box::new(WithLoopback::new(Box::new(Nftables::new(family)), loopback))
        }
        ModeName::Iptables => Box::new(IptablesMode::new(family, iptables_options(checked))),
        ModeName::Userspace => {
            let mode = Userspace::new(family, userspace::Options::default())?;
            let counters = mode.counters();
            metrics.on_render(move |metrics| metrics.userspace(family, &totals(&counters)));
            Box::new(mode)
        }
    })
}

fn totals(counters: &Counters) -> UserspaceTotals {
    UserspaceTotals {
        connections: counters.tcp_accepted.get(),
        flows: counters.udp_flows.get(),
        bytes_to_endpoints: counters.tcp_bytes_to_endpoints.get(),
        bytes_to_clients: counters.tcp_bytes_to_clients.get(),
        errors: BTreeMap::from([
            ("tcp_refused", counters.tcp_refused.get()),
            ("tcp_connect_failed", counters.tcp_connect_failures.get()),
            ("tcp_unserved", counters.tcp_unserved.get()),
            ("tcp_client", counters.tcp_client_errors.get()),
            ("tcp_endpoint", counters.tcp_endpoint_errors.get()),
            ("tcp_exhausted", counters.tcp_exhausted.get()),
            ("udp_refused", counters.udp_refused.get()),
            ("udp_unsent", counters.udp_unsent.get()),
            ("udp_unreachable", counters.udp_unreachable.get()),
            ("udp_evicted", counters.udp_evicted.get()),
            ("udp_exhausted", counters.udp_exhausted.get()),
        ]),
    }
}

/// How iptables mode goes about it.
pub fn iptables_options(checked: &Checked) -> iptables::Options {
    iptables::Options {
        choice: match checked.iptables_variant {
            IptablesVariant::Auto => iptables::Choice::Auto,
            IptablesVariant::Nft => iptables::Choice::Nft,
            IptablesVariant::Legacy => iptables::Choice::Legacy,
        },
        ..iptables::Options::default()
    }
}

/// Removes what the modes other than `mode` left for a family, and what iptables mode left in the
/// form of iptables that it does not use.
pub fn remove_others(mode: ModeName, family: Family, iptables: &iptables::Options) {
    if mode == ModeName::Iptables {
        let report = iptables::remove_other_form(family, iptables);
        log(mode, family, &report);
    }
    for other in [ModeName::Nftables, ModeName::Iptables, ModeName::Userspace] {
        if other != mode {
            log(other, family, &cleanup(other, family));
        }
    }
}

fn cleanup(mode: ModeName, family: Family) -> Report {
    match mode {
        ModeName::Nftables => Nftables::new(family).cleanup(),
        ModeName::Iptables => IptablesMode::new(family, iptables::Options::default()).cleanup(),
        ModeName::Userspace => match Userspace::new(family, userspace::Options::default()) {
            Ok(mut mode) => mode.cleanup(),
            Err(error) => Report {
                errors: vec![format!("{error:#}")],
                ..Report::default()
            },
        },
    }
}

fn log(mode: ModeName, family: Family, report: &Report) {
    let (mode, family) = (mode.as_str(), family.label());
    if report.changes > 0 {
        tracing::info!("{family}: removed what {mode} mode had left");
    }
    for error in &report.errors {
        tracing::warn!("{family}: remove what {mode} mode has left: {error}");
    }
}

/// `weft-proxy cleanup`: everything of ours, of every mode, and with `kube_proxy` what a kube-proxy
/// left. Goes on past errors; fails if there were any.
pub fn remove_all(kube_proxy: bool) -> anyhow::Result<()> {
    let mut errors = Vec::new();
    for family in families() {
        for mode in [ModeName::Nftables, ModeName::Iptables, ModeName::Userspace] {
            let report = cleanup(mode, family);
            log(mode, family, &report);
            errors.extend(report.errors);
        }
        if kube_proxy {
            errors.extend(kube_proxy::remove(family).errors);
        }
    }
    match errors.len() {
        0 => Ok(()),
        count => anyhow::bail!("{count} things could not be removed, see above"),
    }
}
