//! The thread that accepts TCP connections, chooses an endpoint for each, connects to it, and hands the pair over
//! to a [`Pump`](super::pump::Pump).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::Netlink;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use slab::Slab;

use super::counters::{Counter, Counters};
use super::fronts::Place;
use super::mailbox::{Mailbox, Work};
use super::picker::TRIES;
use super::routes::Routes;
use super::sockets;
use super::stream::Stream;
use super::surroundings::{Surroundings, Verdict};
use super::target::{Id, Lease, Lost, Occupant, Order, Target};
use crate::model::{Endpoint, FrontKind};

/// How long the first, second, third endpoint has time to answer: a lost SYN is repeated after 1 s.
const PATIENCE: [Duration; TRIES] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// Connections taken from one listener before others are looked at.
const ACCEPTS: usize = 64;
/// Tokens of connections being made have this bit, those of listeners have not.
const CALL: u64 = 1 << 62;

/// See the module.
pub(super) struct Dialer {
    surroundings: Arc<Surroundings>,
    targets: HashMap<Id, Target>,
    listeners: Slab<Listener>,
    by_place: HashMap<Place, usize>,
    calls: Slab<Call>,
    deadlines: BTreeSet<(Instant, usize)>,
    pumps: Vec<Mailbox<Stream>>,
    next_pump: usize,
    netlink: Netlink,
    counters: Arc<Counters>,
    lost: Lost,
    /// Given up for a moment when no other descriptor is left, to accept a client and reset it.
    spare: Option<OwnedFd>,
}

struct Listener {
    socket: TcpListener,
    place: Place,
    occupant: Occupant,
    lease: Lease,
}

/// A client that has been accepted.
struct Caller {
    socket: TcpStream,
    from: SocketAddr,
    id: Id,
    lease: Lease,
}

/// A client that waits for an endpoint to answer.
struct Call {
    caller: Caller,
    endpoints: Vec<Endpoint>,
    /// Which of them is being tried.
    at: usize,
    socket: TcpStream,
    deadline: Instant,
}

impl Caller {
    fn ip(&self) -> IpAddr {
        self.from.ip().to_canonical()
    }
}

impl Dialer {
    /// Answers nobody yet. `netlink` is of the namespace where it will run.
    pub(super) fn new(
        surroundings: Arc<Surroundings>,
        pumps: Vec<Mailbox<Stream>>,
        netlink: Netlink,
        counters: Arc<Counters>,
        lost: Lost,
    ) -> Self {
        Self {
            surroundings,
            targets: HashMap::new(),
            listeners: Slab::new(),
            by_place: HashMap::new(),
            calls: Slab::new(),
            deadlines: BTreeSet::new(),
            pumps,
            next_pump: 0,
            netlink,
            counters,
            lost,
            spare: spare(),
        }
    }

    fn open(&mut self, listener: Listener, epoll: &Epoll) {
        let entry = self.listeners.vacant_entry();
        let (key, place) = (entry.key(), listener.place);
        let event = EpollEvent::new(EpollFlags::EPOLLIN, key as u64);
        if let Err(errno) = epoll.add(&listener.socket, event) {
            return self.lost.note(place, errno);
        }
        entry.insert(listener);
        self.by_place.insert(place, key);
    }

    fn close(&mut self, place: Place, epoll: &Epoll) {
        let Some(key) = self.by_place.remove(&place) else {
            return;
        };
        // Those whose handshake is done are served; closing would reset them.
        if let Err(error) = sockets::shut(&self.listeners[key].socket) {
            tracing::debug!("shut {place}: {error}");
        }
        let now = Instant::now();
        while self.accept(key, now, epoll) {}
        self.listeners.remove(key);
    }

    /// Accepts some connections; whether there may be more.
    fn accept(&mut self, key: usize, now: Instant, epoll: &Epoll) -> bool {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(key) else {
                return false;
            };
            match listener.socket.accept() {
                Ok((socket, from)) => {
                    self.counters.tcp_accepted.add(1);
                    self.counters.open_tcp.add(1);
                    let caller = Caller {
                        socket,
                        from,
                        id: listener.occupant.id,
                        lease: Arc::clone(&listener.lease),
                    };
                    let (kind, at) = (listener.occupant.kind, listener.place.address.ip());
                    self.greet(caller, kind, at, now, epoll);
                }
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return false,
                Err(error) if exhausted(&error) => {
                    self.counters.tcp_exhausted.add(1);
                    tracing::debug!("accept on {}: {error}", listener.place);
                    if !self.turn_away(key) {
                        return false;
                    }
                }
                // The client has gone again, or the network has (accept(2): "treat like EAGAIN").
                Err(_) => {}
            }
        }
        true
    }

    /// No descriptor is left: accepts one client with the spare one, only to reset it, lest it wait in vain and the
    /// listener call for ever.
    fn turn_away(&mut self, key: usize) -> bool {
        if self.spare.take().is_none() {
            // Even that one is gone; let others close theirs.
            std::thread::sleep(Duration::from_millis(10));
        }
        let accepted = self.listeners[key].socket.accept();
        if let Ok((client, _)) = &accepted {
            sockets::reset_on_close(client);
        }
        let done = accepted.is_ok();
        drop(accepted);
        self.spare = spare();
        done
    }

    fn greet(&mut self, caller: Caller, kind: FrontKind, at: IpAddr, now: Instant, epoll: &Epoll) {
        let ip = caller.ip();
        let mut endpoints = Vec::new();
        if let Some(Target { balancer, picker }) = self.targets.get_mut(&caller.id) {
            let (around, netlink) = (&self.surroundings, &mut self.netlink);
            let link_to = |ip| Routes::link_to(netlink, ip);
            // A stream that has been accepted cannot be met with silence any more: it is reset as if refused.
            if let Verdict::Serve(list) = around.admit(balancer, kind, at, ip, link_to) {
                endpoints = picker.pick(balancer, list, ip, around.stickiness, now);
            }
        }
        if endpoints.is_empty() {
            return self.refuse(&caller, &self.counters.tcp_refused);
        }
        let prepared = caller
            .socket
            .set_nonblocking(true)
            .and_then(|()| sockets::ungate(&caller.socket));
        if let Err(error) = prepared {
            tracing::debug!("prepare a connection of {}: {error}", caller.from);
            return self.refuse(&caller, &self.counters.tcp_exhausted);
        }
        self.call(caller, endpoints, 0, now, epoll);
    }

    /// Resets a client when the caller is dropped.
    fn refuse(&self, caller: &Caller, reason: &Counter) {
        reason.add(1);
        self.counters.open_tcp.subtract(1);
        sockets::reset_on_close(&caller.socket);
    }

    /// Tries the endpoints from number `at` on.
    fn call(
        &mut self,
        caller: Caller,
        endpoints: Vec<Endpoint>,
        mut at: usize,
        now: Instant,
        epoll: &Epoll,
    ) {
        while let Some(endpoint) = endpoints.get(at) {
            let key = self.calls.vacant_key();
            let watch = |socket: OwnedFd| -> io::Result<OwnedFd> {
                let event = EpollEvent::new(EpollFlags::EPOLLOUT, CALL | key as u64);
                epoll.add(&socket, event)?;
                Ok(socket)
            };
            let address = SocketAddr::new(endpoint.ip, endpoint.port);
            match sockets::dial(address).and_then(watch) {
                Ok(socket) => {
                    let deadline = now + PATIENCE[at.min(TRIES - 1)];
                    self.deadlines.insert((deadline, key));
                    self.calls.insert(Call {
                        caller,
                        endpoints,
                        at,
                        socket: socket.into(),
                        deadline,
                    });
                    return;
                }
                // Ours is the want, not the endpoint's: the others would fail alike, and the client keeps its own.
                Err(error) if exhausted(&error) => {
                    tracing::debug!("connect to endpoint {address}: {error}");
                    return self.refuse(&caller, &self.counters.tcp_exhausted);
                }
                Err(error) => self.failed(address, &error),
            }
            at += 1;
        }
        if let Some(Target { picker, .. }) = self.targets.get_mut(&caller.id) {
            picker.forget(caller.ip());
        }
        self.refuse(&caller, &self.counters.tcp_unserved);
    }

    fn failed(&self, endpoint: SocketAddr, error: &io::Error) {
        self.counters.tcp_connect_failures.add(1);
        tracing::debug!("connect to endpoint {endpoint}: {error}");
    }

    /// The endpoint has answered, or the kernel has given up.
    fn answered(&mut self, key: usize, now: Instant, epoll: &Epoll) {
        let Some(call) = self.calls.get(key) else {
            return;
        };
        match call.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.hang_up(key, &error, now, epoll),
        }
        let call = self.calls.remove(key);
        self.deadlines.remove(&(call.deadline, key));
        if let Err(errno) = epoll.delete(&call.socket) {
            tracing::debug!("hand a connection over: {}", errno.desc());
        }
        let (caller, how) = (call.caller, self.surroundings.stickiness);
        if call.at > 0
            && let Some(Target { balancer, picker }) = self.targets.get_mut(&caller.id)
        {
            picker.settle(balancer, caller.ip(), call.endpoints[call.at], how, now);
        }
        let stream = Stream::new(caller.socket, call.socket, caller.lease);
        self.pumps[self.next_pump].post(stream);
        self.next_pump = (self.next_pump + 1) % self.pumps.len();
    }

    /// Gives an endpoint up, and goes on with the next.
    fn hang_up(&mut self, key: usize, error: &io::Error, now: Instant, epoll: &Epoll) {
        let call = self.calls.remove(key);
        self.deadlines.remove(&(call.deadline, key));
        let endpoint = call.endpoints[call.at];
        self.failed(SocketAddr::new(endpoint.ip, endpoint.port), error);
        drop(call.socket);
        self.call(call.caller, call.endpoints, call.at + 1, now, epoll);
    }
}

/// Whether descriptors or memory are wanting.
fn exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

impl Work for Dialer {
    type Order = Order;

    fn obey(&mut self, order: Order, epoll: &Epoll) {
        match order {
            Order::Surroundings(surroundings) => self.surroundings = surroundings,
            Order::Set(id, balancer) => match self.targets.get_mut(&id) {
                Some(target) => target.balancer = balancer,
                None => {
                    self.targets.insert(id, Target::new(balancer));
                }
            },
            Order::Forget(id) => {
                self.targets.remove(&id);
            }
            Order::Open(place, socket, occupant, lease) => {
                let listener = Listener {
                    socket: socket.into(),
                    place,
                    occupant,
                    lease,
                };
                self.open(listener, epoll);
            }
            Order::Guard(place, gate) => {
                if let Some(key) = self.by_place.get(&place)
                    && let Err(error) = sockets::guard(&self.listeners[*key].socket, &gate)
                {
                    // Who should have been ignored is reset instead.
                    tracing::warn!("guard {place}: {error}");
                }
            }
            Order::Close(place) => self.close(place, epoll),
        }
    }

    fn ready(&mut self, token: u64, _: EpollFlags, now: Instant, epoll: &Epoll) {
        if token & CALL == 0 {
            self.accept(token as usize, now, epoll);
        } else {
            self.answered((token & !CALL) as usize, now, epoll);
        }
    }

    fn tick(&mut self, now: Instant, epoll: &Epoll) -> Option<Instant> {
        while let Some((deadline, key)) = self.deadlines.first().copied() {
            if deadline > now {
                return Some(deadline);
            }
            self.hang_up(key, &io::ErrorKind::TimedOut.into(), now, epoll);
        }
        None
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        for (_, call) in &self.calls {
            sockets::reset_on_close(&call.caller.socket);
            self.counters.open_tcp.subtract(1);
        }
    }
}

fn spare() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}
