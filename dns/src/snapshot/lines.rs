//! The lines of a snapshot.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{
    Endpoint, Event, Kind, ObjectName, Pod, Port, Protocol, Service, Slice, Target,
};

const FORMAT: &str = "weft-dns snapshot";
/// Another number is not read.
const VERSION: u32 = 1;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    format: String,
    version: u32,
    /// Seconds since 1970.
    pub(super) taken: u64,
}

impl Header {
    pub(super) fn new(taken: u64) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            taken,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match (self.format.as_str(), self.version) {
            (FORMAT, VERSION) => Ok(()),
            (FORMAT, other) => Err(format!("version {other} is not known, only {VERSION}")),
            (other, _) => Err(format!("format {other:?} is not {FORMAT:?}")),
        }
    }
}

/// What vouches for the lines before it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Footer {
    /// How many lines are between the first and this one.
    pub(super) objects: u64,
    /// Of all lines before, with their ends.
    pub(super) sha256: String,
}

/// A line after the first.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line<'a> {
    Service(ServiceLine<'a>),
    Slice(SliceLine<'a>),
    Pod(PodLine<'a>),
    /// All of this kind had been told.
    Listed(KindWord),
    /// The last line.
    End(Footer),
}

type Text<'a> = Cow<'a, str>;
/// Namespace and name.
type NameWords<'a> = (Text<'a>, Text<'a>);
/// Name, protocol, number.
type PortWords<'a> = (Text<'a>, ProtocolWord, u16);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ServiceLine<'a> {
    name: NameWords<'a>,
    target: TargetWord<'a>,
    ports: Vec<PortWords<'a>>,
    #[serde(default, skip_serializing_if = "is_false")]
    publish_not_ready: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum TargetWord<'a> {
    ClusterIps(Cow<'a, [IpAddr]>),
    Headless,
    External(Text<'a>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SliceLine<'a> {
    name: NameWords<'a>,
    service: Text<'a>,
    ports: Vec<PortWords<'a>>,
    endpoints: Vec<EndpointWords<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EndpointWords<'a> {
    ips: Cow<'a, [IpAddr]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hostname: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "is_false")]
    not_ready: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PodLine<'a> {
    name: NameWords<'a>,
    ips: Cow<'a, [IpAddr]>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum KindWord {
    Services,
    Slices,
    Pods,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProtocolWord {
    Tcp,
    Udp,
    Sctp,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl<'a> Line<'a> {
    /// The line for a piece of news; none for what takes something back.
    pub(super) fn of(event: &'a Event) -> Option<Self> {
        match event {
            Event::Service(service) => Some(Self::Service(ServiceLine {
                name: name_words(&service.name),
                target: match &service.target {
                    Target::ClusterIps(ips) => TargetWord::ClusterIps(Cow::Borrowed(ips)),
                    Target::Headless => TargetWord::Headless,
                    Target::External(name) => TargetWord::External(Cow::Borrowed(name)),
                },
                ports: port_words(&service.ports),
                publish_not_ready: service.publish_not_ready,
            })),
            Event::Slice(slice) => Some(Self::Slice(SliceLine {
                name: name_words(&slice.name),
                service: Cow::Borrowed(&slice.service),
                ports: port_words(&slice.ports),
                endpoints: slice.endpoints.iter().map(endpoint_words).collect(),
            })),
            Event::Pod(pod) => Some(Self::Pod(PodLine {
                name: name_words(&pod.name),
                ips: Cow::Borrowed(&pod.ips),
            })),
            Event::Listed(kind) => Some(Self::Listed(match kind {
                Kind::Services => KindWord::Services,
                Kind::Slices => KindWord::Slices,
                Kind::Pods => KindWord::Pods,
            })),
            Event::ServiceGone(_)
            | Event::SliceGone(_)
            | Event::PodGone(_)
            | Event::Restarted(_) => None,
        }
    }

    /// The news of the line; the footer has none.
    pub(super) fn event(self) -> Result<Event, Footer> {
        Ok(match self {
            Self::Service(line) => Event::Service(Service {
                name: object_name(&line.name),
                target: match line.target {
                    TargetWord::ClusterIps(ips) => Target::ClusterIps(ips.into()),
                    TargetWord::Headless => Target::Headless,
                    TargetWord::External(name) => Target::External(name.into()),
                },
                ports: ports(line.ports),
                publish_not_ready: line.publish_not_ready,
            }),
            Self::Slice(line) => Event::Slice(Slice {
                name: object_name(&line.name),
                service: line.service.into(),
                endpoints: line.endpoints.into_iter().map(endpoint).collect(),
                ports: ports(line.ports),
                changed: None,
            }),
            Self::Pod(line) => Event::Pod(Pod {
                name: object_name(&line.name),
                ips: line.ips.into(),
            }),
            Self::Listed(kind) => Event::Listed(match kind {
                KindWord::Services => Kind::Services,
                KindWord::Slices => Kind::Slices,
                KindWord::Pods => Kind::Pods,
            }),
            Self::End(footer) => return Err(footer),
        })
    }
}

fn name_words(name: &ObjectName) -> NameWords<'_> {
    (Cow::Borrowed(&name.namespace), Cow::Borrowed(&name.name))
}

fn object_name((namespace, name): &NameWords<'_>) -> ObjectName {
    ObjectName {
        namespace: (**namespace).into(),
        name: (**name).into(),
    }
}

fn port_words(ports: &[Port]) -> Vec<PortWords<'_>> {
    let words = ports.iter().map(|port| {
        let protocol = match port.protocol {
            Protocol::Tcp => ProtocolWord::Tcp,
            Protocol::Udp => ProtocolWord::Udp,
            Protocol::Sctp => ProtocolWord::Sctp,
        };
        (Cow::Borrowed(&*port.name), protocol, port.number)
    });
    words.collect()
}

fn ports(words: Vec<PortWords<'_>>) -> Box<[Port]> {
    let ports = words.into_iter().map(|(name, protocol, number)| Port {
        name: name.into(),
        protocol: match protocol {
            ProtocolWord::Tcp => Protocol::Tcp,
            ProtocolWord::Udp => Protocol::Udp,
            ProtocolWord::Sctp => Protocol::Sctp,
        },
        number,
    });
    ports.collect()
}

fn endpoint_words(endpoint: &Endpoint) -> EndpointWords<'_> {
    EndpointWords {
        ips: Cow::Borrowed(&endpoint.addresses),
        hostname: endpoint.hostname.as_deref().map(Cow::Borrowed),
        not_ready: !endpoint.ready,
    }
}

fn endpoint(words: EndpointWords<'_>) -> Endpoint {
    Endpoint {
        addresses: words.ips.into(),
        hostname: words.hostname.map(Into::into),
        ready: !words.not_ready,
    }
}
