//! Which of several sending sockets, and so which source port, a flow has.
//!
//! The source port is all that tells flows apart on the way (RFC 7348, section 5): network cards, routers and the receiver's
//! SO_REUSEPORT group spread by it. And it feeds back: the queue that a flow's packets are *written* to is the queue
//! from which the kernel gives the flow's answers, so with one port a worker all flows would end on one worker.

use std::net::IpAddr;

use crate::packet::{Packet, protocol};

/// Sockets of each worker.
pub(super) const SOCKETS: usize = 8;

/// The place of the packet's flow, below [`SOCKETS`]. Fragments have one of their own, by their addresses.
pub(super) fn place(packet: &Packet, bytes: &[u8]) -> usize {
    let has_ports =
        packet.has_transport && matches!(packet.protocol, protocol::TCP | protocol::UDP);
    let ports = bytes
        .get(packet.transport_at..)
        .and_then(<[u8]>::first_chunk)
        .filter(|_| has_ports)
        .map_or(0, |ports| u32::from_ne_bytes(*ports));
    let mut hash = u64::from(ports);
    for ip in [packet.source, packet.destination] {
        hash = match ip {
            IpAddr::V4(ip) => mix(hash, ip.to_bits().into()),
            IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                mix(mix(hash, bits as u64), (bits >> 64) as u64)
            }
        };
    }
    // The upper bits depend on all others.
    (hash >> (64 - SOCKETS.ilog2())) as usize
}

/// One step of a multiplicative hash.
fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;

    fn packet(last: u8, port: u8, fragment: u8) -> Vec<u8> {
        let mut bytes = vec![0; 28];
        bytes[0] = 0x45;
        bytes[3] = 28;
        bytes[6] = fragment;
        bytes[9] = protocol::UDP;
        bytes[12..20].copy_from_slice(&[10, 9, 1, 1, 10, 9, 2, last]);
        bytes[21] = port;
        bytes
    }

    fn place_of(bytes: &[u8]) -> usize {
        place(&parse(bytes).unwrap(), bytes)
    }

    #[test]
    fn flows_are_spread_evenly_by_ports_and_by_addresses() {
        for flow in [|n| packet(1, n, 0), |n| packet(n, 1, 0)] {
            let mut counts = [0; SOCKETS];
            for n in 0..=255 {
                counts[place_of(&flow(n))] += 1;
            }
            assert!(
                counts.iter().all(|count| (16..=48).contains(count)),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn all_fragments_between_two_addresses_go_one_way() {
        const MORE: u8 = 0x20;
        let first = place_of(&packet(1, 1, MORE));
        for port in 0..=255 {
            assert_eq!(place_of(&packet(1, port, MORE)), first);
        }
    }
}
