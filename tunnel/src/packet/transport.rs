//! Transport checksums: whether they are right, wrong, absent, or left to somebody else.
//!
//! Theory of the *unfinished* ones. A kernel that sends over a link with checksum offload writes only the folded sum
//! of the pseudo header into the field (`CHECKSUM_PARTIAL`) and leaves the rest to the device. Virtual links
//! (veth, virtio) never do that rest: they hand the mark on beside the packet. A datagram socket does not see
//! the mark of an *inner* packet, so the receiver must recognise it: the field holds just the pseudo header's sum. The outer UDP checksum or the link vouches for the data.

use super::checksum::{copy_and_sum, finish, finish_nonzero, fold, pseudo_header, sum, verifies};
use super::{Packet, be16, protocol};

/// The state of a packet's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is right.
    Valid,
    /// Only the pseudo header's sum is in the field; see [`finish_checksum`].
    Unfinished,
    /// It is wrong, or the transport header contradicts the packet's length.
    Wrong,
    /// None that we know: fragment, other protocol, UDP without one.
    None,
}

/// What a transport checksum covers.
struct Cover {
    /// Where the field is, from the start of the packet.
    field: usize,
    /// Where the covered bytes end; they begin at `transport_at`.
    end: usize,
    /// Zero means "none" (UDP).
    nonzero: bool,
}

impl Cover {
    /// None when the protocol has no checksum that we know; an error when its header does not fit.
    fn of(packet: &Packet, bytes: &[u8]) -> Result<Option<Self>, ()> {
        if !packet.has_transport {
            return Ok(None);
        }
        let (at, len) = (packet.transport_at, packet.transport_len());
        match packet.protocol {
            protocol::TCP if len >= 20 => Ok(Some(Self {
                field: at + 16,
                end: packet.len,
                nonzero: false,
            })),
            protocol::UDP if len >= 8 => {
                let udp_len = usize::from(be16(bytes, at + 4).ok_or(())?);
                if udp_len < 8 || udp_len > len {
                    return Err(());
                }
                let none = be16(bytes, at + 6).ok_or(())? == 0;
                Ok((!none).then_some(Self {
                    field: at + 6,
                    end: at + udp_len,
                    nonzero: true,
                }))
            }
            protocol::TCP | protocol::UDP => Err(()),
            _ => Ok(None),
        }
    }

    fn pseudo(&self, packet: &Packet, bytes: &[u8]) -> u64 {
        let len = self.end - packet.transport_at;
        pseudo_header(addresses(packet, bytes), packet.protocol, len)
    }
}

/// Source and destination as they stand in the header.
pub(crate) fn addresses<'a>(packet: &Packet, bytes: &'a [u8]) -> &'a [u8] {
    if packet.is_v6() {
        &bytes[8..40]
    } else {
        &bytes[12..20]
    }
}

/// Looks at the TCP or UDP checksum of the packet that [`parse`](super::parse) found in `bytes`.
///
/// One of 65,536 packets that are right looks unfinished as well, and is reported so: finishing it changes nothing.
#[must_use]
pub fn checksum_state(packet: &Packet, bytes: &[u8]) -> Checksum {
    judge(packet, bytes, sum)
}

/// The same while copying the packet (without padding) to the beginning of `target`: one pass over the memory.
///
/// # Panics
/// When `target` is shorter than the packet.
#[must_use]
pub fn copy_and_judge(packet: &Packet, bytes: &[u8], target: &mut [u8]) -> Checksum {
    let bytes = &bytes[..packet.len];
    let at = packet.transport_at;
    let mut copied = 0..0;
    let state = judge(packet, bytes, |covered| {
        copied = at..at + covered.len();
        copy_and_sum(&mut target[copied.clone()], covered)
    });
    target[..copied.start].copy_from_slice(&bytes[..copied.start]);
    target[copied.end..packet.len].copy_from_slice(&bytes[copied.end..]);
    state
}

/// The same with the partial sum of the covered bytes left to the caller, who is only asked when it is needed.
pub(crate) fn judge(packet: &Packet, bytes: &[u8], sum: impl FnOnce(&[u8]) -> u64) -> Checksum {
    let cover = match Cover::of(packet, bytes) {
        Ok(Some(cover)) => cover,
        Ok(None) => return Checksum::None,
        Err(()) => return Checksum::Wrong,
    };
    let pseudo = cover.pseudo(packet, bytes);
    if be16(bytes, cover.field) == Some(fold(pseudo)) {
        Checksum::Unfinished
    } else if verifies(pseudo + sum(&bytes[packet.transport_at..cover.end])) {
        Checksum::Valid
    } else {
        Checksum::Wrong
    }
}

/// Writes the right checksum into a packet that has one; others stay as they are. For [`Checksum::Unfinished`].
pub fn finish_checksum(packet: &Packet, bytes: &mut [u8]) {
    let Ok(Some(cover)) = Cover::of(packet, bytes) else {
        return;
    };
    let pseudo = cover.pseudo(packet, bytes);
    bytes[cover.field..cover.field + 2].fill(0);
    let total = pseudo + sum(&bytes[packet.transport_at..cover.end]);
    let field = if cover.nonzero {
        finish_nonzero(total)
    } else {
        finish(total)
    };
    bytes[cover.field..cover.field + 2].copy_from_slice(&field.to_be_bytes());
}
