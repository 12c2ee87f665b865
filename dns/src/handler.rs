//! From a packet to its answer: what is turned down, what the cluster's zone answers, what is asked of other servers.
//!
//! [`Handler::begin`] answers at once where memory can: no await, no task, one read lock. Where an upstream must be asked it
//! gives back a [`Pending`], to be finished by whoever has the time.
//!
//! The answers follow RFC 1035, 2308 (SOA with negative answers), 6604 (the code is of the last name of a chain of aliases),
//! 6891 (EDNS), 8482 (ANY), 8914 (reasons). Names of the cluster are never asked of others.
//!
//! Why not `hickory_server::Server`, on whose messages this stands: it gives each packet a task without bound, answers
//! unreadable *answers* (two servers would keep each other busy), ends by aborting what is being answered, bounds connections
//! by nothing, and loses the OPT record of an answer that it truncates.

mod answer;
mod question;
mod walk;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use arc_swap::ArcSwap;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{HINFO, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

pub use answer::UDP_PAYLOAD;
use answer::{Answer, Reason, udp_limit};
use question::{Head, Reading};
use walk::Walk;

use crate::forward::{Failure, Forward, Reply};
use crate::limits::{self, Limits, Verdict};
use crate::metrics::{Metrics, Seen, Server, Transport, Writer, ZoneLabel, code_name};
use crate::search::Search;
use crate::zone::{Found, Zone};

/// How long the HINFO record of an ANY query may be kept, in seconds; RFC 8482 4.2 wants it long.
const ANY_TTL: u32 = 3600;

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

/// An answer, and for whom it counts.
struct Outcome {
    answer: Answer,
    zone: ZoneLabel,
    writer: Writer,
}

impl Outcome {
    fn of_server(answer: Answer, zone: ZoneLabel) -> Self {
        Self {
            answer,
            zone,
            writer: Writer::Server,
        }
    }
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
                match self.turn_down(&query) {
                    Some(outcome) => (head, outcome),
                    None => {
                        let mut walk = Walk::new(query);
                        let client = origin.client;
                        match self.known(&mut walk, client.ip(), &settings, dnssec_ok(&head)) {
                            Some(outcome) => (head, outcome),
                            None => {
                                return Step::Pending(Box::new(Pending {
                                    head,
                                    walk,
                                    client,
                                    transport: origin.transport,
                                    server: origin.server.clone(),
                                    started: now,
                                    size: packet.len(),
                                }));
                            }
                        }
                    }
                }
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

    /// What needs no lookup: questions that we do not serve.
    fn turn_down(&self, query: &Query) -> Option<Outcome> {
        let (answer, writer) = match (query.query_class, query.query_type) {
            (DNSClass::CH, RecordType::TXT) if is_version(&query.name) => {
                let text = concat!("weft-dns ", env!("CARGO_PKG_VERSION")).to_owned();
                let mut record =
                    Record::from_rdata(query.name.clone(), 0, RData::TXT(TXT::new(vec![text])));
                record.dns_class = DNSClass::CH;
                (
                    Answer {
                        authoritative: true,
                        answers: vec![record],
                        ..Answer::default()
                    },
                    Writer::Server,
                )
            }
            (DNSClass::IN, RecordType::AXFR | RecordType::IXFR) => (
                Answer::because(ResponseCode::Refused, Reason::NotSupported),
                Writer::Server,
            ),
            (DNSClass::IN, RecordType::OPT | RecordType::ZERO | RecordType::Unknown(0)) => {
                (Answer::code(ResponseCode::FormErr), Writer::Server)
            }
            // TKEY, TSIG, MAILB, MAILA.
            (DNSClass::IN, RecordType::TSIG | RecordType::Unknown(249 | 253 | 254)) => (
                Answer::because(ResponseCode::NotImp, Reason::NotSupported),
                Writer::Server,
            ),
            (DNSClass::IN, RecordType::HINFO) if self.forward.is_probe(&query.name) => {
                (Answer::code(ResponseCode::Refused), Writer::Loop)
            }
            (DNSClass::IN, _) => return None,
            _ => (
                Answer::because(ResponseCode::Refused, Reason::NotSupported),
                Writer::Server,
            ),
        };
        Some(Outcome {
            answer,
            zone: ZoneLabel::Root,
            writer,
        })
    }

    /// What memory has, the zone's or the forwarder's; none if others must be asked for the walk's next name.
    fn known(
        &self,
        walk: &mut Walk,
        client: IpAddr,
        settings: &Settings,
        dnssec_ok: bool,
    ) -> Option<Outcome> {
        loop {
            if let Some(outcome) = self.at_home(walk, client, settings) {
                return Some(outcome);
            }
            let reply = self.forward.cached(&walk.current(), dnssec_ok)?;
            if let Some(outcome) = self.foreign(walk, Ok(reply)) {
                return Some(outcome);
            }
        }
    }

    /// Follows the walk through the zone; none if its next name is not the cluster's.
    fn at_home(&self, walk: &mut Walk, client: IpAddr, settings: &Settings) -> Option<Outcome> {
        let zone = self.zone();
        let any = walk.query().query_type == RecordType::ANY;
        // Whether a name exists does not depend on the type.
        let record_type = if any {
            RecordType::HINFO
        } else {
            walk.query().query_type
        };
        let answer = loop {
            match zone.resolve(walk.name(), record_type) {
                Found::Foreign => return None,
                Found::Unknown => break Answer::because(ResponseCode::ServFail, Reason::NotReady),
                Found::NoName => {
                    if walk.next(|| Some((settings.search.as_ref()?, zone.pod(client)?))) {
                        continue;
                    }
                    let soa = zone.soa_for(walk.name());
                    break walk.negative(ResponseCode::NXDomain, soa);
                }
                Found::Records { .. } | Found::Alias(_) | Found::NoData if any => {
                    let least = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
                    break walk.positive(
                        vec![Record::from_rdata(walk.name().clone(), ANY_TTL, least)],
                        Vec::new(),
                    );
                }
                Found::Records {
                    answers,
                    additionals,
                } => break walk.positive(answers, additionals),
                Found::NoData => {
                    let soa = zone.soa_for(walk.name());
                    break walk.negative(ResponseCode::NoError, soa);
                }
                Found::Alias(alias) if record_type == RecordType::CNAME => {
                    break walk.positive(vec![alias], Vec::new());
                }
                Found::Alias(alias) => {
                    if !walk.follow(alias) {
                        break walk.failure(Answer::code(ResponseCode::ServFail));
                    }
                }
            }
        };
        let writer = if walk.searched() {
            Writer::Search
        } else {
            Writer::Zone
        };
        Some(Outcome {
            answer,
            zone: ZoneLabel::Cluster,
            writer,
        })
    }

    /// Asks others for the walk's next name; none if there is another name to try.
    async fn abroad(&self, walk: &mut Walk, client: IpAddr, dnssec_ok: bool) -> Option<Outcome> {
        let verdict = self.limits().forward(client, Instant::now());
        if let Verdict::Excess { told } = verdict {
            self.metrics.refused_forwards.inc();
            self.tell_excess(
                client,
                told,
                "queries for names outside the cluster refused",
            );
            return Some(Outcome::of_server(
                Answer::because(ResponseCode::Refused, Reason::Prohibited),
                walk.zone(),
            ));
        }
        let under_way = UnderWay {
            handler: self,
            client,
        };
        let asked = self.forward.fetch(&walk.current(), dnssec_ok).await;
        drop(under_way);
        self.foreign(walk, asked)
    }

    /// What others say of the walk's name; none if it does not exist and there is another to try.
    fn foreign(&self, walk: &mut Walk, said: Result<Reply, Failure>) -> Option<Outcome> {
        let zone = walk.zone();
        let answer = match said {
            Ok(reply) if reply.code == ResponseCode::NXDomain && walk.next(|| None) => return None,
            Ok(_) if walk.in_vain() => {
                let soa = self.zone().soa_for(walk.name());
                walk.negative(ResponseCode::NXDomain, soa)
            }
            Ok(reply) => walk.foreign(reply, || self.zone().soa()),
            Err(failure) => {
                tracing::debug!(name = %walk.name(), %failure, "not answered");
                walk.failure(Answer::because(failure.code(), Reason::NoUpstream))
            }
        };
        let writer = if walk.searched() {
            Writer::Search
        } else {
            Writer::Forward
        };
        Some(Outcome {
            answer,
            zone,
            writer,
        })
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
            dnssec_ok: head.edns.is_some_and(|offer| offer.dnssec_ok),
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

/// A forwarded query of a client; when it is dropped the query is over, answered or not.
struct UnderWay<'a> {
    handler: &'a Handler,
    client: IpAddr,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.handler.limits().forwarded(self.client);
    }
}

/// The client wants DNSSEC records.
fn dnssec_ok(head: &Head) -> bool {
    head.edns.is_some_and(|offer| offer.dnssec_ok)
}

/// `version.bind` or `version.server`, which ask a server for its version (RFC 4892).
fn is_version(name: &Name) -> bool {
    let mut labels = name.iter();
    let is = |label: Option<&[u8]>, words: &[&str]| {
        label.is_some_and(|label| {
            words
                .iter()
                .any(|word| label.eq_ignore_ascii_case(word.as_bytes()))
        })
    };
    is(labels.next(), &["version"])
        && is(labels.next(), &["bind", "server"])
        && labels.next().is_none()
}

#[cfg(test)]
mod tests;
