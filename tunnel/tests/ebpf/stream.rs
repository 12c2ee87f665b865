//! Traffic whose bytes are checked.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use kernel::Netns;

use crate::bed::Node;

/// Byte `at` of every stream.
fn byte(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

/// Sends `bytes` bytes of a pattern to `address` on `to`, where all of them must arrive as they were.
pub fn tcp(from: &Node, to: &Node, address: SocketAddr, bytes: usize) {
    tcp_to(from, &to.netns, address, bytes);
}

/// The same to any namespace.
pub fn tcp_to(from: &Node, to: &Netns, address: SocketAddr, bytes: usize) {
    let listener = to.run(|| TcpListener::bind(address)).unwrap().unwrap();
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

/// Sends bursts of datagrams that the other side returns, while `job` runs and some longer; returns how
/// many did not come back.
pub fn udp_meanwhile(from: &Node, to: &Node, address: &str, job: impl FnOnce()) -> usize {
    let echo = to.netns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    let sender = from.netns.run(|| UdpSocket::bind("10.5.1.0:0"));
    let sender = sender.unwrap().unwrap();
    for socket in [&echo, &sender] {
        let timeout = Duration::from_secs(2);
        socket.set_read_timeout(Some(timeout)).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = echo.recv_from(&mut buffer) {
                echo.send_to(&buffer[..length], from).unwrap();
            }
        });
        let sending = scope.spawn(|| {
            let (mut sent, mut returned, mut buffer) = (0, 0, [0; 64]);
            while !done.load(Relaxed) {
                // No more under way than any receive buffer holds.
                let burst = 20;
                for _ in 0..burst {
                    sender.send_to(&[7; 64], address).unwrap();
                }
                sent += burst;
                returned += (0..burst)
                    .take_while(|_| sender.recv(&mut buffer).is_ok())
                    .count();
            }
            assert!(sent > 500, "{sent} datagrams are too few to tell");
            sent - returned
        });
        // Also when the job panics, so that the sender ends.
        let end = End(&done);
        thread::sleep(Duration::from_millis(50));
        job();
        thread::sleep(Duration::from_millis(50));
        drop(end);
        sending.join().unwrap()
    })
}
