//! The fields of a TCP header (RFC 9293, section 3.1) that cutting and joining work on.

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// Offsets in the header.
pub(crate) const SEQ: usize = 4;
pub(crate) const FLAGS: usize = 13;
pub(crate) const CHECKSUM: usize = 16;
pub(crate) const URGENT: usize = 18;

/// Length of the header with its options, at the beginning of `transport`; none when it does not fit in.
pub(crate) fn header_len(transport: &[u8]) -> Option<usize> {
    let header = transport.first_chunk::<20>()?;
    let len = usize::from(header[12] >> 4) * 4;
    (20..=transport.len()).contains(&len).then_some(len)
}
