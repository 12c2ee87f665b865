//! The UDP sockets: a receiving group on our port, a sending socket for each worker, one that lets the kernel fragment.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike as _},
};

use super::{Error, Mode, notes::Notes};
use crate::sys;

/// Bytes, as the kernel accounts them (it doubles the figure). About a hundred datagrams of 64 KiB.
const RECEIVE_BUFFER: i32 = 4 << 20;
/// Bytes. Much more would only make packets wait.
const SEND_BUFFER: i32 = 1 << 20;
/// How long a worker waits for room in its send buffer before it drops, and waits no more in that turn: longer than a busy link needs
/// for the buffer's content, shorter than TCP's least retransmission time.
const SEND_PATIENCE_MS: i64 = 50;

/// Sockets that share `address`; the kernel spreads the senders' ports over them.
///
/// The first is bound alone, so that a port in use is an error and not shared.
pub(super) fn receivers(
    address: SocketAddr,
    count: usize,
    mode: Mode,
    notes: &Notes,
) -> Result<Vec<UdpSocket>, Error> {
    let failed = |cause: io::Error| {
        let remedy = match cause.raw_os_error() {
            Some(libc::EADDRINUSE) => "another flanneld, or something else, uses the port",
            Some(libc::EADDRNOTAVAIL) => "the address is not on any of this host's links",
            _ => "",
        };
        Error::new(format!("bind udp {address}"), cause, remedy)
    };
    let mut sockets: Vec<UdpSocket> = Vec::with_capacity(count);
    for _ in 0..count {
        let made = open(address.ip()).map_err(failed)?;
        if let Some(first) = sockets.first() {
            setsockopt(&made, sockopt::ReusePort, &true).map_err(|errno| failed(errno.into()))?;
            let address = first.local_addr().map_err(failed)?;
            bind_to(&made, address).map_err(failed)?;
        } else {
            bind_to(&made, address).map_err(failed)?;
            setsockopt(&made, sockopt::ReusePort, &true).map_err(|errno| failed(errno.into()))?;
        }
        prepare(&made, address.is_ipv4(), mode, notes).map_err(failed)?;
        sockets.push(made.into());
    }
    Ok(sockets)
}

/// What a receiver is told about each datagram.
fn prepare(socket: &OwnedFd, is_ipv4: bool, mode: Mode, notes: &Notes) -> io::Result<()> {
    let fd = socket.as_fd();
    force_buffer(
        socket,
        libc::SO_RCVBUFFORCE,
        libc::SO_RCVBUF,
        RECEIVE_BUFFER,
    )?;
    if is_ipv4 {
        sys::set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
    } else {
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    }
    if mode == Mode::Offload
        && let Err(error) = join_datagrams(fd, true)
    {
        notes.note(format!(
            "the kernel does not join UDP datagrams (UDP_GRO: {error})"
        ));
    }
    Ok(())
}

/// Switches UDP_GRO (udp(7)).
pub(super) fn join_datagrams(socket: BorrowedFd<'_>, wanted: bool) -> io::Result<()> {
    sys::set_option(socket, libc::SOL_UDP, libc::UDP_GRO, i32::from(wanted))
}

/// Whether datagrams larger than the path carries are refused or fragmented.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragmenting {
    /// DF set, EMSGSIZE.
    Never,
    /// By the kernel.
    Allowed,
}

/// A socket to send from, on an ephemeral port of `address`.
pub(super) fn sender(address: IpAddr, fragmenting: Fragmenting) -> Result<UdpSocket, Error> {
    let make = || {
        let made = open(address)?;
        force_buffer(&made, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER)?;
        // Nobody reads from it: as little as the kernel allows is kept of what others may send to its port.
        sys::set_option(made.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 0)?;
        setsockopt(
            &made,
            sockopt::SendTimeout,
            &TimeVal::milliseconds(SEND_PATIENCE_MS),
        )?;
        let (level, name) = match address {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
        };
        // The values are the same for IPv6 (linux/in6.h).
        let value = match fragmenting {
            Fragmenting::Never => libc::IP_PMTUDISC_DO,
            Fragmenting::Allowed => libc::IP_PMTUDISC_DONT,
        };
        sys::set_option(made.as_fd(), level, name, value)?;
        bind_to(&made, SocketAddr::new(address, 0))?;
        Ok(UdpSocket::from(made))
    };
    make().map_err(|cause| {
        Error::new(
            format!("make a UDP socket to send from {address}"),
            cause,
            "",
        )
    })
}

/// What the kernel believes that the path to `peer` carries, in bytes of IP packet.
pub(super) fn path_mtu(from: IpAddr, peer: SocketAddr) -> io::Result<usize> {
    let probe = UdpSocket::bind(SocketAddr::new(from, 0))?;
    probe.connect(peer)?;
    let (level, name) = match peer {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mtu = sys::option(probe.as_fd(), level, name)?;
    usize::try_from(mtu).map_err(|_| io::Error::other("a negative path MTU"))
}

fn open(address: IpAddr) -> io::Result<OwnedFd> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let made = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&made, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(made)
}

fn bind_to(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    Ok(bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?)
}

/// Beyond net.core's bounds if we may, else as far as they go.
fn force_buffer(socket: &OwnedFd, force: i32, plain: i32, bytes: i32) -> io::Result<()> {
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, force, bytes)
        .or_else(|_| sys::set_option(socket.as_fd(), libc::SOL_SOCKET, plain, bytes))
}
