//! What of an upstream's message answers the question: the chain of aliases, the records asked for at its end, and the
//! SOA of a negative answer. Everything else is dropped, whatever it is.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::exchange::Fault;

/// Aliases that are followed in one answer; more are a loop or a prank.
const CHAIN: usize = 16;

/// An answer for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// NOERROR, NXDOMAIN, or what the upstream failed with.
    pub code: ResponseCode,
    /// The chain of aliases and the records asked for.
    pub answers: Vec<Record>,
    /// The SOA of a negative answer, and proofs if they were asked for.
    pub authorities: Vec<Record>,
    /// Addresses of the hosts that SRV, MX and NS records name.
    pub additionals: Vec<Record>,
    /// The upstream says that it has verified the records (the AD bit).
    pub authentic_data: bool,
    /// The answer has outlived its TTL; no upstream gave a newer one.
    pub stale: bool,
}

impl Reply {
    /// Whether no record of the type asked for is there.
    pub(super) fn is_denial(&self, asked: RecordType) -> bool {
        self.code != ResponseCode::NoError
            || !self
                .answers
                .iter()
                .any(|record| is_asked(record.record_type(), asked))
    }
}

fn is_asked(found: RecordType, asked: RecordType) -> bool {
    asked == RecordType::ANY || found == asked
}

/// Reads `message` as the answer to `query`. The message's question was compared before.
pub(super) fn distil(message: Message, query: &Query, dnssec_ok: bool) -> Result<Reply, Fault> {
    let code = message.metadata.response_code;
    let mut reply = Reply {
        code,
        answers: Vec::new(),
        authorities: Vec::new(),
        additionals: Vec::new(),
        authentic_data: message.metadata.authentic_data,
        stale: false,
    };
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Ok(reply);
    }
    let had_answers = !message.answers.is_empty();
    let (chain, answers) = follow(message.answers, query, dnssec_ok);
    if had_answers && answers.is_empty() {
        return Err(Fault::Unrelated);
    }
    reply.answers = answers;
    let last = chain.last().unwrap_or(&query.name);
    let denial = reply.is_denial(query.query_type);
    reply.authorities = message.authorities;
    reply.authorities.retain(|record| {
        record.dns_class == DNSClass::IN
            && match record.record_type() {
                RecordType::SOA => denial && record.name.zone_of(last),
                RecordType::RRSIG | RecordType::NSEC | RecordType::NSEC3 => dnssec_ok,
                _ => false,
            }
    });
    reply.additionals = message.additionals;
    let hosts = &reply.answers;
    reply.additionals.retain(|record| {
        record.dns_class == DNSClass::IN
            && matches!(record.record_type(), RecordType::A | RecordType::AAAA)
            && hosts
                .iter()
                .any(|answer| host(&answer.data) == Some(&record.name))
    });
    for record in reply
        .answers
        .iter_mut()
        .chain(&mut reply.authorities)
        .chain(&mut reply.additionals)
    {
        // RFC 2181 section 8: with its highest bit set it counts as zero.
        if record.ttl > i32::MAX.unsigned_abs() {
            record.ttl = 0;
        }
    }
    Ok(reply)
}

/// The names from the question's to the last alias's target, and the records on that way, in its order.
fn follow(records: Vec<Record>, query: &Query, dnssec_ok: bool) -> (Vec<Name>, Vec<Record>) {
    let mut chain = vec![query.name.clone()];
    let follows = !matches!(query.query_type, RecordType::CNAME | RecordType::ANY);
    while follows && chain.len() <= CHAIN {
        let Some(last) = chain.last() else { break };
        let here = || records.iter().filter(|record| record.name == *last);
        if here().any(|record| record.record_type() == query.query_type) {
            break;
        }
        let target = here().find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        });
        match target {
            Some(target) if !chain.contains(&target) => chain.push(target),
            _ => break,
        }
    }
    let end = chain.len() - 1;
    let mut placed: Vec<(usize, Record)> = records
        .into_iter()
        .filter(|record| record.dns_class == DNSClass::IN)
        .filter_map(|record| {
            let place = match record.record_type() {
                RecordType::DNAME if query.query_type != RecordType::DNAME => chain
                    .iter()
                    .position(|name| record.name != *name && record.name.zone_of(name))?,
                found => {
                    let place = chain.iter().position(|name| *name == record.name)?;
                    let wanted = (place == end && is_asked(found, query.query_type))
                        || (follows && found == RecordType::CNAME)
                        || (dnssec_ok && found == RecordType::RRSIG);
                    wanted.then_some(place)?
                }
            };
            Some((place, record))
        })
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    (
        chain,
        placed.into_iter().map(|(_, record)| record).collect(),
    )
}

/// The host that a record names.
fn host(data: &RData) -> Option<&Name> {
    match data {
        RData::SRV(srv) => Some(&srv.target),
        RData::MX(mx) => Some(&mx.exchange),
        RData::NS(ns) => Some(&ns.0),
        _ => None,
    }
}
