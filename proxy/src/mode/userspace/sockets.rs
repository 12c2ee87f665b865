//! Sockets as the data path wants them: listening, bound, connecting, reset.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt,
    socket, sockopt,
};

use super::fronts::{Door, Place};
use super::gate;
use crate::model::Protocol;
use crate::sys::{Instruction, attach_filter, detach_filter, set_option};

/// An idle connection is asked for a sign of life after so many seconds, so that one whose client is gone ends.
const KEEPALIVE_IDLE: u32 = 60;
/// What a UDP socket may hold: a burst of a few hundred large datagrams.
const UDP_BUFFER: usize = 1 << 20;

/// Opens the socket of a door.
pub(super) fn open(door: &Door) -> io::Result<OwnedFd> {
    let Place { protocol, address } = door.place;
    if protocol == Protocol::Udp {
        let socket = new(address, SockType::Datagram)?;
        enlarge(&socket);
        free(&socket, address)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        return Ok(socket);
    }
    let socket = new(address, SockType::Stream)?;
    // Connections of a former life may linger in TIME_WAIT.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // Accepted sockets inherit these.
    tune(&socket)?;
    if !door.gate.is_empty() {
        guard(&socket, &door.gate)?;
    }
    free(&socket, address)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    // As many as net.core.somaxconn allows.
    listen(&socket, Backlog::MAXALLOWABLE)?;
    Ok(socket)
}

/// Puts the gate on a listening socket, in place of the one it has. A gate that is too large for the kernel is left
/// out: then clients are accepted and reset instead of ignored.
pub(super) fn guard(socket: impl AsFd, groups: &[Vec<IpNet>]) -> io::Result<()> {
    if groups.is_empty() {
        return detach_filter(socket.as_fd());
    }
    let Some(program) = gate::program(groups) else {
        tracing::warn!(
            "a gate of more than {} instructions is left out",
            gate::LONGEST
        );
        return detach_filter(socket.as_fd());
    };
    match attach_filter(socket.as_fd(), &program) {
        // More than net.core.optmem_max.
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            tracing::warn!(
                "a gate of {} instructions is left out: {error}",
                program.len()
            );
            detach_filter(socket.as_fd())
        }
        other => other,
    }
}

/// Shuts a listening socket for newcomers, so that those who wait in it can be taken out before it is closed.
pub(super) fn shut(socket: impl AsFd) -> io::Result<()> {
    let nobody = [Instruction {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    attach_filter(socket.as_fd(), &nobody)
}

/// An accepted connection has its listener's gate still, which costs time with every segment.
pub(super) fn ungate(socket: impl AsFd) -> io::Result<()> {
    detach_filter(socket.as_fd())
}

/// Begins to connect a stream to an endpoint; ready for writing when that is done.
pub(super) fn dial(endpoint: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new(endpoint, SockType::Stream)?;
    tune(&socket)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(endpoint)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}

/// A UDP socket that speaks with one endpoint only.
pub(super) fn flow(endpoint: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new(endpoint, SockType::Datagram)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(endpoint))?;
    Ok(socket)
}

/// Makes the next close of a stream a reset, so that the other end sees an error and not an end.
pub(super) fn reset_on_close(socket: impl AsFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Cannot fail on a TCP socket; if it did, the close is an orderly one.
    let _ = setsockopt(&socket, sockopt::Linger, &linger);
}

/// Raises the limit of open descriptors: each connection takes two.
pub(super) fn raise_descriptor_limit() {
    const WANTED: u64 = 1 << 20;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    // Only root may raise the hard limit, and no one above fs.nr_open.
    let raised = (soft < WANTED
        && hard < WANTED
        && setrlimit(Resource::RLIMIT_NOFILE, WANTED, WANTED).is_ok())
        || (soft < hard.min(WANTED)
            && setrlimit(Resource::RLIMIT_NOFILE, hard.min(WANTED), hard).is_ok());
    if let (true, Ok((now, _))) = (raised, getrlimit(Resource::RLIMIT_NOFILE)) {
        tracing::debug!("the limit of open descriptors is {now} (was {soft})");
    }
}

fn new(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, kind, flags, None)?)
}

/// Where IPv4 lets a socket be bound to what a local route says is local, IPv6 asks for an interface that has the
/// address, unless told not to.
fn free(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => Ok(()),
        SocketAddr::V6(_) => set_option(socket.as_fd(), libc::SOL_IPV6, libc::IPV6_FREEBIND, 1),
    }
}

fn tune(socket: &OwnedFd) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &(KEEPALIVE_IDLE / 4))?;
    Ok(())
}

fn enlarge(socket: &OwnedFd) {
    // Beyond net.core.{r,w}mem_max only with CAP_NET_ADMIN; what we get without it works too.
    if setsockopt(socket, sockopt::RcvBufForce, &UDP_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &UDP_BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &UDP_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &UDP_BUFFER);
    }
}
