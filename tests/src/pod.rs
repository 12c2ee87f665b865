//! A Pod: a namespace that a conflist has attached to its node's network.

use crate::conflist::{Attachment, Conflist, Runtime};
use crate::namespace::Namespace;
use crate::run::Run;
use anyhow::{Context, Result};
use ipnet::IpNet;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// A Pod on a node.
#[derive(Debug)]
pub struct Pod {
    /// Its name, unique in the run.
    pub name: String,
    /// Its network namespace.
    pub namespace: Namespace,
    /// What the runtime remembers of it.
    pub attachment: Attachment,
    /// Its addresses, in the result's order.
    pub addresses: Vec<IpNet>,
}

impl Pod {
    /// Makes the namespace, brings `lo` up and attaches it.
    pub fn add(
        run: &Run,
        runtime: &Runtime,
        list: &Conflist,
        name: &str,
        capabilities: Map<String, Value>,
    ) -> Result<Self> {
        let namespace = run.namespace(name)?;
        let container_id = format!("{}{name}", run.prefix());
        let mut attachment = Attachment::new(&container_id, &namespace.path());
        attachment.capabilities = capabilities;
        let result = runtime
            .add(list, &mut attachment)
            .with_context(|| format!("attach Pod {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            namespace,
            attachment,
            addresses: addresses(&result)?,
        })
    }

    /// Detaches the Pod; its namespace stays until the run's end.
    pub fn detach(&self, runtime: &Runtime, list: &Conflist) -> Result<()> {
        runtime
            .del(list, &self.attachment)
            .with_context(|| format!("detach Pod {}", self.name))
    }

    /// Its IPv4 or IPv6 address.
    pub fn ip(&self, family: Family) -> Result<IpAddr> {
        let mut all = self.addresses.iter().map(IpNet::addr);
        all.find(|ip| family.has(*ip))
            .with_context(|| format!("Pod {} has no {family:?} address", self.name))
    }
}

/// The addresses of a CNI result.
pub fn addresses(result: &Value) -> Result<Vec<IpNet>> {
    let ips = result["ips"].as_array().map_or(&[][..], Vec::as_slice);
    ips.iter()
        .map(|ip| {
            let text = ip["address"].as_str().context("an ip without address")?;
            text.parse().with_context(|| format!("address {text:?}"))
        })
        .collect()
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether `ip` is of this family.
    pub fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }

    /// Bytes of IP and ICMP header before a ping's payload.
    pub fn ping_overhead(self) -> u32 {
        match self {
            Self::V4 => 28,
            Self::V6 => 48,
        }
    }
}
