//! An answer on its way to a client: its records, and how they become a packet that the client can take.
//!
//! Whole records only. When not all fit, additional records go first and silently (RFC 2181 9); when answers or authorities
//! must go, TC is set and the client asks again over TCP. The OPT record always stays.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::question::Head;

/// The largest UDP packet that we send, and say that we take, in bytes: it fits every path unfragmented
/// (<https://www.dnsflagday.net/2020/>).
pub const UDP_PAYLOAD: u16 = 1232;

/// The largest UDP answer to a client without EDNS, in bytes (RFC 1035 4.2.1).
const PLAIN_PAYLOAD: u16 = 512;

/// An OPT record without options, in bytes: root name, type, class, TTL, length.
const OPT_SIZE: u16 = 11;

/// The option code of extended errors (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// Why an answer is not what was hoped for (RFC 8914); only clients that speak EDNS are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The answer is from a cache, past its time, as no upstream answered.
    Stale,
    /// The Services are not known yet.
    NotReady,
    /// The client asks too much.
    Prohibited,
    /// We do not serve such questions.
    NotSupported,
    /// No upstream answered, or there is none.
    NoUpstream,
}

impl Reason {
    /// Code and text of the option. The text is short: it is in each packet.
    fn parts(self) -> (u16, &'static str) {
        match self {
            Self::Stale => (3, ""),
            Self::NotReady => (14, "services not listed yet"),
            Self::Prohibited => (18, "too many queries"),
            Self::NotSupported => (21, ""),
            Self::NoUpstream => (22, "no upstream answered"),
        }
    }

    fn option(self) -> EdnsOption {
        let (code, text) = self.parts();
        let mut data = code.to_be_bytes().to_vec();
        data.extend_from_slice(text.as_bytes());
        EdnsOption::Unknown(EXTENDED_ERROR, data)
    }

    /// Size of the option in bytes.
    fn size(self) -> u16 {
        let (_, text) = self.parts();
        // Code and length of the option, the error's code, and a text of some letters.
        6 + u16::try_from(text.len()).unwrap_or(0)
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its code.
    pub code: ResponseCode,
    /// We are the authority for the name asked (AA).
    pub authoritative: bool,
    /// An upstream validated it (AD).
    pub authentic: bool,
    /// Answer records.
    pub answers: Vec<Record>,
    /// Authority records.
    pub authorities: Vec<Record>,
    /// Additional records, without OPT.
    pub additionals: Vec<Record>,
    /// Why it is not better.
    pub reason: Option<Reason>,
}

/// What of an answer reached the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The code.
    pub code: ResponseCode,
    /// Records were left out (TC).
    pub truncated: bool,
    /// There are upstreams (RA).
    pub recursive: bool,
}

impl Sent {
    /// The flags of the packet, as the query log has them.
    pub fn flags(&self, head: &Head, answer: &Answer) -> String {
        let all = [
            (true, "qr"),
            (answer.authoritative, "aa"),
            (self.truncated, "tc"),
            (head.recursion_desired, "rd"),
            (self.recursive, "ra"),
            (answer.authentic && head.reads_authentic_data, "ad"),
            (head.checking_disabled, "cd"),
        ];
        let set: Vec<&str> = all
            .iter()
            .filter_map(|(on, name)| on.then_some(*name))
            .collect();
        set.join(",")
    }
}

impl Answer {
    /// An answer that is a code alone.
    pub fn code(code: ResponseCode) -> Self {
        Self {
            code,
            ..Self::default()
        }
    }

    /// A code with its reason.
    pub fn because(code: ResponseCode, reason: Reason) -> Self {
        Self {
            code,
            reason: Some(reason),
            ..Self::default()
        }
    }

    /// Writes the packet to `out`, which is emptied first: at most `limit` bytes. `recursive` is RA.
    pub fn write(&self, head: &Head, recursive: bool, limit: u16, out: &mut Vec<u8>) -> Sent {
        if let Ok(sent) = self.encode(head, recursive, limit, out) {
            return sent;
        }
        // A record that has no wire form; only an upstream could have sent it.
        tracing::warn!(query = ?head.query, "an answer could not be encoded: the client gets SERVFAIL");
        let bare = Head {
            query: None,
            ..head.clone()
        };
        let sent = Sent {
            code: ResponseCode::ServFail,
            truncated: false,
            recursive,
        };
        Self::code(ResponseCode::ServFail)
            .encode(&bare, recursive, limit, out)
            .unwrap_or_else(|_| {
                out.clear();
                sent
            })
    }

    fn encode(
        &self,
        head: &Head,
        recursive: bool,
        limit: u16,
        out: &mut Vec<u8>,
    ) -> Result<Sent, ProtoError> {
        out.clear();
        let mut encoder = BinEncoder::new(out);
        let reason = self.reason.filter(|_| head.edns.is_some());
        // A code of more than four bits needs an OPT record.
        let code = if head.edns.is_none() && self.code.high() != 0 {
            ResponseCode::ServFail
        } else {
            self.code
        };
        let reserved = head
            .edns
            .map_or(0, |_| OPT_SIZE + reason.map_or(0, Reason::size));
        let room = usize::from(limit.saturating_sub(reserved));

        let place = encoder.place::<Header>()?;
        let mut counts = HeaderCounts::default();
        if let Some(query) = &head.query {
            query.emit(&mut encoder)?;
            counts.queries = 1;
        }
        let mut truncated = false;
        for (records, count, may_drop) in [
            (&self.answers, &mut counts.answers, false),
            (&self.authorities, &mut counts.authorities, false),
            (&self.additionals, &mut counts.additionals, true),
        ] {
            if truncated {
                break;
            }
            let (written, all) = emit(&mut encoder, room, records)?;
            *count = written;
            truncated = !all && !may_drop;
        }
        if let Some(offer) = head.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD)
                .set_dnssec_ok(offer.dnssec_ok)
                .set_rcode_high(code.high());
            if let Some(reason) = reason {
                edns.options_mut().insert(reason.option());
            }
            edns.emit(&mut encoder)?;
            counts.additionals += 1;
        }
        let mut metadata = Metadata::new(head.id, MessageType::Response, head.op_code);
        metadata.response_code = code;
        metadata.authoritative = self.authoritative;
        metadata.truncation = truncated;
        metadata.recursion_desired = head.recursion_desired;
        metadata.recursion_available = recursive;
        metadata.authentic_data = self.authentic && head.reads_authentic_data;
        metadata.checking_disabled = head.checking_disabled;
        place.replace(&mut encoder, Header { metadata, counts })?;
        Ok(Sent {
            code,
            truncated,
            recursive,
        })
    }
}

/// Writes as many whole records as end within `limit` bytes: how many, and whether that was all.
///
/// The encoder has no limit of its own set: it writes a name in full before it finds the part that can be a pointer, and
/// would leave out records that fit.
fn emit(
    encoder: &mut BinEncoder<'_>,
    limit: usize,
    records: &[Record],
) -> Result<(u16, bool), ProtoError> {
    for (count, record) in records.iter().enumerate() {
        let start = encoder.offset();
        let full = match record.emit(encoder) {
            Ok(()) => encoder.offset() > limit,
            Err(ProtoError::MaxBufferSizeExceeded(_)) => true,
            Err(error) => return Err(error),
        };
        if full {
            encoder.set_offset(start);
            encoder.trim();
            return Ok((count_of(count), false));
        }
    }
    Ok((count_of(records.len()), true))
}

/// A number of records in a packet. A record takes more than ten bytes, a packet has less than 2^16.
fn count_of(records: usize) -> u16 {
    u16::try_from(records).unwrap_or(u16::MAX)
}

/// The largest answer over UDP to a client with this offer, in bytes.
pub fn udp_limit(head: &Head) -> u16 {
    head.edns.map_or(PLAIN_PAYLOAD, |offer| {
        offer.payload.clamp(PLAIN_PAYLOAD, UDP_PAYLOAD)
    })
}
