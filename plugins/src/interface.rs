//! The container's end of a link: which addresses and routes it lacks, waiting until they serve,
//! telling the neighbours. `bridge` and `ptp` share it; ADD applies the plan, CHECK asks that it is
//! empty.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use kernel::{
    Address, Change, Link, LinkKind, Mac, Netlink, Netns, NewLink, RouteFilter, SetLink,
    ipnet::IpNet, scope, sysctl,
};

use crate::cni::{Call, CniResult, Error, Interface, IpConfig, Result, Route, code};

/// How long duplicate address detection may take.
const SETTLE: Duration = Duration::from_secs(10);
/// How many random names are tried.
const NAME_TRIES: usize = 10;
/// How long a bridge port may take to forward.
const CARRIER: Duration = Duration::from_millis(2550);

/// Opens the container's namespace.
pub fn open_netns(call: &Call) -> Result<Netns> {
    Netns::open(call.netns.as_str())
        .map_err(|cause| Error::new(code::INVALID_NETNS, cause.to_string()))
}

/// The container's namespace, or none if it is gone: nothing of ours can be in it then. A plain
/// file at its path is what an unmounted namespace leaves behind.
pub fn find_netns(call: &Call) -> Result<Option<Netns>> {
    if call.netns.is_empty() {
        return Ok(None);
    }
    match Netns::open(call.netns.as_str()) {
        Ok(netns) => Ok(Some(netns)),
        Err(error) if error.is_not_found() || error.errno().is_none() => Ok(None),
        Err(cause) => Err(Error::new(code::INVALID_NETNS, cause.to_string())),
    }
}

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
    netlink.apply_or_fail(changes).map_err(failed)
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
        let addresses = netlink.addresses(Some(link.index)).map_err(failed)?;
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

/// Waits until the host's end has a carrier and so forwards. The kernel gets there by a work queue
/// within microseconds; a port that does not is an error.
pub fn await_carrier(host: &mut Netlink, name: &str) -> Result<Link> {
    let deadline = Instant::now() + CARRIER;
    let mut pause = Duration::from_micros(50);
    loop {
        let link = host.expect_link(name).map_err(failed)?;
        if link.running {
            return Ok(link);
        }
        if Instant::now() > deadline {
            return Err(Error::generic(format!(
                "bridge port in error state: {name} has no carrier"
            )));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Has the kernel tell the neighbours where the addresses are now, since they may remember an earlier
/// owner: with `arp_notify` and `ndisc_notify` set it sends gratuitous ARP and unsolicited neighbour
/// advertisements whenever the hardware address is set, be it to what it is. (A packet socket of our
/// own would do too, but closing one waits for an RCU grace period: some 10 ms.)
pub fn announce(netlink: &mut Netlink, link: &Link) -> Result<()> {
    let again = Change::SetLink(SetLink {
        index: link.index,
        mac: link.mac,
        ..SetLink::default()
    });
    apply(netlink, &[again])
}

/// Sets a kernel parameter that a host may lack (IPv6 switched off); other failures are noted.
pub fn set_quietly(key: &str, value: &str) {
    match sysctl::ensure(key, value) {
        Err(error) if !error.is_not_found() => eprintln!("{error}"),
        _ => {}
    }
}

/// Lets the host forward packets of the families that `addresses` have.
pub fn enable_forwarding(addresses: impl Iterator<Item = IpAddr>) -> Result<()> {
    let (mut v4, mut v6) = (false, false);
    for address in addresses {
        v4 |= address.is_ipv4();
        v6 |= address.is_ipv6();
    }
    for (wanted, key) in [
        (v4, "net/ipv4/ip_forward"),
        (v6, "net/ipv6/conf/all/forwarding"),
    ] {
        if wanted {
            sysctl::ensure(key, "1")
                .map_err(|cause| Error::generic(format!("enable forwarding: {cause}")))?;
        }
    }
    Ok(())
}

/// CHECK: the link has its addresses, their prefixes are routed, and the routes are there.
pub fn check(netlink: &mut Netlink, link: &Link, desired: Desired<'_>) -> Result<()> {
    let observed = Observed::read(netlink, link.index).map_err(failed)?;
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

/// Makes a veth pair and gives the name of the host's end, a new random one; `change` makes the
/// request from that name and the other end.
pub fn add_veth(
    host: &mut Netlink,
    peer: NewLink,
    change: impl Fn(&str, Box<NewLink>) -> Change,
) -> Result<String> {
    let mut tries = 0;
    loop {
        let Mac([_, _, a, b, c, d]) = random_mac()?;
        let name = format!("veth{a:02x}{b:02x}{c:02x}{d:02x}");
        match host.apply(&change(&name, Box::new(peer.clone()))) {
            Ok(()) => return Ok(name),
            Err(error) => {
                tries += 1;
                let taken = error.is_exists() && host.link(&name).map_err(failed)?.is_some();
                if !taken || tries == NAME_TRIES {
                    return Err(failed(error));
                }
            }
        }
    }
}

/// A hardware address of one's own making.
pub fn random_mac() -> Result<Mac> {
    Mac::random_local().map_err(|cause| Error::io("choose a hardware address", cause))
}

impl Interface {
    /// A link as a result shows it; `sandbox` is the path of its namespace, empty on the host.
    pub fn of(link: &Link, sandbox: &str) -> Self {
        Self {
            name: link.name.clone(),
            mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            mtu: link.mtu,
            sandbox: sandbox.to_owned(),
            ..Self::default()
        }
    }
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
    let link = netlink.expect_link(&listed.name).map_err(failed)?;
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

/// DEL: removes the container's interface, and with it the other end of its veth pair. What is
/// gone already is no error.
pub fn remove_from(call: &Call) -> Result<()> {
    let Some(netns) = find_netns(call)? else {
        return Ok(());
    };
    let mut netlink = Netlink::open_in(&netns).map_err(failed)?;
    match netlink.link(&call.ifname).map_err(failed)? {
        Some(link) => remove(&mut netlink, &link),
        None => Ok(()),
    }
}

/// Removes a link of the host by name; that it is gone already is no error.
pub fn delete(name: &str) -> Result<()> {
    let mut host = Netlink::open().map_err(failed)?;
    match host.link(name).map_err(failed)? {
        Some(link) => remove(&mut host, &link),
        None => Ok(()),
    }
}

/// Removes a link; that it is gone already is no error.
pub fn remove(netlink: &mut Netlink, link: &Link) -> Result<()> {
    match netlink.apply(&Change::DeleteLink {
        index: link.index,
        name: link.name.clone(),
    }) {
        Err(error) if !error.is_not_found() => Err(failed(error)),
        _ => Ok(()),
    }
}

/// A kernel error as a plugin's.
pub fn failed(cause: kernel::Error) -> Error {
    Error::generic(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips() -> Vec<IpConfig> {
        vec![
            IpConfig::new(
                "10.1.0.5/24".parse().unwrap(),
                Some("10.1.0.1".parse().unwrap()),
            ),
            IpConfig::new(
                "fd00::5/64".parse().unwrap(),
                Some("fd00::1".parse().unwrap()),
            ),
        ]
    }

    fn routes() -> Vec<Route> {
        vec![
            Route::new("0.0.0.0/0".parse().unwrap()),
            Route {
                gw: Some("fd00::9".parse().unwrap()),
                priority: 7,
                ..Route::new("fd01::/64".parse().unwrap())
            },
            Route {
                scope: Some(253),
                table: Some(100),
                ..Route::new("10.9.0.0/16".parse().unwrap())
            },
        ]
    }

    fn text(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|c| c.describe(&|_| "eth0".into()))
            .collect()
    }

    #[test]
    fn a_fresh_link_lacks_everything() {
        let (ips, routes) = (ips(), routes());
        let desired = Desired {
            ips: &ips,
            routes: &routes,
            nodad: false,
        };
        let nothing = Observed::default();
        assert_eq!(
            text(&plan_addresses(7, desired, &nothing)),
            [
                "add address 10.1.0.5/24 dev eth0",
                "add address fd00::5/64 dev eth0"
            ]
        );
        assert_eq!(
            text(&plan_routes(7, desired, &nothing)),
            [
                "add route default via 10.1.0.1 dev eth0",
                "add route fd01::/64 via fd00::9 dev eth0 metric 7",
                "add route 10.9.0.0/16 dev eth0 table 100 scope link",
            ]
        );
    }

    #[test]
    fn what_is_there_is_not_planned_again() {
        let (ips, routes) = (ips(), routes());
        let desired = Desired {
            ips: &ips,
            routes: &routes,
            nodad: true,
        };
        let mut observed = Observed::default();
        for change in plan_addresses(7, desired, &observed.clone())
            .into_iter()
            .chain(plan_routes(7, desired, &observed.clone()))
        {
            match change {
                Change::AddAddress(address) => observed.addresses.push(address),
                Change::AddRouteBeside(route) => observed.routes.push(route),
                other => panic!("{other}"),
            }
        }
        assert!(plan_addresses(7, desired, &observed).is_empty());
        assert!(plan_routes(7, desired, &observed).is_empty());
        observed.routes.remove(0);
        assert_eq!(
            text(&plan_routes(7, desired, &observed)),
            ["add route default via 10.1.0.1 dev eth0"]
        );
    }

    #[test]
    fn no_duplicate_detection_is_for_ipv6_only() {
        let ips = ips();
        let desired = Desired {
            ips: &ips,
            routes: &[],
            nodad: true,
        };
        let flags: Vec<_> = plan_addresses(1, desired, &Observed::default())
            .into_iter()
            .map(|change| match change {
                Change::AddAddress(address) => address.nodad,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(flags, [false, true]);
    }
}
