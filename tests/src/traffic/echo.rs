//! Bytes that look random go to a server and must come back as they were.

use super::server::{ECHO, PATIENCE, connect};
use crate::namespace::Namespace;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// A xorshift generator: the same bytes for the same seed, no two chunks alike.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, chunk: &mut [u8]) {
        for word in chunk.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_be_bytes()[..word.len()]);
        }
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const CHUNK: usize = 1 << 16;

/// Sends `bytes` bytes (a multiple of 64 KiB) from `from` to a [`super::TcpServer`] and reads them back,
/// both at once; every byte is compared.
pub fn echo(from: &Namespace, server: SocketAddr, bytes: usize) -> Result<()> {
    let mut stream = connect(from, server)?;
    stream.write_all(&[ECHO])?;
    let mut sending = stream.try_clone()?;
    sending.set_write_timeout(Some(PATIENCE))?;
    let chunks = bytes / CHUNK;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut noise, mut chunk) = (Noise(SEED), vec![0; CHUNK]);
        for _ in 0..chunks {
            noise.fill(&mut chunk);
            sending.write_all(&chunk)?;
        }
        sending.shutdown(std::net::Shutdown::Write)
    });
    let (mut noise, mut wanted, mut found) = (Noise(SEED), vec![0; CHUNK], vec![0; CHUNK]);
    let mut receive = || -> Result<()> {
        for at in 0..chunks {
            noise.fill(&mut wanted);
            stream
                .read_exact(&mut found)
                .with_context(|| format!("echo of {server} after {} bytes", at * CHUNK))?;
            ensure!(
                found == wanted,
                "{server}: other bytes came back after {} bytes",
                at * CHUNK
            );
        }
        ensure!(stream.read(&mut found)? == 0, "{server}: more came back");
        Ok(())
    };
    let received = receive();
    let sent = sender.join();
    received?;
    match sent {
        Ok(sent) => sent.with_context(|| format!("send to {server}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Sends one datagram of `bytes` bytes to a [`super::UdpServer`], again if need be, and compares what comes back.
pub fn echo_udp(from: &Namespace, server: SocketAddr, bytes: usize) -> Result<()> {
    let socket = from.run(|| {
        let socket = match server {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
        };
        socket.connect(server)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
    let (mut sent, mut found) = (vec![0; bytes], vec![0; CHUNK]);
    Noise(SEED).fill(&mut sent);
    sent[0] = ECHO;
    let mut outcome = Ok(0);
    for _ in 0..3 {
        socket.send(&sent)?;
        outcome = socket.recv(&mut found);
        if outcome.is_ok() {
            break;
        }
    }
    let length = outcome.with_context(|| format!("echo of {bytes} bytes by {server} (UDP)"))?;
    ensure!(
        found[..length] == sent[..],
        "{server}: {length} other bytes came back for {bytes} (UDP)"
    );
    Ok(())
}
