//! Reading a result of any version.

use super::{Address, Cidr, CniResult, Dns, FormError, Interface, IpConfig, Route};
use crate::cni::{Version, json};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

impl CniResult {
    /// Reads a result whose `cniVersion` says its form; without one, `default` does.
    pub fn parse(value: &Value, default: Version) -> Result<Self, FormError> {
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Versioned {
            cni_version: String,
        }
        let written = json::from_value::<Versioned>(value)?.cni_version;
        let version = if written.is_empty() {
            default
        } else {
            Version::parse(&written).ok_or(FormError::UnknownVersion(written))?
        };
        if version < Version::V030 {
            Ok(json::from_value::<Old>(value)?.into())
        } else {
            Ok(json::from_value::<New>(value)?.into())
        }
    }
}

/// 0.3.0 and later; `version` of an address, in use until 0.4.0, follows from the address.
#[derive(Deserialize, Default)]
#[serde(default)]
struct New {
    interfaces: Vec<Interface>,
    ips: Vec<IpConfig>,
    routes: Vec<Route>,
    dns: Dns,
}

/// 0.1.0 and 0.2.0.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Old {
    ip4: Option<OldIp>,
    ip6: Option<OldIp>,
    dns: Dns,
}

struct OldIp {
    ip: IpConfig,
    routes: Vec<Route>,
}

impl<'de> Deserialize<'de> for IpConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Written {
            interface: Option<usize>,
            address: Option<Cidr>,
            gateway: Address,
        }
        let written = Written::deserialize(deserializer)?;
        Ok(Self {
            interface: written.interface,
            address: required(written.address, "address")?,
            gateway: written.gateway.0,
        })
    }
}

impl<'de> Deserialize<'de> for OldIp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Written {
            ip: Option<Cidr>,
            gateway: Address,
            routes: Vec<Route>,
        }
        let written = Written::deserialize(deserializer)?;
        Ok(Self {
            ip: IpConfig::new(required(written.ip, "ip")?, written.gateway.0),
            routes: written.routes,
        })
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Written {
            dst: Option<Cidr>,
            gw: Address,
            mtu: u32,
            advmss: u32,
            priority: u32,
            table: Option<u32>,
            scope: Option<u8>,
        }
        let written = Written::deserialize(deserializer)?;
        Ok(Self {
            dst: required(written.dst, "dst")?,
            gw: written.gw.0,
            mtu: written.mtu,
            advmss: written.advmss,
            priority: written.priority,
            table: written.table,
            scope: written.scope,
        })
    }
}

fn required<E: de::Error>(cidr: Option<Cidr>, key: &'static str) -> Result<IpNet, E> {
    cidr.map(|cidr| cidr.0).ok_or_else(|| E::missing_field(key))
}

impl From<New> for CniResult {
    fn from(new: New) -> Self {
        Self {
            interfaces: new.interfaces,
            ips: new.ips,
            routes: new.routes,
            dns: new.dns,
        }
    }
}

impl From<Old> for CniResult {
    fn from(old: Old) -> Self {
        let mut result = Self {
            dns: old.dns,
            ..Self::default()
        };
        for side in [old.ip4, old.ip6].into_iter().flatten() {
            result.ips.push(side.ip);
            result.routes.extend(side.routes);
        }
        result
    }
}
