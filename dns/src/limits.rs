//! Limits for each client, so that one Pod's flood does not take the DNS from the others of its node.
//!
//! A client is an IPv4 address, or an IPv6 /64 (a Pod may use any address of a network that it was given). Each has two token
//! buckets: one for all its queries, and a smaller one for those that cost a trip upstream; and only so many of these may be
//! under way. Over the first, queries are dropped: to answer them is the very work that the limit saves. Over the others they
//! are refused at once: the client's resolver then moves on, where silence would cost it a time-out of five seconds a try.
//!
//! No clock and no I/O here. Memory is bounded: clients are kept in two generations, and when the younger is full the older is
//! forgotten. A client that was forgotten starts with full buckets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How often a client over its limits is told of.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What a client may do. Zero means no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Queries a second, of any kind; a second's worth may come at once.
    pub queries: u32,
    /// Queries a second that are forwarded; two seconds' worth may come at once.
    pub forwards: u32,
    /// Forwarded queries under way at the same time.
    pub concurrent_forwards: u32,
    /// Clients that are remembered; at least two.
    pub clients: usize,
}

/// Only what costs others is limited: an answer from memory costs less than the look at a limit saves.
impl Default for Settings {
    fn default() -> Self {
        Self {
            queries: 0,
            forwards: 1_000,
            concurrent_forwards: 250,
            clients: 8_192,
        }
    }
}

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Pass,
    /// The client asks too much. `told` is the number of its queries turned away since that was last said, where it is time to
    /// say so again.
    Excess {
        /// Queries turned away, this one among them.
        told: Option<u64>,
    },
}

/// A bucket that fills with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(size: f64, now: Instant) -> Self {
        Self {
            tokens: size,
            at: now,
        }
    }

    /// Takes a token, if there is one. `rate` is tokens a second.
    fn take(&mut self, rate: f64, size: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * rate).min(size);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[derive(Clone, Debug)]
struct Client {
    queries: Bucket,
    forwards: Bucket,
    under_way: u32,
    turned_away: u64,
    told: Option<Instant>,
}

impl Client {
    fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            queries: Bucket::full(f64::from(settings.queries), now),
            forwards: Bucket::full(2.0 * f64::from(settings.forwards), now),
            under_way: 0,
            turned_away: 0,
            told: None,
        }
    }

    fn excess(&mut self, now: Instant) -> Verdict {
        self.turned_away += 1;
        if self
            .told
            .is_some_and(|told| now.saturating_duration_since(told) < TOLD_EVERY)
        {
            return Verdict::Excess { told: None };
        }
        self.told = Some(now);
        Verdict::Excess {
            told: Some(std::mem::take(&mut self.turned_away)),
        }
    }
}

/// The clients and what they have left.
#[derive(Debug)]
pub struct Limits {
    settings: Settings,
    young: HashMap<IpAddr, Client>,
    old: HashMap<IpAddr, Client>,
}

impl Limits {
    /// No client is known yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// Other limits from now on; what clients have used counts on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Counts a query.
    pub fn query(&mut self, client: IpAddr, now: Instant) -> Verdict {
        let rate = f64::from(self.settings.queries);
        if self.settings.queries == 0 {
            return Verdict::Pass;
        }
        let client = self.client(client, now);
        if client.queries.take(rate, rate, now) {
            Verdict::Pass
        } else {
            client.excess(now)
        }
    }

    /// Counts a query that is to be forwarded. If it passes, [`Limits::forwarded`] must follow when it is done.
    pub fn forward(&mut self, client: IpAddr, now: Instant) -> Verdict {
        let Settings {
            forwards,
            concurrent_forwards,
            ..
        } = self.settings;
        let rate = f64::from(forwards);
        let client = self.client(client, now);
        let many = concurrent_forwards != 0 && client.under_way >= concurrent_forwards;
        if many || (forwards != 0 && !client.forwards.take(rate, 2.0 * rate, now)) {
            return client.excess(now);
        }
        client.under_way = client.under_way.saturating_add(1);
        Verdict::Pass
    }

    /// A forwarded query of the client is done.
    pub fn forwarded(&mut self, client: IpAddr) {
        let key = key(client);
        if let Some(client) = self.young.get_mut(&key).or_else(|| self.old.get_mut(&key)) {
            client.under_way = client.under_way.saturating_sub(1);
        }
    }

    /// The client's entry, moved to the younger generation.
    fn client(&mut self, client: IpAddr, now: Instant) -> &mut Client {
        let key = key(client);
        if !self.young.contains_key(&key) && self.young.len() >= (self.settings.clients / 2).max(1)
        {
            self.old = std::mem::take(&mut self.young);
        }
        let (old, settings) = (&mut self.old, &self.settings);
        self.young.entry(key).or_insert_with(|| {
            old.remove(&key)
                .unwrap_or_else(|| Client::new(settings, now))
        })
    }
}

/// What stands for a client: its IPv4 address, or its IPv6 network.
pub(crate) fn key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

#[cfg(test)]
mod tests;
