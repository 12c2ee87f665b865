//! Userspace mode: a process that accepts connections and datagrams for the Services and forwards them. For
//! hosts whose kernel has no NAT, and ([`Loopback`]) for node ports on 127.0.0.1 beside another mode.
//!
//! # How packets come here
//! Each address of a Service becomes a local address of the node by a host route in table local
//! (module `routes`), so that packets of Pods and of others which the node receives are delivered, and a socket can be bound
//! to it. Node ports are bound on the node's own addresses. There is no wildcard socket: answers leave from the
//! address that was asked, and a node port does not answer on a Service's address.
//!
//! # Who does what
//! ```text
//! Userspace (the caller's thread): ledger of what is wanted → routes, sockets, orders
//!   dialer   1 thread   accepts TCP, chooses, connects ──→ tcp-N  forward streams by splice(2)
//!   udp-N    threads    each has some service ports, with their sockets and flows
//! ```
//! The threads share nothing but counters: a table of endpoints arrives as an order, so there is no lock and no
//! reference count on the way of a packet. A change of endpoints costs one order.
//!
//! # What differs from the kernel modes
//! - The endpoint sees the node's address as the client's, also with the Local policy.
//! - The address answers ping, and the node answers ARP for it on every link, as for all that is local; where a load
//!   balancer announces its addresses by ARP (MetalLB in layer-2 mode), set `net.ipv4.conf.all.arp_ignore=1`.
//! - An address is taken whole: ports without a Service refuse, and a program of the node that listens on all addresses
//!   is reachable there; the port that it has cannot be a Service's (an error names it). An external IP that is
//!   another node's address cuts this node off from that node.
//! - A node port of a wildcard (`--nodeport-addresses` unset) answers on the addresses that the node has, but not on
//!   IPv6 link-local ones.
//! - Silence (source ranges, Local policy without local endpoint) is kept by a socket filter before the handshake;
//!   where it cannot be (local traffic told by interface, thousands of ranges), a TCP client is reset instead.
//! - Local traffic told by interface is told by the interface that leads back to the client.
//! - SCTP is not served.
//! - Session affinity survives a change of endpoints, but not a restart, unless it is by hash.

mod aging;
mod counters;
mod dialer;
mod engine;
mod fronts;
mod gate;
mod ledger;
mod loopback;
mod mailbox;
mod picker;
mod pump;
mod routes;
mod sockets;
mod store;
mod stream;
mod surroundings;
mod target;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub use counters::{Counter, Counters};
pub use loopback::Loopback;

use self::engine::Engine;
use self::fronts::{Scope, claim};
use self::ledger::{Ledger, steps};
use self::picker::Stickiness;
use self::routes::{Observed, Routes};
use self::surroundings::Surroundings;
use super::{Mode, Report};
use crate::model::{Changed, Family, NodePortAddresses, Protocol, Site, Wanted};

/// Sizes and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads that forward TCP streams, and as many for datagrams; at least 1. Default: the number of cores, at
    /// most 16.
    pub threads: usize,
    /// A UDP flow ends after so long without a datagram. Default: 250 s, as kube-proxy had it.
    pub udp_timeout: Duration,
    /// UDP flows at a time; one more ends the one that has been idle longest. Default: 65,536.
    pub udp_flows: usize,
    /// Clients that a service port with session affinity remembers; one more, and the one that has been away
    /// longest is forgotten. Default: 65,536.
    pub affinity_clients: usize,
}

impl Default for Options {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: cores.min(16),
            udp_timeout: Duration::from_secs(250),
            udp_flows: 1 << 16,
            affinity_clients: 1 << 16,
        }
    }
}

/// The mode for one family. Its threads and sockets are made by the first [`Mode::sync`], in the network
/// namespace of the thread that calls it, and end when this is dropped: open connections are reset then (see
/// [`Userspace::drain`]), the routes stay for the next process.
pub struct Userspace {
    options: Options,
    counters: Arc<Counters>,
    routes: Routes,
    engine: Option<Engine>,
    /// The node's addresses at the last full sync.
    own: BTreeSet<IpAddr>,
    /// The last sync had errors.
    incomplete: bool,
    /// SCTP has been complained of.
    warned: bool,
}

impl Userspace {
    /// For a family, in the calling thread's namespace. Changes nothing yet.
    ///
    /// Fails if the kernel cannot be asked for routes.
    pub fn new(family: Family, options: Options) -> anyhow::Result<Self> {
        Ok(Self {
            options,
            counters: Arc::default(),
            routes: Routes::open(family)?,
            engine: None,
            own: BTreeSet::new(),
            incomplete: false,
            warned: false,
        })
    }

    /// What it counts; may be read from anywhere, also when this is gone.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Ends in good order: closes the TCP listeners and waits until the connections have ended by themselves, at most
    /// for `limit`; says whether all have. UDP goes on until this is dropped. The next [`Mode::sync`] with
    /// [`Changed::All`] listens again.
    pub fn drain(&mut self, limit: Duration) -> bool {
        self.incomplete = true;
        match &mut self.engine {
            Some(engine) => engine.drain(limit, &self.counters),
            None => true,
        }
    }

    fn sync_or_fail(&mut self, wanted: &Wanted, changed: &Changed) -> anyhow::Result<Report> {
        let full = *changed == Changed::All || self.incomplete || self.engine.is_none();
        let around = if full {
            let around = surroundings(&wanted.site, &self.options, self.routes.observe()?);
            self.own.clone_from(&around.own);
            Some(around)
        } else {
            None
        };
        if let (None, Some(around)) = (&self.engine, &around) {
            let scope = Scope::Everything;
            let engine = Engine::start(scope, around.clone(), &self.options, &self.counters)?;
            self.engine = Some(engine);
        }
        let Some(engine) = &mut self.engine else {
            anyhow::bail!("userspace: no threads");
        };
        Ok(engine.sync(wanted, changed, around, Some(&mut self.routes)))
    }

    fn warn_of_sctp(&mut self, wanted: &Wanted) {
        let mut names = wanted.balancers.keys();
        if !self.warned
            && let Some(name) = names.find(|name| name.protocol == Protocol::Sctp)
        {
            tracing::warn!("{name}: userspace mode does not serve SCTP");
            self.warned = true;
        }
    }
}

impl Mode for Userspace {
    fn name(&self) -> &'static str {
        "userspace"
    }

    fn sync(&mut self, wanted: &Wanted, changed: &Changed) -> Report {
        self.warn_of_sctp(wanted);
        let report = self.sync_or_fail(wanted, changed);
        let report = report.unwrap_or_else(|error| Report {
            errors: vec![format!("{error:#}")],
            ..Report::default()
        });
        self.incomplete = !report.errors.is_empty();
        report
    }

    fn disturbed(&mut self) -> Option<String> {
        // The routes of Services that are gone stay until their last stream has ended.
        if let Some(engine) = &mut self.engine {
            for error in engine.retire(&mut self.routes) {
                tracing::warn!("{error}");
            }
        }
        match self.routes.disturbance(&self.own) {
            Ok(disturbance) => disturbance,
            Err(error) => Some(error.to_string()),
        }
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.routes.monitor().as_fd())
    }

    fn drain(&mut self, limit: Duration) {
        if !Self::drain(self, limit) {
            tracing::warn!("connections were still open after {limit:?} and are cut");
        }
    }

    fn plan(&mut self, wanted: &Wanted) -> anyhow::Result<String> {
        let around = surroundings(&wanted.site, &self.options, self.routes.observe()?);
        let news = wanted.balancers.iter().map(|(name, balancer)| {
            let claim = claim(name, balancer, &around, Scope::Everything);
            (name.clone(), Some((Arc::clone(balancer), claim)))
        });
        let mut ledger = Ledger::default();
        let (_, errors) = ledger.enter(news.collect());
        let mut text = String::new();
        for error in errors {
            writeln!(text, "# {error}")?;
        }
        let mut addresses: BTreeSet<IpAddr> = ledger.addresses().copied().collect();
        if let Some(engine) = &self.engine {
            addresses.extend(engine.busy());
        }
        addresses.retain(|ip| !around.own.contains(ip));
        for change in self.routes.plan(&addresses)? {
            let change = change.describe(&|_| "lo".to_owned());
            let words = change.split_once(" route ");
            let (verb, route) = words.unwrap_or(("", change.as_str()));
            writeln!(text, "ip route {verb} {route}")?;
        }
        let nothing = BTreeMap::new();
        let open = self.engine.as_ref().map_or(&nothing, Engine::open);
        let places: BTreeSet<_> = open.keys().chain(ledger.places()).copied().collect();
        for step in steps(open, &ledger, &places) {
            writeln!(text, "{step}")?;
        }
        Ok(text)
    }

    fn cleanup(&mut self) -> Report {
        let mut report = Report {
            full: true,
            ..Report::default()
        };
        if let Some(engine) = self.engine.take() {
            report.changes += engine.open().len();
        }
        let removed = self.routes.observe().and_then(|_| {
            let plan = self.routes.plan(&BTreeSet::new())?;
            Ok(self.routes.apply(&plan))
        });
        match removed {
            Ok((made, errors)) => {
                report.changes += made;
                report.errors = errors;
            }
            Err(error) => report.errors.push(error.to_string()),
        }
        report
    }
}

/// The node as the threads shall see it.
fn surroundings(site: &Site, options: &Options, observed: Observed) -> Surroundings {
    let Observed { own, next_hops } = observed;
    let is_link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let is_named = |ip: &IpAddr| match &site.node_port_addresses {
        NodePortAddresses::All => !is_link_local(ip),
        NodePortAddresses::Some(named) => named.contains(ip),
    };
    let node_ports = own.iter().filter(|ip| {
        if ip.is_loopback() {
            site.localhost_node_ports
        } else {
            is_named(ip)
        }
    });
    Surroundings {
        node_ports: node_ports.copied().collect(),
        pods: site.local.clone(),
        stickiness: stickiness(site, options),
        own,
        next_hops,
    }
}

fn stickiness(site: &Site, options: &Options) -> Stickiness {
    if site.affinity_by_hash {
        Stickiness::Hash
    } else {
        Stickiness::Table(options.affinity_clients)
    }
}
