//! What stands between the UDP header and the inner packet, on both ways.

use crate::{
    DropReason, Own, Peer, Table, Wire,
    packet::Packet,
    vxlan::{self, Inner, Question},
};

/// The wire format at work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encapsulation(pub(super) Wire);

/// What a datagram turned out to hold.
pub(super) enum Opened {
    /// An inner packet, from this place on.
    Packet(usize),
    /// VXLAN: the sender asks for our MAC.
    Question(Question),
}

impl Encapsulation {
    /// Bytes in front of each inner packet.
    pub(super) const fn overhead(self) -> usize {
        self.0.overhead()
    }

    /// Fills the [`overhead`](Self::overhead) at the beginning of `room`; the inner packet of `length` bytes is behind it.
    pub(super) fn wrap(
        self,
        room: &mut [u8],
        _length: usize,
        packet: &Packet,
        peer: &Peer,
        own: &Own,
    ) -> Result<(), DropReason> {
        let Wire::Vxlan { vni } = self.0 else {
            return Ok(());
        };
        // A peer without a MAC is none of this format.
        let (from, to) = own.mac.zip(peer.mac).ok_or(DropReason::Unsupported)?;
        let headroom = room.first_chunk_mut().ok_or(DropReason::Malformed)?;
        vxlan::encode(headroom, vni, from, to, packet.source.is_ipv6());
        Ok(())
    }

    /// Looks into a datagram.
    pub(super) fn open(self, datagram: &[u8], table: &Table) -> Result<Opened, DropReason> {
        let Wire::Vxlan { vni } = self.0 else {
            return Ok(Opened::Packet(0));
        };
        Ok(match vxlan::decode(datagram, vni, table.own())? {
            Inner::Packet(_) => Opened::Packet(vxlan::HEADER),
            Inner::Question(question) => Opened::Question(question),
        })
    }
}
