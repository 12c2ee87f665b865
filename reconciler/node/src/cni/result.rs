//! What a result of ADD says of the Pod's own interface.

use std::net::IpAddr;

use serde_json::Value;

use super::Added;

/// Reads a result of any version: `ips` from 0.3.0 on, `ip4` and `ip6` before.
///
/// # Errors
/// It has no address that is one.
pub fn read(result: &Value, ifname: &str) -> Result<Added, String> {
    let interfaces: &[Value] = array(result, "interfaces");
    let mut ips = Vec::new();
    for ip in array(result, "ips") {
        let place = ip.get("interface").and_then(Value::as_u64);
        let interface = place
            .and_then(|place| usize::try_from(place).ok())
            .and_then(|place| interfaces.get(place));
        // An address of the node's side is not the Pod's.
        if interface.is_none_or(|interface| !text(interface, "sandbox").is_empty()) {
            ips.push(address(text(ip, "address"))?);
        }
    }
    for old in ["ip4", "ip6"] {
        if let Some(ip) = result.get(old) {
            ips.push(address(text(ip, "ip"))?);
        }
    }
    if ips.is_empty() {
        return Err(format!("the network gave no address: {result}"));
    }
    let mac = interfaces
        .iter()
        .find(|interface| {
            text(interface, "name") == ifname && !text(interface, "sandbox").is_empty()
        })
        .map(|interface| text(interface, "mac").to_owned())
        .filter(|mac| !mac.is_empty());
    Ok(Added {
        ips,
        mac,
        result: result.clone(),
    })
}

fn address(text: &str) -> Result<IpAddr, String> {
    let (address, _) = text.split_once('/').unwrap_or((text, ""));
    address
        .parse()
        .map_err(|_| format!("the network gave {text:?} as an address"))
}

fn array<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
