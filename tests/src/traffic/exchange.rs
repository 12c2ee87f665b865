//! Bytes there and back, every one compared: TCP in bulk, UDP in every size.

use super::server::{ECHO, connect};
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A lost UDP answer is asked for again so many times.
const TRIES: usize = 5;

/// Bytes that repeat nowhere near: a multiplicative generator (Knuth's MMIX constants).
#[derive(Clone, Debug)]
struct Bytes(u64);

impl Bytes {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 = (self.0)
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&self.0.to_be_bytes()[..chunk.len()]);
        }
    }
}

/// Sends `length` bytes from `from` to a [`super::TcpServer`], which sends them back, and compares each.
/// Writing and reading go on at the same time: both directions are full.
pub fn exchange(from: &Namespace, server: SocketAddr, length: usize, seed: u64) -> Result<()> {
    const CHUNK: usize = 1 << 16;
    let mut stream = connect(from, server)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&[ECHO])?;
    let mut out = stream.try_clone()?;
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut bytes, mut chunk) = (Bytes(seed), vec![0; CHUNK]);
        for at in (0..length).step_by(CHUNK) {
            let chunk = &mut chunk[..CHUNK.min(length - at)];
            bytes.fill(chunk);
            out.write_all(chunk)?;
        }
        out.shutdown(std::net::Shutdown::Write)
    });
    let (mut bytes, mut wanted, mut got) = (Bytes(seed), vec![0; CHUNK], vec![0; CHUNK]);
    for at in (0..length).step_by(CHUNK) {
        let size = CHUNK.min(length - at);
        bytes.fill(&mut wanted[..size]);
        stream
            .read_exact(&mut got[..size])
            .with_context(|| format!("read the echo of {server} at byte {at} of {length}"))?;
        if let Some(first) = (0..size).find(|&i| wanted[i] != got[i]) {
            bail!("echo of {server}: byte {} came back changed", at + first);
        }
    }
    ensure!(
        stream.read(&mut got)? == 0,
        "{server} sent more than it was sent"
    );
    match writer.join() {
        Ok(written) => written.with_context(|| format!("write to {server}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Sends back each datagram as it is, until dropped.
#[derive(Debug)]
pub struct UdpEcho {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpEcho {
    /// Listens on a free port of `ip` in `namespace`.
    pub fn start(namespace: &Namespace, ip: IpAddr) -> Result<Self> {
        let socket = namespace
            .run(|| Ok(UdpSocket::bind((ip, 0))?))
            .with_context(|| format!("bind UDP {ip} in {}", namespace.name()))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) {
                // A time-out is the moment to look at `stopped`.
                if let Ok((length, peer)) = socket.recv_from(&mut buffer)
                    && let Err(error) = socket.send_to(&buffer[..length], peer)
                {
                    eprintln!("test server: echo to {peer}: {error}");
                }
            }
        });
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the UDP echo on {} panicked", self.address);
        }
    }
}

/// Sends one datagram of each size to a [`UdpEcho`]; each must come back as it was.
pub fn exchange_datagrams(
    from: &Namespace,
    server: SocketAddr,
    sizes: impl IntoIterator<Item = usize>,
) -> Result<()> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = from.run(|| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut bytes = Bytes(u64::from(server.port()));
    let mut got = vec![0; 1 << 16];
    for size in sizes {
        let mut wanted = vec![0; size];
        bytes.fill(&mut wanted);
        let mut answered = false;
        for _ in 0..TRIES {
            socket.send(&wanted)?;
            // Late echoes of an earlier try are of another size, or the same and as good.
            while let Ok(length) = socket.recv(&mut got) {
                if length == size {
                    ensure!(got[..length] == wanted, "{size} bytes came back changed");
                    answered = true;
                    break;
                }
            }
            if answered {
                break;
            }
        }
        ensure!(
            answered,
            "no echo of {size} bytes from {server} to {}",
            from.name()
        );
    }
    Ok(())
}
