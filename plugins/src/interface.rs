//! The container's end of a link: which addresses and routes it lacks, and giving it those. `bridge`
//! and `ptp` share it; ADD applies the plan, CHECK asks that it is empty.

mod check;
mod pair;

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use kernel::{Address, Change, Link, Netlink, RouteFilter, SetLink, scope, sysctl};

use crate::cni::{Error, IpConfig, Result, Route};

pub use check::{check, expect_veth, listed, same_mac};
pub use pair::{
    add_veth, announce, await_carrier, delete, enable_forwarding, find_netns, open_netns,
    random_mac, remove_from,
};

/// How long duplicate address detection may take.
const SETTLE: Duration = Duration::from_secs(10);

/// What is asked for on the container's link.
#[derive(Clone, Copy, Debug)]
pub struct Desired<'a> {
    /// Addresses, with gateways.
    pub ips: &'a [IpConfig],
    /// Routes; one without a gateway goes by the first gateway of its family.
    pub routes: &'a [Route],
    /// Give IPv6 addresses without duplicate address detection.
    pub nodad: bool,
}

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Addresses of the link.
    pub addresses: Vec<Address>,
    /// Routes by way of the link.
    pub routes: Vec<kernel::Route>,
}

impl Observed {
    /// Reads the state of one link.
    pub fn read(netlink: &mut Netlink, dev: u32) -> kernel::Result<Self> {
        Ok(Self {
            addresses: netlink.addresses(Some(dev))?,
            routes: netlink.routes(RouteFilter {
                dev: Some(dev),
                ..RouteFilter::default()
            })?,
        })
    }
}

/// The addresses that `dev` lacks.
pub fn plan_addresses(dev: u32, desired: Desired<'_>, observed: &Observed) -> Vec<Change> {
    desired
        .ips
        .iter()
        .filter(|ip| {
            !observed
                .addresses
                .iter()
                .any(|there| there.net == ip.address)
        })
        .map(|ip| {
            Change::AddAddress(Address {
                nodad: desired.nodad && ip.address.addr().is_ipv6(),
                ..Address::new(dev, ip.address)
            })
        })
        .collect()
}

/// The routes that are missing by way of `dev`.
pub fn plan_routes(dev: u32, desired: Desired<'_>, observed: &Observed) -> Vec<Change> {
    let mut missing: Vec<kernel::Route> = Vec::new();
    for route in desired.routes {
        let route = kernel_route(dev, route, desired.ips);
        // One route may be written twice: by the IPAM plugin and as the bridge's default.
        let is_there = |there: &kernel::Route| serves(there, &route);
        if !observed.routes.iter().any(is_there) && !missing.iter().any(is_there) {
            missing.push(route);
        }
    }
    missing.into_iter().map(Change::AddRouteBeside).collect()
}

/// The first gateway of a family.
pub fn gateway(ips: &[IpConfig], ipv6: bool) -> Option<IpAddr> {
    ips.iter()
        .filter_map(|ip| ip.gateway)
        .find(|gateway| gateway.is_ipv6() == ipv6)
}

fn kernel_route(dev: u32, route: &Route, ips: &[IpConfig]) -> kernel::Route {
    let some = |number: u32| (number != 0).then_some(number);
    // A route of link scope has no next hop unless one is written.
    let on_link = route.scope.is_some_and(|s| s >= scope::LINK);
    let default = || gateway(ips, route.dst.addr().is_ipv6()).filter(|_| !on_link);
    kernel::Route {
        via: route.gw.or_else(default),
        dev: Some(dev),
        scope: route.scope.unwrap_or(scope::UNIVERSE),
        table: route.table.unwrap_or(kernel::Route::TABLE_MAIN),
        priority: some(route.priority),
        mtu: some(route.mtu),
        advmss: some(route.advmss),
        ..kernel::Route::new(route.dst)
    }
}

/// Does the route that is there do what the desired one would?
fn serves(there: &kernel::Route, desired: &kernel::Route) -> bool {
    there.dst == desired.dst
        && there.table == desired.table
        && (there.via == desired.via || there.multipath)
        && desired
            .priority
            .is_none_or(|metric| there.priority == Some(metric))
}

/// Carries out a plan, stopping at its first failure.
pub fn apply(netlink: &mut Netlink, changes: &[Change]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    Ok(netlink.apply_or_fail(changes)?)
}

/// Brings the link up with its addresses and routes, in the calling thread's namespace.
pub fn configure(netlink: &mut Netlink, link: &Link, desired: Desired<'_>) -> Result<()> {
    let nothing = Observed::default();
    let mut changes = vec![Change::SetLink(SetLink {
        index: link.index,
        up: Some(true),
        ..SetLink::default()
    })];
    changes.extend(plan_addresses(link.index, desired, &nothing));
    let routes = plan_routes(link.index, desired, &nothing);
    let ipv6 = desired.ips.iter().any(|ip| ip.address.addr().is_ipv6());
    if ipv6 {
        for name in ["lo", &link.name] {
            set_quietly(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0");
        }
        // A Pod that takes its link down and up again keeps its address, as with IPv4.
        set_quietly(
            &format!("net/ipv6/conf/{}/keep_addr_on_down", link.name),
            "1",
        );
        apply(netlink, &changes)?;
        settle(netlink, link, desired.ips)?;
        apply(netlink, &routes)
    } else {
        changes.extend(routes);
        apply(netlink, &changes)
    }
}

/// Waits until no IPv6 address of ours is tentative any more; an address that another host has is
/// an error.
fn settle(netlink: &mut Netlink, link: &Link, ips: &[IpConfig]) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let addresses = netlink.addresses(Some(link.index))?;
        let mut ours = addresses
            .iter()
            .filter(|there| ips.iter().any(|ip| ip.address == there.net));
        if let Some(duplicate) = ours.clone().find(|address| address.dadfailed) {
            return Err(Error::generic(format!(
                "add address {} dev {}: another host has it (duplicate address detection)",
                duplicate.net, link.name
            )));
        }
        let Some(tentative) = ours.find(|address| address.tentative) else {
            return Ok(());
        };
        if Instant::now() > deadline {
            return Err(Error::generic(format!(
                "add address {} dev {}: still tentative after {} seconds",
                tentative.net,
                link.name,
                SETTLE.as_secs()
            )));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sets a kernel parameter that a host may lack (IPv6 switched off); other failures are noted.
pub fn set_quietly(key: &str, value: &str) {
    match sysctl::ensure(key, value) {
        Err(error) if !error.is_not_found() => eprintln!("{error}"),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
