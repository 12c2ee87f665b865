//! Interim until branch packet has it.
#![allow(missing_docs, reason = "interim")]
use crate::{DropReason, packet, vnet::*};
pub struct Segments<'a>(Option<&'a [u8]>, bool);
impl<'a> Segments<'a> {
    pub fn new(header: &VnetHeader, bytes: &'a [u8]) -> Result<Self, DropReason> {
        if header.gso_type != GSO_NONE {
            return Err(DropReason::Unsupported);
        }
        Ok(Self(Some(bytes), header.flags & NEEDS_CSUM != 0))
    }
    pub fn count(&self) -> usize {
        1
    }
    pub fn full_len(&self) -> usize {
        self.0.map_or(0, <[u8]>::len)
    }
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        let bytes = self.0.take()?;
        out[..bytes.len()].copy_from_slice(bytes);
        if self.1 {
            let packet = packet::parse(bytes).ok()?;
            packet::finish_checksum(&packet, &mut out[..bytes.len()]);
        }
        Some(bytes.len())
    }
}
