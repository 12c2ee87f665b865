//! What of an upstream's message answers the question: the chain of aliases, the records asked for at its end, and the
//! SOA of a negative answer. Everything else is dropped, whatever it is.

use std::collections::HashSet;

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
    /// A code and nothing else.
    pub(super) fn empty(code: ResponseCode) -> Self {
        Self {
            code,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            authentic_data: false,
            stale: false,
        }
    }

    /// Every record.
    pub(super) fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.answers
            .iter_mut()
            .chain(&mut self.authorities)
            .chain(&mut self.additionals)
    }

    /// Spells the name asked for as the question does. Resolvers may compare the case (draft-vixie-dnsext-dns0x20).
    pub(super) fn spell(&mut self, name: &Name) {
        for record in self.records_mut() {
            if record.name == *name {
                record.name.clone_from(name);
            }
        }
    }

    /// Whether it is what was asked for, or the word that there is none.
    pub(super) fn is_good(&self) -> bool {
        matches!(self.code, ResponseCode::NoError | ResponseCode::NXDomain)
    }

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
    let mut reply = Reply::empty(code);
    if !reply.is_good() {
        return Ok(reply);
    }
    reply.authentic_data = message.metadata.authentic_data;
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
    let hosts: HashSet<&Name> = reply.answers.iter().filter_map(host).collect();
    reply.additionals.retain(|record| {
        record.dns_class == DNSClass::IN
            && matches!(record.record_type(), RecordType::A | RecordType::AAAA)
            && hosts.contains(&record.name)
    });
    for record in reply.records_mut() {
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
    let mut linked = vec![false; end];
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
                    let wanted = match &record.data {
                        // Of several aliases of a name, the one that was followed.
                        RData::CNAME(target) if place < end => {
                            chain.get(place + 1) == Some(&target.0)
                                && !std::mem::replace(linked.get_mut(place)?, true)
                        }
                        _ => place == end && is_asked(found, query.query_type),
                    };
                    (wanted || (dnssec_ok && found == RecordType::RRSIG)).then_some(place)?
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
fn host(record: &Record) -> Option<&Name> {
    match &record.data {
        RData::SRV(srv) => Some(&srv.target),
        RData::MX(mx) => Some(&mx.exchange),
        RData::NS(ns) => Some(&ns.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
