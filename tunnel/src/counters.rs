//! What became of the packets, counted by all workers without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a packet went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum DropReason {
    /// No peer has the destination; the sender was told (ICMP).
    NoPeer,
    /// Not a whole IP packet, or no valid outer format.
    Malformed,
    /// From an address that is no peer's.
    UnknownPeer,
    /// From a peer, but the inner source is outside that peer's subnet.
    ForeignSource,
    /// Larger than the path to the peer carries, and not to be fragmented; the sender was told (ICMP).
    TooBig,
    /// Congestion marked outside, but the inner sender does not understand it (RFC 6040, section 4.2).
    CongestionUnmarkable,
    /// The underlay refused the datagram; when there is no way to the peer, the sender was told (ICMP).
    SendError,
    /// The socket's send buffer was full, or a VXLAN peer asked (ARP, neighbour discovery) more often than is answered.
    SendBufferFull,
    /// The socket's receive buffer was full (counted by the kernel, SO_MEMINFO).
    ReceiveBufferFull,
    /// The TUN device refused the packet (it is down, for instance).
    DeviceError,
    /// Neither IPv4 nor IPv6 inside, or a protocol of the format that is not carried.
    Unsupported,
    /// VXLAN: of another VNI, or a frame for another station's MAC.
    NotForUs,
}

impl DropReason {
    /// All of them, in order.
    pub const ALL: [Self; 12] = [
        Self::NoPeer,
        Self::Malformed,
        Self::UnknownPeer,
        Self::ForeignSource,
        Self::TooBig,
        Self::CongestionUnmarkable,
        Self::SendError,
        Self::SendBufferFull,
        Self::ReceiveBufferFull,
        Self::DeviceError,
        Self::Unsupported,
        Self::NotForUs,
    ];

    /// The label of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoPeer => "no_peer",
            Self::Malformed => "malformed",
            Self::UnknownPeer => "unknown_peer",
            Self::ForeignSource => "foreign_source",
            Self::TooBig => "too_big",
            Self::CongestionUnmarkable => "congestion_unmarkable",
            Self::SendError => "send_error",
            Self::SendBufferFull => "send_buffer_full",
            Self::ReceiveBufferFull => "receive_buffer_full",
            Self::DeviceError => "device_error",
            Self::Unsupported => "unsupported",
            Self::NotForUs => "not_for_us",
        }
    }
}

/// Packets by fate. A large (GSO) packet counts as the packets that it becomes on the wire.
#[derive(Debug, Default)]
pub struct Counters {
    sent: Flow,
    received: Flow,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

/// Packets and bytes of inner IP packets.
#[derive(Debug, Default)]
struct Flow {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

impl Counters {
    /// Packets and bytes given to the underlay.
    pub fn count_sent(&self, packets: u64, bytes: u64) {
        self.sent.add(packets, bytes);
    }

    /// Packets and bytes given to the TUN device.
    pub fn count_received(&self, packets: u64, bytes: u64) {
        self.received.add(packets, bytes);
    }

    /// Packets that went nowhere.
    pub fn count_dropped(&self, reason: DropReason, packets: u64) {
        self.dropped[reason as usize].fetch_add(packets, Relaxed);
    }

    /// Packets and bytes so far.
    pub fn sent(&self) -> (u64, u64) {
        self.sent.read()
    }

    /// Packets and bytes so far.
    pub fn received(&self) -> (u64, u64) {
        self.received.read()
    }

    /// Packets so far.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_name() {
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        let names = DropReason::ALL.map(DropReason::name);
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
