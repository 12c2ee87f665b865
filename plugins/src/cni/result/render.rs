//! Writing a result in any version, byte for byte as the Go library (1.3) does: until 0.4.0 in the
//! order of its structs and always with `dns`, from 1.0.0 on sorted by key and `dns` only when set.

use super::{CniResult, Dns, FormError, Interface, IpConfig, Route};
use crate::cni::{Version, json};
use ipnet::IpNet;
use serde::Serialize;
use std::net::IpAddr;

impl CniResult {
    /// The text a plugin prints on stdout; what the version cannot say is left out.
    pub fn render(&self, version: Version) -> Result<String, FormError> {
        match version {
            Version::V010 | Version::V020 => self.render_old(version),
            Version::V030 | Version::V031 | Version::V040 => Ok(json::to_indented(&Middle {
                cni_version: version.as_str(),
                interfaces: self.interfaces.iter().map(MiddleInterface::from).collect(),
                ips: self.ips.iter().map(MiddleIp::from).collect(),
                routes: &self.routes,
                dns: &self.dns,
            })),
            Version::V100 | Version::V110 => Ok(json::to_indented(&New {
                cni_version: version.as_str(),
                dns: (!self.dns.is_empty()).then(|| SortedDns::from(&self.dns)),
                interfaces: self.interfaces.iter().map(SortedInterface::from).collect(),
                ips: self.ips.iter().map(SortedIp::from).collect(),
                routes: self.routes.iter().map(SortedRoute::from).collect(),
            })),
        }
    }

    fn render_old(&self, version: Version) -> Result<String, FormError> {
        // These versions have room for one address of each family.
        let side = |is_ipv4: bool| {
            let ip = self
                .ips
                .iter()
                .find(|ip| ip.address.addr().is_ipv4() == is_ipv4)?;
            Some(OldIp {
                ip: ip.address,
                gateway: ip.gateway,
                routes: self
                    .routes
                    .iter()
                    .filter(|route| route.dst.addr().is_ipv4() == is_ipv4)
                    .map(|route| OldRoute {
                        dst: route.dst,
                        gw: route.gw,
                    })
                    .collect(),
            })
        };
        let old = Old {
            cni_version: version.as_str(),
            ip4: side(true),
            ip6: side(false),
            dns: &self.dns,
        };
        if old.ip4.is_none() && old.ip6.is_none() {
            return Err(FormError::NoAddress);
        }
        Ok(json::to_indented(&old))
    }
}

#[derive(Serialize)]
struct Old<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<OldIp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<OldIp>,
    dns: &'a Dns,
}

#[derive(Serialize)]
struct OldIp {
    ip: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<OldRoute>,
}

#[derive(Serialize)]
struct OldRoute {
    dst: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
}

#[derive(Serialize)]
struct Middle<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<MiddleInterface<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<MiddleIp>,
    #[serde(skip_serializing_if = "<[Route]>::is_empty")]
    routes: &'a [Route],
    dns: &'a Dns,
}

#[derive(Serialize)]
struct MiddleInterface<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    mac: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    sandbox: &'a str,
}

impl<'a> From<&'a Interface> for MiddleInterface<'a> {
    fn from(interface: &'a Interface) -> Self {
        Self {
            name: &interface.name,
            mac: &interface.mac,
            sandbox: &interface.sandbox,
        }
    }
}

#[derive(Serialize)]
struct MiddleIp {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

impl From<&IpConfig> for MiddleIp {
    fn from(ip: &IpConfig) -> Self {
        Self {
            version: if ip.address.addr().is_ipv4() {
                "4"
            } else {
                "6"
            },
            interface: ip.interface,
            address: ip.address,
            gateway: ip.gateway,
        }
    }
}

#[derive(Serialize)]
struct New<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<SortedDns<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<SortedInterface<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<SortedIp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<SortedRoute>,
}

#[derive(Serialize)]
struct SortedDns<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    nameservers: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    options: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    search: &'a [String],
}

impl<'a> From<&'a Dns> for SortedDns<'a> {
    fn from(dns: &'a Dns) -> Self {
        Self {
            domain: &dns.domain,
            nameservers: &dns.nameservers,
            options: &dns.options,
            search: &dns.search,
        }
    }
}

#[derive(Serialize)]
struct SortedInterface<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    mac: &'a str,
    #[serde(skip_serializing_if = "super::is_zero")]
    mtu: u32,
    name: &'a str,
    #[serde(rename = "pciID", skip_serializing_if = "str::is_empty")]
    pci_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    sandbox: &'a str,
    #[serde(rename = "socketPath", skip_serializing_if = "str::is_empty")]
    socket_path: &'a str,
}

impl<'a> From<&'a Interface> for SortedInterface<'a> {
    fn from(interface: &'a Interface) -> Self {
        Self {
            mac: &interface.mac,
            mtu: interface.mtu,
            name: &interface.name,
            pci_id: &interface.pci_id,
            sandbox: &interface.sandbox,
            socket_path: &interface.socket_path,
        }
    }
}

#[derive(Serialize)]
struct SortedIp {
    address: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
}

impl From<&IpConfig> for SortedIp {
    fn from(ip: &IpConfig) -> Self {
        Self {
            address: ip.address,
            gateway: ip.gateway,
            interface: ip.interface,
        }
    }
}

#[derive(Serialize)]
struct SortedRoute {
    #[serde(skip_serializing_if = "super::is_zero")]
    advmss: u32,
    dst: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
    #[serde(skip_serializing_if = "super::is_zero")]
    mtu: u32,
    #[serde(skip_serializing_if = "super::is_zero")]
    priority: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<u32>,
}

impl From<&Route> for SortedRoute {
    fn from(route: &Route) -> Self {
        Self {
            advmss: route.advmss,
            dst: route.dst,
            gw: route.gw,
            mtu: route.mtu,
            priority: route.priority,
            scope: route.scope,
            table: route.table,
        }
    }
}
