//! Bulk TCP checked by hash, UDP echoes.

use std::{
    hash::{DefaultHasher, Hasher as _},
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use super::lab::Node;

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends `bytes` of noise from one node to another's address; both must see the same.
pub fn bulk(from: &Node, to: &Node, address: IpAddr, bytes: usize) {
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let received = thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut hasher, mut total) = (DefaultHasher::new(), 0);
            let mut buffer = vec![0; 1 << 16];
            loop {
                let length = stream.read(&mut buffer).unwrap();
                if length == 0 {
                    return (total, hasher.finish());
                }
                total += length;
                hasher.write(&buffer[..length]);
            }
        });
        let sent = from.run(|| send(target, bytes));
        (sent, server.join().unwrap())
    });
    assert_eq!(received.0, received.1);
}

fn send(target: SocketAddr, bytes: usize) -> (usize, u64) {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let (mut hasher, mut state) = (DefaultHasher::new(), 0x9e37_79b9_7f4a_7c15_u64);
    let mut noise = vec![0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        for word in noise.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_ne_bytes());
        }
        // Odd lengths, so that segments are of all sizes.
        let length = left.min(noise.len() - (state % 4000) as usize);
        stream.write_all(&noise[..length]).unwrap();
        hasher.write(&noise[..length]);
        left -= length;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    // The other side's end says that it has everything.
    assert_eq!(stream.read(&mut noise).unwrap_or(0), 0);
    (bytes, hasher.finish())
}

/// Datagrams of these sizes come back as they were.
pub fn echo(from: &Node, to: &Node, address: IpAddr, sizes: &[usize]) {
    let server = to.run(|| UdpSocket::bind((address, 0)).unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let target = server.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 1 << 16];
            for _ in sizes {
                let (length, who) = server.recv_from(&mut buffer).unwrap();
                server.send_to(&buffer[..length], who).unwrap();
            }
        });
        from.run(|| {
            let client =
                UdpSocket::bind((if target.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut buffer = vec![0; 1 << 16];
            for size in sizes {
                let noise: Vec<u8> = (0..*size).map(|at| (at * 7 + size) as u8).collect();
                client.send_to(&noise, target).unwrap();
                let length = client.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..length], noise, "{size} bytes");
            }
        });
    });
}
