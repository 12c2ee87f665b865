//! The keys that every plugin's configuration may have, as written.

use crate::cni::Dns;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The keys of the spec; each plugin reads its own into a struct of its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetConf {
    /// Version of the spec that the text follows.
    pub cni_version: String,
    /// The network's name.
    pub name: String,
    /// The plugin's name.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the plugin may be given in `runtimeConfig`.
    pub capabilities: BTreeMap<String, bool>,
    /// The IPAM plugin's part; only its name is of interest to others.
    pub ipam: Ipam,
    /// DNS settings to pass on.
    pub dns: Dns,
    /// The result of the plugin before this one in a chain.
    pub prev_result: Option<Value>,
}

/// The part of `ipam` that plugins other than IPAM ones read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Ipam {
    /// The IPAM plugin's name; empty when there is none.
    #[serde(rename = "type")]
    pub kind: String,
}

/// One container's interface on a network, as GC lists those that are to stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(default)]
pub struct Attachment {
    /// CNI_CONTAINERID of its ADD.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// CNI_IFNAME of its ADD.
    pub ifname: String,
}
