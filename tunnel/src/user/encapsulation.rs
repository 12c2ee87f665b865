//! What stands between the UDP header and the inner packet, on both ways.

use crate::{DropReason, Own, Peer, Table, Wire, packet::Packet};

/// The wire format at work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encapsulation(pub(super) Wire);

/// What a datagram turned out to hold.
pub(super) enum Opened {
    /// An inner packet, from this place on.
    Packet(usize),
}

impl Encapsulation {
    /// Bytes in front of each inner packet.
    pub(super) const fn overhead(self) -> usize {
        self.0.overhead()
    }

    /// Fills the [`overhead`](Self::overhead) at the beginning of `room`; the inner packet of `length` bytes is behind it.
    pub(super) fn wrap(
        self,
        _room: &mut [u8],
        _length: usize,
        _packet: &Packet,
        _peer: &Peer,
        _own: &Own,
    ) -> Result<(), DropReason> {
        match self.0 {
            Wire::Ip => Ok(()),
            Wire::Vxlan { .. } => Err(DropReason::Unsupported),
        }
    }

    /// Looks into a datagram.
    pub(super) fn open(self, _datagram: &[u8], _table: &Table) -> Result<Opened, DropReason> {
        match self.0 {
            Wire::Ip => Ok(Opened::Packet(0)),
            Wire::Vxlan { .. } => Err(DropReason::Unsupported),
        }
    }
}
