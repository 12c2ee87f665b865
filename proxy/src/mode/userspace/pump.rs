//! The threads that forward TCP streams: each has its own connections, and no part in how they were made.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use slab::Slab;

use super::counters::Counters;
use super::mailbox::Work;
use super::sockets::reset_on_close;
use super::store::Stock;
use super::stream::{Progress, Side, Stream};

/// One thread's connections.
pub(super) struct Pump {
    streams: Slab<Carried>,
    /// Those that had more to do when others were due; none twice.
    unfinished: Vec<usize>,
    stock: Stock,
    counters: Arc<Counters>,
}

struct Carried {
    stream: Stream,
    unfinished: bool,
}

impl Pump {
    /// Without any connection yet.
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self {
            streams: Slab::new(),
            unfinished: Vec::new(),
            stock: Stock::default(),
            counters,
        }
    }

    fn advance(&mut self, key: usize) {
        let Some(carried) = self.streams.get_mut(key) else {
            return;
        };
        let progress = carried.stream.advance(&mut self.stock);
        let [to_endpoint, to_client] = carried.stream.passed();
        if to_endpoint > 0 {
            self.counters.tcp_bytes_to_endpoints.add(to_endpoint);
        }
        if to_client > 0 {
            self.counters.tcp_bytes_to_clients.add(to_client);
        }
        match progress {
            Progress::Waiting => {}
            Progress::More if carried.unfinished => {}
            Progress::More => {
                carried.unfinished = true;
                self.unfinished.push(key);
            }
            Progress::Ended => {
                self.streams.remove(key);
                self.counters.open_tcp.subtract(1);
            }
            Progress::Broken(side) => {
                let carried = self.streams.remove(key);
                carried.stream.sockets().iter().for_each(reset_on_close);
                self.counters.open_tcp.subtract(1);
                match side {
                    Side::Client => self.counters.tcp_client_errors.add(1),
                    Side::Endpoint => self.counters.tcp_endpoint_errors.add(1),
                }
            }
        }
    }
}

impl Work for Pump {
    type Order = Stream;

    fn obey(&mut self, stream: Stream, epoll: &Epoll) {
        let entry = self.streams.vacant_entry();
        let token = (entry.key() as u64) << 1;
        let edges = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        let added = stream
            .sockets()
            .iter()
            .zip(0..)
            .try_for_each(|(socket, side)| {
                epoll.add(socket.as_fd(), EpollEvent::new(edges, token | side))
            });
        match added {
            // The kernel reports at once what the sockets are ready for.
            Ok(()) => {
                entry.insert(Carried {
                    stream,
                    unfinished: false,
                });
            }
            Err(errno) => {
                tracing::debug!("watch a connection: {}", errno.desc());
                stream.sockets().iter().for_each(reset_on_close);
                self.counters.tcp_exhausted.add(1);
                self.counters.open_tcp.subtract(1);
            }
        }
    }

    fn ready(&mut self, token: u64, events: EpollFlags, _: Instant, _: &Epoll) {
        let key = (token >> 1) as usize;
        let side = if token & 1 == 0 {
            Side::Client
        } else {
            Side::Endpoint
        };
        // An error or a hang-up shows when we try.
        let over = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        let readable = over || events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
        let writable = over || events.contains(EpollFlags::EPOLLOUT);
        if let Some(carried) = self.streams.get_mut(key) {
            carried.stream.note(side, readable, writable);
            self.advance(key);
        }
    }

    fn tick(&mut self, now: Instant, _: &Epoll) -> Option<Instant> {
        for key in std::mem::take(&mut self.unfinished) {
            if let Some(carried) = self.streams.get_mut(key) {
                carried.unfinished = false;
            }
            self.advance(key);
        }
        // What is still unfinished goes on after a look at the others.
        (!self.unfinished.is_empty()).then_some(now)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        for (_, carried) in &self.streams {
            carried.stream.sockets().iter().for_each(reset_on_close);
            self.counters.open_tcp.subtract(1);
        }
    }
}
