//! Names that are not the cluster's: asked of other servers, and remembered.
//!
//! The way of a question: cache → questions on their way ([`flights`]) → the servers for the name ([`routes`]) → the
//! race between them ([`race`]) → one server ([`exchange`]) → what of its message is an answer ([`answer`]) → cache.
//! Beside it [`Forward::run`] probes servers that are set aside and searches for [`loops`].

mod answer;
mod cache;
mod exchange;
mod flights;
mod key;
mod loops;
mod metrics;
mod race;
mod routes;
mod settings;
mod upstream;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

pub use answer::Reply;
pub use settings::{CacheSettings, Settings, Timeouts};

use cache::{Cache, Kind};
use flights::{Outcome, Waiting};
use key::Key;
use loops::{Probes, Search};
use metrics::Metrics;
use race::{Question, race};
use routes::Routes;
use upstream::Upstream;

/// When no server answers, a question is not asked again for this long (RFC 9520 section 3.2: at least a second).
const UNANSWERED: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody may be asked for such a name.
    #[error(
        "no upstream for {0}: name one with --upstream, or as nameserver in the host's resolv.conf"
    )]
    NoUpstream(Name),
    /// All that may be asked bring questions back.
    #[error(
        "every upstream for {0} brings questions back to this server: name one that does not forward here"
    )]
    Looping(Name),
    /// The limit is reached.
    #[error(
        "{0} questions wait for upstreams already: raise max_concurrent if the upstreams are well"
    )]
    Busy(usize),
    /// Nobody answered: each server and why.
    #[error("no upstream answered: {0}")]
    Unanswered(Arc<str>),
}

impl Failure {
    /// What the client is told.
    pub fn code(&self) -> ResponseCode {
        ResponseCode::ServFail
    }
}

/// The forwarder.
pub struct Forward {
    routes: ArcSwap<Routes>,
    probes: Probes,
    waiting: AtomicUsize,
    metrics: Arc<Metrics>,
    /// Ends the sleep of [`Self::run`].
    wake: Arc<Notify>,
    /// The servers may have changed: it is time to search for loops.
    search: AtomicBool,
    /// It was said that there is no upstream.
    said: AtomicBool,
}

impl Forward {
    /// Registers its metrics with `registry`. Errors: a series of the same name is there already.
    pub fn new(
        settings: Settings,
        registry: &prometheus::Registry,
    ) -> prometheus::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            metrics: Arc::new(Metrics::new(registry, &settings.server)?),
            routes: ArcSwap::from_pointee(Routes::new(settings, None)),
            probes: Probes::default(),
            waiting: AtomicUsize::new(0),
            wake: Arc::default(),
            search: AtomicBool::new(true),
            said: AtomicBool::new(false),
        }))
    }

    /// Takes new settings. Questions on their way end as they began. Answers are forgotten if the servers changed.
    pub fn reload(&self, settings: Settings) {
        let routes = Routes::new(settings, Some(&self.routes.load()));
        self.count_entries(&lock(&routes));
        self.routes.store(Arc::new(routes));
        self.said.store(false, Ordering::Relaxed);
        self.search.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether a question is our own search for loops, which came back. The upstream that brought it is then out.
    /// Call it for questions of type HINFO; answer with REFUSED if so.
    pub fn is_probe(&self, name: &Name) -> bool {
        self.probes.is_back(name, &self.metrics)
    }

    /// Answers the question, class IN: from memory, else from the upstreams that are there for the name. The answer has the
    /// name's case as asked. Call it inside a tokio runtime.
    pub async fn resolve(
        self: &Arc<Self>,
        query: &Query,
        dnssec_ok: bool,
    ) -> Result<Reply, Failure> {
        match self.cached(query, dnssec_ok) {
            Some(reply) => Ok(reply),
            None => self.fetch(query, dnssec_ok).await,
        }
    }

    /// The answer from memory, if it is there. Call it inside a tokio runtime: a popular answer is asked for again
    /// before it ends.
    pub fn cached(self: &Arc<Self>, query: &Query, dnssec_ok: bool) -> Option<Reply> {
        self.metrics.cache_requests.inc();
        let routes = self.routes.load();
        let key = Key::new(query, dnssec_ok);
        let found = lock(&routes).find(&key, Instant::now())?;
        if found.stale && found.refresh {
            return None;
        }
        let reply = found.reply(query)?;
        if found.stale {
            return Some(self.stale(reply, found.kind));
        }
        self.metrics.hit(found.kind);
        if found.refresh && !routes.flights.contains(&key) {
            self.metrics.prefetches.inc();
            drop(self.fly(&routes, &key, query, dnssec_ok));
        }
        Some(reply)
    }

    /// The answer of the upstreams, for what [`Self::cached`] does not have. The question goes on when the caller is
    /// gone, so that others profit from its answer.
    pub async fn fetch(self: &Arc<Self>, query: &Query, dnssec_ok: bool) -> Result<Reply, Failure> {
        let routes = self.routes.load_full();
        let key = Key::new(query, dnssec_ok);
        let found = lock(&routes).find(&key, Instant::now());
        let stale = found.and_then(|found| Some((found.reply(query)?, found.kind)));
        if stale.is_none() {
            self.metrics.misses.inc();
        }
        let most = routes.settings.max_concurrent;
        let Some(_waits) = Waits::new(&self.waiting, most) else {
            self.metrics.rejects.inc();
            return match stale {
                Some((reply, kind)) => Ok(self.stale(reply, kind)),
                None => Err(Failure::Busy(most)),
            };
        };
        let flight = self.fly(&routes, &key, query, dnssec_ok);
        let told = if stale.is_some() {
            timeout(self.patience(&routes, query), flight).await.ok()
        } else {
            Some(flight.await)
        };
        match (told, stale) {
            (Some(Ok(Ok(reply))), _) if reply.is_good() => Ok(spelled(&reply, query)),
            (_, Some((reply, kind))) => Ok(self.stale(reply, kind)),
            (Some(Ok(outcome)), None) => outcome.map(|reply| spelled(&reply, query)),
            (_, None) => Err(Failure::Unanswered("the question was given up".into())),
        }
    }

    /// How long an answer that has ended is held back for a newer one: not at all if none is to be expected.
    fn patience(&self, routes: &Routes, query: &Query) -> Duration {
        let expected = routes
            .servers(&query.name)
            .iter()
            .any(|one| one.rank().is_some_and(|rank| !rank.aside));
        match expected {
            true => routes.settings.timeouts.stale,
            false => Duration::ZERO,
        }
    }

    fn stale(&self, reply: Reply, kind: Kind) -> Reply {
        self.metrics.hit(kind);
        self.metrics.stale.inc();
        reply
    }

    /// Puts a question on its way, if it is not already.
    fn fly(
        self: &Arc<Self>,
        routes: &Arc<Routes>,
        key: &Key,
        query: &Query,
        dnssec_ok: bool,
    ) -> Waiting {
        routes.flights.join(key, || {
            let mut name = query.name.to_lowercase();
            name.set_fqdn(true);
            let question = Question {
                query: Query::query(name, query.query_type),
                dnssec_ok,
                timeouts: routes.settings.timeouts,
                metrics: Arc::clone(&self.metrics),
                wake: Arc::clone(&self.wake),
            };
            let (this, routes, key) = (Arc::clone(self), Arc::clone(routes), key.clone());
            async move { this.ask(&routes, &key, &question).await }
        })
    }

    /// Asks, and remembers what comes.
    async fn ask(&self, routes: &Routes, key: &Key, question: &Question) -> Outcome {
        let query = &question.query;
        let mut outcome = race(routes.servers(&query.name), question).await;
        let now = Instant::now();
        let mut cache = lock(routes);
        let kept = match &mut outcome {
            Ok(reply) => {
                cache.limit(reply, query);
                cache.insert(key, reply, query, now)
            }
            Err(Failure::Unanswered(_)) => cache.failed(key, now, UNANSWERED),
            Err(failure) => {
                if !self.said.swap(true, Ordering::Relaxed) {
                    warn!("{failure}");
                }
                None
            }
        };
        if let Some((kind, count)) = kept {
            self.metrics.evicted(kind, count);
        }
        self.count_entries(&cache);
        outcome.map(Arc::new)
    }

    fn count_entries(&self, cache: &Cache) {
        for kind in [Kind::Success, Kind::Denial] {
            self.metrics.entries(kind, cache.len(kind));
        }
    }

    /// Searches for loops and probes upstreams that are set aside, for ever. Start it once the listeners answer, for a
    /// probe that comes back before is not seen.
    pub async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut search_at = Instant::now();
        let mut again = Duration::ZERO;
        loop {
            let now = Instant::now();
            let routes = self.routes.load_full();
            let timeouts = routes.settings.timeouts;
            let changed = self.search.swap(false, Ordering::Relaxed);
            if changed || now >= search_at {
                again = match changed {
                    true => 2 * timeouts.first,
                    false => (2 * again).min(timeouts.loops),
                };
                search_at = now + timeouts.loops;
                for upstream in routes.upstreams() {
                    let (this, routes) = (Arc::clone(&self), Arc::clone(&routes));
                    let upstream = Arc::clone(upstream);
                    tasks.spawn(async move { this.search(&routes, &upstream).await });
                }
            }
            let mut next = search_at;
            for upstream in routes.upstreams() {
                if upstream.is_due(now, timeouts.health) {
                    let (this, routes) = (Arc::clone(&self), Arc::clone(&routes));
                    let upstream = Arc::clone(upstream);
                    tasks.spawn(async move { this.probe(&routes, &upstream).await });
                }
                next = upstream.due().map_or(next, |due| due.min(next));
            }
            tokio::select! {
                () = sleep_until(next.into()) => {}
                () = self.wake.notified() => {}
                Some(ended) = tasks.join_next() => {
                    // Without an answer nothing is known: the other end of a loop may start later than we.
                    if let Ok(Search::Unanswered) = ended {
                        search_at = search_at.min(Instant::now() + again);
                    }
                }
            }
        }
    }

    /// Whether an upstream that is set aside answers, whatever it says (as CoreDNS: `. IN NS`).
    async fn probe(&self, routes: &Routes, upstream: &Arc<Upstream>) -> Search {
        let query = Query::query(Name::root(), RecordType::NS);
        let asked = exchange::ask(upstream.address, &query, false, |_| {});
        let told = timeout(routes.settings.timeouts.first, asked).await;
        if matches!(told, Ok(Ok(_))) {
            upstream.probed();
            info!(
                "upstream {} answers probes and is asked again",
                upstream.name
            );
            self.search(routes, upstream).await
        } else {
            self.metrics.probe_failed(&upstream.name);
            Search::Answered
        }
    }

    /// Whether an upstream brings questions back that it is asked for any of its domains.
    async fn search(&self, routes: &Routes, upstream: &Arc<Upstream>) -> Search {
        let domains = routes
            .all
            .iter()
            .filter(|route| route.upstreams.iter().any(|one| Arc::ptr_eq(one, upstream)))
            .map(|route| &route.domain);
        let patience = routes.settings.timeouts.total;
        self.probes
            .search(upstream, domains, patience, &self.metrics)
            .await
    }
}

fn lock(routes: &Routes) -> MutexGuard<'_, Cache> {
    routes.cache.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spelled(reply: &Reply, query: &Query) -> Reply {
    let mut reply = reply.clone();
    reply.spell(&query.name);
    reply
}

/// A question that waits, within the limit.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let waits = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
