//! The bytes that programs and user space share: bpf/overlay.h in Rust.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::IpNet;

use crate::DropReason;

/// `struct config`.
pub(super) const CONFIG_BYTES: usize = 24;
/// `struct peer`.
pub(super) const PEER_BYTES: usize = 64;
/// `struct lookup`.
pub(super) const LOOKUP_BYTES: usize = 24;
/// `struct counters` as 64-bit words.
pub(super) const COUNTERS: usize = FIRST_DROP + DROPS.len();
/// `struct carried` as 64-bit words.
pub(super) const CARRIED: usize = COUNTERS + 1;

const FIRST_DROP: usize = 6;
/// `enum drop`.
const DROPS: [DropReason; 5] = [
    DropReason::UnknownPeer,
    DropReason::ForeignSource,
    DropReason::CongestionUnmarkable,
    DropReason::SendError,
    DropReason::DeviceError,
];

const FINISHES_CHECKSUMS: u16 = 1;

/// What the programs know from their load on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// Our underlay address and port.
    pub local: SocketAddrV4,
    /// Bytes before the inner IP header on the device: 0 for a TUN.
    pub link_header: u16,
    /// Interface index of the underlay.
    pub underlay: u32,
    /// Interface index of the TUN device.
    pub device: u32,
    /// Bytes of the largest outer packet.
    pub underlay_mtu: u32,
    /// Names this kernel, if the underlay is a virtual link; else 0.
    pub cookie: u16,
}

impl Config {
    pub(super) fn render(&self) -> [u8; CONFIG_BYTES] {
        let mut bytes = [0; CONFIG_BYTES];
        bytes[..4].copy_from_slice(&self.local.ip().octets());
        bytes[4..6].copy_from_slice(&self.local.port().to_be_bytes());
        bytes[6..8].copy_from_slice(&self.link_header.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.underlay.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.device.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.underlay_mtu.to_ne_bytes());
        bytes[20..22].copy_from_slice(&self.cookie.to_ne_bytes());
        bytes
    }

    /// The TUN device's index in a rendered configuration.
    pub(super) fn device_in(bytes: &[u8; CONFIG_BYTES]) -> u32 {
        u32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])
    }
}

/// Where a peer's datagrams go, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub address: Ipv4Addr,
    pub port: u16,
    pub finishes_checksums: bool,
}

impl Target {
    /// Writes over all but what belongs to the programs.
    pub(super) fn render_into(&self, bytes: &mut [u8; PEER_BYTES]) {
        let mut flags = 0;
        if self.finishes_checksums {
            flags |= FINISHES_CHECKSUMS;
        }
        bytes[..4].copy_from_slice(&self.address.octets());
        bytes[4..6].copy_from_slice(&self.port.to_be_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }
}

/// `struct lookup`: the lengths that the hashes hold, and whether the trie holds anything.
pub(super) fn lookup(v4: u8, v6: u8, odd: bool) -> [u8; LOOKUP_BYTES] {
    let mut bytes = [0; LOOKUP_BYTES];
    let mask_v4 = u32::MAX.checked_shl(32 - u32::from(v4)).unwrap_or(0);
    let mask_v6 = u128::MAX.checked_shl(128 - u32::from(v6)).unwrap_or(0);
    bytes[..4].copy_from_slice(&mask_v4.to_be_bytes());
    bytes[4..8].copy_from_slice(&u32::from(odd).to_ne_bytes());
    bytes[8..].copy_from_slice(&mask_v6.to_be_bytes());
    bytes
}

/// `struct trie_key`: prefix length, and family with address.
pub(super) fn trie_key(net: IpNet) -> (u32, [u8; 20]) {
    let mut data = [0; 20];
    let (family, length): (u32, u8) = match net {
        IpNet::V4(net) => {
            data[4..8].copy_from_slice(&net.network().octets());
            (4, net.prefix_len())
        }
        IpNet::V6(net) => {
            data[4..].copy_from_slice(&net.network().octets());
            (6, net.prefix_len())
        }
    };
    data[..4].copy_from_slice(&family.to_ne_bytes());
    (32 + u32::from(length), data)
}

/// What the programs counted. A large (GSO) packet counts as the packets that it becomes on the wire;
/// bytes are those of inner packets, where a large one counts its headers once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets and bytes given to the underlay.
    pub sent: (u64, u64),
    /// Packets and bytes given to the TUN device.
    pub received: (u64, u64),
    /// Packets of the device left to the user-space path.
    pub passed_out: u64,
    /// Datagrams for our port left to the user-space path.
    pub passed_in: u64,
    dropped: [u64; DROPS.len()],
}

impl Counts {
    pub(super) fn parse(words: &[u64; COUNTERS]) -> Self {
        let mut dropped = [0; DROPS.len()];
        dropped.copy_from_slice(&words[FIRST_DROP..]);
        Self {
            sent: (words[0], words[1]),
            received: (words[2], words[3]),
            passed_out: words[4],
            passed_in: words[5],
            dropped,
        }
    }

    /// Packets that went nowhere; 0 for reasons that only the user-space path has.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        DROPS
            .iter()
            .zip(self.dropped)
            .find_map(|(known, count)| (*known == reason).then_some(count))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_all_lengths() {
        let at = |v4, v6| lookup(v4, v6, true);
        assert_eq!(at(0, 0)[..4], [0; 4]);
        assert_eq!(
            at(24, 0)[..8],
            [255, 255, 255, 0, 1, 0, 0, 0].map(|byte| byte)
        );
        assert_eq!(at(32, 128)[8..], [255; 16]);
        assert_eq!(at(32, 64)[8..], [[255; 8], [0; 8]].concat());
    }

    #[test]
    fn trie_keys_of_both_families_differ_in_the_first_bits() {
        let (bits, v4) = trie_key("0.0.0.0/0".parse().unwrap());
        assert_eq!(bits, 32);
        let (bits, v6) = trie_key("::/0".parse().unwrap());
        assert_eq!(bits, 32);
        assert_ne!(v4[..4], v6[..4]);
        let (bits, key) = trie_key("10.1.2.0/23".parse().unwrap());
        assert_eq!((bits, &key[4..8]), (55, &[10, 1, 2, 0][..]));
    }
}
