//! The plugin `bridge`: every container gets a veth pair, one end in its namespace, the other on a
//! bridge of the host, which may be its gateway.

mod attach;
mod check;
mod config;
mod plan;
mod spoofcheck;

use kernel::Netlink;

use crate::{
    cni::{Call, CniResult, Plugin, Result, Verb, delegate, with_undo},
    interface,
    masquerade::{self, Owner},
};
use config::Config;
use spoofcheck::Checked;

/// The plugin.
pub struct Bridge;

impl Plugin for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn add(&self, call: &Call) -> Result<CniResult> {
        let config = Config::read(call)?;
        let changes = attach::BridgeChanges::default();
        with_undo(|undo| attach::attach(call, &config, &changes, undo))
    }

    fn del(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        let removed = interface::remove_from(call);
        // While the container still has its interface, nobody else may get its address.
        let mut outcome = match (&removed, &config.ipam) {
            (Ok(()), Some(ipam)) => delegate::run(call, Verb::Del, ipam, call.config()),
            _ => removed,
        };
        if config.mac_spoof_check {
            outcome = outcome.and(spoofcheck::undo(Checked {
                container: &call.container_id,
                interface: &call.ifname,
            }));
        }
        if config.masquerade && config.ipam.is_some() {
            outcome = outcome.and(masquerade::teardown(
                owner(call),
                &masquerade::remembered(call),
            ));
        }
        outcome
    }

    fn check(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        if let Some(ipam) = &config.ipam {
            delegate::run(call, Verb::Check, ipam, call.config())?;
        }
        check::check(call, &config, &call.required_prev_result()?)
    }

    fn status(&self, call: &Call) -> Result<()> {
        match Config::read(call)?.ipam {
            Some(ipam) => delegate::run(call, Verb::Status, &ipam, call.config()),
            None => Ok(()),
        }
    }

    fn gc(&self, call: &Call) -> Result<()> {
        let config = Config::read(call)?;
        let mut outcome = match &config.ipam {
            Some(ipam) => delegate::run(call, Verb::Gc, ipam, call.config()),
            None => Ok(()),
        };
        if config.mac_spoof_check {
            outcome = outcome.and(collect_spoof_checks());
        }
        if config.masquerade {
            outcome = outcome.and(masquerade::collect_garbage(call));
        }
        outcome
    }
}

fn owner(call: &Call) -> Owner<'_> {
    Owner {
        network: &call.network,
        interface: &call.ifname,
        container: &call.container_id,
    }
}

fn collect_spoof_checks() -> Result<()> {
    let links = Netlink::open().and_then(|mut host| host.links())?;
    spoofcheck::collect_garbage(|name| links.iter().any(|link| link.name == name))
}
