//! CHECK: the container's interface compared with a result.

use kernel::{Link, LinkKind, Netlink, ipnet::IpNet};

use super::{Desired, Observed, plan_addresses, plan_routes};
use crate::cni::{Call, CniResult, Error, Interface, Result};

/// CHECK: the link has its addresses, their prefixes are routed, and the routes are there.
pub fn check(netlink: &mut Netlink, link: &Link, desired: Desired<'_>) -> Result<()> {
    let observed = Observed::read(netlink, link.index)?;
    let mut missing = plan_addresses(link.index, desired, &observed);
    missing.extend(plan_routes(link.index, desired, &observed));
    if let Some(change) = missing.first() {
        return Err(Error::generic(format!(
            "{} is not as it was made; missing: {}",
            link.name,
            netlink.describe(change)
        )));
    }
    let is_host = |net: IpNet| net.prefix_len() == net.max_prefix_len();
    for ip in desired.ips {
        let prefix = ip.address.trunc();
        if !is_host(prefix) && !observed.routes.iter().any(|route| route.dst == prefix) {
            return Err(Error::generic(format!(
                "{} has no route to the prefix {prefix} of its address",
                link.name
            )));
        }
    }
    Ok(())
}

/// CHECK: the entry of the container's interface in a result.
pub fn listed<'a>(call: &Call, result: &'a CniResult) -> Result<&'a Interface> {
    result
        .interfaces
        .iter()
        .find(|listed| listed.name == call.ifname && listed.sandbox == call.netns)
        .ok_or_else(|| {
            Error::generic(format!(
                "prevResult has no interface {} in the namespace {}",
                call.ifname, call.netns
            ))
        })
}

/// CHECK: the container's interface is a veth with the address that the result says.
pub fn expect_veth(netlink: &mut Netlink, listed: &Interface) -> Result<Link> {
    let link = netlink.expect_link(&listed.name)?;
    if link.kind != LinkKind::Veth {
        return Err(Error::generic(format!(
            "container interface {} is not of type veth",
            link.name
        )));
    }
    same_mac(listed, &link)?;
    Ok(link)
}

/// CHECK: the link has the hardware address that the result says.
pub fn same_mac(listed: &Interface, link: &Link) -> Result<()> {
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if listed.mac.is_empty() || listed.mac.eq_ignore_ascii_case(&mac) {
        return Ok(());
    }
    Err(Error::generic(format!(
        "interface {} has the hardware address {mac} and not {} as prevResult says",
        link.name, listed.mac
    )))
}
