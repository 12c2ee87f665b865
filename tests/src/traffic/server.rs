//! A TCP and a UDP server that tell the sender's address, echo, or swallow bytes.

use crate::namespace::Namespace;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The first byte a client sends chooses what the server does with the connection.
pub(super) const WHO_AM_I: u8 = b'w';
/// The server sends back what it gets.
pub(super) const ECHO: u8 = b'e';
/// The server answers with its own address and the client's.
pub(super) const WHO_ANSWERS: u8 = b'n';
/// The server reads to the end and then answers with the number of bytes.
const SINK: u8 = b's';

const PATIENCE: Duration = Duration::from_secs(5);

/// Listens until dropped.
#[derive(Debug)]
pub struct TcpServer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TcpServer {
    /// Listens on `ip`:`port` in `namespace`; port 0 takes a free one.
    pub fn start(namespace: &Namespace, ip: IpAddr, port: u16) -> Result<Self> {
        let listener = namespace
            .run(|| Ok(TcpListener::bind((ip, port))?))
            .with_context(|| format!("listen on {ip} port {port} in {}", namespace.name()))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, peer)) => {
                        std::thread::spawn(move || serve(stream, peer));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
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

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the TCP server on {} panicked", self.address);
        }
    }
}

/// Serves one connection; its errors are the client's to notice.
fn serve(mut stream: TcpStream, peer: SocketAddr) {
    let mut serve = || -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let mut order = [0];
        stream.read_exact(&mut order)?;
        match order[0] {
            WHO_AM_I => write!(stream, "{peer}"),
            WHO_ANSWERS => write!(stream, "{} {peer}", stream.local_addr()?),
            ECHO => std::io::copy(&mut stream.try_clone()?, &mut stream).map(drop),
            SINK => {
                let bytes = std::io::copy(&mut stream, &mut std::io::sink())?;
                write!(stream, "{bytes}")
            }
            other => Err(std::io::Error::other(format!("unknown order {other}"))),
        }
    };
    // The client sees a closed connection and reports it with what it was doing.
    if let Err(error) = serve()
        && error.kind() == std::io::ErrorKind::Other
    {
        eprintln!("test server: {error}");
    }
}

/// Connects to `server` from inside `from`.
pub(super) fn connect(from: &Namespace, server: SocketAddr) -> Result<TcpStream> {
    from.run(|| {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)
            .with_context(|| format!("connect to {server} from {}", from.name()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// The address under which a TCP server sees a client in `from`.
pub fn seen_as(from: &Namespace, server: SocketAddr) -> Result<SocketAddr> {
    let mut stream = connect(from, server)?;
    stream.write_all(&[WHO_AM_I])?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("answer of {server} to {}", from.name()))?;
    answer
        .parse()
        .with_context(|| format!("address {answer:?}"))
}

/// Sends `bytes` bytes from `from` to `server`; returns the time until the last has been received.
pub fn bulk(from: &Namespace, server: SocketAddr, bytes: usize) -> Result<Duration> {
    let mut stream = connect(from, server)?;
    let started = Instant::now();
    stream.write_all(&[SINK])?;
    let chunk = vec![0x5a; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(chunk.len());
        stream
            .write_all(&chunk[..part])
            .with_context(|| format!("send to {server}, {left} bytes before the end"))?;
        left -= part;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("receipt of {server}"))?;
    ensure!(
        answer == bytes.to_string(),
        "sent {bytes} bytes, {server} got {answer:?}"
    );
    Ok(started.elapsed())
}

/// Answers each datagram with its sender's address until dropped; one that asks who answers also
/// gets the server's own.
#[derive(Debug)]
pub struct UdpServer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpServer {
    /// Listens on `ip`:`port` in `namespace`; port 0 takes a free one.
    pub fn start(namespace: &Namespace, ip: IpAddr, port: u16) -> Result<Self> {
        let socket = namespace
            .run(|| Ok(UdpSocket::bind((ip, port))?))
            .with_context(|| format!("bind UDP {ip} port {port} in {}", namespace.name()))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                // A time-out is the moment to look at `stopped`.
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let answer = match buffer[..length].first() {
                    Some(&WHO_ANSWERS) => format!("{address} {peer}"),
                    _ => peer.to_string(),
                };
                if let Err(error) = socket.send_to(answer.as_bytes(), peer) {
                    eprintln!("test server: answer to {peer}: {error}");
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

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the UDP server on {} panicked", self.address);
        }
    }
}

/// The address under which a UDP server sees a client in `from`.
pub fn seen_as_udp(from: &Namespace, server: SocketAddr) -> Result<SocketAddr> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = from.run(|| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send(b"who am I")?;
    let mut buffer = [0; 128];
    let length = socket
        .recv(&mut buffer)
        .with_context(|| format!("answer of {server} (UDP) to {}", from.name()))?;
    let answer = std::str::from_utf8(&buffer[..length])?;
    answer
        .parse()
        .with_context(|| format!("address {answer:?}"))
}
