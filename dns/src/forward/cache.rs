//! Answers remembered: those with records and those without, each within a number of entries and of bytes.
//!
//! An answer is kept as the bytes of a message, a tenth of what its records take as values, and read again when it is
//! given. The least recently used leaves first. Time is a parameter.
//!
//! References: RFC 2308 (negative answers), RFC 8767 (stale answers).

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::RData;
use lru::LruCache;

use super::answer::Reply;
use super::key::Key;
use super::settings::CacheSettings;

/// The TTL of a stale answer, in seconds (RFC 8767 section 5.2).
const STALE_TTL: u32 = 30;
/// Answers without records are not given longer than this after their end.
const STALE_DENIAL: Duration = Duration::from_secs(3600);
/// An answer that nobody asked for in this time counts as new to the prefetch.
const GAP: Duration = Duration::from_secs(60);
/// What an entry takes besides its name and its message, in bytes: its fields, the list, the table.
const OVERHEAD: usize = size_of::<Entry>() + 96;

/// The kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has records of the type asked for.
    Success,
    /// It has none.
    Denial,
}

impl Kind {
    /// The value of CoreDNS's label `type`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denial => "denial",
        }
    }
}

/// An answer found.
#[derive(Debug)]
pub(super) struct Found {
    pub kind: Kind,
    /// It ended; no upstream was asked yet whether there is a newer one.
    pub stale: bool,
    /// It is time to ask for a newer one.
    pub refresh: bool,
    message: Arc<[u8]>,
    age: u32,
}

impl Found {
    /// The answer with the question's spelling and what is left of the TTLs. `None`: it cannot be read.
    pub(super) fn reply(&self, query: &Query) -> Option<Reply> {
        let message = Message::from_vec(&self.message).ok()?;
        let mut reply = Reply {
            code: message.metadata.response_code,
            answers: message.answers,
            authorities: message.authorities,
            additionals: message.additionals,
            authentic_data: message.metadata.authentic_data && !self.stale,
            stale: self.stale,
        };
        for record in reply.records_mut() {
            record.ttl = if self.stale {
                STALE_TTL
            } else {
                record.ttl.saturating_sub(self.age)
            };
        }
        reply.spell(&query.name);
        Some(reply)
    }
}

/// All that is remembered.
pub(super) struct Cache {
    settings: CacheSettings,
    answers: Store,
    denials: Store,
}

struct Store {
    entries: LruCache<Box<[u8]>, Entry>,
    bytes: usize,
    /// How long an entry is of use after its end.
    stale: Duration,
}

struct Entry {
    message: Arc<[u8]>,
    stored: Instant,
    ttl: Duration,
    hits: u32,
    last_hit: Instant,
    /// Upstreams failed to give a newer answer: they are not asked before this.
    hold: Option<Instant>,
}

impl Cache {
    pub(super) fn new(settings: CacheSettings) -> Self {
        Self {
            answers: Store::new(settings.serve_stale),
            denials: Store::new(settings.serve_stale.min(STALE_DENIAL)),
            settings,
        }
    }

    /// How many answers of a kind are there.
    pub(super) fn len(&self, kind: Kind) -> usize {
        match kind {
            Kind::Success => self.answers.entries.len(),
            Kind::Denial => self.denials.entries.len(),
        }
    }

    /// The answer for a question.
    pub(super) fn find(&mut self, key: &Key, now: Instant) -> Option<Found> {
        let prefetch = self.settings.prefetch;
        self.answers
            .find(key, now, prefetch, Kind::Success)
            .or_else(|| self.denials.find(key, now, prefetch, Kind::Denial))
    }

    /// Remembers an answer for as long as its records say. How many others had to leave, of which kind; `None`: it is
    /// not one to remember.
    pub(super) fn insert(
        &mut self,
        key: &Key,
        reply: &Reply,
        query: &Query,
        now: Instant,
    ) -> Option<(Kind, usize)> {
        let ttl = self.lifetime(reply, query)?;
        if reply.code == ResponseCode::ServFail {
            return self.failed(key, now, ttl);
        }
        let message = pack(reply)?;
        let (kind, store, other) = if reply.is_denial(query.query_type) {
            (Kind::Denial, &mut self.denials, &mut self.answers)
        } else {
            (Kind::Success, &mut self.answers, &mut self.denials)
        };
        other.remove(key);
        let evicted = store.insert(key, message, ttl, now, &self.settings)?;
        Some((kind, evicted))
    }

    /// Remembers for a while that upstreams failed. An answer that they gave before stays, to be given stale.
    pub(super) fn failed(
        &mut self,
        key: &Key,
        now: Instant,
        time: Duration,
    ) -> Option<(Kind, usize)> {
        for store in [&mut self.answers, &mut self.denials] {
            if let Some(entry) = store.entries.peek_mut(&**key)
                && !entry.is_over(now, store.stale)
                && !entry.is_failure()
            {
                entry.hold = Some(now + time);
                return None;
            }
        }
        let message = pack(&Reply::empty(ResponseCode::ServFail))?;
        let evicted = self
            .denials
            .insert(key, message, time, now, &self.settings)?;
        Some((Kind::Denial, evicted))
    }

    /// Puts the TTLs of an answer within the limits.
    pub(super) fn limit(&self, reply: &mut Reply, query: &Query) {
        let denial = reply.is_denial(query.query_type);
        let most = if denial {
            self.settings.max_denial_ttl
        } else {
            self.settings.max_ttl
        };
        let (least, most) = (seconds(self.settings.min_ttl), seconds(most));
        for record in reply.records_mut() {
            // RFC 2308 section 5: the SOA's TTL is the negative answer's.
            if let RData::SOA(soa) = &record.data
                && denial
            {
                record.ttl = record.ttl.min(soa.minimum);
            }
            record.ttl = record.ttl.max(least).min(most);
        }
    }

    /// How long an answer is to be remembered.
    fn lifetime(&self, reply: &Reply, query: &Query) -> Option<Duration> {
        let of_records =
            |records: &[hickory_proto::rr::Record]| records.iter().map(|record| record.ttl).min();
        let ttl = match reply.code {
            ResponseCode::ServFail => return some(self.settings.servfail),
            ResponseCode::NoError if !reply.is_denial(query.query_type) => {
                of_records(&reply.answers)?
            }
            ResponseCode::NoError | ResponseCode::NXDomain => {
                // RFC 2308 section 5: without SOA it is not to be cached.
                let soa = reply
                    .authorities
                    .iter()
                    .find(|record| matches!(record.data, RData::SOA(_)))?;
                of_records(&reply.answers).unwrap_or(u32::MAX).min(soa.ttl)
            }
            _ => return None,
        };
        some(Duration::from_secs(ttl.into()))
    }
}

impl Store {
    fn new(stale: Duration) -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            stale,
        }
    }

    fn find(&mut self, key: &Key, now: Instant, prefetch: u32, kind: Kind) -> Option<Found> {
        let stale = self.stale;
        let entry = self.entries.get_mut(&**key)?;
        if entry.is_over(now, stale) {
            self.remove(key);
            return None;
        }
        let age = now.saturating_duration_since(entry.stored);
        let gap = now.saturating_duration_since(entry.last_hit);
        entry.hits = if gap > GAP {
            1
        } else {
            entry.hits.saturating_add(1)
        };
        entry.last_hit = now;
        let held = entry.hold.is_some_and(|until| now < until);
        let left = entry.ttl.saturating_sub(age);
        let soon = left < (entry.ttl / 10).max(Duration::from_secs(1));
        let popular = prefetch > 0 && entry.hits >= prefetch && !entry.is_failure();
        Some(Found {
            kind,
            stale: left.is_zero(),
            refresh: !held && (left.is_zero() || (soon && popular)),
            message: Arc::clone(&entry.message),
            age: seconds(age),
        })
    }

    /// How many entries left for it. `None`: it is too large, or nothing is to be remembered.
    fn insert(
        &mut self,
        key: &Key,
        message: Arc<[u8]>,
        ttl: Duration,
        now: Instant,
        settings: &CacheSettings,
    ) -> Option<usize> {
        let before = self.remove(key);
        let size = key.len() + message.len() + OVERHEAD;
        // One name shall not drive out all others.
        if settings.entries == 0 || size > settings.bytes / 8 {
            return None;
        }
        let entry = Entry {
            message,
            stored: now,
            ttl,
            hits: before.as_ref().map_or(0, |before| before.hits),
            last_hit: before.map_or(now, |before| before.last_hit),
            hold: None,
        };
        self.entries.put(Box::from(&**key), entry);
        self.bytes += size;
        let mut evicted = 0;
        while self.entries.len() > settings.entries || self.bytes > settings.bytes {
            let Some((key, entry)) = self.entries.pop_lru() else {
                break;
            };
            self.bytes -= key.len() + entry.message.len() + OVERHEAD;
            evicted += 1;
        }
        Some(evicted)
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.pop(&**key)?;
        self.bytes -= key.len() + entry.message.len() + OVERHEAD;
        Some(entry)
    }
}

impl Entry {
    /// Not even of use as a stale answer.
    fn is_over(&self, now: Instant, stale: Duration) -> bool {
        let stale = if self.is_failure() {
            Duration::ZERO
        } else {
            stale
        };
        now.saturating_duration_since(self.stored) >= self.ttl + stale
    }

    /// Only that upstreams failed: the response code in the message's header.
    fn is_failure(&self) -> bool {
        let code = u16::from(ResponseCode::ServFail).to_be_bytes()[1];
        self.message.get(3).is_some_and(|flags| flags & 0xf == code)
    }
}

/// The answer as a message. `None`: it does not fit into one.
fn pack(reply: &Reply) -> Option<Arc<[u8]>> {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.response_code = reply.code;
    message.metadata.authentic_data = reply.authentic_data;
    message.add_answers(reply.answers.iter().cloned());
    message.add_authorities(reply.authorities.iter().cloned());
    message.add_additionals(reply.additionals.iter().cloned());
    let bytes = message.to_vec().ok()?;
    // What does not fit is left out and the TC bit set.
    let whole = bytes.get(2).is_some_and(|flags| flags & 0x02 == 0);
    whole.then(|| Arc::from(bytes))
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn some(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

#[cfg(test)]
mod tests;
