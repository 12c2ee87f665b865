use std::hint::black_box;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// RFC 1071 as written: 16-bit words, an odd byte padded with zero. Nothing shared with the code under test.
pub(crate) fn plain(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = sum % 0x10000 + sum / 0x10000;
    }
    u16::try_from(sum).unwrap()
}

#[test]
fn the_example_of_rfc_1071() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(fold(sum(&bytes)), 0xddf2);
    assert_eq!(finish(sum(&bytes)), !0xddf2);
}

#[test]
fn zero_becomes_its_twin_where_zero_means_none() {
    assert_eq!(finish(word(0xffff)), 0);
    assert_eq!(finish_nonzero(word(0xffff)), 0xffff);
    assert_eq!(finish_nonzero(word(0x1234)), !0x1234);
}

#[test]
fn the_largest_sum_folds() {
    let bytes = vec![0xff; 1 << 20];
    assert_eq!(fold(sum(&bytes)), 0xffff);
    assert_eq!(fold(u64::MAX), 0xffff);
}

#[test]
fn a_pseudo_header_is_what_the_rfcs_draw() {
    let v4 = [10, 1, 2, 3, 10, 4, 5, 6];
    let drawn = [v4.as_slice(), &[0, 17], &[0x12, 0x34]].concat();
    assert_eq!(fold(pseudo_header(&v4, 17, 0x1234)), plain(&drawn));
    let v6: Vec<u8> = (100..132).collect();
    let drawn = [&v6, [0, 1, 2, 3].as_slice(), &[0, 0, 0, 6]].concat();
    assert_eq!(fold(pseudo_header(&v6, 6, 0x1_0203)), plain(&drawn));
}

proptest! {
    #[test]
    fn same_as_the_plain_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2000), from in 0usize..8) {
        let bytes = bytes.get(from..).unwrap_or_default();
        prop_assert_eq!(fold(sum(bytes)), plain(bytes));
        let mut copy = vec![0x5a; bytes.len() + 3];
        prop_assert_eq!(fold(copy_and_sum(&mut copy, bytes)), plain(bytes));
        prop_assert_eq!(&copy[..bytes.len()], bytes);
        prop_assert_eq!(&copy[bytes.len()..], [0x5a; 3]);
    }

    #[test]
    fn pieces_of_even_length_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..500), at: prop::sample::Index) {
        let at = at.index(bytes.len() / 2 + 1) * 2;
        let (left, right) = bytes.split_at(at.min(bytes.len()));
        prop_assert_eq!(fold(sum(left) + sum(right)), plain(&bytes));
    }

    #[test]
    fn data_with_its_checksum_verifies(mut bytes in proptest::collection::vec(any::<u8>(), 2..300), flip: u16) {
        bytes[..2].copy_from_slice(&[0, 0]);
        let field = finish(sum(&bytes));
        bytes[..2].copy_from_slice(&field.to_be_bytes());
        prop_assert!(verifies(sum(&bytes)));
        // A changed field is noticed; 0 and 0xffff are the same number.
        bytes[..2].copy_from_slice(&(field ^ flip).to_be_bytes());
        prop_assert_eq!(verifies(sum(&bytes)), flip == 0 || (flip == 0xffff && (field == 0 || field == 0xffff)));
    }
}

/// `cargo test --release -p tunnel speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, for release builds"]
fn speed() {
    for size in [64, 576, 1400, 9000, 65536] {
        let source: Vec<u8> = (0..size).map(|at| (at * 7) as u8).collect();
        let mut target = vec![0; size];
        let rate = |run: &mut dyn FnMut() -> u64| {
            let rounds = 400_000_000 / size;
            let best = (0..5).map(|_| {
                let start = Instant::now();
                for _ in 0..rounds {
                    black_box(run());
                }
                start.elapsed()
            });
            (rounds * size) as f64 / best.min().unwrap().as_secs_f64() / 1e9
        };
        println!(
            "{size:6} bytes: plain copy {:5.1} GB/s, sum {:5.1} GB/s, copy and sum {:5.1} GB/s",
            rate(&mut || {
                black_box(&mut target).copy_from_slice(black_box(&source));
                0
            }),
            rate(&mut || sum(black_box(&source))),
            rate(&mut || copy_and_sum(black_box(&mut target), black_box(&source))),
        );
    }
}
