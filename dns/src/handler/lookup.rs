//! Where the answer to a question comes from: our own rules, the cluster's zone, the forwarder's memory, other servers.

use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{HINFO, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::answer::{Answer, Reason};
use super::walk::Walk;
use super::{Handler, Settings};
use crate::forward::{Failure, Reply};
use crate::limits::Verdict;
use crate::metrics::{Writer, ZoneLabel};
use crate::zone::Found;

/// How long the HINFO record of an ANY query may be kept, in seconds; RFC 8482 4.2 wants it long.
const ANY_TTL: u32 = 3600;

/// An answer, and for whom it counts.
pub(super) struct Outcome {
    pub(super) answer: Answer,
    pub(super) zone: ZoneLabel,
    pub(super) writer: Writer,
}

impl Outcome {
    pub(super) fn of_server(answer: Answer, zone: ZoneLabel) -> Self {
        Self {
            answer,
            zone,
            writer: Writer::Server,
        }
    }
}

impl Handler {
    /// What needs no lookup: questions that we do not serve.
    pub(super) fn turn_down(&self, query: &Query) -> Option<Outcome> {
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
    pub(super) fn known(
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
    pub(super) async fn abroad(
        &self,
        walk: &mut Walk,
        client: IpAddr,
        dnssec_ok: bool,
    ) -> Option<Outcome> {
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
