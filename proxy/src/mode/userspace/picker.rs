//! Which endpoint a new connection gets: round robin, or the one that the client had before.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::aging::Aging;
use crate::model::{Balancer, Endpoint, List};

/// So many endpoints are tried for one connection before the client is told.
pub(super) const TRIES: usize = 3;

/// How clients stick to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stickiness {
    /// A table of at most so many clients for each balancer; one client more, and the one that has been
    /// away longest is forgotten.
    Table(usize),
    /// By hash of client and endpoint (rendezvous hashing): no state, survives a restart; an endpoint that
    /// comes or goes moves only its own share of the clients.
    Hash,
}

/// The memory of one balancer: whose turn it is, and who had what.
#[derive(Debug)]
pub(super) struct Picker {
    turns: [usize; 2],
    clients: Option<Aging<IpAddr, Endpoint>>,
}

impl Picker {
    /// Begins anywhere in the round, so that many nodes which start together do not all begin with the
    /// same endpoint.
    pub(super) fn new() -> Self {
        Self::starting_at(fastrand::usize(..))
    }

    fn starting_at(turn: usize) -> Self {
        Self {
            turns: [turn; 2],
            clients: None,
        }
    }

    /// The endpoints to be tried for a new connection, in this order; at most [`TRIES`], none twice. Empty
    /// only if the list is. With session affinity the client's next connection goes to the first of them, also when
    /// it comes before this one is made, unless [`Picker::settle`] is told otherwise.
    pub(super) fn pick(
        &mut self,
        balancer: &Balancer,
        list: List,
        client: IpAddr,
        how: Stickiness,
        now: Instant,
    ) -> Vec<Endpoint> {
        let endpoints = balancer.list(list);
        if endpoints.is_empty() {
            return Vec::new();
        }
        if balancer.affinity.is_some() && how == Stickiness::Hash {
            return by_hash(endpoints, client);
        }
        let turn = &mut self.turns[list as usize];
        let start = *turn % endpoints.len();
        *turn = start + 1;
        let round = (start..endpoints.len()).chain(0..start);
        let round = round.map(|at| endpoints[at]);
        let former = self.former(balancer, client, how, now);
        let former = former.and_then(|former| endpoints.iter().find(|e| is_same(e, &former)));
        let first = former.copied().unwrap_or(endpoints[start]);
        self.settle(balancer, client, first, how, now);
        let others = round.filter(|other| *other != first).take(TRIES - 1);
        std::iter::once(first).chain(others).collect()
    }

    /// The connection went to this endpoint: with session affinity, the client's next one does, too.
    pub(super) fn settle(
        &mut self,
        balancer: &Balancer,
        client: IpAddr,
        endpoint: Endpoint,
        how: Stickiness,
        now: Instant,
    ) {
        if let Some(clients) = self.clients(balancer, how) {
            while clients.expire(now).is_some() {}
            clients.insert(client, endpoint, now);
        }
    }

    /// The client's endpoint does not answer: its next connection goes where the round is.
    pub(super) fn forget(&mut self, client: IpAddr) {
        if let Some(clients) = &mut self.clients {
            clients.remove(&client);
        }
    }

    fn former(
        &mut self,
        balancer: &Balancer,
        client: IpAddr,
        how: Stickiness,
        now: Instant,
    ) -> Option<Endpoint> {
        self.clients(balancer, how)?.touch(&client, now).copied()
    }

    /// The table of clients, made, replaced or dropped as the balancer's affinity asks.
    fn clients(
        &mut self,
        balancer: &Balancer,
        how: Stickiness,
    ) -> Option<&mut Aging<IpAddr, Endpoint>> {
        let wanted = match (balancer.affinity, how) {
            (Some(seconds), Stickiness::Table(limit)) => {
                Some((limit, Duration::from_secs(seconds.into())))
            }
            _ => None,
        };
        if self.clients.as_ref().map(Aging::timeout) != wanted.map(|(_, timeout)| timeout) {
            self.clients = wanted.map(|(limit, timeout)| Aging::new(limit, timeout));
        }
        self.clients.as_mut()
    }
}

/// The same place, whatever else is known of it.
fn is_same(one: &Endpoint, other: &Endpoint) -> bool {
    (one.ip, one.port) == (other.ip, other.port)
}

fn by_hash(endpoints: &[Endpoint], client: IpAddr) -> Vec<Endpoint> {
    let weight = |endpoint: &Endpoint| {
        // Always the same keys: the choice has to outlive the process.
        let mut hasher = DefaultHasher::new();
        (client, endpoint.ip, endpoint.port).hash(&mut hasher);
        hasher.finish()
    };
    let mut best: Vec<(u64, Endpoint)> = Vec::with_capacity(TRIES + 1);
    for endpoint in endpoints {
        let weight = weight(endpoint);
        let place = best.partition_point(|(other, _)| *other >= weight);
        if place < TRIES {
            best.insert(place, (weight, *endpoint));
            best.truncate(TRIES);
        }
    }
    best.into_iter().map(|(_, endpoint)| endpoint).collect()
}

#[cfg(test)]
mod tests;
