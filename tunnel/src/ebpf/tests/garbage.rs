//! Both programs on bytes that mean nothing.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes: a datagram is only taken if it is whole and its inner source is the sender's; else
    /// it is left as it was, or dropped.
    #[test]
    fn garbage_is_never_taken(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        cut in 0usize..200,
        flips in proptest::collection::vec((14usize..110, any::<u8>()), 0..4),
        shape in 0u8..3,
    ) {
        thread_local! {
            static BED: std::cell::RefCell<Option<Bed>> = std::cell::RefCell::new(Bed::new(peers()));
        }
        let packet = match shape {
            0 => framed(&ETH_IP, &bytes),
            1 => datagram(PEER, 0, &bytes),
            _ => {
                let mut packet = datagram(PEER, 1, &inner("10.5.2.9", "10.5.1.7", 2, 64));
                for (at, byte) in &flips {
                    packet[*at] = *byte;
                }
                packet.truncate(cut.max(14));
                packet
            }
        };
        // The kernel refuses test runs of less.
        prop_assume!(packet.len() >= 34);
        BED.with_borrow_mut(|bed| -> Result<(), TestCaseError> {
            let Some(bed) = bed else { return Ok(()) };
            for program in [INGRESS, EGRESS] {
                let (verdict, out) = bed.run(program, &packet);
                match verdict {
                    LEFT_ALONE => prop_assert_eq!(&out, &packet),
                    SHOT => {}
                    REDIRECT if program == INGRESS => {
                        let inner = &out[14..];
                        let (length, source): (_, IpAddr) = match inner[0] >> 4 {
                            4 => (usize::from(inner[2]) << 8 | usize::from(inner[3]), [inner[12], inner[13], inner[14], inner[15]].into()),
                            _ => (40 + (usize::from(inner[4]) << 8 | usize::from(inner[5])), <[u8; 16]>::try_from(&inner[8..24]).unwrap().into()),
                        };
                        prop_assert_eq!(length, inner.len());
                        prop_assert_eq!(inner.len() + 42, packet.len());
                        let table = Table::new(Own::default(), peers());
                        let from = IpAddr::from([packet[26], packet[27], packet[28], packet[29]]);
                        prop_assert_eq!(table.peer(source).map(|peer| peer.address.ip()), Some(from));
                    }
                    REDIRECT => prop_assert_eq!(&out[42..], &packet[14..]),
                    other => prop_assert!(false, "verdict {}", other),
                }
            }
            Ok(())
        })?;
    }
}
