//! The threads and the sockets they have been given: carries out what the ledger wants.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use kernel::Netlink;

use super::Options;
use super::counters::Counters;
use super::dialer::Dialer;
use super::fronts::{Place, Scope, claim};
use super::ledger::{Ledger, News, Owned, Step, steps};
use super::mailbox::Worker;
use super::pump::Pump;
use super::routes::Routes;
use super::sockets;
use super::stream::Stream;
use super::surroundings::Surroundings;
use super::target::{Id, Lease, Lost, Occupant, Order};
use super::udp::UdpForwarder;
use crate::mode::Report;
use crate::model::{Changed, PortName, Protocol, Wanted};

/// See the module.
pub(super) struct Engine {
    scope: Scope,
    around: Arc<Surroundings>,
    ledger: Ledger,
    open: BTreeMap<Place, Owned>,
    /// By address of TCP sockets; some of the holders may be streams accepted from sockets that are closed.
    leases: BTreeMap<IpAddr, Weak<()>>,
    lost: Lost,
    // Dropped in this order: nobody hands a stream to a pump that has ended.
    dialer: Worker<Order>,
    udp: Vec<Worker<Order>>,
    _pumps: Vec<Worker<Stream>>,
}

impl Engine {
    /// Starts the threads, in the calling thread's namespace.
    pub(super) fn start(
        scope: Scope,
        around: Surroundings,
        options: &Options,
        counters: &Arc<Counters>,
    ) -> anyhow::Result<Self> {
        sockets::raise_descriptor_limit();
        let (around, lost) = (Arc::new(around), Lost::default());
        let threads = options.threads.max(1);
        let mut pumps = Vec::new();
        for at in 0..threads {
            let pump = Pump::new(Arc::clone(counters));
            pumps.push(Worker::start(&format!("tcp-{at}"), pump)?);
        }
        let dialer = Dialer::new(
            Arc::clone(&around),
            pumps.iter().map(|pump| pump.mailbox().clone()).collect(),
            Netlink::open()?,
            Arc::clone(counters),
            lost.clone(),
        );
        let mut udp = Vec::new();
        if scope == Scope::Everything {
            for at in 0..threads {
                let forwarder = UdpForwarder::new(
                    Arc::clone(&around),
                    options.udp_flows / threads,
                    options.udp_timeout,
                    Netlink::open()?,
                    Arc::clone(counters),
                    lost.clone(),
                );
                udp.push(Worker::start(&format!("udp-{at}"), forwarder)?);
            }
        }
        Ok(Self {
            scope,
            around,
            ledger: Ledger::default(),
            open: BTreeMap::new(),
            leases: BTreeMap::new(),
            lost,
            dialer: Worker::start("dialer", dialer)?,
            udp,
            _pumps: pumps,
        })
    }

    /// Brings routes (if they are this engine's business) and sockets to what is wanted. With `around`, everything
    /// is compared; without, only what has changed.
    pub(super) fn sync(
        &mut self,
        wanted: &Wanted,
        changed: &Changed,
        around: Option<Surroundings>,
        routes: Option<&mut Routes>,
    ) -> Report {
        let mut report = Report {
            full: around.is_some(),
            ..Report::default()
        };
        let news_around = around.filter(|around| *around != *self.around);
        if let Some(around) = news_around.clone() {
            self.around = Arc::new(around);
        }
        let names: BTreeSet<PortName> = match changed {
            Changed::Ports(names) if !report.full => names.clone(),
            _ => (self.ledger.names().chain(wanted.balancers.keys()))
                .cloned()
                .collect(),
        };
        let mut orders = Orders::new(self.udp.len());
        if news_around.is_some() {
            orders.all(|| Order::Surroundings(Arc::clone(&self.around)));
        }
        let (touched, forgotten) = self.enter(names, wanted, &mut orders, &mut report);
        let touched = if report.full {
            self.open
                .keys()
                .chain(self.ledger.places())
                .copied()
                .collect()
        } else {
            touched
        };
        let steps = steps(&self.open, &self.ledger, &touched);
        let (closing, opening): (Vec<_>, Vec<_>) = steps
            .into_iter()
            .partition(|step| matches!(step, Step::Close(_)));
        self.close(closing, &mut orders, &mut report);
        for (protocol, id) in forgotten {
            orders.one(protocol, id, Order::Forget(id));
        }
        // What is closed must be closed before its place is bound again.
        self.carry_out(orders, &mut report);
        if let Some(routes) = routes {
            route(routes, &self.wanted_routes(), &mut report);
        }
        let mut orders = Orders::new(self.udp.len());
        for step in opening {
            self.step(step, &mut orders, &mut report);
        }
        self.carry_out(orders, &mut report);
        report
    }

    /// The sockets that are open.
    pub(super) fn open(&self) -> &BTreeMap<Place, Owned> {
        &self.open
    }

    /// Closes all TCP listeners, and waits until all connections have ended or the time is over; whether all have.
    pub(super) fn drain(&mut self, limit: Duration, counters: &Counters) -> bool {
        let end = Instant::now() + limit;
        let mut orders = Orders::new(self.udp.len());
        let mut report = Report::default();
        let tcp = self
            .open
            .keys()
            .filter(|place| place.protocol == Protocol::Tcp);
        let closing = tcp.copied().map(Step::Close).collect();
        self.close(closing, &mut orders, &mut report);
        self.carry_out(orders, &mut report);
        while counters.open_tcp.get() > 0 {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Addresses that must have a route of ours: those of the Services, and those at which streams still run. The node
    /// has the others by itself.
    fn wanted_routes(&mut self) -> BTreeSet<IpAddr> {
        self.leases.retain(|_, lease| lease.strong_count() > 0);
        let addresses = self.ledger.addresses().chain(self.leases.keys());
        let own = &self.around.own;
        addresses.filter(|ip| !own.contains(ip)).copied().collect()
    }

    /// Addresses at which streams run, whether a Service has them or not.
    pub(super) fn busy(&self) -> BTreeSet<IpAddr> {
        let mut listeners: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for place in self.open.keys().filter(|p| p.protocol == Protocol::Tcp) {
            *listeners.entry(place.address.ip()).or_default() += 1;
        }
        let has_streams = |(ip, lease): &(&IpAddr, &Weak<()>)| {
            lease.strong_count() > listeners.get(ip).copied().unwrap_or(0)
        };
        let busy = self.leases.iter().filter(has_streams);
        busy.map(|(ip, _)| *ip).collect()
    }

    /// Removes the routes that no Service has any more and whose last stream has ended.
    pub(super) fn retire(&mut self, routes: &mut Routes) -> Vec<String> {
        let over = |(ip, lease): (&IpAddr, &Weak<()>)| {
            lease.strong_count() == 0 && !self.ledger.has_address(*ip)
        };
        if !self.leases.iter().any(over) {
            return Vec::new();
        }
        let mut report = Report::default();
        route(routes, &self.wanted_routes(), &mut report);
        report.errors
    }

    /// Enters what has changed into the ledger, and tells the threads of it. Answers the places touched, and who is
    /// gone.
    fn enter(
        &mut self,
        names: BTreeSet<PortName>,
        wanted: &Wanted,
        orders: &mut Orders,
        report: &mut Report,
    ) -> (BTreeSet<Place>, Vec<(Protocol, Id)>) {
        let news: Vec<News> = names
            .iter()
            .map(|name| {
                let balancer = wanted.balancers.get(name);
                let state = balancer.map(|balancer| {
                    let claim = claim(name, balancer, &self.around, self.scope);
                    (Arc::clone(balancer), claim)
                });
                (name.clone(), state)
            })
            .collect();
        let before: Vec<_> = names
            .iter()
            .map(|name| (self.ledger.port(name)).map(|port| (port.id, Arc::clone(&port.balancer))))
            .collect();
        let (touched, errors) = self.ledger.enter(news);
        report.errors.extend(errors);
        let mut forgotten = Vec::new();
        for (name, before) in names.iter().zip(before) {
            match (self.ledger.port(name), before) {
                (Some(port), Some((_, before))) if port.balancer == before => {}
                (Some(port), _) => {
                    let balancer = Arc::clone(&port.balancer);
                    orders.one(name.protocol, port.id, Order::Set(port.id, balancer));
                }
                (None, Some((id, _))) => forgotten.push((name.protocol, id)),
                (None, None) => {}
            }
        }
        (touched, forgotten)
    }

    fn close(&mut self, steps: Vec<Step>, orders: &mut Orders, report: &mut Report) {
        for step in steps {
            let Step::Close(place) = step else { continue };
            if let Some(owned) = self.open.remove(&place) {
                orders.one(place.protocol, owned.id, Order::Close(place));
                report.changes += 1;
            }
        }
    }

    fn step(&mut self, step: Step, orders: &mut Orders, report: &mut Report) {
        let (owned, order) = match step {
            Step::Close(_) => return,
            Step::Open(owned) => match sockets::open(&owned.door) {
                Ok(socket) => {
                    let occupant = Occupant {
                        id: owned.id,
                        kind: owned.door.kind,
                    };
                    let lease = self.lease(owned.door.place);
                    let order = Order::Open(owned.door.place, socket, occupant, lease);
                    (owned, order)
                }
                Err(error) => {
                    report.errors.push(describe(&owned, &error));
                    return;
                }
            },
            Step::Guard(owned) => {
                let order = Order::Guard(owned.door.place, owned.door.gate.clone());
                (owned, order)
            }
        };
        orders.one(owned.door.place.protocol, owned.id, order);
        self.open.insert(owned.door.place, owned);
        report.changes += 1;
    }

    fn lease(&mut self, place: Place) -> Lease {
        let lease = self.leases.get(&place.address.ip());
        let lease = lease.and_then(Weak::upgrade).unwrap_or_default();
        if place.protocol == Protocol::Tcp {
            self.leases
                .insert(place.address.ip(), Arc::downgrade(&lease));
        }
        lease
    }

    fn carry_out(&mut self, orders: Orders, report: &mut Report) {
        let workers = std::iter::once(&self.dialer).chain(&self.udp);
        let lists = std::iter::once(orders.tcp).chain(orders.udp);
        for (worker, orders) in workers.zip(lists) {
            if !orders.is_empty()
                && let Err(error) = worker.command(orders)
            {
                report.errors.push(format!("{error}; restart the proxy"));
            }
        }
        for (place, errno) in self.lost.take() {
            self.open.remove(&place);
            report
                .errors
                .push(format!("watch {place}: {}", errno.desc()));
        }
    }
}

/// Orders for each thread, collected so that one wait does for all.
struct Orders {
    tcp: Vec<Order>,
    udp: Vec<Vec<Order>>,
}

impl Orders {
    fn new(udp: usize) -> Self {
        Self {
            tcp: Vec::new(),
            udp: (0..udp).map(|_| Vec::new()).collect(),
        }
    }

    fn all(&mut self, order: impl Fn() -> Order) {
        self.tcp.push(order());
        self.udp.iter_mut().for_each(|orders| orders.push(order()));
    }

    /// For the thread that has the service port.
    fn one(&mut self, protocol: Protocol, id: Id, order: Order) {
        if protocol == Protocol::Tcp {
            self.tcp.push(order);
        } else if protocol == Protocol::Udp && !self.udp.is_empty() {
            let at = id as usize % self.udp.len();
            self.udp[at].push(order);
        }
    }
}

fn route(routes: &mut Routes, wanted: &BTreeSet<IpAddr>, report: &mut Report) {
    match routes.plan(wanted) {
        Ok(plan) => {
            let (made, errors) = routes.apply(&plan);
            report.changes += made;
            report.errors.extend(errors);
        }
        Err(error) => report.errors.push(error.to_string()),
    }
}

fn describe(owned: &Owned, error: &io::Error) -> String {
    let what = format!("listen on {} for {}", owned.door.place, owned.name);
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => format!(
            "{what}: another program has this port, on this address or on all; \
             let it listen on addresses of its own, or give the Service another port"
        ),
        Some(libc::EADDRNOTAVAIL) => format!("{what}: the node does not have this address"),
        Some(libc::EMFILE | libc::ENFILE) => {
            format!("{what}: {error}; raise the limit of open files (LimitNOFILE=)")
        }
        _ => format!("{what}: {error}"),
    }
}
