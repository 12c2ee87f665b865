//! Services, EndpointSlices and Nodes as values, and the folder that they are written to.

use super::site::{Backend, Pod};
use crate::pod::Family;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A port by name and protocol, as Services and slices write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// What joins a Service's port to an endpoint's.
    pub name: &'static str,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// Its number.
    pub number: u16,
}

impl Port {
    /// A TCP port.
    pub const fn tcp(name: &'static str, number: u16) -> Self {
        Self {
            name,
            protocol: "TCP",
            number,
        }
    }

    /// A UDP port.
    pub const fn udp(name: &'static str, number: u16) -> Self {
        Self {
            name,
            protocol: "UDP",
            number,
        }
    }
}

/// A Service of the namespace `default`.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    value: Value,
}

impl Service {
    /// Of type ClusterIP with these addresses, the first being `clusterIP`.
    pub fn new(name: &str, cluster_ips: &[IpAddr]) -> Self {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name, "namespace": "default" },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": cluster_ips.first(),
                "clusterIPs": cluster_ips,
                "ports": [],
            },
        });
        Self {
            name: name.to_owned(),
            value,
        }
    }

    /// The Service of most tests: `http` and `dns`, both port 80, TCP and UDP.
    pub fn web(name: &str, cluster_ips: &[IpAddr]) -> Self {
        Self::new(name, cluster_ips)
            .port(Port::tcp("http", 80))
            .port(Port::udp("dns", 80))
    }

    /// With a port.
    pub fn port(self, port: Port) -> Self {
        self.add_port(json!({
            "name": port.name, "protocol": port.protocol, "port": port.number,
        }))
    }

    /// With a port that is also a port of the nodes.
    pub fn node_port(mut self, port: Port, node_port: u16) -> Self {
        if self.value["spec"]["type"] == "ClusterIP" {
            self = self.set("type", "NodePort");
        }
        self.add_port(json!({
            "name": port.name, "protocol": port.protocol, "port": port.number,
            "nodePort": node_port,
        }))
    }

    fn add_port(mut self, port: Value) -> Self {
        if let Some(ports) = self.value["spec"]["ports"].as_array_mut() {
            ports.push(port);
        }
        self
    }

    /// With any field of `spec`.
    pub fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.value["spec"][field] = value.into();
        self
    }

    /// With `externalIPs`.
    pub fn external_ips(self, ips: &[IpAddr]) -> Self {
        self.set("externalIPs", json!(ips))
    }

    /// Of type LoadBalancer with these addresses.
    pub fn load_balancer(mut self, ips: &[IpAddr]) -> Self {
        let ingress: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        self.value["status"] = json!({ "loadBalancer": { "ingress": ingress } });
        self.set("type", "LoadBalancer")
    }

    /// With `internalTrafficPolicy: Local`.
    pub fn internal_local(self) -> Self {
        self.set("internalTrafficPolicy", "Local")
    }

    /// With `externalTrafficPolicy: Local`.
    pub fn external_local(self) -> Self {
        self.set("externalTrafficPolicy", "Local")
    }

    /// With `sessionAffinity: ClientIP` for so many seconds.
    pub fn affinity(self, seconds: u32) -> Self {
        self.set("sessionAffinity", "ClientIP").set(
            "sessionAffinityConfig",
            json!({ "clientIP": { "timeoutSeconds": seconds } }),
        )
    }

    /// With a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.value["metadata"]["labels"][key] = value.into();
        self
    }

    /// Created at this time (`2026-01-01T00:00:00Z`).
    pub fn created(mut self, time: &str) -> Self {
        self.value["metadata"]["creationTimestamp"] = time.into();
        self
    }

    /// The object.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Gets new connections.
    pub ready: bool,
    /// Answers.
    pub serving: bool,
    /// Is on its way out.
    pub terminating: bool,
}

impl Conditions {
    /// An endpoint as it should be.
    pub const READY: Self = Self {
        ready: true,
        serving: true,
        terminating: false,
    };
    /// On its way out, still answering.
    pub const TERMINATING: Self = Self {
        ready: false,
        serving: true,
        terminating: true,
    };
    /// Not answering yet.
    pub const UNREADY: Self = Self {
        ready: false,
        serving: false,
        terminating: false,
    };
}

/// The endpoints of a Service: one EndpointSlice for each family that they have addresses of.
#[derive(Clone, Debug)]
pub struct Endpoints {
    service: String,
    ports: Vec<Port>,
    endpoints: Vec<(Vec<IpAddr>, String, Conditions)>,
    labels: Vec<(String, String)>,
}

impl Endpoints {
    /// None yet.
    pub fn of(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            ports: Vec::new(),
            endpoints: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// The endpoints of a [`Service::web`]; they have the first one's port.
    pub fn web(service: &str, backends: &[&Backend]) -> Self {
        let port = backends.first().map_or(8080, |backend| backend.port);
        Self::of(service)
            .port(Port::tcp("http", port))
            .port(Port::udp("dns", port))
            .at_all(backends.iter().map(|backend| &backend.pod))
    }

    /// With a port, its number being the endpoints'.
    pub fn port(mut self, port: Port) -> Self {
        self.ports.push(port);
        self
    }

    /// With a ready endpoint.
    pub fn at(self, pod: &Pod) -> Self {
        self.at_being(pod, Conditions::READY)
    }

    /// With ready endpoints.
    pub fn at_all<'a>(self, pods: impl IntoIterator<Item = &'a Pod>) -> Self {
        pods.into_iter().fold(self, Self::at)
    }

    /// With an endpoint in this state.
    pub fn at_being(self, pod: &Pod, conditions: Conditions) -> Self {
        self.at_address(&pod.ips, &pod.node, conditions)
    }

    /// With an endpoint at these addresses, on this node.
    pub fn at_address(mut self, ips: &[IpAddr], node: &str, conditions: Conditions) -> Self {
        self.endpoints
            .push((ips.to_vec(), node.to_owned(), conditions));
        self
    }

    /// With a label on the slices.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The slices, in a `List`. A family without an endpoint has none.
    pub fn value(&self) -> Value {
        let slices = [Family::V4, Family::V6]
            .into_iter()
            .filter_map(|family| self.slice(family));
        json!({ "apiVersion": "v1", "kind": "List", "items": slices.collect::<Vec<_>>() })
    }

    fn slice(&self, family: Family) -> Option<Value> {
        let endpoints: Vec<_> = self
            .endpoints
            .iter()
            .filter_map(|(ips, node, conditions)| {
                let ip = ips.iter().find(|ip| family.has(**ip))?;
                Some(json!({
                    "addresses": [ip],
                    "nodeName": node,
                    "conditions": {
                        "ready": conditions.ready,
                        "serving": conditions.serving,
                        "terminating": conditions.terminating,
                    },
                }))
            })
            .collect();
        if endpoints.is_empty() {
            return None;
        }
        let ports = self.ports.iter().map(
            |port| json!({ "name": port.name, "protocol": port.protocol, "port": port.number }),
        );
        let (address_type, suffix) = match family {
            Family::V4 => ("IPv4", "v4"),
            Family::V6 => ("IPv6", "v6"),
        };
        let mut slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{suffix}", self.service),
                "namespace": "default",
                "labels": { "kubernetes.io/service-name": self.service },
            },
            "addressType": address_type,
            "ports": ports.collect::<Vec<_>>(),
            "endpoints": endpoints,
        });
        for (key, value) in &self.labels {
            slice["metadata"]["labels"][key] = value.as_str().into();
        }
        Some(slice)
    }
}

/// The folder that every node's proxy reads: what an API server is elsewhere.
#[derive(Clone, Debug)]
pub struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    /// In an existing folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes or replaces a Service.
    pub fn service(&self, service: &Service) -> Result<()> {
        self.object(&service_file(&service.name), &service.value)
    }

    /// Writes or replaces a Service's slices.
    pub fn endpoints(&self, endpoints: &Endpoints) -> Result<()> {
        self.object(&endpoints_file(&endpoints.service), &endpoints.value())
    }

    /// Writes the Node object of a node: its name and addresses.
    pub fn node(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let addresses = addresses
            .iter()
            .map(|ip| json!({ "type": "InternalIP", "address": ip }));
        let value = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name },
            "status": { "addresses": addresses.collect::<Vec<_>>() },
        });
        self.object(&format!("node-{name}.json"), &value)
    }

    /// Removes a Service; its endpoints stay.
    pub fn remove_service(&self, name: &str) -> Result<()> {
        self.remove(&service_file(name))
    }

    /// Removes a Service's slices.
    pub fn remove_endpoints(&self, service: &str) -> Result<()> {
        self.remove(&endpoints_file(service))
    }

    /// Writes any object to a file of this name.
    pub fn object(&self, file: &str, value: &Value) -> Result<()> {
        self.text(file, &format!("{value:#}\n"))
    }

    /// Writes any text, and renames it into place.
    pub fn text(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        let fresh = self.folder.join(format!(".{file}.new"));
        std::fs::write(&fresh, text).with_context(|| format!("write {}", fresh.display()))?;
        std::fs::rename(&fresh, &path).with_context(|| format!("create {}", path.display()))
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> Result<()> {
        let path = self.folder.join(file);
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }
}

fn service_file(name: &str) -> String {
    format!("service-{name}.json")
}

fn endpoints_file(service: &str) -> String {
    format!("endpoints-{service}.json")
}
