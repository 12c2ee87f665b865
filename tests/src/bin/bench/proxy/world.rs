//! The Services and endpoints that are measured, and the manifests that say them.
//!
//! Service `number` (0 …) is `default/s<number>`: cluster IP 10.96.0.1 + number, TCP port 80, with
//! endpoints 10.128.0.1 + number × endpoints … on port 8080. In the middle of them stand two more,
//! which packets are sent to: [`PROBE_TCP`], whose endpoints answer, and [`PROBE_UDP`], whose
//! endpoints lead to a host that drops in silence.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

/// Pods, for the local detector; the host's own address is among them, so that no probe is
/// masqueraded.
pub const PODS: &str = "10.128.0.0/9";
/// The front of the Service whose endpoints are [`LISTENERS`].
pub const PROBE_TCP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 111, 0, 1), 80);
/// The front of the Service whose endpoints drop.
pub const PROBE_UDP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 111, 0, 2), 53);
/// Addresses of the peer, port [`ENDPOINT_PORT`].
pub const LISTENERS: [Ipv4Addr; 5] = numbered(Ipv4Addr::new(10, 255, 0, 0));
const SINKS: [Ipv4Addr; 5] = numbered(Ipv4Addr::new(10, 254, 0, 0));
/// Every endpoint's port.
pub const ENDPOINT_PORT: u16 = 8080;
/// Endpoints of each Service.
pub const ENDPOINTS: u32 = 5;

/// Services in one file: small enough that reading it does not decide how much memory is used.
const IN_A_FILE: usize = 50;

const fn numbered(base: Ipv4Addr) -> [Ipv4Addr; 5] {
    let base = base.to_bits();
    let mut all = [Ipv4Addr::UNSPECIFIED; 5];
    let mut index = 0;
    while index < all.len() {
        all[index] = Ipv4Addr::from_bits(base + 1 + index as u32);
        index += 1;
    }
    all
}

/// A Service with its endpoints.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub protocol: &'static str,
    pub front: SocketAddrV4,
    pub endpoints: Vec<SocketAddrV4>,
}

/// Service `number`.
pub fn service(number: u32) -> Service {
    let base = Ipv4Addr::new(10, 128, 0, 1).to_bits() + number * ENDPOINTS;
    Service {
        name: format!("s{number}"),
        protocol: "tcp",
        front: SocketAddrV4::new(
            Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + number),
            80,
        ),
        endpoints: (base..base + ENDPOINTS)
            .map(|ip| SocketAddrV4::new(Ipv4Addr::from_bits(ip), ENDPOINT_PORT))
            .collect(),
    }
}

fn probe(name: &str, protocol: &'static str, front: SocketAddrV4, to: [Ipv4Addr; 5]) -> Service {
    Service {
        name: name.to_owned(),
        protocol,
        front,
        endpoints: to.map(|ip| SocketAddrV4::new(ip, ENDPOINT_PORT)).to_vec(),
    }
}

/// So many Services; the two probes stand in the middle of them and are counted.
pub fn services(count: u32) -> Vec<Service> {
    let mut all: Vec<_> = (0..count.saturating_sub(2)).map(service).collect();
    let middle = all.len() / 2;
    all.insert(middle, probe("probe-tcp", "tcp", PROBE_TCP, LISTENERS));
    all.insert(middle, probe("probe-udp", "udp", PROBE_UDP, SINKS));
    all
}

impl Service {
    /// The Service and its slice.
    pub fn objects(&self) -> [Value; 2] {
        [self.object(), self.slice()]
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": self.name, "namespace": "default" },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": self.front.ip(), "clusterIPs": [self.front.ip()],
                "ports": [{
                    "name": "p", "protocol": self.protocol.to_uppercase(), "port": self.front.port(),
                }],
            },
        })
    }

    /// The slice alone.
    pub fn slice(&self) -> Value {
        let endpoints = self.endpoints.iter().map(|endpoint| {
            json!({ "addresses": [endpoint.ip()], "conditions": { "ready": true }, "nodeName": "n2" })
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-1", self.name), "namespace": "default",
                "labels": { "kubernetes.io/service-name": self.name },
            },
            "addressType": "IPv4",
            "ports": [{
                "name": "p", "protocol": self.protocol.to_uppercase(), "port": ENDPOINT_PORT,
            }],
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }
}

/// Writes Services with their slices into a new folder, many to a file. The slices of those for
/// which `apart` holds go to files of their own, `<name>.json`.
pub fn write(folder: &Path, services: &[Service], apart: impl Fn(&Service) -> bool) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    for (number, some) in services.chunks(IN_A_FILE).enumerate() {
        let mut items = Vec::new();
        for service in some {
            items.push(service.object());
            if apart(service) {
                place(folder, &service.name, &service.slice())?;
            } else {
                items.push(service.slice());
            }
        }
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        place(folder, &format!("services-{number:04}"), &list)?;
    }
    Ok(())
}

/// Writes `<name>.json` and renames it into place.
pub fn place(folder: &Path, name: &str, object: &Value) -> Result<()> {
    let fresh = folder.join(format!(".{name}.new"));
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&fresh, object.to_string())
        .and_then(|()| std::fs::rename(&fresh, &path))
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_address_is_given_twice() {
        let all = services(20_000);
        assert_eq!(all.len(), 20_000);
        let fronts: BTreeSet<_> = all.iter().map(|service| service.front).collect();
        assert_eq!(fronts.len(), all.len());
        let endpoints: BTreeSet<_> = all.iter().flat_map(|service| &service.endpoints).collect();
        assert_eq!(endpoints.len(), all.len() * ENDPOINTS as usize);
        assert_eq!(all[10_000].name, "probe-tcp");
    }
}
