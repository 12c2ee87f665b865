//! Neighbour discovery (RFC 4861) over Ethernet: a solicitation in, an advertisement out.

use std::net::Ipv6Addr;

use kernel::Mac;

use super::Asked;
use crate::DropReason;

/// Bytes of the advertisement: IPv6 header, message, target link-layer address option.
pub const ADVERTISEMENT: usize = IPV6 + MESSAGE + OPTION;

const IPV6: usize = 40;
/// Type, code, checksum, flags, target address.
const MESSAGE: usize = 24;
/// One unit of 8 bytes: type, length, MAC.
const OPTION: usize = 8;

const ICMPV6: u8 = 58;
/// Neighbour discovery never crosses a router, and this is how one sees it.
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISE: u8 = 136;
/// Router solicitation, router advertisement, the two above, redirect.
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// We route; it is an answer, if it is one; replace what you knew.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// Reads an IPv6 packet from station `from`. `Ok(None)`: not neighbour discovery. A solicitation gives
/// the MAC to answer to, and who asks for whom; every other message of neighbour discovery is
/// `Unsupported`, because on this link addresses and routes come from the leases alone. The checks
/// are those of RFC 4861, section 7.1.1.
pub fn parse(bytes: &[u8], from: Mac) -> Result<Option<(Mac, Asked<Ipv6Addr>)>, DropReason> {
    let is_discovery = |packet: &[u8]| {
        packet.len() > IPV6
            && packet[6] == ICMPV6
            && packet[7] == HOP_LIMIT
            && DISCOVERY.contains(&packet[IPV6])
    };
    if !is_discovery(bytes) {
        return Ok(None);
    }
    if bytes[IPV6] != SOLICITATION {
        return Err(DropReason::Unsupported);
    }
    let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    let message = bytes
        .get(IPV6..IPV6 + length)
        .filter(|message| message.len() >= MESSAGE && message[1] == 0)
        .ok_or(DropReason::Malformed)?;
    let asker = address(bytes, 8);
    let asked = address(message, 8);
    let is_right = checksum(&bytes[8..IPV6], message) == 0;
    if !is_right || asked.is_multicast() || asker.is_multicast() {
        return Err(DropReason::Malformed);
    }
    let station = source_link_layer(&message[MESSAGE..])?.unwrap_or(from);
    Ok(Some((station, Asked { asker, asked })))
}

/// The source link-layer address among the options, if there.
fn source_link_layer(mut options: &[u8]) -> Result<Option<Mac>, DropReason> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * OPTION;
        if length == 0 || length > options.len() {
            return Err(DropReason::Malformed);
        }
        if kind == SOURCE_LINK_LAYER && length == OPTION {
            let mut mac = [0; 6];
            mac.copy_from_slice(&options[2..OPTION]);
            found = Some(Mac(mac));
        }
        options = &options[length..];
    }
    if options.is_empty() {
        Ok(found)
    } else {
        Err(DropReason::Malformed)
    }
}

/// Where the advertisement goes: to the asker, or, if that has no address yet, to all nodes (section
/// 7.2.4).
pub fn destination(asked: Asked<Ipv6Addr>, asker: Mac) -> (Ipv6Addr, Mac) {
    if asked.asker.is_unspecified() {
        (ALL_NODES, ALL_NODES_MAC)
    } else {
        (asked.asker, asker)
    }
}

/// Writes the advertisement of `ours` and returns its length.
pub fn advertise(out: &mut [u8], asked: Asked<Ipv6Addr>, to: Ipv6Addr, ours: Mac) -> usize {
    let out = &mut out[..ADVERTISEMENT];
    out.fill(0);
    out[0] = 6 << 4;
    out[5] = (MESSAGE + OPTION) as u8;
    out[6] = ICMPV6;
    out[7] = HOP_LIMIT;
    out[8..24].copy_from_slice(&asked.asked.octets());
    out[24..IPV6].copy_from_slice(&to.octets());
    let (header, message) = out.split_at_mut(IPV6);
    message[0] = ADVERTISE;
    let solicited = if to == asked.asker { SOLICITED } else { 0 };
    message[4] = ROUTER | solicited | OVERRIDE;
    message[8..MESSAGE].copy_from_slice(&asked.asked.octets());
    message[MESSAGE..MESSAGE + 2].copy_from_slice(&[TARGET_LINK_LAYER, 1]);
    message[MESSAGE + 2..].copy_from_slice(&ours.0);
    let sum = checksum(&header[8..], message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ADVERTISEMENT
}

fn address(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// ICMPv6's, over the pseudo-header (RFC 8200, section 8.1) of these addresses; 0 when the one in the
/// message is right. For messages of a few bytes.
fn checksum(addresses: &[u8], message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u64 {
        let pairs = bytes.chunks(2).map(|pair| match *pair {
            [high, low] => u16::from_be_bytes([high, low]),
            [high] => u16::from_be_bytes([high, 0]),
            _ => 0,
        });
        pairs.map(u64::from).sum()
    };
    let mut sum = words(addresses) + words(message) + message.len() as u64 + u64::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
