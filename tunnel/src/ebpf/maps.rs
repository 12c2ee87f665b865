//! The peer table in the kernel's maps: filled once, then only what changed is written.
//!
//! Order of a change, so that a packet under way never meets a subnet without its peer: peers in,
//! subnets in or over, subnets out, peers out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key};
use ipnet::IpNet;

use super::{
    Counts, Error,
    layout::{self, CARRIED, COUNTERS, LOOKUP_BYTES, PEER_BYTES, Target},
};
use crate::Table;

/// What the maps shall hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    peers: BTreeMap<Ipv4Addr, Target>,
    subnets: BTreeMap<IpNet, Ipv4Addr>,
}

impl Wanted {
    /// From the table; peers with an IPv6 underlay address are left to the user path. Of two peers with one subnet the later one has it.
    pub(super) fn plan(table: &Table) -> Self {
        let mut wanted = Self::default();
        for peer in table.peers() {
            let SocketAddr::V4(address) = peer.address else {
                continue;
            };
            let ip = *address.ip();
            let target = Target {
                address: ip,
                port: address.port(),
                finishes_checksums: peer.finishes_checksums,
            };
            wanted.peers.insert(ip, target);
            let nets = [peer.v4.map(IpNet::V4), peer.v6.map(IpNet::V6)];
            for net in nets.into_iter().flatten() {
                wanted.subnets.insert(net.trunc(), ip);
            }
        }
        wanted
    }

    /// Entries that the largest map needs.
    pub(super) fn entries(&self) -> usize {
        self.peers.len().max(self.subnets.len())
    }

    /// The same while `before` gives way to it: what is new comes in before what is old goes out.
    fn entries_after(&self, before: &Self) -> usize {
        let new = |key: &Ipv4Addr| !before.peers.contains_key(key);
        let peers = self.peers.keys().filter(|key| new(key)).count();
        let new = |key: &IpNet| !before.subnets.contains_key(key);
        let subnets = self.subnets.keys().filter(|key| new(key)).count();
        (before.peers.len() + peers).max(before.subnets.len() + subnets)
    }

    /// The prefix length most subnets of a family have.
    fn usual_length(&self, v4: bool) -> Option<u8> {
        let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
        for net in self.subnets.keys() {
            if matches!(net, IpNet::V4(_)) == v4 {
                *counts.entry(net.prefix_len()).or_default() += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(length, _)| length)
    }
}

/// The maps of one load, and what we wrote into them.
pub(super) struct Maps {
    subnets_v4: HashMap<MapData, [u8; 4], u32>,
    subnets_v6: HashMap<MapData, [u8; 16], u32>,
    subnets_odd: LpmTrie<MapData, [u8; 20], u32>,
    addresses: HashMap<MapData, [u8; 4], u32>,
    peers: Array<MapData, [u8; PEER_BYTES]>,
    lookup: Array<MapData, [u8; LOOKUP_BYTES]>,
    counters: PerCpuArray<MapData, [u64; COUNTERS]>,
    carried: Array<MapData, [u64; CARRIED]>,
    /// Room for so many peers, and for so many subnets of each family.
    capacity: usize,
    written: Wanted,
    slots: BTreeMap<Ipv4Addr, u32>,
    free: BTreeSet<u32>,
    /// The lengths in the hashes, chosen when the first subnet of the family comes.
    length_v4: Option<u8>,
    length_v6: Option<u8>,
    odd: bool,
}

impl Maps {
    /// Takes the maps out of what was loaded.
    pub(super) fn take(object: &mut aya::Ebpf, capacity: usize) -> Result<Self, Error> {
        let mut take = |name: &str| {
            object.take_map(name).ok_or_else(|| Error::Refused {
                what: format!("open map {name}"),
                cause: "the program has none of that name".to_owned(),
                errno: None,
            })
        };
        let refused = |cause: MapError| Error::refused("open a map", &cause);
        Ok(Self {
            subnets_v4: take("subnets_v4")?.try_into().map_err(refused)?,
            subnets_v6: take("subnets_v6")?.try_into().map_err(refused)?,
            subnets_odd: take("subnets_odd")?.try_into().map_err(refused)?,
            addresses: take("addresses")?.try_into().map_err(refused)?,
            peers: take("peers")?.try_into().map_err(refused)?,
            lookup: take(".bss")?.try_into().map_err(refused)?,
            counters: take("counters")?.try_into().map_err(refused)?,
            carried: take("carried")?.try_into().map_err(refused)?,
            capacity,
            written: Wanted::default(),
            slots: BTreeMap::new(),
            free: (0..u32::try_from(capacity).unwrap_or(u32::MAX)).collect(),
            length_v4: None,
            length_v6: None,
            odd: false,
        })
    }

    /// Whether there is room for what is there and what is wanted, both at once.
    pub(super) fn can_become(&self, wanted: &Wanted) -> bool {
        wanted.entries_after(&self.written) <= self.capacity
    }

    /// Writes the difference to what is there. After an error what was not written is tried again by
    /// the next call.
    pub(super) fn apply(&mut self, wanted: &Wanted) -> Result<(), Error> {
        self.write(wanted)
            .map_err(|cause| Error::refused("write the peer table", &cause))
    }

    fn write(&mut self, wanted: &Wanted) -> Result<(), MapError> {
        for (ip, target) in &wanted.peers {
            if self.written.peers.get(ip) != Some(target) {
                self.put_peer(*ip, target)?;
                self.written.peers.insert(*ip, *target);
            }
        }
        self.choose_lengths(wanted)?;
        for (net, ip) in &wanted.subnets {
            if self.written.subnets.get(net) != Some(ip) {
                self.put_subnet(*net, *ip)?;
                self.written.subnets.insert(*net, *ip);
            }
        }
        let gone: Vec<_> = self.written.subnets.keys().copied().collect();
        for net in gone {
            if !wanted.subnets.contains_key(&net) {
                self.remove_subnet(net)?;
                self.written.subnets.remove(&net);
            }
        }
        let gone: Vec<_> = self.written.peers.keys().copied().collect();
        for ip in gone {
            if !wanted.peers.contains_key(&ip) {
                self.remove_peer(ip)?;
                self.written.peers.remove(&ip);
            }
        }
        Ok(())
    }

    fn choose_lengths(&mut self, wanted: &Wanted) -> Result<(), MapError> {
        let v4 = self.length_v4.or_else(|| wanted.usual_length(true));
        let v6 = self.length_v6.or_else(|| wanted.usual_length(false));
        let odd = wanted.subnets.keys().any(|net| match net {
            IpNet::V4(net) => Some(net.prefix_len()) != v4,
            IpNet::V6(net) => Some(net.prefix_len()) != v6,
        });
        if (v4, v6, odd) != (self.length_v4, self.length_v6, self.odd) {
            let lookup = layout::lookup(v4.unwrap_or(0), v6.unwrap_or(0), odd);
            self.lookup.set(0, lookup, 0)?;
            (self.length_v4, self.length_v6, self.odd) = (v4, v6, odd);
        }
        Ok(())
    }

    fn put_peer(&mut self, ip: Ipv4Addr, target: &Target) -> Result<(), MapError> {
        let slot = match self.slots.get(&ip) {
            Some(slot) => *slot,
            None => self.free.first().copied().ok_or(MapError::OutOfBounds {
                index: u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
                max_entries: u32::try_from(self.capacity).unwrap_or(u32::MAX),
            })?,
        };
        let mut bytes = match self.slots.contains_key(&ip) {
            true => self.peers.get(&slot, 0)?,
            false => [0; PEER_BYTES],
        };
        target.render_into(&mut bytes);
        self.peers.set(slot, bytes, 0)?;
        self.free.remove(&slot);
        self.slots.insert(ip, slot);
        self.addresses.insert(ip.octets(), slot, 0)
    }

    fn remove_peer(&mut self, ip: Ipv4Addr) -> Result<(), MapError> {
        gone(self.addresses.remove(&ip.octets()))?;
        if let Some(slot) = self.slots.get(&ip).copied() {
            self.peers.set(slot, [0; PEER_BYTES], 0)?;
            self.slots.remove(&ip);
            self.free.insert(slot);
        }
        Ok(())
    }

    fn put_subnet(&mut self, net: IpNet, ip: Ipv4Addr) -> Result<(), MapError> {
        // Every subnet's peer was put before.
        let Some(slot) = self.slots.get(&ip).copied() else {
            return Err(MapError::KeyNotFound);
        };
        match net {
            IpNet::V4(net) if self.length_v4 == Some(net.prefix_len()) => {
                self.subnets_v4.insert(net.network().octets(), slot, 0)
            }
            IpNet::V6(net) if self.length_v6 == Some(net.prefix_len()) => {
                self.subnets_v6.insert(net.network().octets(), slot, 0)
            }
            net => {
                let (bits, data) = layout::trie_key(net);
                self.subnets_odd.insert(&Key::new(bits, data), slot, 0)
            }
        }
    }

    fn remove_subnet(&mut self, net: IpNet) -> Result<(), MapError> {
        gone(match net {
            IpNet::V4(net) if self.length_v4 == Some(net.prefix_len()) => {
                self.subnets_v4.remove(&net.network().octets())
            }
            IpNet::V6(net) if self.length_v6 == Some(net.prefix_len()) => {
                self.subnets_v6.remove(&net.network().octets())
            }
            net => {
                let (bits, data) = layout::trie_key(net);
                self.subnets_odd.remove(&Key::new(bits, data))
            }
        })
    }

    /// Everything counted so far, by these programs and by those before them.
    pub(super) fn counts(&self) -> Result<Counts, Error> {
        let mut words = self.own_words()?;
        let carried = self.carried()?;
        for (word, before) in words.iter_mut().zip(carried) {
            *word += before;
        }
        Ok(Counts::parse(&words))
    }

    fn own_words(&self) -> Result<[u64; COUNTERS], Error> {
        sum(&self.counters).map_err(|cause| Error::refused("read counters", &cause))
    }

    /// What was carried over, and which clsact qdiscs were made for us.
    pub(super) fn carried(&self) -> Result<[u64; CARRIED], Error> {
        self.carried
            .get(&0, 0)
            .map_err(|cause| Error::refused("read carried counters", &cause))
    }

    pub(super) fn set_carried(&mut self, words: [u64; CARRIED]) -> Result<(), Error> {
        self.carried
            .set(0, words, 0)
            .map_err(|cause| Error::refused("write carried counters", &cause))
    }
}

/// The counters of other programs, with all that they carried; `None` if they are of a version that
/// counts otherwise.
pub(super) fn foreign_carried(counters: MapData, carried: MapData) -> Option<[u64; CARRIED]> {
    let counters: PerCpuArray<_, [u64; COUNTERS]> = Map::PerCpuArray(counters).try_into().ok()?;
    let carried: Array<_, [u64; CARRIED]> = Map::Array(carried).try_into().ok()?;
    let mut words = carried.get(&0, 0).ok()?;
    for (word, own) in words.iter_mut().zip(sum(&counters).ok()?) {
        *word += own;
    }
    Some(words)
}

fn sum(counters: &PerCpuArray<MapData, [u64; COUNTERS]>) -> Result<[u64; COUNTERS], MapError> {
    let mut words = [0; COUNTERS];
    for of_cpu in counters.get(&0, 0)?.iter() {
        for (word, more) in words.iter_mut().zip(of_cpu) {
            *word += more;
        }
    }
    Ok(words)
}

/// What is not there need not be removed.
fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Own, Peer};

    fn wanted(peers: std::ops::Range<u8>) -> Wanted {
        let peer = |n: u8| Peer {
            address: ([192, 168, 66, n], 8285).into(),
            v4: Some(format!("10.5.{n}.0/24").parse().unwrap()),
            v6: None,
            mac: None,
            finishes_checksums: true,
        };
        Wanted::plan(&Table::new(Own::default(), peers.map(peer).collect()))
    }

    #[test]
    fn a_change_needs_room_for_old_and_new() {
        let none = Wanted::default();
        assert_eq!(wanted(0..40).entries_after(&none), 40);
        assert_eq!(none.entries_after(&wanted(0..40)), 40);
        assert_eq!(wanted(0..40).entries_after(&wanted(0..40)), 40);
        assert_eq!(wanted(30..70).entries_after(&wanted(0..40)), 70);
        assert_eq!(wanted(40..80).entries_after(&wanted(0..40)), 80);
    }
}
