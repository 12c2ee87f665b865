//! Services, endpoints and slices, ingresses and their classes.

use serde_json::Value;

use super::super::object::{at, list, number, text};
use super::cells::{NONE, UNSET};

/// How many of a long list are printed.
const SHOWN: usize = 3;

/// `a,b,c + 2 more...`
fn shortened(items: impl IntoIterator<Item = String>) -> String {
    let mut items = items.into_iter();
    let mut out = items.by_ref().take(SHOWN).collect::<Vec<_>>().join(",");
    let more = items.count();
    if more > 0 {
        out.push_str(&format!(" + {more} more..."));
    }
    out
}

fn or(text: String, otherwise: &str) -> String {
    if text.is_empty() {
        otherwise.to_owned()
    } else {
        text
    }
}

/// The strings of a list.
fn strings<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a str> {
    list(value, path).iter().filter_map(Value::as_str)
}

/// The first cluster address; `None` is that of a headless Service.
pub fn cluster_ip(service: &Value) -> String {
    let first = strings(service, &["spec", "clusterIPs"]).next();
    or(
        first
            .unwrap_or_else(|| text(service, &["spec", "clusterIP"]))
            .to_owned(),
        NONE,
    )
}

/// How a Service is reached from outside.
pub fn external_ip(service: &Value) -> String {
    let given: Vec<_> = strings(service, &["spec", "externalIPs"]).collect();
    match text(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" => or(given.join(","), NONE),
        "LoadBalancer" => {
            let mut all = ingress_points(service);
            all.extend(given);
            or(all.join(","), "<pending>")
        }
        "ExternalName" => text(service, &["spec", "externalName"]).to_owned(),
        _ => super::cells::UNKNOWN.to_owned(),
    }
}

/// The addresses or names that a load balancer gave, sorted.
fn ingress_points(object: &Value) -> Vec<&str> {
    let points = list(object, &["status", "loadBalancer", "ingress"]);
    let mut points: Vec<_> = points
        .iter()
        .map(|point| match text(point, &["ip"]) {
            "" => text(point, &["hostname"]),
            address => address,
        })
        .filter(|point| !point.is_empty())
        .collect();
    points.sort_unstable();
    points.dedup();
    points
}

/// `80:31912/TCP,53/UDP`
pub fn service_ports(service: &Value) -> String {
    let ports: Vec<_> = list(service, &["spec", "ports"])
        .iter()
        .map(|port| {
            let number = |key| number(port, &[key]).unwrap_or(0);
            let protocol = text(port, &["protocol"]);
            match number("nodePort") {
                1.. => format!("{}:{}/{protocol}", number("port"), number("nodePort")),
                _ => format!("{}/{protocol}", number("port")),
            }
        })
        .collect();
    or(ports.join(","), NONE)
}

/// `10.1.2.3:80,[fd00::1]:80`
pub fn endpoints(endpoints: &Value) -> String {
    let subsets = list(endpoints, &["subsets"]);
    if subsets.is_empty() {
        return NONE.to_owned();
    }
    shortened(subsets.iter().flat_map(|subset| {
        let addresses = || {
            list(subset, &["addresses"])
                .iter()
                .map(|address| text(address, &["ip"]))
        };
        let ports = list(subset, &["ports"]);
        // Addresses alone, if there are no ports: a headless Service.
        let bare = addresses().filter(move |_| ports.is_empty());
        let whole = ports.iter().flat_map(move |port| {
            let port = number(port, &["port"]).unwrap_or(0);
            addresses().map(move |address| match address.contains(':') {
                true => format!("[{address}]:{port}"),
                false => format!("{address}:{port}"),
            })
        });
        bare.map(str::to_owned).chain(whole)
    }))
}

/// Numbers, or names where the number is free, `*` where there is neither.
pub fn slice_ports(slice: &Value) -> String {
    let ports = list(slice, &["ports"]).iter();
    let names = ports.map(|port| {
        let name = || at(port, &["name"]).and_then(Value::as_str).unwrap_or("*");
        number(port, &["port"]).map_or_else(|| name().to_owned(), |number| number.to_string())
    });
    or(shortened(names), UNSET)
}

/// Addresses of all endpoints, ready or not.
pub fn slice_endpoints(slice: &Value) -> String {
    let addresses = list(slice, &["endpoints"])
        .iter()
        .flat_map(|endpoint| strings(endpoint, &["addresses"]));
    or(shortened(addresses.map(str::to_owned)), UNSET)
}

/// Host names of an Ingress's rules; `*` is any.
pub fn hosts(ingress: &Value) -> String {
    let rules = list(ingress, &["spec", "rules"]);
    let named = rules.iter().map(|rule| text(rule, &["host"]));
    or(
        shortened(named.filter(|host| !host.is_empty()).map(str::to_owned)),
        "*",
    )
}

/// Where an Ingress is reached.
pub fn ingress_addresses(ingress: &Value) -> String {
    ingress_points(ingress).join(",")
}

/// `80`, and 443 if it has TLS.
pub fn ingress_ports(ingress: &Value) -> String {
    match list(ingress, &["spec", "tls"]) {
        [] => "80",
        _ => "80, 443",
    }
    .to_owned()
}

/// `Kind.group/name` of an IngressClass's parameters.
pub fn parameters(class: &Value) -> String {
    let Some(parameters) =
        at(class, &["spec", "parameters"]).filter(|parameters| parameters.is_object())
    else {
        return NONE.to_owned();
    };
    let mut out = text(parameters, &["kind"]).to_owned();
    if let Some(group) = at(parameters, &["apiGroup"]).and_then(Value::as_str) {
        out = format!("{out}.{group}");
    }
    format!("{out}/{}", text(parameters, &["name"]))
}
