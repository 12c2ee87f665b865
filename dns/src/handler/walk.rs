//! The names that a question leads to: along aliases, and along a Pod's search list.

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::answer::{Answer, Reason};
use crate::forward::Reply;
use crate::metrics::ZoneLabel;
use crate::model::ObjectName;
use crate::search::Search;

/// Aliases that are followed for one question.
const ALIASES: usize = 8;

/// Where the search of a question stands.
#[derive(Debug)]
pub struct Walk {
    /// As asked.
    query: Query,
    /// The name that is looked up now, where it is another than the one asked.
    name: Option<Name>,
    /// The aliases followed, in order.
    chain: Vec<Record>,
    /// The name in the search list that is looked up, where the search has begun.
    candidate: Option<Name>,
    /// Names of the search list that are left, the last first.
    rest: Vec<Name>,
    in_vain: bool,
}

impl Walk {
    /// Starts at the name asked.
    pub fn new(query: Query) -> Self {
        Self {
            query,
            name: None,
            chain: Vec::new(),
            candidate: None,
            rest: Vec::new(),
            in_vain: false,
        }
    }

    /// The question.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// The name to look up now.
    pub fn name(&self) -> &Name {
        self.name.as_ref().unwrap_or(&self.query.name)
    }

    /// The question to ask for it.
    pub fn current(&self) -> Query {
        Query::query(self.name().clone(), self.query.query_type)
    }

    /// It is still at the name asked.
    pub fn is_plain(&self) -> bool {
        self.name.is_none()
    }

    /// Whose name was asked.
    pub fn zone(&self) -> ZoneLabel {
        // A walk leaves its name only from one of the cluster's.
        if self.is_plain() && !self.in_vain {
            ZoneLabel::Root
        } else {
            ZoneLabel::Cluster
        }
    }

    /// A search list was gone along.
    pub fn searched(&self) -> bool {
        self.candidate.is_some()
    }

    /// The name does not exist: goes on to the next of the client's search list, if there is one. `search` is asked once, for
    /// the list and the client's Pod.
    pub fn next<'a>(
        &mut self,
        search: impl FnOnce() -> Option<(&'a Search, &'a ObjectName)>,
    ) -> bool {
        if self.in_vain || !self.chain.is_empty() {
            // A name that is an alias exists.
            return false;
        }
        if self.candidate.is_none() {
            let Some((search, pod)) = search() else {
                return false;
            };
            let Some(mut rest) = search.rest(&self.query.name, &pod.namespace) else {
                return false;
            };
            rest.reverse();
            self.rest = rest;
        }
        let Some(next) = self.rest.pop() else {
            // As if nothing had been searched: the name asked does not exist.
            self.candidate = None;
            self.name = None;
            self.in_vain = true;
            return false;
        };
        self.name = Some(next.clone());
        self.candidate = Some(next);
        true
    }

    /// Goes on to what an alias points to; no if it leads in a circle or too far.
    pub fn follow(&mut self, alias: Record) -> bool {
        let RData::CNAME(CNAME(target)) = &alias.data else {
            return false;
        };
        let target = target.clone();
        let circle = target == self.query.name
            || self.chain.iter().any(|link| link.name == target)
            || alias.name == target;
        self.chain.push(alias);
        self.name = Some(target);
        !circle && self.chain.len() < ALIASES
    }

    /// The cluster's records.
    pub fn positive(&mut self, answers: Vec<Record>, additionals: Vec<Record>) -> Answer {
        let ttl = answers.first().map_or(0, |record| record.ttl);
        Answer {
            authoritative: true,
            answers: self.with_chain(answers, ttl),
            additionals,
            ..Answer::default()
        }
    }

    /// The cluster has no such name, or nothing of that type under it.
    pub fn negative(&mut self, code: ResponseCode, soa: Record) -> Answer {
        let answers = self.with_chain(Vec::new(), soa.ttl);
        Answer {
            code,
            authoritative: true,
            answers,
            authorities: vec![soa],
            ..Answer::default()
        }
    }

    /// What others say of the last name. `soa` is the cluster's.
    pub fn foreign(&mut self, reply: Reply, soa: impl FnOnce() -> Record) -> Answer {
        let ttl = reply
            .answers
            .first()
            .map_or_else(|| soa().ttl, |record| record.ttl);
        let authoritative = !self.is_plain();
        let answers = self.with_chain(reply.answers, ttl);
        Answer {
            code: reply.code,
            authoritative,
            authentic: reply.authentic_data && !authoritative,
            answers,
            authorities: reply.authorities,
            additionals: reply.additionals,
            reason: reply.stale.then_some(Reason::Stale),
        }
    }

    /// No answer for the last name: `answer`, with the aliases that led there, so that the client sees how far it came.
    pub fn failure(&mut self, answer: Answer) -> Answer {
        let authoritative = !self.chain.is_empty();
        self.candidate = None;
        let answers = self.with_chain(Vec::new(), 0);
        Answer {
            answers,
            authoritative,
            ..answer
        }
    }

    /// A search was gone along to its end: the name asked, which is the cluster's, does not exist.
    pub fn in_vain(&self) -> bool {
        self.in_vain
    }

    /// The alias of the search, the aliases followed, and the records.
    fn with_chain(&mut self, mut records: Vec<Record>, ttl: u32) -> Vec<Record> {
        let mut all = std::mem::take(&mut self.chain);
        if let Some(candidate) = &self.candidate {
            let alias = RData::CNAME(CNAME(candidate.clone()));
            all.insert(0, Record::from_rdata(self.query.name.clone(), ttl, alias));
        }
        if all.is_empty() {
            return records;
        }
        all.append(&mut records);
        all
    }
}

/// Spreads load: the addresses of an answer in any order, behind its aliases.
pub fn shuffle(answers: &mut [Record]) {
    let is_address =
        |record: &Record| matches!(record.record_type(), RecordType::A | RecordType::AAAA);
    let first = answers.iter().position(is_address).unwrap_or(answers.len());
    let (_, addresses) = answers.split_at_mut(first);
    if addresses.len() > 1 && addresses.iter().all(is_address) {
        fastrand::shuffle(addresses);
    }
}
