//! Kernel events: what changed in a namespace, as it changes (rtnetlink(7) multicast groups).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage as M;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{
    Address, Error, Fdb, Link, Neigh, Result, Route,
    netlink::{parse_address, parse_fdb, parse_link, parse_messages, parse_neigh, parse_route},
};

/// Which kinds of event to hear: numbers of linux/rtnetlink.h's RTNLGRP_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Links made, changed and removed.
    Link = 1,
    /// Neighbours and forwarding entries.
    Neigh = 3,
    /// IPv4 addresses.
    Ipv4Address = 5,
    /// IPv4 routes.
    Ipv4Route = 7,
    /// IPv6 addresses.
    Ipv6Address = 9,
    /// IPv6 routes.
    Ipv6Route = 11,
}

/// A change that the kernel reports; `removed` tells removal from addition or change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link.
    Link {
        /// Its state, at removal its last.
        link: Link,
        /// It is gone.
        removed: bool,
    },
    /// An address.
    Address {
        /// The address.
        address: Address,
        /// It is gone.
        removed: bool,
    },
    /// A route.
    Route {
        /// The route.
        route: Route,
        /// It is gone.
        removed: bool,
    },
    /// A neighbour entry.
    Neigh {
        /// The entry.
        neigh: Neigh,
        /// It is gone.
        removed: bool,
    },
    /// A forwarding entry.
    Fdb {
        /// The entry.
        fdb: Fdb,
        /// It is gone.
        removed: bool,
    },
    /// Events were lost because they came faster than they were read: observe everything anew.
    Overrun,
}

/// A listening socket in the namespace where it was opened. It never blocks: wait on its file
/// descriptor, then read [`Monitor::events`].
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Listens to the given groups in the calling thread's namespace.
    pub fn open(groups: &[Group]) -> Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            // A small buffer only means an earlier `Overrun`.
            let _ = crate::sys::force_receive_buffer(socket.as_raw_fd(), 4 << 20);
            for group in groups {
                socket.add_membership(*group as u32)?;
            }
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|cause| Error::new("listen to kernel events", cause))?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(32 * 1024),
        })
    }

    /// The events of one datagram; empty when there is none to read now.
    pub fn events(&mut self) -> Result<Vec<Event>> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => {}
            Err(error) => {
                return match (error.kind(), error.raw_os_error()) {
                    (io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted, _) => Ok(Vec::new()),
                    (_, Some(libc::ENOBUFS)) => Ok(vec![Event::Overrun]),
                    _ => Err(Error::new("read kernel events", error)),
                };
            }
        }
        let Ok(messages) = parse_messages(&self.buffer) else {
            // What we cannot read may have mattered.
            return Ok(vec![Event::Overrun]);
        };
        let inner = messages
            .into_iter()
            .filter_map(|message| match message.payload {
                NetlinkPayload::InnerMessage(inner) => event(inner),
                _ => None,
            });
        Ok(inner.collect())
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn event(message: M) -> Option<Event> {
    Some(match message {
        M::NewLink(link) => Event::Link {
            link: parse_link(link)?,
            removed: false,
        },
        M::DelLink(link) => Event::Link {
            link: parse_link(link)?,
            removed: true,
        },
        M::NewAddress(address) => Event::Address {
            address: parse_address(address)?,
            removed: false,
        },
        M::DelAddress(address) => Event::Address {
            address: parse_address(address)?,
            removed: true,
        },
        M::NewRoute(route) => Event::Route {
            route: parse_route(route)?,
            removed: false,
        },
        M::DelRoute(route) => Event::Route {
            route: parse_route(route)?,
            removed: true,
        },
        M::NewNeighbour(entry) => neighbour(&entry, false)?,
        M::DelNeighbour(entry) => neighbour(&entry, true)?,
        _ => return None,
    })
}

fn neighbour(
    entry: &netlink_packet_route::neighbour::NeighbourMessage,
    removed: bool,
) -> Option<Event> {
    if let Some(fdb) = parse_fdb(entry) {
        return Some(Event::Fdb { fdb, removed });
    }
    parse_neigh(entry).map(|neigh| Event::Neigh { neigh, removed })
}
