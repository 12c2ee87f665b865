//! The search for loops: a question of a random name for each upstream, which must not come back to us.
//!
//! A loop has many shapes: the host's resolv.conf names this server, or a server that forwards to it, over any number of
//! hops. Whatever its shape, a question that went out at one end comes in at the other.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};
use tokio::time::timeout;
use tracing::{error, info};

use super::exchange::ask;
use super::metrics::Metrics;
use super::upstream::Upstream;

/// A probe may come back this late: a server on its way may have asked others before.
const LATE: Duration = Duration::from_secs(30);

/// The probes sent of late.
#[derive(Default)]
pub(super) struct Probes {
    sent: Mutex<HashMap<Name, Probe>>,
    random: RandomState,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// Every probe was answered, or came back.
    Answered,
    /// Not every one: there may be a loop all the same.
    Unanswered,
}

struct Probe {
    upstream: Arc<Upstream>,
    at: Instant,
    back: bool,
}

impl Probes {
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Probe>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a question is a probe that came back; then its upstream is not asked any more.
    pub(super) fn is_back(&self, name: &Name, metrics: &Metrics) -> bool {
        let upstream = match self.lock().get_mut(name) {
            Some(probe) => {
                probe.back = true;
                Arc::clone(&probe.upstream)
            }
            None => return false,
        };
        metrics.looping(&upstream.name, true);
        if !upstream.set_looping(true) {
            error!(
                "upstream {to} is not asked any more: it brings our questions back to us. Let it forward elsewhere, or \
                 name a server that does not come back here (--upstream, or nameserver in the host's resolv.conf). It \
                 is tried again from time to time",
                to = upstream.name
            );
        }
        true
    }

    /// Sends one under each of `domains`, and takes the upstream back if it was out and none of these came back.
    pub(super) async fn search(
        &self,
        upstream: &Arc<Upstream>,
        domains: impl Iterator<Item = &Name>,
        patience: Duration,
        metrics: &Metrics,
    ) -> Search {
        let (mut answered, mut back, mut unanswered) = (false, false, false);
        for domain in domains {
            match self.send(upstream, domain, patience).await {
                Some(true) => back = true,
                Some(false) => answered = true,
                None => unanswered = true,
            }
        }
        if answered && !back && upstream.set_looping(false) {
            info!(
                "upstream {} brings nothing back any more: it is asked again",
                upstream.name
            );
            metrics.looping(&upstream.name, false);
        }
        match unanswered {
            true => Search::Unanswered,
            false => Search::Answered,
        }
    }

    /// Whether a probe came back. `None`: it was not answered either.
    async fn send(
        &self,
        upstream: &Arc<Upstream>,
        domain: &Name,
        patience: Duration,
    ) -> Option<bool> {
        let now = Instant::now();
        let name = self.name(domain, now)?;
        let probe = Probe {
            upstream: Arc::clone(upstream),
            at: now,
            back: false,
        };
        {
            let mut sent = self.lock();
            sent.retain(|_, probe| now.saturating_duration_since(probe.at) < LATE);
            sent.insert(name.clone(), probe);
        }
        let query = Query::query(name.clone(), RecordType::HINFO);
        let asked = ask(upstream.address, &query, false, |_| {});
        let answered = timeout(patience, asked)
            .await
            .is_ok_and(|told| told.is_ok());
        let back = self.lock().get(&name).is_some_and(|probe| probe.back);
        (answered || back).then_some(back)
    }

    /// A name that nobody can guess: whoever could would take the upstream out.
    fn name(&self, domain: &Name, now: Instant) -> Option<Name> {
        let label = |salt: u8| self.random.hash_one((now, salt)).to_string();
        Name::from_labels([label(0).as_bytes(), label(1).as_bytes()])
            .and_then(|name| name.append_domain(domain))
            .ok()
    }
}
