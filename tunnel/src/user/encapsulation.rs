//! What stands between the UDP header and the inner packet, on both ways.

use crate::{
    DropReason, Own, Peer, Wire,
    vxlan::{self, Inner, Question},
};

/// The wire format at work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encapsulation(pub(super) Wire);

/// What a datagram turned out to hold.
pub(super) enum Opened {
    /// An inner packet, from this place on.
    Packet(usize),
    /// A peer's question about our address.
    Question(Question),
}

impl Encapsulation {
    /// Bytes in front of each inner packet.
    pub(super) const fn overhead(self) -> usize {
        self.0.overhead()
    }

    /// Fills the [`overhead`](Self::overhead) at the beginning of `room`; the inner packet is behind it.
    ///
    /// # Errors
    /// [`DropReason::NoPeer`]: with VXLAN, when we or the peer have no MAC yet.
    pub(super) fn wrap(
        self,
        room: &mut [u8],
        is_v6: bool,
        peer: &Peer,
        own: &Own,
    ) -> Result<(), DropReason> {
        match self.0 {
            Wire::Ip => Ok(()),
            Wire::Vxlan { vni } => {
                let (Some(from), Some(to)) = (own.mac, peer.mac) else {
                    return Err(DropReason::NoPeer);
                };
                let headroom = room.first_chunk_mut().ok_or(DropReason::Malformed)?;
                vxlan::encode(headroom, vni, from, to, is_v6);
                Ok(())
            }
        }
    }

    /// Looks into a datagram.
    pub(super) fn open(self, datagram: &[u8], own: &Own) -> Result<Opened, DropReason> {
        match self.0 {
            Wire::Ip => Ok(Opened::Packet(0)),
            Wire::Vxlan { vni } => match vxlan::decode(datagram, vni, own)? {
                Inner::Packet(inner) => Ok(Opened::Packet(datagram.len() - inner.len())),
                Inner::Question(question) => Ok(Opened::Question(question)),
            },
        }
    }
}
