//! Addresses on the wire: RTM_{NEW,DEL,GET}ADDR.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
};

use super::Netlink;
use crate::{Address, Change, Result};

impl Netlink {
    /// The addresses of one link, or of all.
    pub fn addresses(&mut self, dev: Option<u32>) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = dev.unwrap_or(0);
        let message = RouteNetlinkMessage::GetAddress(message);
        self.dump("addresses", &message, |message| match message {
            RouteNetlinkMessage::NewAddress(address) => {
                parse(address).filter(|address| dev.is_none_or(|dev| address.dev == dev))
            }
            _ => None,
        })
    }

    /// Adds an address unless the link has it; says whether it was added.
    pub fn ensure_address(&mut self, address: &Address) -> Result<bool> {
        match self.apply(&Change::AddAddress(address.clone())) {
            Ok(()) => Ok(true),
            Err(error) if error.is_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn message(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    let ip = address.net.addr();
    message.header.family = family(ip);
    message.header.prefix_len = address.net.prefix_len();
    message.header.index = address.dev;
    message.header.scope = AddressScope::from(address.scope);
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Nodad, address.nodad);
    flags.set(AddressFlags::Noprefixroute, address.noprefixroute);
    message.header.flags = AddressHeaderFlags::from_bits_retain((flags.bits() & 0xff) as u8);
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message.attributes.push(AddressAttribute::Local(ip));
    message
        .attributes
        .push(AddressAttribute::Address(address.peer.unwrap_or(ip)));
    // A broadcast address as ip(8) and Go's netlink library set it; none for /31 and /32.
    if let IpNet::V4(net) = address.net
        && address.peer.is_none()
        && net.prefix_len() < 31
    {
        message
            .attributes
            .push(AddressAttribute::Broadcast(net.broadcast()));
    }
    message
}

/// `None` for a message without an address.
pub(crate) fn parse(message: AddressMessage) -> Option<Address> {
    let (mut local, mut other) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => other = Some(ip),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    let ip = local.or(other)?;
    Some(Address {
        dev: message.header.index,
        net: IpNet::new(ip, message.header.prefix_len).ok()?,
        peer: other.filter(|other| *other != ip),
        scope: message.header.scope.into(),
        nodad: flags.contains(AddressFlags::Nodad),
        noprefixroute: flags.contains(AddressFlags::Noprefixroute),
        tentative: flags.contains(AddressFlags::Tentative),
        dadfailed: flags.contains(AddressFlags::Dadfailed),
        permanent: flags.contains(AddressFlags::Permanent),
        deprecated: flags.contains(AddressFlags::Deprecated),
        secondary: flags.contains(AddressFlags::Secondary),
    })
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
