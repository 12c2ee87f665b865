//! Parts of a configuration that several plugins read, as written.

use serde::{Deserialize, Serialize};

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
