//! Which peer has an address: an immutable table, made by the control plane, read per packet.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

/// Subnets sorted by first address; leases do not overlap.
#[derive(Debug, Default)]
pub struct Table {
    own: Option<Ipv4Addr>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    first: u32,
    last: u32,
    peer: SocketAddrV4,
}

impl Table {
    /// `own` is the address that errors to senders come from.
    pub fn new(
        own: Option<Ipv4Addr>,
        peers: impl Iterator<Item = (Ipv4Net, SocketAddrV4)>,
    ) -> Self {
        let mut entries: Vec<Entry> = peers
            .map(|(net, peer)| Entry {
                first: net.network().to_bits(),
                last: net.broadcast().to_bits(),
                peer,
            })
            .collect();
        entries.sort_by_key(|entry| entry.first);
        Self { own, entries }
    }

    /// This node's own address inside the network.
    pub fn own(&self) -> Option<Ipv4Addr> {
        self.own
    }

    /// The peer whose subnet holds `ip`.
    pub fn peer(&self, ip: Ipv4Addr) -> Option<SocketAddrV4> {
        let ip = ip.to_bits();
        let after = self.entries.partition_point(|entry| entry.first <= ip);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        (ip <= entry.last).then_some(entry.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 168, 66, n), 8285)
    }

    #[test]
    fn finds_the_subnet_that_holds_the_address() {
        let nets = ["10.1.2.0/24", "10.1.1.0/24", "10.1.9.0/25"];
        let peers = nets
            .iter()
            .zip(1..)
            .map(|(net, n)| (net.parse().unwrap(), peer(n)));
        let table = Table::new(None, peers);
        let find = |ip: &str| table.peer(ip.parse().unwrap());
        assert_eq!(find("10.1.1.0"), Some(peer(2)));
        assert_eq!(find("10.1.2.255"), Some(peer(1)));
        assert_eq!(find("10.1.9.127"), Some(peer(3)));
        assert_eq!(find("10.1.9.128"), None);
        assert_eq!(find("10.1.0.255"), None);
        assert_eq!(find("255.255.255.255"), None);
    }

    proptest! {
        /// As a plain search through all subnets would find it.
        #[test]
        fn same_as_linear_search(thirds in proptest::collection::btree_set(0u8.., 0..40), ip: [u8; 2]) {
            let nets: Vec<(Ipv4Net, SocketAddrV4)> = thirds
                .iter()
                .map(|n| (Ipv4Net::new(Ipv4Addr::new(10, 1, *n, 0), 24).unwrap(), peer(*n)))
                .collect();
            let table = Table::new(None, nets.iter().copied());
            let ip = Ipv4Addr::new(10, 1, ip[0], ip[1]);
            let linear = nets.iter().find(|(net, _)| net.contains(&ip)).map(|(_, peer)| *peer);
            prop_assert_eq!(table.peer(ip), linear);
        }
    }
}
