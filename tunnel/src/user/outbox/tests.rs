use std::{fs::File, net::IpAddr, time::Duration};

use super::*;
use crate::{
    sys,
    user::{
        slow::on_slow_loopback,
        sockets::{self, Fragmenting},
    },
};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn outbox(mode: Mode) -> Outbox {
    let device = File::options().write(true).open("/dev/null").unwrap();
    Outbox::new(
        vec![sockets::sender(LOOPBACK, Fragmenting::Never).unwrap()],
        mode,
        0,
        Arc::default(),
        Arc::default(),
        Oversize::new(LOOPBACK, 0),
        Answers::new(device, false),
    )
}

/// A receiver that gives up after a while.
fn receiver() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn push(outbox: &mut Outbox, to: SocketAddr, length: usize, fill: u8) {
    let own = Own::default();
    outbox.room(length, &own)[..length].fill(fill);
    outbox.push(length, 0, to, 0, &own);
}

/// Length and first byte of what comes.
fn received(socket: &UdpSocket, count: usize) -> Vec<(usize, u8)> {
    let mut buffer = [0; 2000];
    let one = |_| (socket.recv(&mut buffer).unwrap(), buffer[0]);
    (0..count).map(one).collect()
}

/// Sizes and targets in a row that must and must not share a send.
#[test]
fn packets_arrive_as_they_were_and_in_order() {
    for mode in [Mode::Offload, Mode::Plain] {
        let (socket, to) = receiver();
        let (other, elsewhere) = receiver();
        let mut outbox = outbox(mode);
        let lengths = [100, 100, 100, 40, 40, 100, 1400, 1400, 7, 8, 8, 8];
        for (at, length) in lengths.into_iter().enumerate() {
            push(&mut outbox, to, length, at as u8);
            if at == 5 {
                push(&mut outbox, elsewhere, 100, 99);
            }
        }
        outbox.flush(&Own::default());
        let expected: Vec<_> = lengths.into_iter().zip(0..).collect();
        assert_eq!(received(&socket, lengths.len()), expected, "{mode}");
        assert_eq!(received(&other, 1), [(100, 99)]);
    }
}

#[test]
fn one_size_to_one_peer_is_one_datagram_to_the_kernel() {
    let (_socket, to) = receiver();
    let mut outbox = outbox(Mode::Offload);
    for _ in 0..SEGMENTS + 2 {
        push(&mut outbox, to, 90, 1);
    }
    push(&mut outbox, to, 80, 1);
    push(&mut outbox, to, 90, 1);
    let shape: Vec<_> = outbox
        .datagrams
        .iter()
        .map(|datagram| (datagram.bytes.len(), datagram.segment))
        .collect();
    assert_eq!(
        shape,
        [(64 * 90, Some(90)), (2 * 90 + 80, Some(90)), (90, None)]
    );
    let large = 1400;
    for _ in 0..50 {
        push(&mut outbox, to, large, 1);
    }
    let last_two: Vec<_> = outbox.datagrams[3..]
        .iter()
        .map(|datagram| datagram.bytes.len() / large)
        .collect();
    assert_eq!(last_two, [LARGEST / large, 50 - LARGEST / large]);
}

/// What can still grow waits, what cannot is sent.
#[test]
fn an_open_datagram_waits_for_more() {
    let (socket, to) = receiver();
    let mut outbox = outbox(Mode::Offload);
    for at in 0..50 {
        push(&mut outbox, to, 1400, at);
    }
    outbox.flush_if_enough(&Own::default());
    assert_eq!(outbox.datagrams.len(), 1);
    push(&mut outbox, to, 1400, 50);
    push(&mut outbox, to, 9, 51);
    assert_eq!(outbox.datagrams.len(), 1);
    outbox.flush(&Own::default());
    let lengths = (0..51).map(|at| (1400, at)).chain([(9, 51)]);
    assert_eq!(received(&socket, 52), lengths.collect::<Vec<_>>());
}

/// A socket without checksums may not use UDP_SEGMENT (udp(7)): as good a refusal as a network card's.
#[test]
fn a_refusal_of_segmentation_loses_nothing_and_is_for_good() {
    let (socket, to) = receiver();
    let mut outbox = outbox(Mode::Offload);
    sys::set_option(
        outbox.sockets[0].as_fd(),
        libc::SOL_SOCKET,
        libc::SO_NO_CHECK,
        1,
    )
    .unwrap();
    for at in 0..10 {
        push(&mut outbox, to, 500, at);
    }
    outbox.flush(&Own::default());
    let expected: Vec<_> = (0..10).map(|at| (500, at)).collect();
    assert_eq!(received(&socket, 10), expected);
    assert_eq!(outbox.notes.all().len(), 1);
    assert!(outbox.notes.all()[0].contains("refuses UDP segmentation"));

    for at in 0..10 {
        push(&mut outbox, to, 500, at);
    }
    assert_eq!(outbox.datagrams.len(), 10);
    outbox.flush(&Own::default());
    assert_eq!(received(&socket, 10), expected);
    assert_eq!(outbox.notes.all().len(), 1);
    let counters = crate::Counters::default();
    outbox
        .tally
        .hand_over(crate::user::tally::Direction::Sent, &counters);
    assert_eq!(counters.sent(), (20, 10_000));
}

/// Nobody can be reached: counted, and no downgrade.
#[test]
fn what_the_underlay_refuses_is_counted() {
    let mut outbox = outbox(Mode::Offload);
    let nowhere: SocketAddr = "[::1]:9".parse().unwrap();
    for _ in 0..3 {
        push(&mut outbox, nowhere, 500, 1);
    }
    outbox.flush(&Own::default());
    let counters = crate::Counters::default();
    outbox
        .tally
        .hand_over(crate::user::tally::Direction::Sent, &counters);
    assert_eq!(counters.sent(), (0, 0));
    assert_eq!(counters.dropped(DropReason::SendError), 3);
    assert_eq!(outbox.notes.all(), Vec::<String>::new());
}

/// Who waits for each datagram holds up all other peers: one wait a turn.
#[test]
fn a_congested_link_is_waited_for_once_a_turn() {
    on_slow_loopback(|| {
        let mut outbox = outbox(Mode::Plain);
        sys::set_option(
            outbox.sockets[0].as_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            0,
        )
        .unwrap();
        let turn = |outbox: &mut Outbox| {
            let start = std::time::Instant::now();
            outbox.begin_turn();
            for _ in 0..40 {
                push(outbox, (LOOPBACK, 9).into(), 1400, 1);
            }
            outbox.flush(&Own::default());
            start.elapsed()
        };
        let first = turn(&mut outbox);
        let second = turn(&mut outbox);
        let patience = Duration::from_millis(50);
        for took in [first, second] {
            // At least one wait; 40 would be 2 s.
            assert!(took >= patience && took < 10 * patience, "{took:?}");
        }
        let counters = crate::Counters::default();
        outbox
            .tally
            .hand_over(crate::user::tally::Direction::Sent, &counters);
        let dropped = counters.dropped(DropReason::SendBufferFull);
        assert!(dropped >= 70, "{dropped}");
        assert_eq!(counters.sent().0 + dropped, 80);
    });
}
