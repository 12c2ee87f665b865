//! Keys and data as the kernel's registers have them, there and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{At, Data, DataKind, Key, Place, Set};
use crate::mode::nftables::layout::Chain;
use crate::model::{Family, Protocol};

impl Key {
    /// The bytes, and for a range those of its end.
    pub fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut bytes = Vec::with_capacity(40);
        match self {
            Self::Ip(ip) => push_ip(&mut bytes, *ip),
            Self::At(at) => push_at(&mut bytes, *at),
            Self::Slot(at, slot) => {
                push_at(&mut bytes, *at);
                bytes.extend(slot.to_ne_bytes());
            }
            Self::From(source, at) => {
                push_ip(&mut bytes, *source);
                push_at(&mut bytes, *at);
            }
            Self::Range(at, net) => {
                push_at(&mut bytes, *at);
                let mut end = bytes.clone();
                push_ip(&mut bytes, net.network());
                push_ip(&mut end, net.broadcast());
                return (bytes, Some(end));
            }
        }
        (bytes, None)
    }

    /// Reads a key of `set` back; `None` for what is not of our form.
    pub fn decode(set: Set, family: Family, key: &[u8], end: Option<&[u8]>) -> Option<Self> {
        let mut fields = Fields { bytes: key, family };
        let decoded = match set {
            Set::ClusterIps | Set::NodePortIps => Self::Ip(fields.ip()?),
            Set::Services(place)
            | Set::Lists(_, place)
            | Set::NoEndpoints(place)
            | Set::AffinityTimeouts(place) => Self::At(fields.at(place)?),
            Set::FirewallIps => Self::At(fields.at(Place::Ip)?),
            Set::Endpoints(_, place) => {
                let at = fields.at(place)?;
                Self::Slot(at, u32::from_ne_bytes(fields.take()?))
            }
            Set::Hairpin | Set::Affinity => {
                let source = fields.ip()?;
                Self::From(source, fields.at(Place::Ip)?)
            }
            Set::SourceRanges => {
                let at = fields.at(Place::Ip)?;
                let first = fields.ip()?;
                let mut end = Fields {
                    bytes: end.unwrap_or(key),
                    family,
                };
                if end.at(Place::Ip)? != at {
                    return None;
                }
                Self::Range(at, net_between(first, end.ip()?)?)
            }
        };
        fields.bytes.is_empty().then_some(decoded)
    }
}

impl Data {
    /// As the kernel takes it.
    pub fn encode(&self) -> Option<kernel::nft::Data> {
        use kernel::nft::{Data as Raw, Verdict};
        Some(match self {
            Self::None => return None,
            Self::Goto(chain) => Raw::Verdict(Verdict::Goto(chain.to_string().into())),
            Self::Jump(chain) => Raw::Verdict(Verdict::Jump(chain.to_string().into())),
            Self::Drop => Raw::Verdict(Verdict::Drop),
            Self::Endpoint(ip, port) => {
                let mut bytes = Vec::with_capacity(20);
                push_ip(&mut bytes, *ip);
                push_port(&mut bytes, *port);
                Raw::Value(bytes.into())
            }
        })
    }

    /// Reads data of `set` back; `None` for what is not of our form.
    pub fn decode(set: Set, family: Family, data: Option<&kernel::nft::Data>) -> Option<Self> {
        use kernel::nft::{Data as Raw, Verdict};
        Some(match (set.data(), data) {
            (DataKind::None, None) => Self::None,
            (DataKind::Verdict, Some(Raw::Verdict(verdict))) => match verdict {
                Verdict::Goto(chain) => Self::Goto(Chain::parse(chain)?),
                Verdict::Jump(chain) => Self::Jump(Chain::parse(chain)?),
                Verdict::Drop => Self::Drop,
                _ => return None,
            },
            (DataKind::Endpoint, Some(Raw::Value(bytes))) => {
                let mut fields = Fields { bytes, family };
                Self::Endpoint(fields.ip()?, fields.port()?)
            }
            _ => return None,
        })
    }
}

fn push_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets()),
    }
}

fn push_at(bytes: &mut Vec<u8>, at: At) {
    if let Some(ip) = at.ip {
        push_ip(bytes, ip);
    }
    bytes.extend([at.protocol.number(), 0, 0, 0]);
    push_port(bytes, at.port);
}

fn push_port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0]);
}

/// The network from its first address to its last.
fn net_between(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let bits = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).count_ones(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).count_ones(),
        _ => return None,
    };
    let width = if first.is_ipv4() { 32 } else { 128 };
    let net = IpNet::new(first, width - u8::try_from(bits).ok()?).ok()?;
    (net.network() == first && net.broadcast() == last).then_some(net)
}

struct Fields<'a> {
    bytes: &'a [u8],
    family: Family,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    fn ip(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            Family::V4 => Ipv4Addr::from(self.take::<4>()?).into(),
            Family::V6 => Ipv6Addr::from(self.take::<16>()?).into(),
        })
    }

    fn port(&mut self) -> Option<u16> {
        let [high, low, ..] = self.take::<4>()?;
        Some(u16::from_be_bytes([high, low]))
    }

    fn at(&mut self, place: Place) -> Option<At> {
        let ip = match place {
            Place::Ip => Some(self.ip()?),
            Place::NodePort => None,
        };
        let protocol = match self.take::<4>()?[0] {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            _ => return None,
        };
        Some(At {
            ip,
            protocol,
            port: self.port()?,
        })
    }
}
