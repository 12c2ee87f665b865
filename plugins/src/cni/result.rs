//! The result of an ADD: one form inside (that of 1.1.0), every version of the spec outside.

mod parse;
mod render;

use crate::cni::json;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use std::net::IpAddr;

/// What an ADD made; IPv4-mapped IPv6 addresses are kept as IPv4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniResult {
    /// Interfaces, on the host (no sandbox) and in the container.
    pub interfaces: Vec<Interface>,
    /// Addresses given out.
    pub ips: Vec<IpConfig>,
    /// Routes in the container.
    pub routes: Vec<Route>,
    /// DNS settings for the container.
    pub dns: Dns,
}

/// A link that an ADD made or took part in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address as text; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU in bytes, 0 for not stated (from 1.1.0 on).
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// Path of the network namespace; empty on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Path of a socket that stands for the interface (from 1.1.0 on).
    #[serde(rename = "socketPath", skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// PCI address of the device (from 1.1.0 on).
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    /// Index into [`CniResult::interfaces`].
    pub interface: Option<usize>,
    /// The address with its prefix length.
    pub address: IpNet,
    /// The gateway of its subnet.
    pub gateway: Option<IpAddr>,
}

/// A route in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Destination; host bits are kept as written.
    pub dst: IpNet,
    /// Next hop; without it the gateway of the address is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes, 0 for not stated (this and the rest from 1.1.0 on).
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// Advertised TCP segment size in bytes, 0 for not stated.
    #[serde(skip_serializing_if = "is_zero")]
    pub advmss: u32,
    /// Metric, 0 for not stated.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: u32,
    /// Routing table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope as the kernel numbers it (0 universe, 253 link).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// DNS settings; the plugins only pass them on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Route {
    /// A route with only a destination.
    pub fn new(dst: IpNet) -> Self {
        Self {
            dst,
            gw: None,
            mtu: 0,
            advmss: 0,
            priority: 0,
            table: None,
            scope: None,
        }
    }
}

impl IpConfig {
    /// An address that belongs to no listed interface, as IPAM plugins give it.
    pub fn new(address: IpNet, gateway: Option<IpAddr>) -> Self {
        Self {
            interface: None,
            address,
            gateway,
        }
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// An address with prefix length as written in JSON, host bits kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(pub IpNet);

/// An address as written in JSON; the empty text is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Address(pub Option<IpAddr>);

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net: IpNet = text
            .parse()
            .map_err(|_| format!("invalid CIDR address: {text}"))?;
        // Go treats ::ffff:a.b.c.d as the IPv4 address it stands for.
        if let IpNet::V6(v6) = net
            && let Some(v4) = v6.addr().to_ipv4_mapped()
            && v6.prefix_len() >= 96
        {
            return ipnet::Ipv4Net::new(v4, v6.prefix_len() - 96)
                .map(|net| Self(net.into()))
                .map_err(|e| e.to_string());
        }
        Ok(Self(net))
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse::<IpAddr>()
            .map(|ip| Self(Some(ip.to_canonical())))
            .map_err(|_| format!("invalid IP address: {text}"))
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a result could not be read or written in a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Not the JSON that the version asks for.
    #[error(transparent)]
    Json(#[from] json::Error),
    /// A version that the spec does not have.
    #[error("unsupported CNI result version {0:?}")]
    UnknownVersion(String),
    /// 0.1.0 and 0.2.0 cannot say that there is no address.
    #[error("cannot convert: no valid IP addresses")]
    NoAddress,
}

#[cfg(test)]
mod tests;
