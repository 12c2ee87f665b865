//! ARP (RFC 826) for IPv4 over Ethernet: a request in, a reply out.

use std::net::Ipv4Addr;

use kernel::Mac;

use super::Asked;
use crate::DropReason;

/// Bytes of a packet.
const LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Reads a request: the asker's MAC, and who asks for whom. Replies, announcements ("gratuitous" ones:
/// sender and target are the same) and other protocols are `Unsupported`.
pub fn parse(bytes: &[u8]) -> Result<(Mac, Asked<Ipv4Addr>), DropReason> {
    let packet: &[u8; LEN] = bytes.first_chunk().ok_or(DropReason::Malformed)?;
    let operation = u16::from_be_bytes([packet[6], packet[7]]);
    if packet[..6] != ETHERNET_IPV4 || operation != REQUEST {
        return Err(DropReason::Unsupported);
    }
    let mut mac = [0; 6];
    mac.copy_from_slice(&packet[8..14]);
    let ip = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let asked = Asked {
        asker: ip(14),
        asked: ip(24),
    };
    if asked.asker == asked.asked {
        return Err(DropReason::Unsupported);
    }
    Ok((Mac(mac), asked))
}

/// Writes the reply, `ours` being the MAC that was asked for, and returns its length.
pub fn reply(out: &mut [u8], asked: Asked<Ipv4Addr>, ours: Mac, asker: Mac) -> usize {
    out[..6].copy_from_slice(&ETHERNET_IPV4);
    out[6..8].copy_from_slice(&REPLY.to_be_bytes());
    out[8..14].copy_from_slice(&ours.0);
    out[14..18].copy_from_slice(&asked.asked.octets());
    out[18..24].copy_from_slice(&asker.0);
    out[24..LEN].copy_from_slice(&asked.asker.octets());
    LEN
}
