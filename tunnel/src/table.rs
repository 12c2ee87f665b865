//! Which peer has an address, and which subnets a peer may speak for: an immutable table, made by the
//! control plane, read per packet.

use std::net::{IpAddr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use kernel::Mac;

/// This node's own side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Our subnet; its first address is the TUN device's, from which errors to senders come.
    pub v4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub v6: Option<Ipv6Net>,
    /// Our VTEP MAC, for [`Wire::Vxlan`](crate::Wire::Vxlan).
    pub mac: Option<Mac>,
}

/// Another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where datagrams go.
    pub address: SocketAddr,
    /// What it may be sent, and may send from.
    pub v4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub v6: Option<Ipv6Net>,
    /// Its VTEP MAC, for [`Wire::Vxlan`](crate::Wire::Vxlan).
    pub mac: Option<Mac>,
    /// It finishes inner checksums that the kernel left to the hardware (virtual links hand such packets
    /// on as they are). Kernel VXLAN and our own nodes do; Go flanneld's udp does not, and must get
    /// finished packets.
    pub finishes_checksums: bool,
}

/// All peers.
#[derive(Debug, Default)]
pub struct Table {
    own: Own,
    peers: Box<[Peer]>,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// Sorted.
    addresses: Box<[IpAddr]>,
}

/// First address, last address, index of the peer; sorted, without overlap (of two subnets that
/// overlap, the one that starts first is found, up to where the next one starts).
type Ranges<T> = Box<[(T, T, u32)]>;

impl Table {
    /// Takes any number of peers in any order.
    pub fn new(own: Own, peers: Vec<Peer>) -> Self {
        let mut v4: Vec<_> = (0..)
            .zip(&peers)
            .filter_map(|(at, peer)| {
                let net = peer.v4?;
                Some((net.network().to_bits(), net.broadcast().to_bits(), at))
            })
            .collect();
        let mut v6: Vec<_> = (0..)
            .zip(&peers)
            .filter_map(|(at, peer)| {
                let net = peer.v6?;
                Some((net.network().to_bits(), net.broadcast().to_bits(), at))
            })
            .collect();
        let mut addresses: Vec<_> = peers.iter().map(|peer| peer.address.ip()).collect();
        v4.sort_unstable();
        v6.sort_unstable();
        addresses.sort_unstable();
        addresses.dedup();
        Self {
            own,
            peers: peers.into(),
            v4: v4.into(),
            v6: v6.into(),
            addresses: addresses.into(),
        }
    }

    /// This node.
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// All peers.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peer whose subnet holds `ip`.
    pub fn peer(&self, ip: IpAddr) -> Option<&Peer> {
        let at = match ip {
            IpAddr::V4(ip) => find(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => find(&self.v6, ip.to_bits()),
        }?;
        self.peers.get(usize::try_from(at).ok()?)
    }

    /// True when some peer sends from this underlay address, whatever the port.
    pub fn knows(&self, underlay: IpAddr) -> bool {
        self.addresses.binary_search(&underlay).is_ok()
    }
}

fn find<T: Ord + Copy>(ranges: &Ranges<T>, ip: T) -> Option<u32> {
    let after = ranges.partition_point(|(first, ..)| *first <= ip);
    let (_, last, at) = ranges.get(after.checked_sub(1)?)?;
    (ip <= *last).then_some(*at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(n: u8, v4: Option<&str>, v6: Option<&str>) -> Peer {
        Peer {
            address: SocketAddr::from(([192, 168, 66, n], 8285)),
            v4: v4.map(|net| net.parse().unwrap()),
            v6: v6.map(|net| net.parse().unwrap()),
            mac: None,
            finishes_checksums: false,
        }
    }

    #[test]
    fn finds_the_subnet_that_holds_the_address() {
        let nets = ["10.1.2.0/24", "10.1.1.0/24", "10.1.9.0/25"];
        let peers = nets
            .iter()
            .zip(1..)
            .map(|(net, n)| peer(n, Some(net), None));
        let table = Table::new(Own::default(), peers.collect());
        let find = |ip: &str| {
            table
                .peer(ip.parse().unwrap())
                .map(|peer| peer.address.ip())
        };
        let address = |n| Some(IpAddr::from([192, 168, 66, n]));
        assert_eq!(find("10.1.1.0"), address(2));
        assert_eq!(find("10.1.2.255"), address(1));
        assert_eq!(find("10.1.9.127"), address(3));
        for none in ["10.1.9.128", "10.1.0.255", "255.255.255.255", "::"] {
            assert_eq!(find(none), None);
        }
        assert!(table.knows([192, 168, 66, 2].into()));
        assert!(!table.knows([192, 168, 66, 4].into()));
    }

    #[test]
    fn families_do_not_mix() {
        let both = peer(1, Some("10.1.1.0/24"), Some("fd00:1::/64"));
        let table = Table::new(
            Own::default(),
            vec![both, peer(2, None, Some("fd00:2::/64"))],
        );
        let find = |ip: &str| {
            table
                .peer(ip.parse().unwrap())
                .map(|peer| peer.address.ip())
        };
        assert_eq!(find("fd00:1::9"), Some([192, 168, 66, 1].into()));
        assert_eq!(find("fd00:2::9"), Some([192, 168, 66, 2].into()));
        assert_eq!(find("fd00:3::9"), None);
        assert_eq!(find("10.1.1.9"), Some([192, 168, 66, 1].into()));
    }

    proptest! {
        /// As a plain search through all subnets would find it.
        #[test]
        fn same_as_linear_search(thirds in proptest::collection::btree_set(0u8.., 0..40), ip: [u8; 2]) {
            let peers: Vec<_> = thirds
                .iter()
                .map(|n| peer(*n, Some(&format!("10.1.{n}.0/24")), None))
                .collect();
            let table = Table::new(Own::default(), peers.clone());
            let ip = IpAddr::from([10, 1, ip[0], ip[1]]);
            let linear = peers.iter().find(|peer| IpAddr::V4(peer.v4.unwrap().network()) == ip
                || peer.v4.unwrap().contains(&match ip { IpAddr::V4(ip) => ip, IpAddr::V6(_) => unreachable!() }));
            prop_assert_eq!(table.peer(ip), linear);
        }
    }
}
