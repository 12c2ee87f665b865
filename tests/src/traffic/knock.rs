//! Knocking at an address: who answers, what address it saw, or how the client is turned away.

use super::server::WHO_ANSWERS;
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// A transport that this machine's kernel has sockets for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A [`super::TcpServer`] answers.
    Tcp,
    /// A [`super::UdpServer`] answers.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// What a server tells of itself and of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's own address.
    pub by: SocketAddr,
    /// The client's address as the server sees it.
    pub seen: SocketAddr,
}

impl Answer {
    fn parse(text: &str) -> Result<Self> {
        let (by, seen) = text.split_once(' ').context("one address only")?;
        Ok(Self {
            by: by.parse()?,
            seen: seen.parse()?,
        })
    }
}

/// What became of a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A server answered.
    Answered(Answer),
    /// The client was told at once that nobody listens (`ECONNREFUSED`).
    Refused,
    /// The client's own namespace has no way to the address. (A router's word is no end to TCP.)
    Unreachable,
    /// Nothing came back.
    Silence,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(Answer { by, seen }) => write!(out, "{by} answered {seen}"),
            Self::Refused => out.write_str("refused"),
            Self::Unreachable => out.write_str("unreachable"),
            Self::Silence => out.write_str("silence"),
        }
    }
}

/// Knocks once at `server` from inside `from`; waits for `patience` before calling it silence.
/// Errors are what is none of them, such as a connection that breaks after it was accepted.
pub fn knock(
    from: &Namespace,
    server: SocketAddr,
    transport: Transport,
    patience: Duration,
) -> Result<Outcome> {
    knock_from(from, unspecified(server), server, transport, patience)
}

/// The same with the client's socket bound to `source`, one of its namespace's addresses.
pub fn knock_from(
    from: &Namespace,
    source: IpAddr,
    server: SocketAddr,
    transport: Transport,
    patience: Duration,
) -> Result<Outcome> {
    let what = || format!("knock at {server} ({transport}) from {}", from.name());
    match transport {
        Transport::Tcp => from
            .run(|| tcp(source, server, patience))
            .with_context(what),
        Transport::Udp => UdpClient::bind(from, source, server)?
            .ask(patience)
            .with_context(what),
    }
}

fn tcp(source: IpAddr, server: SocketAddr, patience: Duration) -> Result<Outcome> {
    let connected = match source.is_unspecified() {
        true => TcpStream::connect_timeout(&server, patience),
        false => connect_from(source, server, patience),
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => return turned_away(error),
    };
    // Accepted: from here on silence is a fault of the way, and a long one is an error.
    stream.set_read_timeout(Some(patience.max(Duration::from_secs(2))))?;
    stream.write_all(&[WHO_ANSWERS])?;
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        // A user-space proxy accepts before it knows whether anybody is behind it, and resets.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Outcome::Refused),
        read => read.context("accepted, but no answer")?,
    };
    Ok(Outcome::Answered(
        Answer::parse(&text).with_context(|| format!("answer {text:?}"))?,
    ))
}

/// `TcpStream` cannot be bound before it connects; a socket of `nix` can.
fn connect_from(
    source: IpAddr,
    server: SocketAddr,
    patience: Duration,
) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
    use std::os::fd::AsRawFd;
    let family = match server {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::bind(
        fd.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(source, 0)),
    )?;
    let stream = TcpStream::from(fd);
    // The kernel applies a send time-out to connect too.
    stream.set_write_timeout(Some(patience))?;
    match socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(server)) {
        Ok(()) => Ok(stream),
        Err(nix::errno::Errno::EINPROGRESS) => Err(ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

fn turned_away(error: std::io::Error) -> Result<Outcome> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Ok(Outcome::Refused),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Ok(Outcome::Unreachable),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(Outcome::Silence),
        _ => bail!(error),
    }
}

/// One UDP socket that asks again and again: one flow for conntrack.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
}

impl UdpClient {
    /// A socket inside `from`, bound to a free port of `source` and connected to `server`.
    pub fn bind(from: &Namespace, source: IpAddr, server: SocketAddr) -> Result<Self> {
        let socket = from.run(|| {
            let socket = UdpSocket::bind((source, 0))?;
            socket.connect(server)?;
            Ok(socket)
        });
        let socket = socket.with_context(|| format!("UDP socket from {source} to {server}"))?;
        Ok(Self { socket })
    }

    /// The same from any address.
    pub fn new(from: &Namespace, server: SocketAddr) -> Result<Self> {
        Self::bind(from, unspecified(server), server)
    }

    /// Asks once.
    pub fn ask(&self, patience: Duration) -> Result<Outcome> {
        self.socket.set_read_timeout(Some(patience))?;
        match self.socket.send(&[WHO_ANSWERS]) {
            // A rule on the client's own host dropped it: a refusal, if any, is there to be received.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            // The refusal of an earlier question.
            Err(error) => return turned_away(error),
            Ok(_) => {}
        }
        let mut buffer = [0; 128];
        let length = match self.socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) => return turned_away(error),
        };
        let text = std::str::from_utf8(&buffer[..length])?;
        Ok(Outcome::Answered(
            Answer::parse(text).with_context(|| format!("answer {text:?}"))?,
        ))
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
