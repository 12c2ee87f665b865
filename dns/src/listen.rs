//! Sockets and what goes on at them: each address is served over UDP and TCP (RFC 7766 wants both).
//!
//! [`Sockets`] outlive a run of the server: a part that starts again inside its process serves from clones of the same
//! sockets, and what arrives in between waits in their buffers. Across processes, sockets are either passed on by a supervisor
//! ([`Sockets::inherited`]), or the new process opens its own beside the old one's (`SO_REUSEPORT`) before that ends.

mod holder;
mod tcp;
mod udp;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::handler::Handler;

/// Bytes that wait in a UDP socket, where the kernel allows: a second of a busy node's queries. It counts some 700 bytes for each.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long the end of a run waits for answers that are under way.
const GRACE: Duration = Duration::from_secs(2);

/// Why there are no sockets, or no longer a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be opened.
    #[error("cannot listen on {address} ({protocol}): {remedy}")]
    Open {
        /// The address.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// What to do about it.
        remedy: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A socket that is open could not be used.
    #[error("cannot use the {protocol} socket of {address}")]
    Use {
        /// The address.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A task of the server ended though nobody asked it to; only a defect does that.
    #[error("a task of the DNS server ended: {0}")]
    Task(String),
}

/// An address with its sockets.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

/// The sockets of a server.
#[derive(Debug)]
pub struct Sockets {
    places: Vec<Place>,
}

impl Sockets {
    /// Opens UDP and TCP sockets at each address. Port 0 stands for any that is free with both. Errors: an address that
    /// cannot be had; none is then kept.
    pub fn open(addresses: &[SocketAddr]) -> Result<Self, Error> {
        let places = addresses
            .iter()
            .map(|address| open_place(*address, None, None))
            .collect::<Result<_, _>>()?;
        Ok(Self { places })
    }

    /// As [`Sockets::open`], but takes from `passed` the sockets that are bound to these addresses already (a systemd socket
    /// unit with `ListenDatagram=` and `ListenStream=`). Passed sockets of other addresses are closed, with a warning.
    pub fn inherited(addresses: &[SocketAddr], passed: &mut ListenFd) -> Result<Self, Error> {
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for index in 0..passed.len() {
            if let Ok(Some(socket)) = passed.take_udp_socket(index) {
                udp.push(socket);
            } else if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
                tcp.push(listener);
            } else {
                tracing::warn!(
                    index,
                    "a socket that was passed on is neither UDP nor TCP: left alone"
                );
            }
        }
        let mut places = Vec::new();
        for address in addresses {
            let is_udp =
                |socket: &UdpSocket| socket.local_addr().is_ok_and(|local| local == *address);
            let is_tcp =
                |socket: &TcpListener| socket.local_addr().is_ok_and(|local| local == *address);
            let datagrams = udp
                .iter()
                .position(is_udp)
                .map(|index| udp.swap_remove(index));
            let streams = tcp
                .iter()
                .position(is_tcp)
                .map(|index| tcp.swap_remove(index));
            places.push(open_place(*address, datagrams, streams)?);
        }
        let left = udp
            .iter()
            .map(UdpSocket::local_addr)
            .chain(tcp.iter().map(TcpListener::local_addr));
        for address in left.flatten() {
            tracing::warn!(%address, "a socket was passed on for an address that is not ours to listen on: closed; add the address, or take it from the socket unit");
        }
        Ok(Self { places })
    }

    /// The addresses, with the ports that were found for port 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.places.iter().map(|place| place.address).collect()
    }

    /// The same sockets once more, for a run of the server.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let again = |place: &Place| {
            let address = place.address;
            Ok(Place {
                address,
                udp: place.udp.try_clone().map_err(|source| Error::Use {
                    address,
                    protocol: "udp",
                    source,
                })?,
                tcp: place.tcp.try_clone().map_err(|source| Error::Use {
                    address,
                    protocol: "tcp",
                    source,
                })?,
            })
        };
        Ok(Self {
            places: self.places.iter().map(again).collect::<Result<_, _>>()?,
        })
    }
}

/// Serves until `end`, then finishes what is being answered, for [`GRACE`] at most. Needs a tokio runtime with I/O and time.
pub async fn serve(
    sockets: Sockets,
    handler: Arc<Handler>,
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for Place { address, udp, tcp } in sockets.places {
        let server = Arc::new(handler.metrics().server(address));
        let udp = tokio::net::UdpSocket::from_std(udp).map_err(|source| Error::Use {
            address,
            protocol: "udp",
            source,
        })?;
        let tcp = tokio::net::TcpListener::from_std(tcp).map_err(|source| Error::Use {
            address,
            protocol: "tcp",
            source,
        })?;
        let udp = Arc::new(udp);
        // A thread each, where the runtime has several: one loop answers one packet at a time.
        for _ in 0..tokio::runtime::Handle::current().metrics().num_workers() {
            tasks.spawn(udp::serve(
                udp.clone(),
                handler.clone(),
                server.clone(),
                stopped.clone(),
            ));
        }
        tasks.spawn(tcp::serve(tcp, handler.clone(), server, stopped.clone()));
    }
    tokio::select! {
        () = end => {}
        Some(ended) = tasks.join_next() => {
            if ended.as_ref().is_err_and(|error| error.is_panic()) {
                handler.metrics().panics.inc();
            }
            return Err(Error::Task(ended.err().map_or_else(|| "without an error".to_owned(), |error| error.to_string())));
        }
    }
    stop.send_replace(true);
    let rest = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::warn!(
            "some queries were still under way when the DNS server ended: their clients will ask again"
        );
    }
    Ok(())
}

/// Waits for the end of the run.
async fn stop_told(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and so the run.
    let told = stopped.wait_for(|stopped| *stopped).await;
    drop(told);
}

/// Counts a task that ended, if it panicked.
fn count_panic(ended: Result<(), tokio::task::JoinError>, handler: &Handler) {
    if let Err(error) = ended
        && error.is_panic()
    {
        handler.metrics().panics.inc();
        tracing::error!(%error, "a query made the DNS server panic: please report it");
    }
}

/// Sockets for an address, but for those that are there.
fn open_place(
    address: SocketAddr,
    udp: Option<UdpSocket>,
    tcp: Option<TcpListener>,
) -> Result<Place, Error> {
    if address.ip().is_unspecified() {
        tracing::warn!(
            %address,
            "answers over UDP leave from the address that the route to the client prefers, which need not be the one asked; name the addresses if the host has several"
        );
    }
    let given = udp.is_some() || tcp.is_some();
    let mut tries = 10;
    loop {
        let datagrams = match &udp {
            Some(socket) => socket.try_clone().map_err(|source| Error::Use {
                address,
                protocol: "udp",
                source,
            })?,
            None => UdpSocket::from(open_socket(address, SockType::Datagram)?),
        };
        let bound = datagrams.local_addr().map_err(|source| Error::Use {
            address,
            protocol: "udp",
            source,
        })?;
        let streams = match &tcp {
            Some(listener) => listener.try_clone().map_err(|source| Error::Use {
                address,
                protocol: "tcp",
                source,
            })?,
            None => match open_socket(bound, SockType::Stream) {
                Ok(fd) => TcpListener::from(fd),
                // A free UDP port need not be free with TCP.
                Err(_) if address.port() == 0 && !given && tries > 0 => {
                    tries -= 1;
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        for (protocol, set) in [
            ("udp", datagrams.set_nonblocking(true)),
            ("tcp", streams.set_nonblocking(true)),
        ] {
            set.map_err(|source| Error::Use {
                address,
                protocol,
                source,
            })?;
        }
        enlarge(&datagrams);
        return Ok(Place {
            address: bound,
            udp: datagrams,
            tcp: streams,
        });
    }
}

fn open_socket(address: SocketAddr, kind: SockType) -> Result<OwnedFd, Error> {
    bound_socket(address, kind).map_err(|errno| {
        let protocol = if kind == SockType::Datagram { "udp" } else { "tcp" };
        let remedy = match errno {
            Errno::EADDRINUSE => match holder::of(address, protocol) {
                Some(holder) => format!("{holder} has it; stop that, or listen on another address or port"),
                None => "another program has it (`ss -ulpn; ss -tlpn` shows which); stop that, or listen on another address or port".to_owned(),
            },
            Errno::EADDRNOTAVAIL => "no interface of this host has the address; add it, or listen on another".to_owned(),
            Errno::EACCES | Errno::EPERM => "ports below 1024 need CAP_NET_BIND_SERVICE; run as root, or listen on another port".to_owned(),
            Errno::EAFNOSUPPORT => "this host has no IPv6; listen on IPv4 addresses alone".to_owned(),
            Errno::EMFILE | Errno::ENFILE => "too many open files; raise the limit (LimitNOFILE=)".to_owned(),
            _ => "the kernel refuses".to_owned(),
        };
        Error::Open { address, protocol, remedy, source: errno.into() }
    })
}

fn bound_socket(address: SocketAddr, kind: SockType) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(
        family,
        kind,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    // TCP: connections of an earlier run may linger.
    if kind == SockType::Stream {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if address.port() != 0 {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if kind == SockType::Stream {
        listen(&fd, Backlog::new(BACKLOG)?)?;
    }
    Ok(fd)
}

/// A large receive buffer: beyond `net.core.rmem_max` where we may, up to it where we may not.
fn enlarge(socket: &UdpSocket) {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_ok() {
        return;
    }
    if let Err(error) = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER) {
        tracing::warn!(%error, "cannot enlarge the receive buffer of a UDP socket: bursts of queries may be lost");
    }
}

#[cfg(test)]
mod tests;
