//! From a packet to its answer: what is turned down, what the cluster's zone answers, what is asked of other servers.
//!
//! [`Handler::begin`] answers at once where memory can: no await, no task, one read lock. Where an upstream must be asked it
//! gives back a [`Pending`], to be finished by whoever has the time.
//!
//! The answers follow RFC 1035, 2308 (SOA with negative answers), 6604 (the code is of the last name of a chain of aliases),
//! 6891 (EDNS), 8482 (ANY), 8914 (reasons). Names of the cluster are never asked of others.
//!
//! Why not `hickory_server::Server` (0.26.3), whose messages (`hickory_proto`) these are: it gives each packet a task without
//! bound, answers unreadable *answers* (two servers would keep each other busy), ends by aborting what is being answered,
//! bounds connections by nothing, and loses the OPT record of an answer that it truncates.

mod answer;
mod lookup;
mod question;
mod walk;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use arc_swap::ArcSwap;
use hickory_proto::op::Query;
use hickory_proto::rr::RecordType;

pub use answer::UDP_PAYLOAD;
use answer::{Answer, udp_limit};
use lookup::Outcome;
use question::{Head, Reading};
use walk::Walk;

use crate::forward::Forward;
use crate::limits::{self, Limits, Verdict};
use crate::metrics::{Metrics, Seen, Server, Transport, ZoneLabel, code_name};
use crate::search::Search;
use crate::zone::Zone;

/// What can change while the server runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// There are upstreams: answers say so (RA).
    pub recursive: bool,
    /// The search list of the node's Pods, to answer its queries in one trip; none leaves them to the Pods' resolvers.
    pub search: Option<Search>,
    /// Limits for each client.
    pub limits: limits::Settings,
    /// Each query is logged, under the target `dns::query`.
    pub query_log: bool,
}

/// Where a packet came from.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// The client.
    pub client: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// The address that it came to.
    pub server: &'a Arc<Server>,
}

/// What became of a packet.
pub enum Step {
    /// The answer is written.
    Answered,
    /// There must be none.
    Silence,
    /// Others have to be asked first.
    Pending(Box<Pending>),
}

/// A query that waits for other servers.
pub struct Pending {
    head: Head,
    walk: Walk,
    client: SocketAddr,
    transport: Transport,
    server: Arc<Server>,
    started: Instant,
    size: usize,
}

/// The server's mind. It has no sockets.
pub struct Handler {
    zone: Arc<RwLock<Zone>>,
    forward: Arc<Forward>,
    metrics: Arc<Metrics>,
    limits: Mutex<Limits>,
    settings: ArcSwap<Settings>,
    query_log: AtomicBool,
}

impl Handler {
    /// Answers from `zone`, and for other names by `forward`.
    pub fn new(
        zone: Arc<RwLock<Zone>>,
        forward: Arc<Forward>,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self {
            zone,
            forward,
            metrics,
            limits: Mutex::new(Limits::new(settings.limits.clone())),
            query_log: AtomicBool::new(settings.query_log),
            settings: ArcSwap::from_pointee(settings),
        })
    }

    /// Takes other settings, from the next query on.
    pub fn reload(&self, settings: Settings) {
        self.limits().set(settings.limits.clone());
        self.query_log.store(settings.query_log, Ordering::Relaxed);
        self.settings.store(Arc::new(settings));
    }

    /// Logs queries, or no longer.
    pub fn log_queries(&self, on: bool) {
        self.query_log.store(on, Ordering::Relaxed);
    }

    /// The series that queries are counted in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Takes a packet. If it can be answered at once the answer is in `out`, which is emptied first. Any bytes are fine.
    pub fn begin(
        &self,
        packet: &[u8],
        origin: Origin<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Step {
        out.clear();
        let settings = self.settings.load();
        if settings.limits.queries != 0 && !origin.client.ip().is_loopback() {
            let verdict = self.limits().query(origin.client.ip(), now);
            if let Verdict::Excess { told } = verdict {
                self.metrics.dropped_queries.inc();
                self.tell_excess(origin.client.ip(), told, "queries dropped");
                return Step::Silence;
            }
        }
        let (head, outcome) = match question::read(packet) {
            Reading::Silence => return Step::Silence,
            Reading::Fault(head, code) => (
                head,
                Outcome::of_server(Answer::code(code), ZoneLabel::Dropped),
            ),
            Reading::Question(head) => {
                let Some(query) = head.query.clone() else {
                    return Step::Silence;
                };
                let mut walk = Walk::new(query);
                let client = origin.client;
                let outcome = self
                    .turn_down(walk.query())
                    .or_else(|| self.known(&mut walk, client.ip(), &settings, dnssec_ok(&head)));
                let Some(outcome) = outcome else {
                    return Step::Pending(Box::new(Pending {
                        head,
                        walk,
                        client,
                        transport: origin.transport,
                        server: origin.server.clone(),
                        started: now,
                        size: packet.len(),
                    }));
                };
                (head, outcome)
            }
        };
        self.close(
            &head,
            outcome,
            origin,
            packet.len(),
            now,
            settings.recursive,
            out,
        );
        Step::Answered
    }

    /// Asks others, and writes the answer to `out`, which is emptied first.
    pub async fn finish(&self, pending: Box<Pending>, out: &mut Vec<u8>) {
        let Pending {
            head,
            mut walk,
            client,
            transport,
            server,
            started,
            size,
        } = *pending;
        let settings = self.settings.load_full();
        let dnssec_ok = dnssec_ok(&head);
        let outcome = loop {
            if let Some(outcome) = self.abroad(&mut walk, client.ip(), dnssec_ok).await {
                break outcome;
            }
            // The search goes on, with names of either kind.
            if let Some(outcome) = self.known(&mut walk, client.ip(), &settings, dnssec_ok) {
                break outcome;
            }
        };
        let origin = Origin {
            client,
            transport,
            server: &server,
        };
        self.close(
            &head,
            outcome,
            origin,
            size,
            started,
            settings.recursive,
            out,
        );
    }

    /// Writes the answer, counts it, and logs it if wished.
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of a query that has been answered, from two callers"
    )]
    fn close(
        &self,
        head: &Head,
        outcome: Outcome,
        origin: Origin<'_>,
        size: usize,
        started: Instant,
        recursive: bool,
        out: &mut Vec<u8>,
    ) {
        let limit = match origin.transport {
            Transport::Udp => udp_limit(head),
            Transport::Tcp => u16::MAX,
        };
        let Outcome {
            mut answer,
            zone,
            writer,
        } = outcome;
        walk::shuffle(&mut answer.answers);
        let sent = answer.write(head, recursive, limit, out);
        let seen = Seen {
            transport: origin.transport,
            zone,
            writer,
            record_type: head
                .query
                .as_ref()
                .map_or(RecordType::ZERO, |query| query.query_type),
            dnssec_ok: dnssec_ok(head),
            size,
            answer_size: out.len(),
            code: sent.code,
            took: started.elapsed(),
        };
        origin.server.count(&seen);
        if self.query_log.load(Ordering::Relaxed) {
            self.log(head, &answer, sent, origin.client, &seen);
        }
    }

    fn log(
        &self,
        head: &Head,
        answer: &Answer,
        sent: answer::Sent,
        client: SocketAddr,
        seen: &Seen,
    ) {
        let root = Query::new();
        let query = head.query.as_ref().unwrap_or(&root);
        let pod = self.pod(client.ip());
        tracing::info!(
            target: "dns::query",
            client = %client,
            pod = pod.as_deref().unwrap_or("-"),
            proto = seen.transport.as_str(),
            name = %query.name,
            r#type = %query.query_type,
            code = code_name(sent.code),
            flags = %sent.flags(head, answer),
            size = seen.size,
            answer_size = seen.answer_size,
            micros = u64::try_from(seen.took.as_micros()).unwrap_or(u64::MAX),
        );
    }

    fn tell_excess(&self, client: IpAddr, told: Option<u64>, what: &str) {
        let Some(count) = told else { return };
        let pod = self.pod(client);
        tracing::warn!(%client, pod = pod.as_deref().unwrap_or("-"), count, "a client asks too much: {what}; told once a minute");
    }

    /// Namespace and name of the Pod with this address.
    fn pod(&self, client: IpAddr) -> Option<String> {
        self.zone().pod(client).map(ToString::to_string)
    }

    fn zone(&self) -> RwLockReadGuard<'_, Zone> {
        // The zone is whole after a panic elsewhere: readers change nothing, and a writer's panic ends the process.
        self.zone.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> std::sync::MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client wants DNSSEC records.
fn dnssec_ok(head: &Head) -> bool {
    head.edns.is_some_and(|offer| offer.dnssec_ok)
}

#[cfg(test)]
mod tests;
