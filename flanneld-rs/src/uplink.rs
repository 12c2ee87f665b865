//! The external interface: which one carries traffic between nodes, and which addresses we announce.
//!
//! [`choose`] and [`follow`] are pure: they look at what [`observe`] read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::{Address, Link, Netlink, Route, RouteFilter, RouteKind};

use crate::cli::IfaceOptions;

/// The chosen interface. Its addresses and MTU may change while the daemon runs; a changed value is a new `Uplink`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Kernel index of the link.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// Its own address; present when the network has IPv4.
    pub address_v4: Option<Ipv4Addr>,
    /// Its own address; present when the network has IPv6.
    pub address_v6: Option<Ipv6Addr>,
    /// What peers send to: `--public-ip`, else the interface's own.
    pub public_v4: Option<Ipv4Addr>,
    /// What peers send to: `--public-ipv6`, else the interface's own.
    pub public_v6: Option<Ipv6Addr>,
}

impl Uplink {
    /// This node's own addresses: those of the interface and those announced.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let v4 = [self.address_v4, self.public_v4]
            .into_iter()
            .flatten()
            .map(IpAddr::V4);
        let v6 = [self.address_v6, self.public_v6]
            .into_iter()
            .flatten()
            .map(IpAddr::V6);
        v4.chain(v6).collect()
    }
}

/// Which families the network has, and so the interface needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// The host's interfaces as the kernel reports them.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// Default routes of the main table.
    pub defaults: Vec<Route>,
    /// The link by which the kernel reaches `--iface-can-reach`.
    pub reach: Option<u32>,
}

/// Why there is no external interface (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(String);

/// Reads the host in the calling thread's namespace.
pub fn observe(netlink: &mut Netlink, options: &IfaceOptions) -> kernel::Result<Host> {
    let filter = RouteFilter {
        table: Some(Route::TABLE_MAIN),
        ..RouteFilter::default()
    };
    let mut defaults = netlink.routes(filter)?;
    defaults.retain(|route| route.dst.prefix_len() == 0 && route.kind == RouteKind::Unicast);
    let reach = match options.can_reach {
        Some(ip) => netlink.route_to(ip)?.and_then(|route| route.dev),
        None => None,
    };
    Ok(Host {
        links: netlink.links()?,
        addresses: netlink.addresses(None)?,
        defaults,
        reach,
    })
}

/// Chooses: `--iface`, `--iface-regex`, `--iface-can-reach` in this order; without any of them the
/// owner of the public address, else the best default route.
pub fn choose(host: &Host, options: &IfaceOptions, families: Families) -> Result<Uplink, NotFound> {
    let (link, fixed) = find(host, options, families)?;
    describe(host, link, fixed, options, families)
}

/// The same interface again, for changes while running: the address in use is kept while it exists.
/// A vanished interface is chosen anew.
pub fn follow(
    host: &Host,
    options: &IfaceOptions,
    families: Families,
    current: &Uplink,
) -> Result<Uplink, NotFound> {
    match host.links.iter().find(|link| link.name == current.name) {
        Some(link) => {
            let still = |ip: &IpAddr| {
                host.addresses
                    .iter()
                    .any(|a| a.dev == link.index && a.net.addr() == *ip)
            };
            let kept = [
                current.address_v4.map(IpAddr::V4),
                current.address_v6.map(IpAddr::V6),
            ];
            let kept = kept.into_iter().flatten().filter(still).collect();
            describe(host, link, kept, options, families)
        }
        None => choose(host, options, families),
    }
}

/// The link, and addresses of it that the operator named.
fn find<'a>(
    host: &'a Host,
    options: &IfaceOptions,
    families: Families,
) -> Result<(&'a Link, Vec<IpAddr>), NotFound> {
    let by_index = |index: u32| host.links.iter().find(|link| link.index == index);
    let owner = |ip: IpAddr| {
        host.addresses
            .iter()
            .find(|a| a.net.addr() == ip)
            .and_then(|a| by_index(a.dev))
    };
    for wanted in &options.iface {
        let found = match wanted.parse::<IpAddr>() {
            Ok(ip) => owner(ip).map(|link| (link, vec![ip])),
            Err(_) => host
                .links
                .iter()
                .find(|link| link.name == *wanted)
                .map(|link| (link, Vec::new())),
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    for regex in &options.regex {
        let wanted = |ip: IpAddr| {
            if ip.is_ipv4() {
                families.v4
            } else {
                families.v6
            }
        };
        let address = host
            .addresses
            .iter()
            .map(|a| (a, a.net.addr()))
            .find(|(a, ip)| usable(a) && wanted(*ip) && regex.is_match(&ip.to_string()));
        if let Some((link, ip)) = address.and_then(|(a, ip)| Some((by_index(a.dev)?, ip))) {
            return Ok((link, vec![ip]));
        }
        if let Some(link) = host.links.iter().find(|link| regex.is_match(&link.name)) {
            return Ok((link, Vec::new()));
        }
    }
    if let Some(ip) = options.can_reach {
        let link = host.reach.and_then(by_index);
        return link
            .map(|link| (link, Vec::new()))
            .ok_or_else(|| NotFound(format!("there is no route to --iface-can-reach {ip}")));
    }
    if !options.iface.is_empty() || !options.regex.is_empty() {
        let patterns = options.regex.iter().map(|regex| regex.as_str().to_owned());
        let wanted: Vec<String> = options.iface.iter().cloned().chain(patterns).collect();
        return Err(NotFound(format!("none matches {}", wanted.join(", "))));
    }
    let public = [
        options.public_ip.map(IpAddr::V4),
        options.public_ipv6.map(IpAddr::V6),
    ];
    if let Some((link, ip)) = public
        .into_iter()
        .flatten()
        .find_map(|ip| Some((owner(ip)?, ip)))
    {
        return Ok((link, vec![ip]));
    }
    default_link(host, families)
        .and_then(by_index)
        .map(|link| (link, Vec::new()))
        .ok_or_else(|| {
            let what = match families {
                Families { v4: true, v6: true } => {
                    "no link has both an IPv4 and an IPv6 default route"
                }
                Families { v4: true, .. } => "there is no IPv4 default route",
                Families { .. } => "there is no IPv6 default route",
            };
            NotFound(format!("{what}; name the interface with --iface"))
        })
}

/// The link of the default route with the lowest metric, in every family wanted.
fn default_link(host: &Host, families: Families) -> Option<u32> {
    let devs = |v4: bool| {
        let mut routes: Vec<&Route> = host
            .defaults
            .iter()
            .filter(|r| r.dst.addr().is_ipv4() == v4)
            .collect();
        routes.sort_by_key(|route| route.priority.unwrap_or(0));
        routes
            .into_iter()
            .filter_map(|route| route.dev)
            .collect::<Vec<u32>>()
    };
    match families {
        Families { v4: true, v6: true } => {
            let v6 = devs(false);
            devs(true).into_iter().find(|dev| v6.contains(dev))
        }
        Families { v4, .. } => devs(v4).first().copied(),
    }
}

/// May be a source of new connections.
fn usable(address: &Address) -> bool {
    !(address.deprecated || address.tentative || address.dadfailed)
}

fn describe(
    host: &Host,
    link: &Link,
    fixed: Vec<IpAddr>,
    options: &IfaceOptions,
    families: Families,
) -> Result<Uplink, NotFound> {
    let best = |v4: bool| {
        let named = fixed.iter().copied().find(|ip| ip.is_ipv4() == v4);
        named.or_else(|| {
            let mine = host
                .addresses
                .iter()
                .filter(|a| a.dev == link.index && a.net.addr().is_ipv4() == v4);
            mine.filter(|a| usable(a))
                .min_by_key(|a| (is_link_local(a.net.addr()), !a.permanent, a.secondary))
                .map(|a| a.net.addr())
        })
    };
    let address_v4 = best(true).and_then(|ip| {
        if let IpAddr::V4(ip) = ip {
            Some(ip)
        } else {
            None
        }
    });
    let address_v6 = best(false).and_then(|ip| {
        if let IpAddr::V6(ip) = ip {
            Some(ip)
        } else {
            None
        }
    });
    let (address_v4, address_v6) = (
        address_v4.filter(|_| families.v4),
        address_v6.filter(|_| families.v6),
    );
    for (wanted, found, name) in [
        (families.v4, address_v4.is_some(), "IPv4"),
        (families.v6, address_v6.is_some(), "IPv6"),
    ] {
        if wanted && !found {
            return Err(NotFound(format!("{} has no {name} address", link.name)));
        }
    }
    Ok(Uplink {
        index: link.index,
        name: link.name.clone(),
        mtu: link.mtu,
        address_v4,
        address_v6,
        public_v4: options.public_ip.filter(|_| families.v4).or(address_v4),
        public_v6: options.public_ipv6.filter(|_| families.v6).or(address_v6),
    })
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
