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
    /// As many as families; none for a headless Service or an ExternalName.
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

/// What a Service has already: it stays, also where the ranges have been changed since.
#[derive(Debug, Default)]
pub struct Kept {
    ips: Vec<IpAddr>,
    ports: Vec<i64>,
}

impl Kept {
    /// Of the Service before an update.
    pub fn of(old: Option<&Value>) -> Self {
        let Some(old) = old else {
            return Self::default();
        };
        let ips = list(old, &["spec", "clusterIPs"]).iter();
        let ports = list(old, &["spec", "ports"]).iter();
        Self {
            ips: ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect(),
            ports: ports
                .filter_map(|port| port["nodePort"].as_i64())
                .chain(number(old, &["spec", "healthCheckNodePort"]))
                .collect(),
        }
    }
}

/// Reads a Service. Its families are decided, and what it had is in it ([`defaults`](crate::api::defaults)).
pub fn read(service: &Value, kept: &Kept, ranges: &Ranges) -> Result<Wish, Vec<Cause>> {
    let kind = text(service, &["spec", "type"]);
    let families: Vec<_> = list(service, &["spec", "ipFamilies"])
        .iter()
        .map(|name| if name == "IPv6" { "IPv6" } else { "IPv4" })
        .collect();
    let asked: Vec<_> = list(service, &["spec", "clusterIPs"])
        .iter()
        .filter_map(Value::as_str)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect();
    let none = kind == "ExternalName" || asked.first().is_some_and(|text| text == "None");
    let addresses = if none {
        Vec::new()
    } else {
        given(&asked, &families, kept, ranges)?
    };
    let ports = ports(service, kind, kept, ranges)?;
    let local = text(service, &["spec", "externalTrafficPolicy"]) == "Local";
    let health = if kind == "LoadBalancer" && local {
        let asked = number(service, &["spec", "healthCheckNodePort"]).filter(|port| *port != 0);
        match asked.map(u16::try_from) {
            None => Port::Any,
            Some(Ok(port)) => in_range(port, "spec.healthCheckNodePort", kept, ranges)?,
            // Validation has a word for it.
            Some(Err(_)) => Port::None,
        }
    } else {
        Port::None
    };
    Ok(Wish {
        families,
        addresses,
        ports,
        health,
    })
}

/// The addresses that are asked for, checked, and `Any` for the rest.
fn given(
    asked: &[String],
    families: &[&'static str],
    kept: &Kept,
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
        if kept.ips.contains(&ip) {
            addresses.push(Address::This(ip));
            continue;
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

fn in_range(port: u16, field: &str, kept: &Kept, ranges: &Ranges) -> Result<Port, Vec<Cause>> {
    let (first, last) = ranges.node_ports;
    if (first..=last).contains(&port) || kept.ports.contains(&port.into()) {
        return Ok(Port::This(port));
    }
    let detail = format!(
        "provided port is not in the valid range. The range of valid ports is {first}-{last}"
    );
    Err(vec![Cause::invalid(field, &json!(port), &detail)])
}

fn ports(
    service: &Value,
    kind: &str,
    kept: &Kept,
    ranges: &Ranges,
) -> Result<Vec<Port>, Vec<Cause>> {
    let allocates =
        at(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false));
    let mut all = Vec::new();
    for (index, port) in list(service, &["spec", "ports"]).iter().enumerate() {
        let stated = port["nodePort"].as_i64().filter(|number| *number != 0);
        let wants = match kind {
            "NodePort" => true,
            "LoadBalancer" => allocates || stated.is_some(),
            _ => false,
        };
        all.push(match stated.map(u16::try_from) {
            _ if !wants => Port::None,
            Some(Ok(number)) => in_range(
                number,
                &format!("spec.ports[{index}].nodePort"),
                kept,
                ranges,
            )?,
            // Validation has a word for it.
            Some(Err(_)) => Port::None,
            None => Port::Any,
        });
    }
    Ok(all)
}

/// Writes what was given out into the Service.
pub fn write(service: &mut Value, addresses: &[Address], ports: &[Port], health: Option<u16>) {
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let ips = addresses.iter().filter_map(Address::ip);
    let ips: Vec<String> = ips.map(|ip| ip.to_string()).collect();
    if let Some(first) = ips.first() {
        spec.insert("clusterIP".into(), json!(first));
        spec.insert("clusterIPs".into(), json!(ips));
    }
    if let Some(list) = spec.get_mut("ports").and_then(Value::as_array_mut) {
        for (port, given) in list.iter_mut().zip(ports) {
            if let (Port::This(number), Some(port)) = (given, port.as_object_mut()) {
                port.insert("nodePort".into(), json!(number));
            }
        }
    }
    if let Some(number) = health {
        spec.insert("healthCheckNodePort".into(), json!(number));
    }
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

    fn refusal(spec: Value) -> String {
        let causes = read(&json!({"spec": spec}), &Kept::default(), &single()).unwrap_err();
        format!("{}: {}", causes[0].field, causes[0].message)
    }

    #[test]
    fn what_is_stated_is_taken_and_the_rest_is_drawn() {
        let ranges = ranges(&["10.96.0.0/16", "fd00:96::/112"]);
        let service = json!({"spec": {"type": "NodePort", "ipFamilies": ["IPv4", "IPv6"], "clusterIPs": ["10.96.3.4"],
            "ports": [{"port": 81}, {"port": 80, "nodePort": 30001}]}});
        let wish = read(&service, &Kept::default(), &ranges).unwrap();
        assert_eq!(
            wish.addresses,
            [Address::This("10.96.3.4".parse().unwrap()), Address::Any]
        );
        assert_eq!(wish.ports, [Port::Any, Port::This(30001)]);
        let headless =
            json!({"spec": {"type": "ClusterIP", "ipFamilies": ["IPv4"], "clusterIPs": ["None"]}});
        assert_eq!(
            read(&headless, &Kept::default(), &ranges)
                .unwrap()
                .addresses,
            []
        );
    }

    #[test]
    fn what_cannot_be_given_is_refused_in_the_references_words() {
        assert_eq!(
            refusal(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]})),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
        let address = |ip: &str| {
            refusal(json!({"type": "ClusterIP", "ipFamilies": ["IPv4"], "clusterIPs": [ip]}))
        };
        assert!(
            address("1.2.3.4")
                .contains("is not in the valid range. The range of valid IPs is 10.96.0.0/16")
        );
        assert!(address("10.96.0.0").contains("not in the valid range"));
        assert!(address("fd00::1").contains("expected an IPv4 value"));
    }

    #[test]
    fn what_a_service_has_stays_though_the_ranges_are_others() {
        let service = json!({"spec": {"type": "NodePort", "ipFamilies": ["IPv4"], "clusterIPs": ["1.2.3.4"],
            "ports": [{"port": 80, "nodePort": 81}]}});
        let wish = read(&service, &Kept::of(Some(&service)), &single()).unwrap();
        assert_eq!(wish.addresses, [Address::This("1.2.3.4".parse().unwrap())]);
        assert_eq!(wish.ports, [Port::This(81)]);
        read(&service, &Kept::default(), &single()).unwrap_err();
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
