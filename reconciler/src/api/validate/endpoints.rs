//! Endpoints and EndpointSlices.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::json;

use super::at::At;
use super::{container, names};
use crate::api::status::Cause;

/// An Endpoints object.
pub fn endpoints(root: &At<'_>, causes: &mut Vec<Cause>) {
    for subset in root.field("subsets").items() {
        let (ready, other) = (subset.field("addresses"), subset.field("notReadyAddresses"));
        if ready.count() + other.count() == 0 {
            subset.required(causes, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items().chain(other.items()) {
            let ip = address.field("ip");
            let wrong = names::address(ip.text());
            if wrong.is_empty() {
                not_special(&ip, causes);
            }
            ip.invalid_text(causes, wrong);
            let host = address.field("hostname");
            if !host.is_empty() {
                host.invalid_text(causes, names::label(host.text()));
            }
            let node = address.field("nodeName");
            if node.is_set() {
                node.invalid_text(causes, names::subdomain(node.text()));
            }
        }
        let ports = subset.field("ports");
        for port in ports.items() {
            let name = port.field("name");
            if !name.is_empty() {
                name.invalid_text(causes, names::label(name.text()));
            } else if ports.count() > 1 {
                name.required(causes, "");
            }
            port.field("port").port(causes);
            port.field("protocol").one_of(causes, container::PROTOCOLS);
            let protocol = port.field("appProtocol");
            if protocol.is_set() {
                protocol.invalid_text(causes, names::qualified(protocol.text()));
            }
        }
    }
}

/// An address that other machines can reach: of no machine itself, and of no group.
pub fn not_special(address: &At<'_>, causes: &mut Vec<Cause>) {
    let Ok(ip) = address.text().parse::<IpAddr>() else {
        return;
    };
    let (link, group) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(ip) => (
            ip.is_unicast_link_local(),
            ip.segments()
                .first()
                .is_some_and(|first| first & 0xff0f == 0xff02),
        ),
    };
    if ip.is_unspecified() {
        address.invalid(causes, &format!("may not be unspecified ({ip})"));
    }
    if ip.is_loopback() {
        address.invalid(
            causes,
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
    }
    if link {
        address.invalid(
            causes,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
    if group {
        address.invalid(
            causes,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}

/// An EndpointSlice.
pub fn slice(root: &At<'_>, causes: &mut Vec<Cause>) {
    let kind = root.field("addressType");
    kind.one_of(causes, &["FQDN", "IPv4", "IPv6"]);
    let endpoints = root.field("endpoints");
    if too_many(&endpoints, 1000, causes) {
        return;
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.field("addresses");
        if addresses.count() == 0 {
            addresses.required(causes, "must contain at least 1 address");
        }
        too_many(&addresses, 100, causes);
        for address in addresses.items() {
            self::address(kind.text(), &address, causes);
        }
        let topology = endpoint.field("deprecatedTopology");
        super::metadata::labels(&topology, causes);
        let host = endpoint.field("hostname");
        if host.is_set() {
            host.invalid_text(causes, names::label(host.text()));
        }
        let node = endpoint.field("nodeName");
        if node.is_set() {
            node.invalid_text(causes, names::subdomain(node.text()));
        }
    }
    let ports = root.field("ports");
    if too_many(&ports, 20_000, causes) {
        return;
    }
    let mut seen = HashSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() {
            name.invalid_text(causes, names::label(name.text()));
        }
        if !seen.insert(name.text().to_owned()) {
            name.duplicate(causes);
        }
        port.field("protocol").one_of(causes, container::PROTOCOLS);
        port.field("port").between(causes, 1, 65535);
        let protocol = port.field("appProtocol");
        if protocol.is_set() {
            protocol.invalid_text(causes, names::qualified(protocol.text()));
        }
    }
}

fn address(kind: &str, address: &At<'_>, causes: &mut Vec<Cause>) {
    let parsed = address.text().parse::<IpAddr>();
    let wrong = match kind {
        "IPv4" if !matches!(parsed, Ok(IpAddr::V4(_))) => "must be a valid IPv4 address",
        "IPv6" if !matches!(parsed, Ok(IpAddr::V6(_))) => "must be a valid IPv6 address",
        "IPv4" | "IPv6" => {
            not_special(address, causes);
            return;
        }
        "FQDN" => {
            let text = address.text().strip_suffix('.').unwrap_or(address.text());
            let wrong = names::subdomain(text);
            if wrong.is_empty() && !text.contains('.') {
                "should be a domain with at least two segments separated by dots"
            } else {
                address.invalid_text(causes, wrong);
                return;
            }
        }
        _ => return,
    };
    address.invalid_text(causes, vec![wrong.to_owned()]);
}

fn too_many(list: &At<'_>, most: usize, causes: &mut Vec<Cause>) -> bool {
    let wrong = list.count() > most;
    if wrong {
        causes.push(Cause {
            reason: "FieldValueTooMany",
            message: format!("Too many: {}: must have at most {most} items", list.count()),
            field: list.path(),
        });
    }
    wrong
}

/// What may not change in an EndpointSlice.
pub fn update(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let kind = new.field("addressType");
    if kind.text() != old.field("addressType").text() {
        let value = json!(kind.text());
        causes.push(Cause::invalid(kind.path(), &value, "field is immutable"));
    }
}
