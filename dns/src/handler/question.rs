//! A packet from a client, read as a question: what is asked, and what the client can take.

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// What of a query goes back in its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The id of the query.
    pub id: u16,
    /// Its opcode.
    pub op_code: OpCode,
    /// It wants recursion (RD).
    pub recursion_desired: bool,
    /// It wants no validation (CD).
    pub checking_disabled: bool,
    /// It can read an AD flag: it set that flag (RFC 6840 5.7), or DO.
    pub reads_authentic_data: bool,
    /// The question, in the case that it was asked in; none where it could not be read.
    pub query: Option<Query>,
    /// What the client's OPT record said; none without one.
    pub edns: Option<Offer>,
}

/// What a client offers by EDNS (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The largest UDP answer that it takes, in bytes.
    pub payload: u16,
    /// It wants DNSSEC records (DO).
    pub dnssec_ok: bool,
}

/// What to make of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A question to answer; `query` is there.
    Question(Head),
    /// A question to turn down with this code.
    Fault(Head, ResponseCode),
    /// No question at all: too short, or itself an answer. It must get no reply, or two servers could keep each other busy.
    Silence,
}

/// Reads a packet. Never fails: what cannot be understood has its answer too (RFC 1035 4.1.1, RFC 6891 7, RFC 9619).
pub fn read(packet: &[u8]) -> Reading {
    let mut decoder = BinDecoder::new(packet);
    let Ok(header) = Header::read(&mut decoder) else {
        return Reading::Silence;
    };
    if header.message_type == MessageType::Response {
        return Reading::Silence;
    }
    let mut head = Head {
        id: header.id,
        op_code: header.op_code,
        recursion_desired: header.recursion_desired,
        checking_disabled: header.checking_disabled,
        reads_authentic_data: header.authentic_data,
        query: None,
        edns: None,
    };
    if header.op_code != OpCode::Query {
        return Reading::Fault(head, ResponseCode::NotImp);
    }
    if header.counts.queries != 1 {
        return Reading::Fault(head, ResponseCode::FormErr);
    }
    match Query::read(&mut decoder) {
        Ok(query) => head.query = Some(query),
        Err(_) => return Reading::Fault(head, ResponseCode::FormErr),
    }
    let edns = match read_edns(&mut decoder, &header) {
        Ok(edns) => edns,
        Err(fault) => return Reading::Fault(head, fault),
    };
    if let Some(edns) = edns {
        let dnssec_ok = edns.flags().dnssec_ok;
        head.edns = Some(Offer {
            payload: edns.max_payload(),
            dnssec_ok,
        });
        head.reads_authentic_data |= dnssec_ok;
        if edns.version() != 0 {
            return Reading::Fault(head, ResponseCode::BADVERS);
        }
    }
    Reading::Question(head)
}

/// Reads past the records of a query, for its OPT record. Options are not looked at: none that we know changes an answer.
fn read_edns(decoder: &mut BinDecoder<'_>, header: &Header) -> Result<Option<Edns>, ResponseCode> {
    let counts = header.counts;
    for count in [counts.answers, counts.authorities] {
        Message::read_records(decoder, usize::from(count), false, header.op_code)
            .map_err(|_| ResponseCode::FormErr)?;
    }
    let (_, edns, _) = Message::read_records(
        decoder,
        usize::from(counts.additionals),
        true,
        header.op_code,
    )
    .map_err(|_| ResponseCode::FormErr)?;
    Ok(edns)
}
