//! Addresses and routes that make a veth pair a point-to-point link.
//!
//! An address such as 192.168.3.5/24 brings a route to its subnet "on the link". Here the subnet is
//! not on the link, only the gateway is. So that route goes, and two come instead: to the gateway
//! (on the link), and to the subnet by way of the gateway.

use std::net::IpAddr;

use kernel::{Address, Change, Route, SetLink, ipnet::IpNet, scope};

use crate::cni::{CniResult, Error, Result};

/// The container's addresses, each with its gateway, which is the host's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs(Vec<(IpNet, IpAddr)>);

impl Pairs {
    /// Takes them from an IPAM result.
    pub fn of(result: &CniResult) -> Result<Self> {
        let mut pairs = Vec::new();
        for ip in &result.ips {
            let gateway = ip.gateway.ok_or_else(|| {
                Error::generic(format!(
                    "IPAM plugin returned no gateway for {}",
                    ip.address
                ))
            })?;
            pairs.push((ip.address, gateway));
        }
        if pairs.is_empty() {
            return Err(Error::generic("IPAM plugin returned no address"));
        }
        Ok(Self(pairs))
    }

    /// The host's end: it has the gateways' addresses, and the containers' are reached by it.
    pub fn on_host(&self, dev: u32) -> Vec<Change> {
        let mut changes = vec![Change::SetLink(SetLink {
            index: dev,
            up: Some(true),
            ..SetLink::default()
        })];
        for (address, gateway) in &self.0 {
            let own = Change::AddAddress(Address {
                nodad: gateway.is_ipv6(),
                ..Address::new(dev, (*gateway).into())
            });
            if !changes.contains(&own) {
                changes.push(own);
            }
            changes.push(Change::AddRoute(Route {
                dev: Some(dev),
                scope: scope::HOST,
                ..Route::new(address.addr().into())
            }));
        }
        changes
    }

    /// The container's end, after its addresses and routes are there.
    pub fn in_container(&self, dev: u32) -> Vec<Change> {
        let mut changes = Vec::new();
        for (address, gateway) in &self.0 {
            let route = |net: IpNet| Route {
                dev: Some(dev),
                src: Some(address.addr()),
                ..Route::new(net)
            };
            let subnet = address.trunc();
            let has_subnet = subnet.prefix_len() < subnet.max_prefix_len();
            if has_subnet {
                changes.push(Change::DeleteRoute(Route {
                    dev: Some(dev),
                    protocol: Route::PROTOCOL_KERNEL,
                    scope: if subnet.addr().is_ipv4() {
                        scope::LINK
                    } else {
                        scope::UNIVERSE
                    },
                    ..Route::new(subnet)
                }));
            }
            changes.push(Change::AddRoute(Route {
                scope: scope::LINK,
                ..route((*gateway).into())
            }));
            if has_subnet {
                changes.push(Change::AddRoute(Route {
                    via: Some(*gateway),
                    ..route(subnet)
                }));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::IpConfig;

    fn pairs(list: &[(&str, Option<&str>)]) -> Result<Pairs> {
        Pairs::of(&CniResult {
            ips: list
                .iter()
                .map(|(ip, gateway)| {
                    IpConfig::new(ip.parse().unwrap(), gateway.map(|g| g.parse().unwrap()))
                })
                .collect(),
            ..CniResult::default()
        })
    }

    fn text(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|c| c.describe(&|_| "dev0".into()))
            .collect()
    }

    #[test]
    fn golden() {
        let pairs = pairs(&[
            ("10.1.0.5/24", Some("10.1.0.1")),
            ("fd00::5/64", Some("fd00::1")),
        ])
        .unwrap();
        assert_eq!(
            text(&pairs.on_host(1)),
            [
                "set link dev0 up",
                "add address 10.1.0.1/32 dev dev0",
                "add route 10.1.0.5/32 dev dev0 scope host",
                "add address fd00::1/128 dev dev0",
                "add route fd00::5/128 dev dev0 scope host",
            ]
        );
        assert_eq!(
            text(&pairs.in_container(1)),
            [
                "delete route 10.1.0.0/24 dev dev0 scope link",
                "add route 10.1.0.1/32 dev dev0 src 10.1.0.5 scope link",
                "add route 10.1.0.0/24 via 10.1.0.1 dev dev0 src 10.1.0.5",
                "delete route fd00::/64 dev dev0",
                "add route fd00::1/128 dev dev0 src fd00::5 scope link",
                "add route fd00::/64 via fd00::1 dev dev0 src fd00::5",
            ]
        );
    }

    #[test]
    fn one_gateway_for_two_addresses_is_added_once() {
        let pairs = pairs(&[
            ("10.1.0.5/24", Some("10.1.0.1")),
            ("10.1.0.6/24", Some("10.1.0.1")),
        ]);
        let changes = text(&pairs.unwrap().on_host(1));
        assert_eq!(
            changes
                .iter()
                .filter(|c| c.starts_with("add address"))
                .count(),
            1
        );
    }

    #[test]
    fn it_takes_an_address_and_a_gateway() {
        assert!(pairs(&[]).is_err());
        assert!(
            pairs(&[("10.1.0.5/24", None)])
                .unwrap_err()
                .msg
                .contains("10.1.0.5/24")
        );
    }
}
