//! What a Service asks for: families, addresses and node ports, as far as they are known before anything is given out.
//!
//! Source: kube-apiserver 1.36's behaviour for single and dual stack
//! (<https://kubernetes.io/docs/concepts/services-networking/dual-stack/>).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::Ranges;
use crate::api::object::{at, list, number, text};
use crate::api::status::Cause;

/// What goes into `clusterIPs[n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// One that is free.
    Any,
    /// This one.
    This(IpAddr),
}

impl Address {
    /// The address, once there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Any => None,
            Self::This(ip) => Some(*ip),
        }
    }
}

/// What goes into a `nodePort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// None is needed.
    None,
    /// One that is free.
    Any,
    /// This one.
    This(u16),
}

/// All that a Service asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wish {
    /// `IPv4`, `IPv6`, in order; none for an ExternalName.
    pub families: Vec<&'static str>,
    /// None for an ExternalName.
    pub policy: Option<&'static str>,
    /// As many as families; none for a headless Service.
    pub addresses: Vec<Address>,
    /// One for each of `spec.ports`.
    pub ports: Vec<Port>,
    /// For `healthCheckNodePort`.
    pub health: Port,
}

/// The family's name.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The first usable address, and how many there are. IPv4's network and broadcast addresses are not given out.
pub fn hosts(network: IpNet) -> (IpAddr, u128) {
    let bits = u32::from(network.max_prefix_len() - network.prefix_len());
    let all = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
    let unusable = if network.addr().is_ipv4() { 2 } else { 1 };
    (
        nth(network.network(), 1),
        all.saturating_sub(unusable).max(1),
    )
}

/// So many addresses after another.
pub fn nth(first: IpAddr, offset: u128) -> IpAddr {
    match first {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).wrapping_add(offset as u32)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).wrapping_add(offset)).into(),
    }
}

/// Reads a Service, and for an update what it was.
pub fn read(service: &Value, old: Option<&Value>, ranges: &Ranges) -> Result<Wish, Vec<Cause>> {
    let kind = text(service, &["spec", "type"]);
    if kind == "ExternalName" {
        return Ok(Wish {
            families: Vec::new(),
            policy: None,
            addresses: Vec::new(),
            ports: vec![Port::None; list(service, &["spec", "ports"]).len()],
            health: Port::None,
        });
    }
    let asked = addresses(service, old);
    let headless = asked.first().is_some_and(|text| text == "None");
    let (families, policy) = families(service, old, &asked, headless, ranges)?;
    let addresses = if headless {
        Vec::new()
    } else {
        given(&asked, &families, ranges)?
    };
    let ports = ports(service, old, kind, ranges)?;
    let local = text(service, &["spec", "externalTrafficPolicy"]) == "Local";
    let health = if kind == "LoadBalancer" && local {
        let of = |value: &Value| {
            number(value, &["spec", "healthCheckNodePort"]).filter(|port| *port != 0)
        };
        let asked = of(service).or_else(|| of(old?));
        match asked.map(u16::try_from) {
            None => Port::Any,
            Some(Ok(port)) => in_range(port, "spec.healthCheckNodePort", ranges)?,
            Some(Err(_)) => Port::None,
        }
    } else {
        Port::None
    };
    Ok(Wish {
        families,
        policy: Some(policy),
        addresses,
        ports,
        health,
    })
}

/// `clusterIPs`, or `clusterIP`, or what the Service had.
fn addresses(service: &Value, old: Option<&Value>) -> Vec<String> {
    let of = |value: &Value| -> Vec<String> {
        let all: Vec<_> = list(value, &["spec", "clusterIPs"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let first = text(value, &["spec", "clusterIP"]);
        match (all.is_empty(), first) {
            (true, "") => Vec::new(),
            (true, first) => vec![first.to_owned()],
            (false, _) => all.into_iter().map(str::to_owned).collect(),
        }
    };
    let mut asked = of(service);
    asked.retain(|text| !text.is_empty());
    if asked.is_empty()
        && let Some(old) = old
        && text(old, &["spec", "type"]) != "ExternalName"
    {
        return of(old);
    }
    asked
}

fn families(
    service: &Value,
    old: Option<&Value>,
    asked: &[String],
    headless: bool,
    ranges: &Ranges,
) -> Result<(Vec<&'static str>, &'static str), Vec<Cause>> {
    let configured: Vec<_> = ranges
        .networks
        .iter()
        .map(|network| family(network.addr()))
        .collect();
    let primary = configured.first().copied().unwrap_or("IPv4");
    let other = if primary == "IPv4" { "IPv6" } else { "IPv4" };
    let selector = at(service, &["spec", "selector"]).and_then(Value::as_object);
    let free = headless && selector.is_none_or(|selector| selector.is_empty());
    let mut families: Vec<&'static str> = Vec::new();
    let listed = list(service, &["spec", "ipFamilies"]);
    let listed = if listed.is_empty() {
        old.map(|old| list(old, &["spec", "ipFamilies"]))
            .unwrap_or_default()
    } else {
        listed
    };
    for (index, name) in listed.iter().filter_map(Value::as_str).enumerate() {
        let known = if name == "IPv6" { "IPv6" } else { "IPv4" };
        if !free && !configured.contains(&known) {
            let field = format!("spec.ipFamilies[{index}]");
            return Err(vec![Cause::invalid(
                field,
                &json!(name),
                "not configured on this cluster",
            )]);
        }
        families.push(known);
    }
    if families.is_empty() && !headless {
        let of = |text: &String| text.parse().ok().map(family);
        families.extend(asked.iter().filter_map(of));
    }
    let stated = text(service, &["spec", "ipFamilyPolicy"]);
    let policy = match stated {
        "RequireDualStack" => "RequireDualStack",
        "PreferDualStack" => "PreferDualStack",
        "SingleStack" => "SingleStack",
        _ if free && families.is_empty() => "RequireDualStack",
        _ if families.len() > 1 || asked.len() > 1 => "RequireDualStack",
        _ => "SingleStack",
    };
    if policy == "RequireDualStack" && configured.len() < 2 && !free {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(vec![Cause::invalid(
            "spec.ipFamilyPolicy",
            &json!(policy),
            detail,
        )]);
    }
    if families.is_empty() {
        families.push(primary);
    }
    let both = free || configured.len() > 1;
    if policy != "SingleStack" && families.len() == 1 && both {
        families.push(if families[0] == primary {
            other
        } else {
            primary
        });
    }
    if policy == "SingleStack" {
        families.truncate(1);
    }
    Ok((families, policy))
}

/// The addresses that are asked for, checked, and `Any` for the rest.
fn given(
    asked: &[String],
    families: &[&'static str],
    ranges: &Ranges,
) -> Result<Vec<Address>, Vec<Cause>> {
    let mut addresses = Vec::new();
    for (index, wanted) in families.iter().enumerate() {
        let Some(text) = asked.get(index) else {
            addresses.push(Address::Any);
            continue;
        };
        let invalid = |detail: &str| {
            let field = format!("spec.clusterIPs[{index}]");
            Err(vec![Cause::invalid(field, &json!(text), detail)])
        };
        let Ok(ip) = text.parse::<IpAddr>() else {
            return invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        };
        if family(ip) != *wanted {
            return invalid(&format!(
                "expected an {wanted} value as indicated by `ipFamilies[{index}]`"
            ));
        }
        let network = ranges
            .networks
            .iter()
            .find(|network| family(network.addr()) == *wanted);
        let Some(network) = network.filter(|network| network.contains(&ip)) else {
            let range = network.map_or_else(|| "none".to_owned(), IpNet::to_string);
            let detail = format!(
                "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}"
            );
            return Err(vec![Cause::invalid(
                "spec.clusterIPs",
                &json!(asked),
                &detail,
            )]);
        };
        if ip == network.network() || (ip.is_ipv4() && ip == network.broadcast()) {
            let detail = format!(
                "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {network}"
            );
            return Err(vec![Cause::invalid(
                "spec.clusterIPs",
                &json!(asked),
                &detail,
            )]);
        }
        addresses.push(Address::This(ip));
    }
    Ok(addresses)
}

fn in_range(port: u16, field: &str, ranges: &Ranges) -> Result<Port, Vec<Cause>> {
    let (first, last) = ranges.node_ports;
    if (first..=last).contains(&port) {
        return Ok(Port::This(port));
    }
    let detail = format!(
        "provided port is not in the valid range. The range of valid ports is {first}-{last}"
    );
    Err(vec![Cause::invalid(field, &json!(port), &detail)])
}

fn ports(
    service: &Value,
    old: Option<&Value>,
    kind: &str,
    ranges: &Ranges,
) -> Result<Vec<Port>, Vec<Cause>> {
    let allocates =
        at(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false));
    let had = old
        .map(|old| list(old, &["spec", "ports"]))
        .unwrap_or_default();
    let same = |one: &Value, other: &Value| {
        one["port"] == other["port"] && one["protocol"] == other["protocol"]
    };
    let mut all = Vec::new();
    for (index, port) in list(service, &["spec", "ports"]).iter().enumerate() {
        let before = had.iter().find(|before| same(before, port));
        let of = |port: &Value| port["nodePort"].as_i64().filter(|number| *number != 0);
        let stated = of(port).or_else(|| of(before?));
        let wants = match kind {
            "NodePort" => true,
            "LoadBalancer" => allocates || stated.is_some(),
            _ => false,
        };
        all.push(match stated.map(u16::try_from) {
            _ if !wants => Port::None,
            Some(Ok(number)) => in_range(number, &format!("spec.ports[{index}].nodePort"), ranges)?,
            // Validation has a word for it.
            Some(Err(_)) => Port::None,
            None => Port::Any,
        });
    }
    Ok(all)
}

/// Writes what was given out into the Service.
pub fn write(
    service: &mut Value,
    families: &[&'static str],
    policy: Option<&'static str>,
    addresses: &[Address],
    ports: &[Port],
    health: Option<u16>,
) {
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(policy) = policy else {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(key);
        }
        return;
    };
    let ips: Vec<String> = addresses
        .iter()
        .filter_map(Address::ip)
        .map(|ip| ip.to_string())
        .collect();
    let ips = if ips.is_empty() {
        vec!["None".to_owned()]
    } else {
        ips
    };
    spec.insert("clusterIP".into(), json!(ips[0]));
    spec.insert("clusterIPs".into(), json!(ips));
    spec.insert("ipFamilies".into(), json!(families));
    spec.insert("ipFamilyPolicy".into(), json!(policy));
    if let Some(list) = spec.get_mut("ports").and_then(Value::as_array_mut) {
        for (port, given) in list.iter_mut().zip(ports) {
            if let (Port::This(number), Some(port)) = (given, port.as_object_mut()) {
                port.insert("nodePort".into(), json!(number));
            }
        }
    }
    match health {
        Some(number) => spec.insert("healthCheckNodePort".into(), json!(number)),
        None => spec.remove("healthCheckNodePort"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(networks: &[&str]) -> Ranges {
        Ranges {
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            node_ports: (30000, 32767),
        }
    }

    fn single() -> Ranges {
        ranges(&["10.96.0.0/16"])
    }

    fn dual() -> Ranges {
        ranges(&["10.96.0.0/16", "fd00:96::/112"])
    }

    fn refusal(spec: Value, ranges: &Ranges) -> String {
        let causes = read(&json!({"spec": spec}), None, ranges).unwrap_err();
        format!("{}: {}", causes[0].field, causes[0].message)
    }

    #[test]
    fn families_follow_the_policy_and_the_cluster() {
        for (spec, ranges, families, policy, addresses) in [
            (json!({}), single(), vec!["IPv4"], "SingleStack", 1),
            (json!({}), dual(), vec!["IPv4"], "SingleStack", 1),
            (
                json!({"ipFamilyPolicy": "PreferDualStack"}),
                single(),
                vec!["IPv4"],
                "PreferDualStack",
                1,
            ),
            (
                json!({"ipFamilyPolicy": "PreferDualStack"}),
                dual(),
                vec!["IPv4", "IPv6"],
                "PreferDualStack",
                2,
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                dual(),
                vec!["IPv6"],
                "SingleStack",
                1,
            ),
            (
                json!({"ipFamilies": ["IPv6", "IPv4"]}),
                dual(),
                vec!["IPv6", "IPv4"],
                "RequireDualStack",
                2,
            ),
            (
                json!({"clusterIP": "fd00:96::7"}),
                dual(),
                vec!["IPv6"],
                "SingleStack",
                1,
            ),
            (
                json!({"clusterIP": "None", "selector": {"a": "b"}}),
                single(),
                vec!["IPv4"],
                "SingleStack",
                0,
            ),
            (
                json!({"clusterIP": "None"}),
                single(),
                vec!["IPv4", "IPv6"],
                "RequireDualStack",
                0,
            ),
        ] {
            let wish = read(&json!({"spec": spec}), None, &ranges).unwrap();
            assert_eq!(
                (wish.families, wish.policy, wish.addresses.len()),
                (families, Some(policy), addresses),
                "{spec}"
            );
        }
    }

    #[test]
    fn what_cannot_be_given_is_refused_in_the_references_words() {
        assert_eq!(
            refusal(json!({"ipFamilyPolicy": "RequireDualStack"}), &single()),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
        );
        assert_eq!(
            refusal(json!({"ipFamilies": ["IPv6"]}), &single()),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
        );
        assert_eq!(
            refusal(
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
                &single()
            ),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
        assert!(
            refusal(json!({"clusterIP": "1.2.3.4"}), &single())
                .contains("is not in the valid range. The range of valid IPs is 10.96.0.0/16")
        );
        assert!(
            refusal(json!({"clusterIP": "10.96.0.0"}), &single())
                .contains("not in the valid range")
        );
    }

    #[test]
    fn an_update_keeps_what_the_service_had() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4"], "ipFamilies": ["IPv4"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let new = json!({"spec": {"type": "NodePort", "ports": [{"port": 81, "protocol": "TCP"}, {"port": 80, "protocol": "TCP"}]}});
        let wish = read(&new, Some(&old), &single()).unwrap();
        assert_eq!(
            wish.addresses,
            [Address::This("10.96.3.4".parse().unwrap())]
        );
        assert_eq!(wish.ports, [Port::Any, Port::This(30001)]);
    }

    #[test]
    fn networks_are_counted_right() {
        assert_eq!(
            hosts("10.96.0.0/30".parse().unwrap()),
            ("10.96.0.1".parse().unwrap(), 2)
        );
        assert_eq!(
            hosts("fd00::/120".parse().unwrap()),
            ("fd00::1".parse().unwrap(), 255)
        );
        assert_eq!(
            nth("10.96.0.255".parse().unwrap(), 1).to_string(),
            "10.96.1.0"
        );
    }
}
