//! Errors to the senders of packets that cannot be carried: ICMP (RFC 792, RFC 1191, RFC 1812 section 4.3.2) and ICMPv6 (RFC 4443).
//!
//! They come from the TUN device's own address, which the kernel takes from that very device only where
//! `net.ipv4.conf.DEVICE.accept_local` is 1 (as a martian source it is dropped otherwise; IPv6 does not mind). Never about errors, later fragments, anything from or to
//! more than one host: such answers could answer each other, or multiply. How many are sent a second is the caller's to limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{finish, pseudo_header, sum};
use super::{Packet, extension, parse, protocol};
use crate::Own;

/// A buffer of this size takes every answer.
pub const LONGEST: usize = 1280;

/// What every IPv4 host takes in one piece: answers are not longer (RFC 1812, section 4.3.2.3).
const LONGEST_V4: usize = 576;

const TTL: u8 = 64;
/// Internetwork control: the precedence of errors (RFC 1812, section 4.3.2.5).
const TRAFFIC_CLASS: u8 = 0xc0;

/// Writes "no route to the destination's network" about the packet in `bytes` to the beginning of `out`; returns its length.
///
/// None when there must be no answer, no address of ours to answer from, or no room.
#[must_use]
pub fn unreachable(bytes: &[u8], own: &Own, out: &mut [u8]) -> Option<usize> {
    render(bytes, own, [(3, 0), (1, 0)], 0, out)
}

/// The same: "the network is known, but its host is not to be reached" (there is no way to its node).
#[must_use]
pub fn host_unreachable(bytes: &[u8], own: &Own, out: &mut [u8]) -> Option<usize> {
    render(bytes, own, [(3, 1), (1, 3)], 0, out)
}

/// The same: "larger than `mtu` bytes, the most that the way takes, and not to be fragmented".
///
/// IPv6 hosts take no `mtu` below 1280 (RFC 8201): whoever asks must carry that much.
#[must_use]
pub fn too_big(bytes: &[u8], own: &Own, mtu: u32, out: &mut [u8]) -> Option<usize> {
    let mtu = match bytes.first()? >> 4 {
        4 => mtu.min(u32::from(u16::MAX)),
        _ => mtu,
    };
    render(bytes, own, [(3, 4), (2, 0)], mtu, out)
}

/// `kinds`: type and code for IPv4 and for IPv6.
fn render(
    bytes: &[u8],
    own: &Own,
    kinds: [(u8, u8); 2],
    word: u32,
    out: &mut [u8],
) -> Option<usize> {
    let packet = parse(bytes).ok()?;
    let bytes = &bytes[..packet.len];
    if !may_answer(&packet, bytes) {
        return None;
    }
    let (ip_len, longest, (kind, code)) = match packet.is_v6() {
        false => (20, LONGEST_V4, kinds[0]),
        true => (40, LONGEST, kinds[1]),
    };
    let room = longest.min(out.len()).checked_sub(ip_len + 8)?;
    let quoted = bytes.len().min(room);
    if quoted < bytes.len().min(packet.transport_at + 8) {
        return None;
    }
    let len = ip_len + 8 + quoted;
    let out = &mut out[..len];
    render_ip(&packet, own, out)?;
    let (ip, icmp) = out.split_at_mut(ip_len);
    icmp[..4].copy_from_slice(&[kind, code, 0, 0]);
    icmp[4..8].copy_from_slice(&word.to_be_bytes());
    icmp[8..].copy_from_slice(&bytes[..quoted]);
    let pseudo = match packet.is_v6() {
        false => 0,
        true => pseudo_header(&ip[8..40], protocol::ICMPV6, icmp.len()),
    };
    let checksum = finish(pseudo + sum(icmp));
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(len)
}

/// The header of an answer that fills `out`; none without an address to answer from.
fn render_ip(packet: &Packet, own: &Own, out: &mut [u8]) -> Option<()> {
    let len = out.len() as u16; // at most LONGEST
    match packet.source {
        IpAddr::V4(to) => {
            let [high, low] = len.to_be_bytes();
            // Never fragmented, so the identification means nothing (RFC 6864).
            let fixed = [
                0x45,
                TRAFFIC_CLASS,
                high,
                low,
                0,
                0,
                0x40,
                0,
                TTL,
                protocol::ICMP,
                0,
                0,
            ];
            out[..12].copy_from_slice(&fixed);
            out[12..16].copy_from_slice(&own.v4?.network().octets());
            out[16..20].copy_from_slice(&to.octets());
            let checksum = finish(sum(&out[..20]));
            out[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        IpAddr::V6(to) => {
            let first = 0x6000_0000 | u32::from(TRAFFIC_CLASS) << 20;
            out[..4].copy_from_slice(&first.to_be_bytes());
            out[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            out[6..8].copy_from_slice(&[protocol::ICMPV6, TTL]);
            out[8..24].copy_from_slice(&own.v6?.network().octets());
            out[24..40].copy_from_slice(&to.octets());
        }
    }
    Some(())
}

fn may_answer(packet: &Packet, bytes: &[u8]) -> bool {
    let one_to_one = match (packet.source, packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => names_one_host_v4(from) && names_one_host_v4(to),
        (IpAddr::V6(from), IpAddr::V6(to)) => names_one_host_v6(from) && names_one_host_v6(to),
        _ => false,
    };
    // Behind a chain that we cannot follow may be an error.
    let hidden = packet.is_v6() && extension::is_extension(packet.protocol);
    one_to_one && !hidden && !packet.is_later_fragment && !is_error(packet, bytes)
}

/// On the other side of a router: not this host, this link, all hosts, or reserved (240.0.0.0/4).
const fn names_one_host_v4(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_link_local() || ip.octets()[0] >= 224)
}

const fn names_one_host_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast())
}

/// An ICMP error or redirect, or one whose type is missing.
fn is_error(packet: &Packet, bytes: &[u8]) -> bool {
    let kind = bytes.get(packet.transport_at);
    match (packet.is_v6(), packet.protocol) {
        (false, protocol::ICMP) => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        (true, protocol::ICMPV6) => kind.is_none_or(|kind| *kind < 128 || *kind == 137),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
