//! Messages of honest and of lying servers.

use std::time::Instant;

use hickory_proto::op::{MessageType, OpCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA, SRV, TXT};
use proptest::prelude::*;

use super::super::cache::Cache;
use super::super::exchange::check;
use super::super::key::Key;
use super::super::settings::CacheSettings;
use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(owner: &str, last: u8) -> Record {
    Record::from_rdata(name(owner), 60, RData::A(A::new(192, 0, 2, last)))
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

fn soa(zone: &str) -> Record {
    let soa = SOA::new(name(zone), name(zone), 1, 2, 3, 4, 30);
    Record::from_rdata(name(zone), 60, RData::SOA(soa))
}

fn message(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    message.answers = answers;
    message.authorities = authorities;
    message
}

fn query(kind: RecordType) -> Query {
    Query::query(name("www.example."), kind)
}

fn ok(answers: Vec<Record>) -> Result<Reply, Fault> {
    distil(
        message(ResponseCode::NoError, answers, vec![]),
        &query(RecordType::A),
        false,
    )
}

#[test]
fn the_chain_and_its_end_are_kept_in_order() {
    let reply = ok(vec![
        a("host.other.", 1),
        alias("alias.example.", "host.other."),
        alias("WWW.example.", "alias.example."),
        a("host.other.", 2),
    ])
    .unwrap();
    assert_eq!(
        reply.answers,
        [
            alias("www.example.", "alias.example."),
            alias("alias.example.", "host.other."),
            a("host.other.", 1),
            a("host.other.", 2),
        ]
    );
}

#[test]
fn what_was_not_asked_for_is_dropped() {
    let mut told = message(
        ResponseCode::NoError,
        vec![
            a("www.example.", 1),
            a("bank.example.", 66),
            Record::from_rdata(
                name("www.example."),
                60,
                RData::TXT(TXT::new(vec!["x".into()])),
            ),
        ],
        vec![Record::from_rdata(
            name("example."),
            60,
            RData::NS(NS(name("ns.evil."))),
        )],
    );
    told.additionals = vec![a("ns.evil.", 66), a("www.example.", 66)];
    let reply = distil(told, &query(RecordType::A), false).unwrap();
    assert_eq!(reply.answers, [a("www.example.", 1)]);
    assert_eq!((reply.authorities, reply.additionals), (vec![], vec![]));
}

#[test]
fn an_answer_of_other_records_alone_is_none() {
    let told = ok(vec![a("bank.example.", 66), a("host.other.", 66)]);
    assert!(matches!(told, Err(Fault::Unrelated)));
}

#[test]
fn an_alias_loop_ends() {
    let reply = ok(vec![
        alias("www.example.", "a.example."),
        alias("a.example.", "www.example."),
    ])
    .unwrap();
    assert_eq!(reply.answers, [alias("www.example.", "a.example.")]);
    assert!(reply.is_denial(RecordType::A));
}

#[test]
fn the_soa_of_a_negative_answer_is_above_the_last_name() {
    let code = ResponseCode::NXDomain;
    let told = message(code, vec![], vec![soa("example."), soa("other.")]);
    let reply = distil(told, &query(RecordType::A), false).unwrap();
    assert_eq!(reply.authorities, [soa("example.")]);
    let chained = message(
        code,
        vec![alias("www.example.", "host.other.")],
        vec![soa("example."), soa("other.")],
    );
    let reply = distil(chained, &query(RecordType::A), false).unwrap();
    assert_eq!(reply.code, code);
    assert_eq!(reply.authorities, [soa("other.")]);
}

#[test]
fn the_soa_of_a_positive_answer_is_dropped() {
    let told = message(
        ResponseCode::NoError,
        vec![a("www.example.", 1)],
        vec![soa("example.")],
    );
    let reply = distil(told, &query(RecordType::A), false).unwrap();
    assert_eq!(reply.authorities, []);
}

#[test]
fn hosts_of_srv_and_mx_bring_their_addresses() {
    let at = name("www.example.");
    let srv = Record::from_rdata(
        at.clone(),
        60,
        RData::SRV(SRV::new(0, 0, 80, name("h.example."))),
    );
    let mx = Record::from_rdata(at, 60, RData::MX(MX::new(0, name("m.example."))));
    for (kind, record, host) in [
        (RecordType::SRV, srv, "h.example."),
        (RecordType::MX, mx, "m.example."),
    ] {
        let mut told = message(ResponseCode::NoError, vec![record.clone()], vec![]);
        told.additionals = vec![a(host, 1), a("other.example.", 66)];
        let reply = distil(told, &query(kind), false).unwrap();
        assert_eq!(reply.answers, [record]);
        assert_eq!(reply.additionals, [a(host, 1)]);
    }
}

#[test]
fn an_alias_asked_for_is_not_followed() {
    let told = message(
        ResponseCode::NoError,
        vec![alias("www.example.", "x.example."), a("x.example.", 1)],
        vec![],
    );
    let reply = distil(told, &query(RecordType::CNAME), false).unwrap();
    assert_eq!(reply.answers, [alias("www.example.", "x.example.")]);
    assert!(!reply.is_denial(RecordType::CNAME));
}

#[test]
fn a_ttl_with_its_highest_bit_is_zero() {
    let mut record = a("www.example.", 1);
    record.ttl = 0x8000_0001;
    assert_eq!(ok(vec![record]).unwrap().answers[0].ttl, 0);
}

#[test]
fn codes_come_without_records() {
    let told = message(ResponseCode::Refused, vec![a("www.example.", 1)], vec![]);
    let reply = distil(told, &query(RecordType::A), false).unwrap();
    assert_eq!(reply, Reply::empty(ResponseCode::Refused));
}

fn asked() -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.add_query(query(RecordType::A));
    message
}

/// Names of a small world, so that chains, cycles and strangers occur.
fn some_name() -> impl Strategy<Value = Name> {
    prop_oneof!["www|WWW|a|b|c", Just(String::new())].prop_map(|label| {
        name(&match label.as_str() {
            "" => "example.".to_owned(),
            label => format!("{label}.example."),
        })
    })
}

fn some_record() -> impl Strategy<Value = Record> {
    let data = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| RData::A(A(ip.into()))),
        any::<[u8; 16]>().prop_map(|ip| RData::AAAA(AAAA(ip.into()))),
        some_name().prop_map(|target| RData::CNAME(CNAME(target))),
        some_name().prop_map(|target| RData::NS(NS(target))),
        some_name().prop_map(|zone| RData::SOA(SOA::new(zone.clone(), zone, 1, 2, 3, 4, 5))),
        some_name().prop_map(|host| RData::SRV(SRV::new(1, 2, 3, host))),
    ];
    (some_name(), any::<u32>(), data)
        .prop_map(|(owner, ttl, data)| Record::from_rdata(owner, ttl, data))
}

/// The last name, if every record belongs to the question's name or to what the alias before it names.
fn end_of_chain(reply: &Reply, query: &Query) -> Option<Name> {
    let mut here = query.name.clone();
    for record in &reply.answers {
        if record.name != here {
            return None;
        }
        match &record.data {
            RData::CNAME(target) => here = target.0.clone(),
            data if data.record_type() == query.query_type => {}
            _ => return None,
        }
    }
    Some(here)
}

proptest! {
    #[test]
    fn bytes_never_panic_and_only_answers_are_remembered(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        headed in any::<bool>(),
    ) {
        if headed && bytes.len() >= 12 {
            bytes[..2].copy_from_slice(&0x1234u16.to_be_bytes());
            bytes[2] = 0x80;
            bytes[3] &= 0xf0;
        }
        if let Ok(message) = check(&bytes, &asked()) {
            prop_assert!(message.queries.is_empty() || message.queries == asked().queries);
            let query = query(RecordType::A);
            if let Ok(reply) = distil(message, &query, false) {
                prop_assert!(end_of_chain(&reply, &query).is_some());
            }
        }
    }

    #[test]
    fn a_changed_answer_is_the_same_answer_or_none(
        place in 0usize..60,
        byte in any::<u8>(),
    ) {
        let mut told = message(ResponseCode::NoError, vec![a("www.example.", 1)], vec![]);
        told.metadata.id = 0x1234;
        told.queries = asked().queries;
        let mut bytes = told.to_vec().unwrap();
        let place = place % bytes.len();
        bytes[place] = byte;
        let query = query(RecordType::A);
        if let Ok(reply) = check(&bytes, &asked()).and_then(|message| distil(message, &query, false)) {
            prop_assert!(end_of_chain(&reply, &query).is_some());
            prop_assert!(reply.answers.len() <= 1);
        }
    }

    #[test]
    fn whatever_is_told_only_the_chain_is_kept_and_remembered_as_it_is(
        answers in proptest::collection::vec(some_record(), 0..10),
        authorities in proptest::collection::vec(some_record(), 0..4),
        denied in any::<bool>(),
        addresses in any::<bool>(),
    ) {
        let code = if denied { ResponseCode::NXDomain } else { ResponseCode::NoError };
        let query = query(if addresses { RecordType::A } else { RecordType::SRV });
        let Ok(mut reply) = distil(message(code, answers, authorities), &query, false) else {
            return Ok(());
        };
        let here = end_of_chain(&reply, &query);
        prop_assert!(here.is_some(), "{:?}", reply.answers);
        let here = here.unwrap_or_default();
        for record in &reply.authorities {
            prop_assert!(matches!(record.data, RData::SOA(_)) && record.name.zone_of(&here));
        }
        let (mut cache, now) = (Cache::new(CacheSettings::default()), Instant::now());
        cache.limit(&mut reply, &query);
        let key = Key::new(&query, false);
        if cache.insert(&key, &reply, &query, now).is_some() {
            let found = cache.find(&key, now).and_then(|found| found.reply(&query));
            reply.spell(&query.name);
            prop_assert_eq!(found, Some(reply));
        }
    }
}
