//! What is on the wire, captured between the two nodes.

use std::{
    fs,
    net::Ipv4Addr,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    bed::{Bed, may_run},
    stream,
};

/// The frames (of large ones the first 2,000 bytes) that come in by an interface of node 2, or leave by it, while
/// `job` runs, with their lengths.
fn capture(bed: &Bed, interface: &str, filter: &str, job: impl FnOnce()) -> Vec<(usize, Vec<u8>)> {
    let file = std::env::temp_dir().join(format!("{}-{interface}.pcap", bed.node(2).name));
    // 2,000 bytes a slot: the buffer holds some 4,000 frames.
    let start = || {
        Command::new("tcpdump")
            .args([
                "-i",
                interface,
                "-n",
                "-U",
                "--immediate-mode",
                "-s",
                "2000",
                "-B",
                "8192",
                "-w",
            ])
            .arg(&file)
            .args(filter.split_whitespace())
            .stderr(Stdio::null())
            .spawn()
    };
    let mut tcpdump = bed.node(2).netns.run(start).unwrap().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    // The header is written when it listens.
    while fs::metadata(&file).map_or(0, |meta| meta.len()) < 24 {
        if let Some(status) = tcpdump.try_wait().unwrap() {
            panic!("tcpdump on {interface} ended before it listened: {status}");
        }
        if Instant::now() > end {
            tcpdump.kill().unwrap();
            panic!("tcpdump on {interface} does not listen within 10 s");
        }
        thread::sleep(Duration::from_millis(20));
    }
    job();
    thread::sleep(Duration::from_millis(300));
    // SIGTERM: it writes what it has.
    let pid = tcpdump.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    tcpdump.wait().unwrap();
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    // pcap-savefile(5): 24 bytes, then per packet 16 bytes whose third word is the length here.
    let (mut frames, mut rest) = (Vec::new(), &bytes[24..]);
    while let Some(header) = rest.get(..16) {
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some(frame) = rest.get(16..16 + length) else {
            break;
        };
        let whole = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
        frames.push((whole as usize, frame.to_vec()));
        rest = &rest[16 + length..];
    }
    frames
}

fn sum(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks(2);
    pairs
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum()
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// With nothing left to hardware (checksums, segmentation) every datagram is a bare IP packet in UDP,
/// small enough, with right checksums inside and out.
#[test]
fn datagrams_are_bare_ip_packets_with_right_checksums() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let _paths = bed.attach();
    let off = || kernel::ethtool::set_tx_checksum("u0", false);
    bed.node(1).netns.run(off).unwrap().unwrap();
    let frames = capture(&bed, "u0", "udp dst port 8285 and src 192.168.66.1", || {
        stream::tcp(
            bed.node(1),
            bed.node(2),
            "10.5.2.0:5000".parse().unwrap(),
            200_000,
        );
        stream::tcp(
            bed.node(1),
            bed.node(2),
            "[fd00:2::1]:5000".parse().unwrap(),
            200_000,
        );
        assert!(bed.node(1).ping("-c 2 -Q 0xb8 10.5.2.0"));
    });
    let (mut data, mut marked) = ([0, 0], 0);
    for (_, frame) in &frames {
        assert_eq!(frame[12..15], [8, 0, 0x45]);
        let (outer, udp, inner) = (&frame[14..34], &frame[34..42], &frame[42..]);
        assert_eq!(fold(sum(outer)), 0xffff, "outer checksum");
        assert!(frame.len() - 14 <= 1500, "{} bytes", frame.len());
        assert_eq!(
            u16::from_be_bytes([outer[2], outer[3]]) as usize,
            frame.len() - 14
        );
        assert_eq!(
            (outer[6], outer[8], outer[9]),
            (0x40, 64, 17),
            "DF, TTL, UDP"
        );
        assert_eq!(
            Ipv4Addr::from([outer[12], outer[13], outer[14], outer[15]]),
            Ipv4Addr::new(192, 168, 66, 1)
        );
        assert_eq!(u16::from_be_bytes([udp[2], udp[3]]), 8285);
        assert_eq!(
            u16::from_be_bytes([udp[4], udp[5]]) as usize,
            8 + inner.len()
        );
        let (addresses, body, protocol, tos) = match inner[0] >> 4 {
            4 => {
                assert_eq!(fold(sum(&inner[..20])), 0xffff, "inner IPv4 checksum");
                assert_eq!(
                    u16::from_be_bytes([inner[2], inner[3]]) as usize,
                    inner.len()
                );
                (&inner[12..20], &inner[20..], inner[9], inner[1])
            }
            6 => (
                &inner[8..40],
                &inner[40..],
                inner[6],
                inner[0] << 4 | inner[1] >> 4,
            ),
            other => panic!("version {other} inside"),
        };
        assert_eq!(outer[1], tos, "DSCP and ECN are copied");
        if protocol == 6 {
            let pseudo = sum(addresses) + 6 + body.len() as u32;
            assert_eq!(fold(pseudo + sum(body)), 0xffff, "inner TCP checksum");
            data[usize::from(inner[0] >> 4 == 6)] += body.len();
        }
        marked += usize::from(tos == 0xb8);
    }
    assert!(
        data[0] >= 200_000 && data[1] >= 200_000,
        "{data:?} in {} frames",
        frames.len()
    );
    assert_eq!(marked, 2);
}

/// Behind the node's bridge, too: the kernel must not cut large packets for want of a feature.
#[test]
fn large_packets_stay_large_to_the_pod() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let _paths = bed.attach();
    let pod = bed.node(2).add_pod(2);
    let stream = || {
        stream::tcp_to(
            bed.node(1),
            &pod,
            "10.5.2.2:5000".parse().unwrap(),
            16 << 20,
        )
    };
    // The first large packets tell the peer that they came whole.
    stream();
    // Only large ones: the capture could not keep up with all that they would be cut into.
    let frames = capture(&bed, "cni0", "tcp dst port 5000 and greater 4000", stream);
    let bytes: usize = frames.iter().map(|(length, _)| length).sum();
    assert!(
        bytes > 12 << 20,
        "{bytes} bytes in {} large packets",
        frames.len()
    );
}
