//! `cargo test --release -p tunnel speed -- --ignored --nocapture`

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::*;

/// The best of some rounds.
fn best(mut run: impl FnMut()) -> Duration {
    let round = |_| {
        let start = Instant::now();
        for _ in 0..2000 {
            run();
        }
        start.elapsed() / 2000
    };
    (0..9).map(round).min().unwrap()
}

#[test]
#[ignore = "a measurement, for release builds"]
fn speed() {
    for (name, template, len) in [("TCP", &TCP, 1400), ("UDP", &UDP, 1400), ("UDP", &UDP, 64)] {
        let stream = &stream(template, &[len; 40], |_| ())[0];
        let packets: Vec<_> = stream.iter().map(Sample::bytes).collect();
        let mut joiner = Joiner::new(8, MTU, true);
        let joining = best(|| {
            let mut out = |bytes: &[u8], _| {
                black_box(bytes);
            };
            for bytes in &packets {
                let packet = parse(black_box(bytes)).unwrap();
                joiner.push(&packet, bytes, &mut out).unwrap();
            }
            joiner.flush(&mut out);
        });
        let mut trains = write(&mut joiner, &packets);
        assert_eq!(trains.len(), 1);
        let Written { header, packet, .. } = trains.remove(0);
        let mut out = vec![0; 65536];
        let cutting = best(|| {
            let mut segments = Segments::new(black_box(&header), black_box(&packet)).unwrap();
            let mut at = 0;
            while let Some(len) = segments.next_into(&mut out[at..]) {
                at += len;
            }
            black_box(&out[..at]);
        });
        let packets = u32::try_from(packets.len()).unwrap();
        let rate = |time: Duration| packet.len() as f64 / time.as_secs_f64() / 1e9;
        println!(
            "{name} {len:4} bytes: join {:?} a packet ({:.1} GB/s), cut {:?} ({:.1} GB/s)",
            joining / packets,
            rate(joining),
            cutting / packets,
            rate(cutting),
        );
    }
}
