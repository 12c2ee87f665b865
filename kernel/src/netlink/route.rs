//! Routes on the wire: RTM_{NEW,DEL,GET}ROUTE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol,
        RouteScope, RouteType, RouteVia,
    },
};

use super::{Netlink, address::family};
use crate::{Change, Error, Result, Route, RouteKind};

/// Which routes to list; `None` lists all.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteFilter {
    /// Routes that leave by this link.
    pub dev: Option<u32>,
    /// Routes of this table.
    pub table: Option<u32>,
    /// Routes of this protocol number.
    pub protocol: Option<u8>,
    /// `Some(true)` lists IPv6 routes only, `Some(false)` IPv4 routes only.
    pub ipv6: Option<bool>,
}

impl RouteFilter {
    fn matches(&self, route: &Route) -> bool {
        self.dev.is_none_or(|dev| route.dev == Some(dev))
            && self.table.is_none_or(|table| route.table == table)
            && self
                .protocol
                .is_none_or(|protocol| route.protocol == protocol)
            && self.ipv6.is_none_or(|v6| v6 == route.dst.addr().is_ipv6())
    }
}

impl Netlink {
    /// The routes that match, cached ones left out.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for (v6, family) in [(false, AddressFamily::Inet), (true, AddressFamily::Inet6)] {
            if filter.ipv6.is_some_and(|wanted| wanted != v6) {
                continue;
            }
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            // The kernel filters where it can (strict checking, since 4.20); we do it again.
            if let Some(table) = filter.table {
                message.attributes.push(RouteAttribute::Table(table));
            }
            if let Some(dev) = filter.dev {
                message.attributes.push(RouteAttribute::Oif(dev));
            }
            if let Some(protocol) = filter.protocol {
                message.header.protocol = RouteProtocol::from(protocol);
            }
            let message = RouteNetlinkMessage::GetRoute(message);
            let found = self.dump("routes", &message, |message| match message {
                RouteNetlinkMessage::NewRoute(route)
                    if !route.header.flags.contains(RouteFlags::Cloned) =>
                {
                    parse(route).filter(|route| filter.matches(route))
                }
                _ => None,
            });
            match found {
                Ok(found) => routes.extend(found),
                // A strict kernel answers "no such table" for one that has never been used.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(routes)
    }

    /// The route the kernel would use to reach `ip` (`ip route get`); `None` if there is none.
    pub fn route_to(&mut self, ip: IpAddr) -> Result<Option<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(ip);
        message.header.destination_prefix_length = full_length(ip);
        message
            .attributes
            .push(RouteAttribute::Destination(ip.into()));
        let answer = self.get(RouteNetlinkMessage::GetRoute(message));
        match answer {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(parse(route)),
            Ok(_) => Ok(None),
            Err(cause)
                if matches!(
                    cause.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                Ok(None)
            }
            Err(cause) => Err(Error::new(format!("look up route to {ip}"), cause)),
        }
    }

    /// Adds a route unless the very same is there; says whether it was added or replaced.
    pub fn ensure_route(&mut self, route: &Route) -> Result<bool> {
        let filter = RouteFilter {
            dev: route.dev,
            table: Some(route.table),
            protocol: None,
            ipv6: Some(route.dst.addr().is_ipv6()),
        };
        if self.routes(filter)?.iter().any(|present| present == route) {
            return Ok(false);
        }
        self.apply(&Change::ReplaceRoute(route.clone()))?;
        Ok(true)
    }
}

fn full_length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

pub(super) fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.dst.addr());
    header.destination_prefix_length = route.dst.prefix_len();
    header.protocol = RouteProtocol::from(route.protocol);
    header.scope = RouteScope::from(route.scope);
    header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Local => RouteType::Local,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Other(number) => RouteType::from(number),
    };
    if route.onlink {
        header.flags = RouteFlags::Onlink;
    }
    header.table = u8::try_from(route.table).unwrap_or(0);
    let attributes = &mut message.attributes;
    if header.table == 0 {
        attributes.push(RouteAttribute::Table(route.table));
    }
    if route.dst.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.dst.network().into()));
    }
    match route.via {
        // An IPv4 route by an IPv6 next hop (RFC 5549) has an attribute of its own.
        Some(IpAddr::V6(via)) if route.dst.addr().is_ipv4() => {
            attributes.push(RouteAttribute::Via(RouteVia::Inet6(via)));
        }
        Some(via) => attributes.push(RouteAttribute::Gateway(via.into())),
        None => {}
    }
    attributes.extend(route.dev.map(RouteAttribute::Oif));
    attributes.extend(route.src.map(|src| RouteAttribute::PrefSource(src.into())));
    attributes.extend(route.priority.map(RouteAttribute::Priority));
    let metrics: Vec<RouteMetric> = [
        route.mtu.map(RouteMetric::Mtu),
        route.advmss.map(RouteMetric::Advmss),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// `None` for families other than IPv4 and IPv6.
pub(crate) fn parse(message: RouteMessage) -> Option<Route> {
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let length = message.header.destination_prefix_length;
    let mut route = Route {
        onlink: message.header.flags.contains(RouteFlags::Onlink),
        scope: message.header.scope.into(),
        protocol: message.header.protocol.into(),
        table: message.header.table.into(),
        kind: match message.header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Local => RouteKind::Local,
            RouteType::BlackHole => RouteKind::Blackhole,
            kind => RouteKind::Other(kind.into()),
        },
        ..Route::new(IpNet::new(any, length).ok()?)
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => {
                if let Some(ip) = plain(ip) {
                    route.dst = IpNet::new(ip, length).ok()?;
                }
            }
            RouteAttribute::Gateway(ip) => route.via = plain(ip),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => route.via = Some(ip.into()),
            RouteAttribute::Oif(index) => route.dev = Some(index),
            RouteAttribute::PrefSource(ip) => route.src = plain(ip),
            RouteAttribute::Priority(metric) => route.priority = Some(metric),
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::MultiPath(_) => route.multipath = true,
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(mtu),
                        RouteMetric::Advmss(advmss) => route.advmss = Some(advmss),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(route)
}

fn plain(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(ip.into()),
        RouteAddress::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}
