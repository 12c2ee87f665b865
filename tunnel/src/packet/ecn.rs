//! Explicit congestion notification across the tunnel (RFC 6040, normal mode).
//!
//! At encapsulation the outer field is a copy of the inner one; at decapsulation [`combine`] merges them.

use super::checksum::{finish, word};

/// The sender does not understand ECN.
pub const NOT_ECT: u8 = 0;
/// It does, codepoint 1.
pub const ECT_1: u8 = 1;
/// It does, codepoint 0.
pub const ECT_0: u8 = 2;
/// Congestion experienced.
pub const CE: u8 = 3;

/// The inner field after decapsulation, by the table of RFC 6040, section 4.2; only the two lowest bits are looked at. None: the
/// packet must be dropped, as its sender would not understand the mark.
#[must_use]
pub const fn combine(inner: u8, outer: u8) -> Option<u8> {
    match (inner & 3, outer & 3) {
        (NOT_ECT, CE) => None,
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// The ECN field of the packet at the beginning of `bytes`; none when that is no IP packet.
#[must_use]
pub fn get(bytes: &[u8]) -> Option<u8> {
    match *bytes.first_chunk()? {
        [first, second] if first >> 4 == 4 => Some(second & 3),
        [first, second] if first >> 4 == 6 => Some(second >> 4 & 3),
        _ => None,
    }
}

/// Writes the ECN field of an IP packet. The IPv4 header checksum is updated incrementally (RFC 1624), so that a wrong one stays
/// wrong.
///
/// Bytes that are no IP packet stay as they are.
pub fn set(bytes: &mut [u8], ecn: u8) {
    let ecn = ecn & 3;
    match bytes.first().map(|first| first >> 4) {
        Some(4) if bytes.len() >= 20 => {
            let old = u16::from_be_bytes([bytes[0], bytes[1]]);
            bytes[1] = bytes[1] & !3 | ecn;
            let new = u16::from_be_bytes([bytes[0], bytes[1]]);
            if new != old {
                let field = u16::from_be_bytes([bytes[10], bytes[11]]);
                let field = finish(word(!field) + word(!old) + word(new));
                bytes[10..12].copy_from_slice(&field.to_be_bytes());
            }
        }
        Some(6) if bytes.len() >= 40 => bytes[1] = bytes[1] & !0x30 | ecn << 4,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::tests::plain;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_of_rfc_6040() {
        let outers = [NOT_ECT, ECT_0, ECT_1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ];
        for (inner, row) in rows {
            assert_eq!(outers.map(|outer| combine(inner, outer)), row);
            // The DSCP above the two bits does not matter.
            assert_eq!(combine(inner | 0xb8, CE | 0x40), row[3]);
        }
    }

    proptest! {
        #[test]
        fn set_changes_two_bits_and_keeps_the_checksum_right(mut bytes: [u8; 20], ecn in 0u8..4) {
            bytes[0] = 0x45;
            bytes[10..12].fill(0);
            let field = !plain(&bytes);
            bytes[10..12].copy_from_slice(&field.to_be_bytes());
            let before = bytes;
            set(&mut bytes, ecn);
            prop_assert_eq!(get(&bytes), Some(ecn));
            prop_assert_eq!(plain(&bytes), 0xffff);
            prop_assert_eq!(bytes[1] >> 2, before[1] >> 2);
            prop_assert_eq!(&bytes[2..10], &before[2..10]);
            prop_assert_eq!(&bytes[12..], &before[12..]);
        }

        #[test]
        fn set_changes_two_bits_of_ipv6(mut bytes: [u8; 16], ecn in 0u8..4) {
            bytes[0] = 0x60 | bytes[0] & 15;
            let mut packet = [bytes.as_slice(), &[7; 24]].concat();
            set(&mut packet, ecn);
            prop_assert_eq!(get(&packet), Some(ecn));
            packet[1] = packet[1] & !0x30 | bytes[1] & 0x30;
            prop_assert_eq!(&packet[..16], &bytes);
        }

        #[test]
        fn anything_else_stays_as_it_is(bytes in proptest::collection::vec(any::<u8>(), 0..60), ecn: u8) {
            let mut after = bytes.clone();
            set(&mut after, ecn);
            let is_ip = matches!((bytes.first().map(|b| b >> 4), bytes.len()), (Some(4), 20..) | (Some(6), 40..));
            prop_assert!(is_ip || after == bytes);
        }
    }
}
