//! `struct virtio_net_hdr`: what stands before each packet of a TUN device opened with `IFF_VNET_HDR`.
//!
//! It says what is left to do: compute a checksum, cut into segments. Source:
//! `include/uapi/linux/virtio_net.h`; in the machine's byte order, as a TUN device has it unless told otherwise.

/// The checksum from `csum_start` on is to be computed.
pub const NEEDS_CSUM: u8 = 1;

/// Not to be cut.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// UDP, into datagrams of `gso_size`, over either family.
pub const GSO_UDP_L4: u8 = 5;
/// Added to a TCP type: the first segment has CWR.
pub const GSO_ECN: u8 = 0x80;

/// The header's fields, named as the kernel does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`] or nothing; other bits are of no meaning here.
    pub flags: u8,
    /// One of the `GSO_` constants.
    pub gso_type: u8,
    /// Length of all headers together; a hint.
    pub hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Where the checksum begins to count, from the start of the packet.
    pub csum_start: u16,
    /// Where it is stored, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Bytes on the device.
    pub const LEN: usize = 10;

    /// Reads the beginning of `bytes`; none when they are too few.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [flags, gso_type, rest @ ..] = bytes.first_chunk::<{ Self::LEN }>()?;
        let (words, _) = rest.as_chunks::<2>();
        let [hdr_len, gso_size, csum_start, csum_offset] = *words else {
            return None;
        };
        Some(Self {
            flags: *flags,
            gso_type: *gso_type,
            hdr_len: u16::from_ne_bytes(hdr_len),
            gso_size: u16::from_ne_bytes(gso_size),
            csum_start: u16::from_ne_bytes(csum_start),
            csum_offset: u16::from_ne_bytes(csum_offset),
        })
    }

    /// Writes the first [`LEN`](Self::LEN) bytes of `out`.
    ///
    /// # Panics
    /// When `out` is shorter.
    pub fn encode(&self, out: &mut [u8]) {
        out[..2].copy_from_slice(&[self.flags, self.gso_type]);
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        ];
        for (to, word) in out[2..Self::LEN].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_stand_where_the_kernel_has_them() {
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV6 | GSO_ECN,
            hdr_len: 0x1234,
            gso_size: 1380,
            csum_start: 40,
            csum_offset: 16,
        };
        let mut bytes = [0xee; 12];
        header.encode(&mut bytes);
        assert_eq!(bytes[..2], [1, 0x84]);
        assert_eq!(bytes[2..4], 0x1234u16.to_ne_bytes());
        assert_eq!(bytes[4..6], 1380u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 40u16.to_ne_bytes());
        assert_eq!(bytes[8..10], 16u16.to_ne_bytes());
        assert_eq!(bytes[10..], [0xee; 2]);
        assert_eq!(VnetHeader::decode(&bytes), Some(header));
    }

    proptest! {
        #[test]
        fn encode_undoes_decode(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let header = VnetHeader::decode(&bytes);
            prop_assert_eq!(header.is_some(), bytes.len() >= VnetHeader::LEN);
            if let Some(header) = header {
                let mut again = [0; VnetHeader::LEN];
                header.encode(&mut again);
                prop_assert_eq!(&again[..], &bytes[..VnetHeader::LEN]);
            }
        }
    }
}
