//! The Internet checksum (RFC 1071), over whole buffers and while copying.
//!
//! Theory. A ones' complement sum does not care in which byte order the words are added, nor how wide
//! they are, as long as the result is folded at the end. So 32-bit words are read as the machine has them
//! and added up in 64-bit lanes, which cannot overflow below 16 GiB of data; the compiler makes vector
//! instructions of that. A *partial sum* is such a `u64`: partial sums of pieces may be added with `+` when
//! each piece but the last has an even length.

/// Bytes a round of the main loop takes.
const STEP: usize = 64;
const LANES: usize = STEP / 4;

/// The partial sum of `bytes`.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    let mut lanes = [0; LANES];
    for step in steps {
        add(&mut lanes, step);
    }
    lanes.iter().sum::<u64>() + sum_of_few(rest)
}

/// Copies `source` to the beginning of `target` and returns its partial sum: one pass over the memory.
///
/// # Panics
/// When `target` is shorter than `source`.
#[must_use]
pub fn copy_and_sum(target: &mut [u8], source: &[u8]) -> u64 {
    let target = &mut target[..source.len()];
    let (from, from_rest) = source.as_chunks::<STEP>();
    let (to, to_rest) = target.as_chunks_mut::<STEP>();
    let mut lanes = [0; LANES];
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
        add(&mut lanes, from);
    }
    to_rest.copy_from_slice(from_rest);
    lanes.iter().sum::<u64>() + sum_of_few(from_rest)
}

#[inline(always)]
fn add(lanes: &mut [u64; LANES], step: &[u8; STEP]) {
    let (words, _) = step.as_chunks::<4>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane += u64::from(u32::from_ne_bytes(*word));
    }
}

fn sum_of_few(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().map(|word| u32::from_ne_bytes(*word));
    words.map(u64::from).sum::<u64>() + u64::from(u32::from_ne_bytes(last))
}

/// The partial sum of one 16-bit field of the value `field`.
#[must_use]
pub const fn word(field: u16) -> u64 {
    field.to_be() as u64
}

/// The partial sum of the pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1).
///
/// `addresses` are source and destination as they stand in the header: 8 bytes (IPv4) or 32 (IPv6);
/// `length` is that of the transport header with its payload.
#[must_use]
pub fn pseudo_header(addresses: &[u8], protocol: u8, length: usize) -> u64 {
    let length = length as u64;
    sum_of_few(addresses)
        + word(u16::from(protocol))
        + word((length & 0xffff) as u16)
        + word((length >> 16 & 0xffff) as u16)
}

/// A partial sum as a 16-bit value, not inverted: what an *unfinished* checksum field holds.
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    u16::from_be(sum as u16)
}

/// A partial sum as the value of a checksum field: folded and inverted.
#[must_use]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The same for a field in which zero means "none" (UDP, RFC 768): zero becomes its twin.
#[must_use]
pub const fn finish_nonzero(sum: u64) -> u16 {
    match finish(sum) {
        0 => 0xffff,
        other => other,
    }
}

/// True when the sum over data and its checksum field says that the data is whole.
#[must_use]
pub const fn verifies(sum: u64) -> bool {
    fold(sum) == 0xffff
}

#[cfg(test)]
pub(crate) mod tests;
