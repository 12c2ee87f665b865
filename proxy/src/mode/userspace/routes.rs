//! Local routes: they make the node accept packets for the Services' addresses.
//!
//! `ip route add local 10.96.0.10/32 dev lo proto 87` in table local is all it takes for the kernel to
//! deliver what arrives for the address, to let a socket be bound to it, and to refuse ports without one. The
//! protocol number tells our routes from everyone else's, so that a restart finds them again.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kernel::monitor::{Event, Group, Monitor};
use kernel::{Change, Link, Netlink, Route, RouteFilter, RouteKind, scope};

use crate::model::Family;

/// rtm_protocol of our routes: `W`. Not in `/etc/iproute2/rt_protos`, nor in linux/rtnetlink.h.
pub(super) const PROTOCOL: u8 = 87;
/// RT_TABLE_LOCAL.
const TABLE_LOCAL: u32 = 255;

/// Our routes of one family, and the socket to change them, in the namespace where it was opened.
pub(super) struct Routes {
    family: Family,
    netlink: Netlink,
    monitor: Monitor,
    /// What is there, as far as we know.
    present: BTreeSet<IpAddr>,
}

/// What the kernel had of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// The node's own usable addresses.
    pub(super) own: BTreeSet<IpAddr>,
    /// Addresses by which the node reaches others; routing one to the node itself would cut it off.
    pub(super) next_hops: BTreeSet<IpAddr>,
}

impl Routes {
    /// In the calling thread's namespace.
    pub(super) fn open(family: Family) -> kernel::Result<Self> {
        let groups = match family {
            Family::V4 => [Group::Link, Group::Ipv4Address, Group::Ipv4Route],
            Family::V6 => [Group::Link, Group::Ipv6Address, Group::Ipv6Route],
        };
        Ok(Self {
            family,
            monitor: Monitor::open(&groups)?,
            netlink: Netlink::open()?,
            present: BTreeSet::new(),
        })
    }

    /// The socket that is readable when [`Routes::disturbance`] is worth a call.
    pub(super) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Reads which of our routes are there, and what else matters.
    pub(super) fn observe(&mut self) -> kernel::Result<Observed> {
        self.present = self.ours()?.iter().map(|route| route.dst.addr()).collect();
        let own = self.own()?;
        let main = RouteFilter {
            table: Some(Route::TABLE_MAIN),
            ipv6: Some(self.family == Family::V6),
            ..RouteFilter::default()
        };
        let next_hops = self.netlink.routes(main)?.into_iter();
        Ok(Observed {
            own,
            next_hops: next_hops.filter_map(|route| route.via).collect(),
        })
    }

    /// The link by which the node reaches an address.
    pub(super) fn link_to(netlink: &mut Netlink, ip: IpAddr) -> Option<String> {
        let index = netlink.route_to(ip).ok()??.dev?;
        Some(netlink.link_by_index(index).ok()??.name)
    }

    /// What must change so that exactly `wanted` have a route.
    pub(super) fn plan(&mut self, wanted: &BTreeSet<IpAddr>) -> kernel::Result<Vec<Change>> {
        let loopback = self.loopback()?.index;
        let missing = wanted.difference(&self.present);
        let stale = self.present.difference(wanted);
        let remove = stale.map(|ip| Change::DeleteRoute(local(*ip, loopback)));
        let add = missing.map(|ip| Change::AddRoute(local(*ip, loopback)));
        Ok(remove.chain(add).collect())
    }

    /// Carries out changes of [`Routes::plan`]; answers how many were made, and what went wrong.
    pub(super) fn apply(&mut self, changes: &[Change]) -> (usize, Vec<String>) {
        let mut errors = Vec::new();
        let mut made = 0;
        for (change, result) in changes.iter().zip(self.netlink.apply_all(changes)) {
            let (route, removal) = match change {
                Change::AddRoute(route) => (route, false),
                Change::DeleteRoute(route) => (route, true),
                _ => continue,
            };
            match result {
                Err(error) if removal && error.is_not_found() => {}
                Err(error) => {
                    errors.push(error.to_string());
                    continue;
                }
                Ok(()) => made += 1,
            }
            let ip = route.dst.addr();
            if removal {
                self.present.remove(&ip);
            } else {
                self.present.insert(ip);
            }
        }
        (made, errors)
    }

    /// Reads the kernel's events; answers in words what asks for a comparison of everything: routes of ours
    /// that are gone, or a change of the node's own addresses, known as `own`.
    pub(super) fn disturbance(&mut self, own: &BTreeSet<IpAddr>) -> kernel::Result<Option<String>> {
        let (mut routes, mut addresses) = (false, false);
        loop {
            let events = self.monitor.events()?;
            if events.is_empty() {
                break;
            }
            for event in events {
                match event {
                    Event::Route { route, removed } => {
                        routes |= removed && route.protocol == PROTOCOL;
                    }
                    Event::Address { .. } => addresses = true,
                    Event::Link { link, .. } => routes |= link.loopback,
                    Event::Overrun => (routes, addresses) = (true, true),
                    _ => {}
                }
            }
        }
        if routes {
            let there: BTreeSet<_> = self.ours()?.iter().map(|route| route.dst.addr()).collect();
            let mut gone = self.present.difference(&there);
            if let Some(first) = gone.next() {
                let more = gone.count();
                let others = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                return Ok(Some(format!("the local route of {first}{others} is gone")));
            }
        }
        if addresses && self.own()? != *own {
            return Ok(Some("the node's addresses have changed".to_owned()));
        }
        Ok(None)
    }

    fn ours(&mut self) -> kernel::Result<Vec<Route>> {
        let filter = RouteFilter {
            table: Some(TABLE_LOCAL),
            protocol: Some(PROTOCOL),
            ipv6: Some(self.family == Family::V6),
            dev: None,
        };
        let mut routes = self.netlink.routes(filter)?;
        routes.retain(|route| route.kind == RouteKind::Local);
        Ok(routes)
    }

    fn own(&mut self) -> kernel::Result<BTreeSet<IpAddr>> {
        let addresses = self.netlink.addresses(None)?.into_iter();
        let usable = addresses.filter(|a| !a.tentative && !a.dadfailed);
        let ips = usable.map(|address| address.net.addr());
        Ok(ips.filter(|ip| Family::of(*ip) == self.family).collect())
    }

    fn loopback(&mut self) -> kernel::Result<Link> {
        let links = self.netlink.links()?;
        let loopback = links.into_iter().find(|link| link.loopback);
        match loopback {
            Some(link) if link.up => Ok(link),
            Some(link) => Err(kernel::Error::other(
                format!("route Services to this node by {}", link.name),
                format!("it is down; ip link set {} up", link.name),
            )),
            None => Err(kernel::Error::other(
                "route Services to this node",
                "there is no loopback device",
            )),
        }
    }
}

fn local(ip: IpAddr, loopback: u32) -> Route {
    Route {
        dev: Some(loopback),
        scope: scope::HOST,
        protocol: PROTOCOL,
        table: TABLE_LOCAL,
        kind: RouteKind::Local,
        ..Route::new(ip.into())
    }
}
