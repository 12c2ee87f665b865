//! The Internet checksum (RFC 1071), over whole buffers and while copying.
//!
//! Theory. A ones' complement sum does not care in which byte order the words are added, nor how wide
//! they are, as long as carries come back in at the low end and the result is folded at the end. So 64-bit words are added
//! as the machine has them, in two chains of add-with-carry that run side by side. That is plain integer code, as fast
//! as vector instructions that the compiler would have to be asked for (and forgets when the program that links us is
//! optimised for size). A *partial sum* is a `u64` that may be added to others with `+`, billions of them, when each piece of
//! the data but the last has an even length.

/// Bytes a round of each chain takes.
const STEP: usize = 64;

/// The partial sum of `bytes`.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (steps, rest) = bytes.as_chunks::<{ 2 * STEP }>();
    let mut chains = [Chain::default(); 2];
    for step in steps {
        add(&mut chains, step);
    }
    chains[0].partial() + chains[1].partial() + sum_of_few(rest)
}

/// Copies `source` to the beginning of `target` and returns its partial sum: one pass over the memory.
///
/// # Panics
/// When `target` is shorter than `source`.
#[must_use]
pub fn copy_and_sum(target: &mut [u8], source: &[u8]) -> u64 {
    let target = &mut target[..source.len()];
    let (from, from_rest) = source.as_chunks::<{ 2 * STEP }>();
    let (to, to_rest) = target.as_chunks_mut::<{ 2 * STEP }>();
    let mut chains = [Chain::default(); 2];
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
        add(&mut chains, from);
    }
    to_rest.copy_from_slice(from_rest);
    chains[0].partial() + chains[1].partial() + sum_of_few(from_rest)
}

/// A sum and how often it went around.
#[derive(Clone, Copy, Default)]
struct Chain {
    sum: u64,
    carries: u64,
}

impl Chain {
    /// The carry runs from word to word.
    #[inline(always)]
    fn add(&mut self, words: &[[u8; 8]]) {
        let mut carry = false;
        for word in words {
            let (sum, first) = self.sum.overflowing_add(u64::from_ne_bytes(*word));
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (self.sum, carry) = (sum, first | second);
        }
        self.carries += u64::from(carry);
    }

    const fn partial(self) -> u64 {
        (self.sum >> 32) + (self.sum & 0xffff_ffff) + self.carries
    }
}

#[inline(always)]
fn add(chains: &mut [Chain; 2], step: &[u8; 2 * STEP]) {
    let (halves, _) = step.as_chunks::<STEP>();
    for (chain, half) in chains.iter_mut().zip(halves) {
        chain.add(half.as_chunks().0);
    }
}

/// The same for headers and remainders: no set-up, no rounds.
#[inline]
fn sum_of_few(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    // The carries gather in the upper half.
    let sum: u128 = words
        .iter()
        .map(|word| u128::from(u64::from_ne_bytes(*word)))
        .sum();
    let chain = Chain {
        sum: sum as u64,
        carries: (sum >> 64) as u64,
    };
    let (half, rest) = rest.as_chunks::<4>();
    let half: u64 = half
        .iter()
        .map(|half| u64::from(u32::from_ne_bytes(*half)))
        .sum();
    let last = match *rest {
        [] => [0, 0, 0, 0],
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c, ..] => [a, b, c, 0],
    };
    chain.partial() + half + u64::from(u32::from_ne_bytes(last))
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
