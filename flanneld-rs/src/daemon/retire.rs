//! What earlier configurations left on this host and the present one does not take over.
//!
//! The record beside subnet.env names the configuration of the last life, and older ones whose traces
//! could not be removed. Whatever the present backend would mend by itself is left to it, so that a
//! restart interrupts as little as possible.

use ipnet::IpNet;
use kernel::{Change, Netlink};

use crate::backend::{self, Report, vxlan};
use crate::blackhole::Blackhole;
use crate::cli::Options;
use crate::config::{BackendConfig, NetworkConfig, SubnetRange};
use crate::firewall;
use crate::record::Record;

/// Removes these traces and notes in the record that `config`, written as `text`, runs from now on.
/// Returns the earlier configurations whose traces are still there.
pub fn retire(options: &Options, text: &str, config: &NetworkConfig) -> Vec<String> {
    let Some(mut record) = Record::read(&options.subnet_file) else {
        return Vec::new();
    };
    let mut earlier: Vec<String> = Vec::new();
    for (old_text, old) in record.configs() {
        let report = remove(&leavings(&old, config, options.blackhole_route));
        for (kind, count) in &report.changes {
            tracing::info!("left by the configuration before: {count} × {kind}");
        }
        for error in &report.errors {
            tracing::warn!("left by the configuration before: {error}");
        }
        if !report.errors.is_empty() && old_text != text {
            earlier.push(old_text);
        }
    }
    if record.config != text {
        // At once: what is made from now on must be known to a cleanup.
        record.config = text.to_owned();
        record.earlier.clone_from(&earlier);
        if let Err(error) = record.write(&options.subnet_file) {
            let path = Record::path(&options.subnet_file);
            tracing::warn!("write {}: {error}", path.display());
        }
    }
    earlier
}

/// Everything a configuration may have made: itself, and the plain routes of DirectRouting.
pub fn traces(config: &NetworkConfig) -> Vec<NetworkConfig> {
    let direct = matches!(&config.backend, BackendConfig::Vxlan(vxlan) if vxlan.direct_routing);
    let routes = direct.then(|| NetworkConfig {
        backend: BackendConfig::HostGw,
        ..config.clone()
    });
    [config.clone()].into_iter().chain(routes).collect()
}

/// What is to be removed.
#[derive(Debug, Default, PartialEq)]
struct Leavings {
    /// What these backends made.
    backends: Vec<NetworkConfig>,
    /// Devices by name.
    devices: Vec<String>,
    /// The rules of both families: those of one are not removed alone.
    rules: bool,
    /// The blackhole routes in these networks.
    blackholes: Vec<IpNet>,
}

/// What `old` made and `new` does not take over.
fn leavings(old: &NetworkConfig, new: &NetworkConfig, blackholes: bool) -> Leavings {
    let superseded = new.backend.supersedes(&old.backend);
    let lost_v4 = old.v4.is_some() && new.v4.is_none();
    let lost_v6 = old.v6.is_some() && new.v6.is_none();
    let mut leavings = Leavings {
        rules: lost_v4 || lost_v6,
        ..Leavings::default()
    };
    if superseded {
        leavings.backends.push(old.clone());
    } else if let BackendConfig::Vxlan(vxlan) = &old.backend {
        let lost = [(false, lost_v4), (true, lost_v6)].into_iter();
        let lost = lost.filter(|(_, lost)| *lost);
        leavings.devices = lost
            .map(|(v6, _)| vxlan::device_name(v6, vxlan.vni))
            .collect();
    }
    // Plain routes are looked after, in the ranges it has, by a backend that may make such.
    let looks_after = matches!(new.backend, BackendConfig::HostGw | BackendConfig::Vxlan(_));
    let stale = |was: Option<SubnetRange>, is: Option<SubnetRange>| {
        was.filter(|_| !looks_after || was != is)
    };
    let routes = NetworkConfig {
        v4: stale(old.v4, new.v4),
        v6: stale(old.v6, new.v6),
        backend: BackendConfig::HostGw,
        ..old.clone()
    };
    let made_routes = traces(old)
        .iter()
        .any(|config| config.backend == BackendConfig::HostGw);
    let some = routes.v4.is_some() || routes.v6.is_some();
    if made_routes && some && !leavings.backends.contains(&routes) {
        leavings.backends.push(routes);
    }
    leavings.blackholes = old.networks();
    if blackholes {
        let kept = new.networks();
        leavings.blackholes.retain(|net| !kept.contains(net));
    }
    leavings
}

fn remove(leavings: &Leavings) -> Report {
    let mut report = Report::default();
    for config in &leavings.backends {
        match backend::cleanup(config) {
            Ok(removed) => report.merge(removed),
            Err(error) => report.failed(format!("{error:#}")),
        }
    }
    if !leavings.devices.is_empty()
        && let Err(error) = remove_devices(&leavings.devices, &mut report)
    {
        report.failed(error);
    }
    if leavings.rules {
        report.merge(firewall::build(false).cleanup());
    }
    if !leavings.blackholes.is_empty() {
        match Blackhole::open(leavings.blackholes.clone()) {
            Ok(mut blackhole) => report.merge(blackhole.cleanup()),
            Err(error) => report.failed(error),
        }
    }
    report
}

fn remove_devices(names: &[String], report: &mut Report) -> kernel::Result<()> {
    let mut netlink = Netlink::open()?;
    for name in names {
        let Some(link) = netlink.link(name)? else {
            continue;
        };
        let change = Change::DeleteLink {
            index: link.index,
            name: link.name,
        };
        netlink.apply(&change)?;
        report.changed("delete link", || change.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
