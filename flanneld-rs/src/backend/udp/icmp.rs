//! Telling a sender that its packet cannot be delivered (RFC 792, RFC 1122 section 3.2.2).

use std::net::Ipv4Addr;

const IPV4_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
const PROTOCOL_ICMP: u8 = 1;
const DESTINATION_UNREACHABLE: u8 = 3;

/// A "network unreachable" for `packet`, from `own`; none for what must not be answered: fragments
/// but the first, ICMP errors, and packets without a single sender.
pub fn network_unreachable(packet: &[u8], own: Ipv4Addr) -> Option<Vec<u8>> {
    let header = packet.get(..IPV4_HEADER)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let no_sender = source.is_unspecified() || source.is_broadcast() || source.is_multicast();
    if header[0] >> 4 != 4 || header_length < IPV4_HEADER || fragment_offset != 0 || no_sender {
        return None;
    }
    if header[9] == PROTOCOL_ICMP {
        // Only echo and other queries are answered.
        let kind = *packet.get(header_length)?;
        if matches!(kind, 3 | 4 | 5 | 11 | 12) {
            return None;
        }
    }
    let quoted = &packet[..packet.len().min(header_length + 8)];
    let length = IPV4_HEADER + ICMP_HEADER + quoted.len();
    let mut answer = vec![0; length];
    answer[0] = 0x45;
    // Precedence 6, as RFC 1812 section 4.3.2.5 asks of a router's errors.
    answer[1] = 0xc0;
    answer[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    answer[8] = 64;
    answer[9] = PROTOCOL_ICMP;
    answer[12..16].copy_from_slice(&own.octets());
    answer[16..20].copy_from_slice(&source.octets());
    let sum = checksum(&answer[..IPV4_HEADER]);
    answer[10..12].copy_from_slice(&sum.to_be_bytes());
    answer[IPV4_HEADER] = DESTINATION_UNREACHABLE;
    answer[IPV4_HEADER + ICMP_HEADER..].copy_from_slice(quoted);
    let sum = checksum(&answer[IPV4_HEADER..]);
    answer[IPV4_HEADER + 2..IPV4_HEADER + 4].copy_from_slice(&sum.to_be_bytes());
    Some(answer)
}

/// The internet checksum, RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn udp_packet() -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[9] = 17;
        packet[12..16].copy_from_slice(&[10, 1, 1, 5]);
        packet[16..20].copy_from_slice(&[10, 1, 9, 9]);
        packet
    }

    #[test]
    fn quotes_header_and_eight_bytes_to_the_sender() {
        let own = Ipv4Addr::new(10, 1, 1, 0);
        let answer = network_unreachable(&udp_packet(), own).unwrap();
        assert_eq!(answer.len(), 56);
        assert_eq!(&answer[16..20], &[10, 1, 1, 5]);
        assert_eq!(&answer[28..56], &udp_packet()[..28]);
        assert_eq!(checksum(&answer[..20]), 0);
        assert_eq!(checksum(&answer[20..]), 0);
    }

    #[test]
    fn errors_and_later_fragments_are_not_answered() {
        let own = Ipv4Addr::new(10, 1, 1, 0);
        let mut packet = udp_packet();
        packet[7] = 1;
        assert_eq!(network_unreachable(&packet, own), None);
        let mut packet = udp_packet();
        packet[9] = PROTOCOL_ICMP;
        packet[20] = 3;
        assert_eq!(network_unreachable(&packet, own), None);
        packet[20] = 8;
        assert!(network_unreachable(&packet, own).is_some());
    }

    proptest! {
        #[test]
        fn never_panics(packet: Vec<u8>) {
            network_unreachable(&packet, Ipv4Addr::LOCALHOST);
        }
    }
}
