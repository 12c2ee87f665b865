//! `loopback`: brings `lo` up in the container's namespace.

use crate::cni::{Call, CniResult, Error, Interface, IpConfig, Plugin, Result, with_undo};
use crate::interface::{find_netns, open_netns};
use kernel::ipnet::IpNet;
use kernel::{Change, Netlink, SetLink};

/// The plugin acts on this link whatever CNI_IFNAME says.
const LINK: &str = "lo";

/// The plugin.
pub struct Loopback;

impl Plugin for Loopback {
    fn name(&self) -> &'static str {
        "loopback"
    }

    fn add(&self, call: &Call) -> Result<CniResult> {
        // Read first: a malformed one must not leave the link changed.
        let prev = call.prev_result()?;
        let mut netlink = Netlink::open_in(&open_netns(call)?)?;
        let link = netlink.expect_link(LINK)?;
        let changed = netlink.ensure_up(&link)?;
        let addresses = with_undo(|undo| {
            if changed {
                let netns = open_netns(call)?;
                undo.push("set lo down", move || {
                    Ok(set_down(&mut Netlink::open_in(&netns)?)?)
                });
            }
            let addresses = netlink.addresses(Some(link.index))?;
            given_out(&addresses.iter().map(|a| a.net).collect::<Vec<_>>())
        })?;
        Ok(prev.unwrap_or_else(|| CniResult {
            interfaces: vec![Interface {
                name: LINK.to_owned(),
                mac: "00:00:00:00:00:00".to_owned(),
                sandbox: call.netns.clone(),
                ..Interface::default()
            }],
            ips: addresses
                .into_iter()
                .map(|address| IpConfig {
                    interface: Some(0),
                    address,
                    gateway: None,
                })
                .collect(),
            ..CniResult::default()
        }))
    }

    fn del(&self, call: &Call) -> Result<()> {
        match find_netns(call)? {
            Some(netns) => Ok(set_down(&mut Netlink::open_in(&netns)?)?),
            None => Ok(()),
        }
    }

    fn check(&self, call: &Call) -> Result<()> {
        call.prev_result()?;
        let mut netlink = Netlink::open_in(&open_netns(call)?)?;
        if netlink.expect_link(LINK)?.up {
            Ok(())
        } else {
            Err(Error::generic("loopback interface is down"))
        }
    }
}

fn set_down(netlink: &mut Netlink) -> kernel::Result<()> {
    let link = netlink.expect_link(LINK)?;
    if !link.up {
        return Ok(());
    }
    netlink.apply(&Change::SetLink(SetLink {
        index: link.index,
        up: Some(false),
        ..SetLink::default()
    }))
}

/// The first address of each family, IPv4 first; a foreign address means a foreign link.
fn given_out(addresses: &[IpNet]) -> Result<Vec<IpNet>> {
    if let Some(foreign) = addresses.iter().find(|net| !net.addr().is_loopback()) {
        return Err(Error::generic(format!(
            "loopback interface found with non-loopback address \"{}\"",
            foreign.addr()
        )));
    }
    let first = |is_ipv4| {
        addresses
            .iter()
            .find(|net| net.addr().is_ipv4() == is_ipv4)
            .copied()
    };
    Ok([first(true), first(false)].into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_of_each_family_is_given_out_and_foreign_ones_refused() {
        let nets = |list: &[&str]| {
            list.iter()
                .map(|n| n.parse().unwrap())
                .collect::<Vec<IpNet>>()
        };
        assert_eq!(
            given_out(&nets(&["::1/128", "127.0.0.1/8", "127.0.0.2/8"])).unwrap(),
            nets(&["127.0.0.1/8", "::1/128"])
        );
        assert_eq!(
            given_out(&nets(&["127.0.0.1/8", "10.0.0.1/8"]))
                .unwrap_err()
                .msg,
            "loopback interface found with non-loopback address \"10.0.0.1\""
        );
    }
}
