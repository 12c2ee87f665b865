//! Traffic whose bytes are checked.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::bed::Node;

/// Byte `at` of every stream.
fn byte(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

/// Sends `bytes` bytes of a pattern to `address` on `to`, where all of them must arrive as they were.
pub fn tcp(from: &Node, to: &Node, address: SocketAddr, bytes: usize) {
    let listener = to
        .netns
        .run(|| TcpListener::bind(address))
        .unwrap()
        .unwrap();
    let mut sender = from
        .netns
        .run(|| TcpStream::connect(address))
        .unwrap()
        .unwrap();
    sender
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let data: Vec<u8> = (0..bytes).map(byte).collect();
            sender.write_all(&data).unwrap();
        });
        let (mut receiver, _) = listener.accept().unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let (mut buffer, mut at) = (vec![0; 1 << 16], 0);
        loop {
            let length = receiver.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            let wrong = (0..length).find(|n| buffer[*n] != byte(at + n));
            assert_eq!(wrong, None, "after {at} bytes");
            at += length;
        }
        assert_eq!(at, bytes);
    });
}

/// Sets the flag at its end.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Sends numbered datagrams while `job` runs, and some longer; returns how many did not arrive.
pub fn udp_meanwhile(from: &Node, to: &Node, address: &str, job: impl FnOnce()) -> usize {
    let receiver = to.netns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    let sender = from
        .netns
        .run(|| UdpSocket::bind("10.5.1.0:0"))
        .unwrap()
        .unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let received = scope.spawn(|| {
            let (mut buffer, mut count) = ([0; 64], 0);
            while let Ok(length) = receiver.recv(&mut buffer) {
                assert_eq!(length, 64);
                count += 1;
            }
            count
        });
        let done = &done;
        let sending = scope.spawn(move || {
            let mut sent = 0usize;
            while !done.load(Relaxed) {
                // A burst that any receive buffer holds.
                for _ in 0..20 {
                    sender.send_to(&[sent as u8; 64], address).unwrap();
                    sent += 1;
                }
                thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        thread::sleep(Duration::from_millis(50));
        // Also when it panics, so that the sender ends.
        let end = End(done);
        job();
        drop(end);
        let sent = sending.join().unwrap();
        let received: usize = received.join().unwrap();
        assert!(sent > 500, "{sent} datagrams are too few to tell");
        sent - received
    })
}
