//! CHECK: bridge, port and container interface are as the result of ADD says, and have their
//! addresses and routes.

use kernel::{Link, LinkKind, Netlink};

use super::{config::Config, plan};
use crate::{
    cni::{Call, CniResult, Error, Result},
    interface::{self, Desired},
};

/// Compares a result with the kernel.
pub fn check(call: &Call, config: &Config, result: &CniResult) -> Result<()> {
    let netns = interface::open_netns(call)?;
    let mut host = Netlink::open()?;
    let bridge = expect_bridge(&mut host, config, result)?;
    let listed = interface::listed(call, result)?;
    let container = netns.run(|| -> Result<Link> {
        let mut netlink = Netlink::open()?;
        let link = interface::expect_veth(&mut netlink, listed)?;
        let desired = Desired {
            ips: &result.ips,
            routes: &result.routes,
            nodad: false,
        };
        interface::check(&mut netlink, &link, desired)?;
        Ok(link)
    })??;
    for listed in &result.interfaces {
        if listed.name == bridge.name || !listed.sandbox.is_empty() {
            continue;
        }
        let Some(port) = host.link(&listed.name)? else {
            return Err(Error::generic(format!(
                "interface {} not found",
                listed.name
            )));
        };
        let is_pair = container.parent == Some(port.index) && port.parent == Some(container.index);
        if port.kind == LinkKind::Veth && is_pair && port.master == Some(bridge.index) {
            return interface::same_mac(listed, &port);
        }
    }
    Err(Error::generic(format!(
        "no port of bridge {} leads to {} of the container",
        bridge.name, container.name
    )))
}

fn expect_bridge(host: &mut Netlink, config: &Config, result: &CniResult) -> Result<Link> {
    let listed = result
        .interfaces
        .iter()
        .find(|interface| interface.name == config.bridge && interface.sandbox.is_empty())
        .ok_or_else(|| Error::generic(format!("bridge {} is not in prevResult", config.bridge)))?;
    let bridge = host.expect_link(&config.bridge)?;
    if !matches!(bridge.kind, LinkKind::Bridge { .. }) {
        return Err(Error::generic(format!("{} is no bridge", bridge.name)));
    }
    // Any other bridge takes the address of one of its ports, and another one as they come and go.
    if plan::keeps_its_mac(config) {
        interface::same_mac(listed, &bridge)?;
    }
    if bridge.promisc != config.promisc {
        return Err(Error::generic(format!(
            "bridge {}: promiscuous mode is {} and not {} as configured",
            bridge.name, bridge.promisc, config.promisc
        )));
    }
    Ok(bridge)
}
