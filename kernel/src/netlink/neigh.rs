//! Neighbours and forwarding entries on the wire: RTM_{NEW,DEL,GET}NEIGH.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};

use super::{Netlink, address::family};
use crate::{Change, Fdb, Mac, Neigh, Result};

impl Netlink {
    /// The neighbour entries of a link, both families.
    pub fn neighbours(&mut self, dev: u32) -> Result<Vec<Neigh>> {
        let mut message = NeighbourMessage::default();
        message.attributes.push(NeighbourAttribute::IfIndex(dev));
        let message = RouteNetlinkMessage::GetNeighbour(message);
        self.dump("neighbours", &message, |message| match message {
            RouteNetlinkMessage::NewNeighbour(entry) => {
                parse(&entry).filter(|neigh| neigh.dev == dev)
            }
            _ => None,
        })
    }

    /// The forwarding entries of a VXLAN device, or of a bridge and its ports.
    pub fn fdb(&mut self, dev: u32) -> Result<Vec<Fdb>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = dev;
        let message = RouteNetlinkMessage::GetNeighbour(message);
        self.dump("forwarding entries", &message, |message| match message {
            RouteNetlinkMessage::NewNeighbour(entry) => {
                parse_fdb(&entry).filter(|entry| entry.dev == dev)
            }
            _ => None,
        })
    }

    /// Adds or replaces a neighbour entry unless the very same is there; says whether it did.
    pub fn ensure_neigh(&mut self, neigh: &Neigh) -> Result<bool> {
        if self.neighbours(neigh.dev)?.contains(neigh) {
            return Ok(false);
        }
        self.apply(&Change::ReplaceNeigh(neigh.clone()))?;
        Ok(true)
    }

    /// Adds or replaces a device's own forwarding entry unless the very same is there; says whether
    /// it did.
    pub fn ensure_fdb(&mut self, entry: &Fdb) -> Result<bool> {
        if self.fdb(entry.dev)?.contains(entry) {
            return Ok(false);
        }
        self.apply(&Change::ReplaceFdb(entry.clone()))?;
        Ok(true)
    }
}

fn state(permanent: bool) -> NeighbourState {
    if permanent {
        NeighbourState::Permanent
    } else {
        NeighbourState::Reachable
    }
}

pub(super) fn message(neigh: &Neigh) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(neigh.ip);
    message.header.ifindex = neigh.dev;
    message.header.state = state(neigh.permanent);
    message
        .attributes
        .push(NeighbourAttribute::Destination(neigh.ip.into()));
    if let Some(mac) = neigh.mac {
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    }
    message
}

pub(super) fn fdb_message(entry: &Fdb) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = entry.dev;
    message.header.state = state(entry.permanent);
    message.header.flags = NeighbourFlags::Own;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
    if let Some(dst) = entry.dst {
        message
            .attributes
            .push(NeighbourAttribute::Destination(dst.into()));
    }
    message
}

/// `None` for entries of other families and for proxies.
pub(crate) fn parse(message: &NeighbourMessage) -> Option<Neigh> {
    if message.header.flags.contains(NeighbourFlags::Proxy)
        || message.header.family == AddressFamily::Bridge
    {
        return None;
    }
    Some(Neigh {
        dev: message.header.ifindex,
        ip: destination(message)?,
        mac: hardware(message),
        permanent: message.header.state == NeighbourState::Permanent,
    })
}

/// `None` for anything but a forwarding entry of the bridge family.
pub(crate) fn parse_fdb(message: &NeighbourMessage) -> Option<Fdb> {
    if message.header.family != AddressFamily::Bridge {
        return None;
    }
    Some(Fdb {
        dev: message.header.ifindex,
        mac: hardware(message)?,
        dst: destination(message),
        permanent: message.header.state == NeighbourState::Permanent,
    })
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            // In the bridge family the crate leaves the address as bytes.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                match (
                    <[u8; 4]>::try_from(&bytes[..]),
                    <[u8; 16]>::try_from(&bytes[..]),
                ) {
                    (Ok(v4), _) => Some(IpAddr::from(v4)),
                    (_, Ok(v6)) => Some(IpAddr::from(v6)),
                    _ => None,
                }
            }
            _ => None,
        })
}

fn hardware(message: &NeighbourMessage) -> Option<Mac> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes[..].try_into().ok().map(Mac),
            _ => None,
        })
}
