//! NetworkPolicies, Ingresses, and IngressClasses.

use ipnet::IpNet;
use serde_json::json;

use super::at::At;
use super::{metadata, names};
use crate::api::status::Cause;

/// A NetworkPolicy.
pub fn policy(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    metadata::selector(&spec.field("podSelector"), causes);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.field(direction).items() {
            for port in rule.field("ports").items() {
                self::port(&port, causes);
            }
            for peer in rule.field(peers).items() {
                self::peer(&peer, causes);
            }
        }
    }
    let types = spec.field("policyTypes");
    if types.count() > 2 {
        types.invalid(causes, "may not specify more than two policyTypes");
        return;
    }
    for kind in types.items() {
        kind.one_of_if_set(causes, &["Ingress", "Egress"]);
    }
}

fn port(port: &At<'_>, causes: &mut Vec<Cause>) {
    port.field("protocol")
        .one_of_if_set(causes, &["TCP", "UDP", "SCTP"]);
    let (first, last) = (port.field("port"), port.field("endPort"));
    if !first.is_set() {
        if last.is_set() {
            last.invalid(causes, "may not be specified when `port` is not specified");
        }
        return;
    }
    if first.value.is_string() {
        if last.is_set() {
            last.invalid(causes, "may not be specified when `port` is non-numeric");
        }
        first.port_or_name(causes);
        return;
    }
    first.port(causes);
    if let (Some(start), Some(end)) = (first.number(), last.number())
        && end < start
    {
        last.invalid(causes, "must be greater than or equal to `port`");
    }
    last.between(causes, 1, 65535);
}

fn peer(peer: &At<'_>, causes: &mut Vec<Cause>) {
    let block = peer.field("ipBlock");
    let mut selectors = 0;
    for key in ["podSelector", "namespaceSelector"] {
        let selector = peer.field(key);
        selectors += usize::from(selector.is_set());
        metadata::selector(&selector, causes);
    }
    if block.is_set() {
        self::block(&block, causes);
        if selectors > 0 {
            peer.forbidden(causes, "may not specify both ipBlock and another peer");
        }
    } else if selectors == 0 {
        peer.required(causes, "must specify a peer");
    }
}

fn block(block: &At<'_>, causes: &mut Vec<Cause>) {
    let network = block.field("cidr");
    if network.is_empty() {
        network.required(causes, "");
        return;
    }
    network.invalid_text(causes, names::network(network.text()));
    let Ok(whole) = network.text().parse::<IpNet>() else {
        return;
    };
    for except in block.field("except").items() {
        match except.text().parse::<IpNet>() {
            Ok(part) if !whole.contains(&part) || part.prefix_len() <= whole.prefix_len() => {
                except.invalid(causes, "must be a strict subset of `cidr`");
            }
            Ok(_) => {}
            Err(_) => except.invalid_text(causes, names::network(except.text())),
        }
    }
}

/// An Ingress.
pub fn ingress(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    let (rules, default) = (spec.field("rules"), spec.field("defaultBackend"));
    if rules.count() == 0 && !default.is_set() {
        causes.push(Cause::invalid(
            spec.path(),
            rules.value,
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if default.is_set() {
        backend(&default, causes);
    }
    for rule in rules.items() {
        let host = rule.field("host");
        if host.text().parse::<std::net::IpAddr>().is_ok() {
            host.invalid(causes, "must be a DNS name, not an IP address");
        } else if !host.is_empty() {
            host.invalid_text(causes, self::host(host.text()));
        }
        let http = rule.field("http");
        let paths = http.field("paths");
        if http.is_set() && paths.count() == 0 {
            paths.required(causes, "");
        }
        for path in paths.items() {
            self::path(&path, causes);
        }
    }
    for tls in spec.field("tls").items() {
        for host in tls.field("hosts").items() {
            host.invalid_text(causes, self::host(host.text()));
        }
        let secret = tls.field("secretName");
        if !secret.is_empty() {
            secret.invalid_text(causes, names::subdomain(secret.text()));
        }
    }
    let class = spec.field("ingressClassName");
    if class.is_set() {
        class.invalid_text(causes, names::subdomain(class.text()));
    }
}

fn host(host: &str) -> Vec<String> {
    if host.contains('*') {
        names::wildcard(host)
    } else {
        names::subdomain(host)
    }
}

fn path(at: &At<'_>, causes: &mut Vec<Cause>) {
    let (path, kind) = (at.field("path"), at.field("pathType"));
    if !kind.is_set() {
        kind.required(causes, "pathType must be specified");
        return;
    }
    match kind.text() {
        "Exact" | "Prefix" => {
            if !path.text().starts_with('/') {
                path.invalid_text(causes, vec!["must be an absolute path".to_owned()]);
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if path.text().contains(part) {
                    path.invalid(causes, &format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if path.text().ends_with(end) {
                    path.invalid(causes, &format!("cannot end with '{end}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !path.text().starts_with('/') {
                path.invalid(causes, "must be an absolute path");
            }
        }
        _ => kind.one_of_if_set(causes, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(&at.field("backend"), causes);
}

fn backend(backend: &At<'_>, causes: &mut Vec<Cause>) {
    let (service, resource) = (backend.field("service"), backend.field("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => causes.push(Cause::invalid(
            backend.path(),
            &json!(""),
            "cannot set both resource and service backends",
        )),
        (false, false) => backend.required(causes, "must specify one of `service` or `resource`"),
        (false, true) => {
            for key in ["kind", "name"] {
                let field = resource.field(key);
                if field.is_empty() {
                    field.required(causes, "");
                }
            }
        }
        (true, false) => {
            let (name, port) = (service.field("name"), service.field("port"));
            if name.is_empty() {
                name.required(causes, "");
            } else {
                name.invalid_text(causes, names::label(name.text()));
            }
            let (number, named) = (port.field("number"), port.field("name"));
            match (number.number().unwrap_or(0) != 0, !named.is_empty()) {
                (true, true) => causes.push(Cause::invalid(
                    port.path(),
                    port.value,
                    "cannot set both port name & port number",
                )),
                (false, false) => {
                    port.required(causes, "port name or number is required");
                }
                (true, false) => number.port(causes),
                (false, true) => named.port_or_name(causes),
            }
        }
    }
}

/// An IngressClass.
pub fn class(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    let (controller, parameters) = (spec.field("controller"), spec.field("parameters"));
    if controller.is_empty() {
        controller.required(causes, "");
    } else if controller
        .text()
        .split_once('/')
        .is_none_or(|(host, path)| path.is_empty() || !names::subdomain(host).is_empty())
    {
        controller.invalid(
            causes,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        );
    }
    if parameters.is_set() {
        for key in ["kind", "name"] {
            let field = parameters.field(key);
            if field.is_empty() {
                field.required(causes, "");
            }
        }
        parameters
            .field("scope")
            .one_of_if_set(causes, &["Cluster", "Namespace"]);
    }
}
