//! What our own Node lacks: a pure plan of the one patch that makes it so.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::annotations::{PUBLIC_IP_OVERWRITE, PUBLIC_IPV6_OVERWRITE};
use super::node::{CONDITION, REASON};
use super::{Annotations, Node};
use crate::lease::LeaseAttrs;

/// What flannel says in the condition.
const MESSAGE: &str = "Flannel is running on this node";

/// Annotations that are not as they should be: the value, `None` to remove it. `attrs` is what the node
/// uses; the operator's overwriting annotations replace the address that is published, and nothing else.
pub fn annotations(
    names: &Annotations,
    node: &Node,
    attrs: &LeaseAttrs,
) -> Result<BTreeMap<String, Option<String>>, String> {
    let v4: Option<Ipv4Addr> = node.address(names, PUBLIC_IP_OVERWRITE)?;
    let v6: Option<Ipv6Addr> = node.address(names, PUBLIC_IPV6_OVERWRITE)?;
    let mut published = attrs.clone();
    // A family that is off is not published, whatever the annotation says.
    published.public_ip = attrs.public_ip.map(|ip| v4.unwrap_or(ip));
    published.public_ipv6 = attrs.public_ipv6.map(|ip| v6.unwrap_or(ip));
    let mut wanted = names.wanted(&published);
    wanted.retain(|name, value| node.annotations.get(name) != value.as_ref());
    Ok(wanted)
}

/// The strategic merge patch of `nodes/status` that sets these annotations and, with a time in RFC 3339,
/// the condition.
pub fn patch(annotations: &BTreeMap<String, Option<String>>, condition_at: Option<&str>) -> Value {
    let mut patch = Map::new();
    if !annotations.is_empty() {
        patch.insert("metadata".to_owned(), json!({ "annotations": annotations }));
    }
    if let Some(now) = condition_at {
        let condition = json!({
            "type": CONDITION,
            "status": "False",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "reason": REASON,
            "message": MESSAGE,
        });
        patch.insert("status".to_owned(), json!({ "conditions": [condition] }));
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests;
