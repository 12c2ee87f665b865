//! The threads that forward datagrams: each has some service ports, with all their sockets and flows.
//!
//! A flow is what one client sends to one front. It has a socket connected to its endpoint, so that the endpoint sees
//! a source port of the flow's own, answers find the flow by the socket alone, and the kernel reports when
//! nobody listens at the endpoint. It ends when it has been idle for the time-out, when its endpoint leaves the
//! list (the client's next datagram begins another), or when the table is full and it has been idle longest.

mod flows;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::Netlink;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use slab::Slab;

use self::flows::{Flow, FlowKey, Flows};
use super::counters::Counters;
use super::fronts::Place;
use super::mailbox::Work;
use super::routes::Routes;
use super::sockets;
use super::surroundings::{Surroundings, Verdict};
use super::target::{Id, Lost, Occupant, Order, Target};
use crate::model::Endpoint;
use crate::sys::Datagrams;

/// Datagrams taken from a socket by one call.
const BATCH: usize = 32;
/// Batches taken from a socket before others are looked at.
const BATCHES: usize = 8;
/// Tokens of flows have this bit, those of fronts have not.
const FLOW: u64 = 1 << 62;

/// See the module.
pub(super) struct UdpForwarder {
    surroundings: Arc<Surroundings>,
    targets: HashMap<Id, Target>,
    fronts: Slab<Front>,
    by_place: HashMap<Place, usize>,
    flows: Flows,
    batch: Option<Datagrams>,
    netlink: Netlink,
    counters: Arc<Counters>,
    lost: Lost,
}

struct Front {
    socket: OwnedFd,
    place: Place,
    occupant: Occupant,
}

impl UdpForwarder {
    /// Holds at most `limit` flows, each for `timeout` after its last datagram in either direction. `netlink` is of
    /// the namespace where it will run.
    pub(super) fn new(
        surroundings: Arc<Surroundings>,
        limit: usize,
        timeout: Duration,
        netlink: Netlink,
        counters: Arc<Counters>,
        lost: Lost,
    ) -> Self {
        Self {
            surroundings,
            targets: HashMap::new(),
            fronts: Slab::new(),
            by_place: HashMap::new(),
            flows: Flows::new(limit, timeout, Arc::clone(&counters)),
            batch: None,
            netlink,
            counters,
            lost,
        }
    }

    fn open(&mut self, place: Place, socket: OwnedFd, occupant: Occupant, epoll: &Epoll) {
        let entry = self.fronts.vacant_entry();
        let key = entry.key();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, key as u64);
        if let Err(errno) = epoll.add(&socket, event) {
            return self.lost.note(place, errno);
        }
        entry.insert(Front {
            socket,
            place,
            occupant,
        });
        self.by_place.insert(place, key);
    }

    fn close(&mut self, place: Place) {
        if let Some(key) = self.by_place.remove(&place) {
            self.fronts.remove(key);
            self.flows.end_all(|flow| flow.key.0 == key);
        }
    }

    /// Ends the flows of a service port whose endpoint has left its list.
    fn prune(&mut self, changed: Id) {
        let Some(Target { balancer, .. }) = self.targets.get(&changed) else {
            return;
        };
        let fronts = &self.fronts;
        self.flows.end_all(|flow| {
            let Endpoint { ip, port, .. } = flow.endpoint;
            let mut list = balancer.list(flow.list).iter();
            fronts[flow.key.0].occupant.id == changed && !list.any(|e| (e.ip, e.port) == (ip, port))
        });
    }

    /// Clients have sent something to a front.
    fn take_from_clients(
        &mut self,
        front: usize,
        batch: &mut Datagrams,
        now: Instant,
        epoll: &Epoll,
    ) {
        for _ in 0..BATCHES {
            let Some(socket) = self.fronts.get(front).map(|front| &front.socket) else {
                return;
            };
            // An error is that of an earlier answer; the next call gives what there is.
            let count = match batch.receive(socket.as_fd()) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let mut start = 0;
            while start < count {
                let from = batch.from(start);
                let same = (start..count).take_while(|at| batch.from(*at) == from);
                let range = start..start + same.count().max(1);
                start = range.end;
                if let Some(from) = from {
                    self.send_to_endpoint((front, from), range, batch, now, epoll);
                }
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// Sends datagrams of one client on.
    fn send_to_endpoint(
        &mut self,
        key: FlowKey,
        range: Range<usize>,
        batch: &mut Datagrams,
        now: Instant,
        epoll: &Epoll,
    ) {
        let mut left = range;
        let mut avoid = None;
        while !left.is_empty() {
            let at = match self.flows.find(&key, now) {
                Some(at) => at,
                None => match self.begin(key, avoid, now, epoll) {
                    Ok(Some(at)) => at,
                    Ok(None) => return self.counters.udp_refused.add(left.len() as u64),
                    Err(error) => {
                        tracing::debug!("begin a flow of {}: {error}", key.1);
                        self.counters.udp_exhausted.add(1);
                        return;
                    }
                },
            };
            let Some(flow) = self.flows.get(at) else {
                return;
            };
            match batch.send(flow.socket.as_fd(), left.clone(), None) {
                Ok(count) => {
                    self.counters.udp_to_endpoints.add(count as u64);
                    left.start += count.max(1);
                }
                // What an earlier datagram met; this one has not been sent.
                Err(error) if is_unreachable(&error) && avoid.is_none() => {
                    avoid = Some(flow.endpoint);
                    self.unreachable(at);
                }
                Err(error) => {
                    tracing::trace!("send a datagram on: {error}");
                    self.counters.udp_unsent.add(1);
                    left.start += 1;
                }
            }
        }
    }

    /// Begins a flow; `None` if the client gets nothing here.
    fn begin(
        &mut self,
        key: FlowKey,
        avoid: Option<Endpoint>,
        now: Instant,
        epoll: &Epoll,
    ) -> io::Result<Option<usize>> {
        let Front {
            place, occupant, ..
        } = &self.fronts[key.0];
        let Some(Target { balancer, picker }) = self.targets.get_mut(&occupant.id) else {
            return Ok(None);
        };
        let client = key.1.ip().to_canonical();
        let (around, netlink) = (&self.surroundings, &mut self.netlink);
        let link_to = |ip| Routes::link_to(netlink, ip);
        let at = place.address.ip();
        let verdict = around.admit(balancer, occupant.kind, at, client, link_to);
        let Verdict::Serve(list) = verdict else {
            return Ok(None);
        };
        let picked = picker.pick(balancer, list, client, around.stickiness, now);
        let other = picked.iter().find(|endpoint| Some(**endpoint) != avoid);
        let Some(endpoint) = other.or(picked.first()).copied() else {
            return Ok(None);
        };
        let socket = sockets::flow(SocketAddr::new(endpoint.ip, endpoint.port))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, FLOW | self.flows.next() as u64);
        epoll.add(&socket, event)?;
        picker.settle(balancer, client, endpoint, around.stickiness, now);
        let flow = Flow {
            socket,
            key,
            endpoint,
            list,
        };
        Ok(Some(self.flows.begin(flow, now)))
    }

    /// Ends a flow at whose endpoint nobody listens.
    fn unreachable(&mut self, number: usize) {
        let Some(flow) = self.flows.get(number) else {
            return;
        };
        let Front { occupant, .. } = &self.fronts[flow.key.0];
        if let Some(Target { picker, .. }) = self.targets.get_mut(&occupant.id) {
            picker.forget(flow.key.1.ip().to_canonical());
        }
        self.counters.udp_unreachable.add(1);
        self.flows.end(number);
    }

    /// An endpoint has answered, or cannot.
    fn take_from_endpoint(&mut self, at: usize, batch: &mut Datagrams, now: Instant) {
        for _ in 0..BATCHES {
            let Some(flow) = self.flows.used(at, now) else {
                return;
            };
            let count = match batch.receive(flow.socket.as_fd()) {
                Ok(count) => count,
                Err(error) if is_unreachable(&error) => return self.unreachable(at),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A passing error of the path, now taken from the socket.
                Err(_) => continue,
            };
            let (front, client) = flow.key;
            let socket = &self.fronts[front].socket;
            let mut left = 0..count;
            while !left.is_empty() {
                match batch.send(socket.as_fd(), left.clone(), Some(client)) {
                    Ok(sent) => {
                        self.counters.udp_to_clients.add(sent as u64);
                        left.start += sent.max(1);
                    }
                    Err(error) => {
                        tracing::trace!("send a datagram back: {error}");
                        self.counters.udp_unsent.add(1);
                        left.start += 1;
                    }
                }
            }
            if count < BATCH {
                return;
            }
        }
    }
}

impl Work for UdpForwarder {
    type Order = Order;

    fn obey(&mut self, order: Order, epoll: &Epoll) {
        match order {
            Order::Surroundings(surroundings) => self.surroundings = surroundings,
            Order::Set(id, balancer) => match self.targets.get_mut(&id) {
                Some(target) => {
                    target.balancer = balancer;
                    self.prune(id);
                }
                None => {
                    self.targets.insert(id, Target::new(balancer));
                }
            },
            Order::Forget(id) => {
                self.targets.remove(&id);
            }
            Order::Open(place, socket, occupant, _) => self.open(place, socket, occupant, epoll),
            // Each flow is judged by itself.
            Order::Guard(..) => {}
            Order::Close(place) => self.close(place),
        }
    }

    fn ready(&mut self, token: u64, _: EpollFlags, now: Instant, epoll: &Epoll) {
        // Two MiB of room, of which is used what datagrams need; none where there is no UDP.
        let mut batch = self.batch.take().unwrap_or_else(|| Datagrams::new(BATCH));
        if token & FLOW == 0 {
            self.take_from_clients(token as usize, &mut batch, now, epoll);
        } else {
            self.take_from_endpoint((token & !FLOW) as usize, &mut batch, now);
        }
        self.batch = Some(batch);
    }

    fn tick(&mut self, now: Instant, _: &Epoll) -> Option<Instant> {
        self.flows.expire(now)
    }
}

/// An ICMP message said that nobody listens there.
fn is_unreachable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECONNREFUSED)
}
