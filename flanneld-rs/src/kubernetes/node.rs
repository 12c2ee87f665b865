//! A Node, of which only what concerns the network is ever in memory: a whole one has several kilobytes,
//! mostly names of images, and there may be thousands.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use kube::core::{ClusterResourceScope, ObjectMeta};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Annotations;
use super::annotations as names;
use crate::config::{NetworkConfig, SubnetRange};
use crate::lease::{BackendData, Lease, LeaseAttrs, Subnet};

/// The condition that keeps Pods off a Node, and what flannel says in it.
pub const CONDITION: &str = "NetworkUnavailable";
/// Why it is False.
pub const REASON: &str = "FlannelIsUp";

/// A Node, reduced while it is decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Name and resource version alone.
    metadata: ObjectMeta,
    /// Those whose name ends as one of flannel's.
    pub annotations: BTreeMap<String, String>,
    /// spec.podCIDRs, else spec.podCIDR; as written.
    pub pod_cidrs: Vec<String>,
    /// The condition says that flannel is up.
    pub is_up: bool,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: WireMetadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireMetadata {
    name: String,
    resource_version: Option<String>,
    #[serde(deserialize_with = "ours")]
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "is_up")]
    conditions: bool,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire {
            metadata,
            spec,
            status,
        } = Wire::deserialize(deserializer)?;
        let mut pod_cidrs = spec.pod_cidrs.unwrap_or_default();
        if pod_cidrs.is_empty() {
            pod_cidrs.extend(spec.pod_cidr.filter(|text| !text.is_empty()));
        }
        Ok(Self {
            metadata: ObjectMeta {
                name: Some(metadata.name),
                resource_version: metadata.resource_version,
                ..ObjectMeta::default()
            },
            annotations: metadata.annotations,
            pod_cidrs,
            is_up: status.conditions,
        })
    }
}

/// Annotations that may be flannel's, whatever its prefix.
fn ours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Ours;
    impl<'de> Visitor<'de> for Ours {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut kept = BTreeMap::new();
            while let Some(name) = map.next_key::<Cow<'_, str>>()? {
                if names::ALL.iter().any(|last| name.ends_with(last)) {
                    kept.insert(name.into_owned(), map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(kept)
        }
    }
    deserializer.deserialize_any(Ours)
}

/// Reads conditions for the one that tells.
fn is_up<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    struct Condition {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        status: String,
        #[serde(default)]
        reason: Option<String>,
    }
    struct IsUp;
    impl<'de> Visitor<'de> for IsUp {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("conditions")
        }

        fn visit_unit<E>(self) -> Result<bool, E> {
            Ok(false)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
            let mut is_up = false;
            while let Some(condition) = seq.next_element::<Condition>()? {
                is_up |= condition.kind == CONDITION
                    && condition.status == "False"
                    && condition.reason.as_deref() == Some(REASON);
            }
            Ok(is_up)
        }
    }
    deserializer.deserialize_any(IsUp)
}

impl kube::Resource for Node {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its resource version.
    pub fn revision(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }

    /// True when a flannel looks after it.
    pub fn is_managed(&self, names: &Annotations) -> bool {
        names.get(&self.annotations, names::MANAGED) == Some("true")
    }

    /// Its subnet in the families that the network has; an error says what is wrong with its podCIDRs.
    pub fn subnet(&self, config: &NetworkConfig) -> Result<Subnet, String> {
        let nets: Vec<IpNet> = self
            .pod_cidrs
            .iter()
            .map(|text| read(text))
            .collect::<Result<_, _>>()?;
        match nets.len() {
            0 => return Err("it has no podCIDR".to_owned()),
            1 | 2 => {}
            _ => return Err(format!("it has {} podCIDRs, more than two", nets.len())),
        }
        let family = |range: Option<SubnetRange>, name| {
            let Some(SubnetRange { network, .. }) = range else {
                return Ok(None);
            };
            let is_v4 = network.addr().is_ipv4();
            let net = nets.iter().find(|net| net.addr().is_ipv4() == is_v4);
            match net {
                None => Err(format!(
                    "it has no {name} podCIDR, and the network is {network}"
                )),
                Some(net) if !network.contains(net) => Err(format!(
                    "its podCIDR {net} is not part of the network {network}"
                )),
                Some(net) => Ok(Some(*net)),
            }
        };
        let v4 = family(config.v4, "IPv4")?;
        let v6 = family(config.v6, "IPv6")?;
        let mut subnet = Subnet { v4: None, v6: None };
        for net in v4.into_iter().chain(v6) {
            match net {
                IpNet::V4(net) => subnet.v4 = Some(net),
                IpNet::V6(net) => subnet.v6 = Some(net),
            }
        }
        Ok(subnet)
    }

    /// What it announces; an error names the annotation that cannot be read.
    pub fn attrs(&self, names: &Annotations) -> Result<LeaseAttrs, String> {
        let text = |last| names.get(&self.annotations, last);
        let data = |last| match text(last).filter(|text| *text != "null") {
            None => Ok(None),
            Some(text) => BackendData::read(text)
                .map(Some)
                .map_err(|error| format!("annotation {}: {error}", names.name(last))),
        };
        Ok(LeaseAttrs {
            public_ip: self.address(names, names::PUBLIC_IP)?,
            public_ipv6: self.address(names, names::PUBLIC_IPV6)?,
            backend_type: text(names::BACKEND_TYPE).unwrap_or_default().to_owned(),
            backend_data: data(names::BACKEND_DATA)?,
            backend_v6_data: data(names::BACKEND_V6_DATA)?,
        })
    }

    /// An annotation that holds an address; the unspecified one counts as none.
    pub fn address<A>(&self, names: &Annotations, last: &str) -> Result<Option<A>, String>
    where
        A: std::str::FromStr + Into<std::net::IpAddr> + Copy,
    {
        let Some(text) = names.get(&self.annotations, last) else {
            return Ok(None);
        };
        let address: A = text.trim().parse().map_err(|_| {
            let name = names.name(last);
            format!("annotation {name}: \"{text}\" is not an address of its family")
        })?;
        let ip: std::net::IpAddr = address.into();
        Ok(Some(address).filter(|_| !ip.is_unspecified()))
    }

    /// Its lease as its peers see it: `None` when no flannel looks after it, an error says why it cannot
    /// be used.
    pub fn lease(
        &self,
        names: &Annotations,
        config: &NetworkConfig,
    ) -> Option<Result<Lease, String>> {
        if !self.is_managed(names) {
            return None;
        }
        let lease = || {
            Ok(Lease {
                subnet: self.subnet(config)?,
                attrs: self.attrs(names)?,
            })
        };
        Some(lease())
    }
}

/// A network in CIDR form, host bits dropped; the whole address space is none.
fn read(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| format!("its podCIDR \"{text}\" is not a network in CIDR form"))?;
    if net.prefix_len() == 0 || net.prefix_len() == net.max_prefix_len() {
        return Err(format!("its podCIDR {net} has no room for a node's Pods"));
    }
    Ok(net.trunc())
}

#[cfg(test)]
mod tests;
