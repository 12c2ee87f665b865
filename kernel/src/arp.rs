//! Announcing an address: gratuitous ARP (RFC 5227) and unsolicited neighbour advertisement
//! (RFC 4861 section 7.2.6), so that neighbours drop what they remember of a former owner.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Error, Link, Mac, Result};

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;

/// Sends one announcement of `ip` out of `link`, in the calling thread's namespace. A link without
/// an Ethernet address has no one to tell.
pub fn announce(link: &Link, ip: IpAddr) -> Result<()> {
    let Some(mac) = link.mac else {
        return Ok(());
    };
    let (ether_type, frame) = match ip {
        IpAddr::V4(ip) => (ETH_P_ARP, gratuitous_arp(mac, ip).to_vec()),
        IpAddr::V6(ip) => (ETH_P_IPV6, unsolicited_advertisement(mac, ip).to_vec()),
    };
    crate::sys::send_frame(link.index, ether_type, &frame)
        .map_err(|cause| Error::new(format!("announce {ip} on {}", link.name), cause))
}

/// Ethernet header and ARP request for one's own address.
fn gratuitous_arp(mac: Mac, ip: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&ETH_P_ARP.to_be_bytes());
    // Ethernet, IPv4, lengths 6 and 4, request.
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac.0);
    frame[28..32].copy_from_slice(&ip.octets());
    frame[38..42].copy_from_slice(&ip.octets());
    frame
}

/// Ethernet, IPv6 and ICMPv6 neighbour advertisement (override flag) to all nodes.
fn unsolicited_advertisement(mac: Mac, ip: Ipv6Addr) -> [u8; 86] {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut frame = [0; 86];
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&ETH_P_IPV6.to_be_bytes());
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&32u16.to_be_bytes());
    frame[20] = 58;
    frame[21] = 255;
    frame[22..38].copy_from_slice(&ip.octets());
    frame[38..54].copy_from_slice(&ALL_NODES.octets());
    frame[54] = 136;
    frame[58] = 0x20;
    frame[62..78].copy_from_slice(&ip.octets());
    frame[78..80].copy_from_slice(&[2, 1]);
    frame[80..86].copy_from_slice(&mac.0);
    let sum = icmpv6_checksum(ip, ALL_NODES, &frame[54..86]);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The internet checksum over pseudo-header and message (RFC 4443 section 2.3).
fn icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let mut sum = message.len() as u32 + 58;
    for pair in from
        .octets()
        .chunks(2)
        .chain(to.octets().chunks(2))
        .chain(message.chunks(2))
    {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_a_finished_advertisement_is_zero() {
        let ip: Ipv6Addr = "fd00::5".parse().unwrap();
        let frame = unsolicited_advertisement(Mac([2, 0, 0, 0, 0, 1]), ip);
        let to = "ff02::1".parse().unwrap();
        assert_eq!(icmpv6_checksum(ip, to, &frame[54..86]), 0);
    }
}
