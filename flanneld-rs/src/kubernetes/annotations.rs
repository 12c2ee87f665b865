//! The names of flannel's annotations and what it writes under them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::backend::vxlan;
use crate::lease::{BackendData, LeaseAttrs};

/// The marker of a Node that flannel looks after; its value is `true`.
pub const MANAGED: &str = "kube-subnet-manager";
/// The `BackendType`.
pub const BACKEND_TYPE: &str = "backend-type";
/// The `BackendData`, JSON; `null` for a backend without.
pub const BACKEND_DATA: &str = "backend-data";
/// The same for IPv6.
pub const BACKEND_V6_DATA: &str = "backend-v6-data";
/// The address that peers send to.
pub const PUBLIC_IP: &str = "public-ip";
/// The same for IPv6.
pub const PUBLIC_IPV6: &str = "public-ipv6";
/// The operator's `--public-ip` for this node.
pub const NODE_PUBLIC_IP: &str = "node-public-ip";
/// The operator's `--public-ipv6` for this node.
pub const NODE_PUBLIC_IPV6: &str = "node-public-ipv6";
/// The operator's word on what is published as `public-ip`, whatever the node itself uses.
pub const PUBLIC_IP_OVERWRITE: &str = "public-ip-overwrite";
/// The same for IPv6.
pub const PUBLIC_IPV6_OVERWRITE: &str = "public-ipv6-overwrite";

/// All of them: what is kept of a Node's annotations.
pub const ALL: [&str; 10] = [
    MANAGED,
    BACKEND_TYPE,
    BACKEND_DATA,
    BACKEND_V6_DATA,
    PUBLIC_IP,
    PUBLIC_IPV6,
    NODE_PUBLIC_IP,
    NODE_PUBLIC_IPV6,
    PUBLIC_IP_OVERWRITE,
    PUBLIC_IPV6_OVERWRITE,
];

/// The names under one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotations {
    /// As it stands before each name: ends in `/` or `-`.
    prefix: String,
}

impl Annotations {
    /// `a.b` stands for `a.b/NAME`, `a.b/x` for `a.b/x-NAME`. The text of an error is flannel's.
    pub fn with_prefix(prefix: &str) -> Result<Self, &'static str> {
        let (domain, stem) = match prefix.split_once('/') {
            Some((_, stem)) if stem.contains('/') => {
                return Err("prefix can contain at most single slash");
            }
            Some((domain, stem)) => (domain, stem),
            None => (prefix, ""),
        };
        let is_word = |word: &str| {
            let is_fine = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
            !word.is_empty() && word.bytes().all(is_fine)
        };
        let dotted = domain.contains('.') && domain.split('.').all(is_word);
        // A dash alone would leave nothing to tell the names by.
        let stem_is_fine = stem.is_empty() || is_word(stem) && stem != "-";
        if !dotted || !stem_is_fine {
            return Err("prefix must be in a format: fqdn/[0-9a-z-_]*");
        }
        let dash = if stem.is_empty() || stem.ends_with('-') {
            ""
        } else {
            "-"
        };
        Ok(Self {
            prefix: format!("{domain}/{stem}{dash}"),
        })
    }

    /// The whole name.
    pub fn name(&self, last: &str) -> String {
        format!("{}{last}", self.prefix)
    }

    /// The value of one of a Node's annotations; an empty one counts as absent, as it does in flannel.
    pub fn get<'a>(&self, all: &'a BTreeMap<String, String>, last: &str) -> Option<&'a str> {
        let value = all.get(&self.name(last)).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// What this node's annotations must be. `None`: absent, because what it said is true no more.
    ///
    /// The members are those that flannel writes: the pair of a family (data and address) if the node has
    /// an address of it, for vxlan only with data.
    pub fn wanted(&self, attrs: &LeaseAttrs) -> BTreeMap<String, Option<String>> {
        let families = [
            (
                BACKEND_DATA,
                &attrs.backend_data,
                PUBLIC_IP,
                attrs.public_ip.map(IpAddr::V4),
            ),
            (
                BACKEND_V6_DATA,
                &attrs.backend_v6_data,
                PUBLIC_IPV6,
                attrs.public_ipv6.map(IpAddr::V6),
            ),
        ];
        let mut wanted = BTreeMap::from([
            (self.name(MANAGED), Some("true".to_owned())),
            (self.name(BACKEND_TYPE), Some(attrs.backend_type.clone())),
        ]);
        for (data_name, data, address_name, address) in families {
            let without_data = attrs.backend_type == vxlan::NAME && data.is_none();
            let address = address.filter(|_| !without_data);
            let text = data.as_ref().map_or("null", BackendData::as_str);
            wanted.insert(self.name(data_name), address.map(|_| text.to_owned()));
            wanted.insert(
                self.name(address_name),
                address.map(|address| address.to_string()),
            );
        }
        wanted
    }
}

#[cfg(test)]
mod tests;
