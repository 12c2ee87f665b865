//! What the DNS needs of Kubernetes objects, as values. No I/O; Kubernetes' own types stop at `objects`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

pub use source::ObjectName;

/// A transport protocol that Services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of a Service, or of the endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// Its name, which may be empty: such a port has no SRV record.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// What a Service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Virtual addresses, one for each family.
    ClusterIps(Box<[IpAddr]>),
    /// The endpoints themselves (`clusterIP: None`).
    Headless,
    /// Another name (`type: ExternalName`), as written.
    External(Arc<str>),
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// What it stands for.
    pub target: Target,
    /// Its ports.
    pub ports: Box<[Port]>,
    /// Endpoints count before they are ready.
    pub publish_not_ready: bool,
}

/// Addresses behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses, all of one family.
    pub addresses: Box<[IpAddr]>,
    /// The host name that the Pod asked for; its endpoint name is made of it.
    pub hostname: Option<Arc<str>>,
    /// It takes connections (`conditions.ready`; absent counts as ready).
    pub ready: bool,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: ObjectName,
    /// The name of the Service that it belongs to, in its namespace.
    pub service: Arc<str>,
    /// Its endpoints.
    pub endpoints: Box<[Endpoint]>,
    /// Their ports.
    pub ports: Box<[Port]>,
    /// When what it tells of has changed, if it says so; no name depends on it.
    pub changed: Option<SystemTime>,
}

/// A Pod that has addresses and is not on its node's network (`hostNetwork` Pods share their node's address).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: ObjectName,
    /// Its addresses.
    pub ips: Box<[IpAddr]>,
}

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Services.
    Services,
    /// EndpointSlices.
    Slices,
    /// Pods.
    Pods,
}

/// News of an object. After [`Event::Restarted`] every object of the kind is told again, and with [`Event::Listed`] what
/// was not told is no more; until then nothing is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Service as it is now.
    Service(Service),
    /// It is no more.
    ServiceGone(ObjectName),
    /// An EndpointSlice as it is now.
    Slice(Slice),
    /// It is no more.
    SliceGone(ObjectName),
    /// A Pod as it is now.
    Pod(Pod),
    /// It is no more, or has no address of its own.
    PodGone(ObjectName),
    /// A list of the kind begins.
    Restarted(Kind),
    /// The list is whole.
    Listed(Kind),
}
