//! The cache against a clock of its own.

use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{Name, Record, RecordType};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str) -> Query {
    Query::query(name(text), RecordType::A)
}

fn key(text: &str) -> Key {
    Key::new(&question(text), false)
}

fn address(text: &str, ttl: u32) -> Record {
    Record::from_rdata(name(text), ttl, RData::A(A::new(192, 0, 2, 1)))
}

fn answer(text: &str, ttl: u32) -> Reply {
    Reply {
        answers: vec![address(text, ttl)],
        ..Reply::empty(ResponseCode::NoError)
    }
}

fn soa(zone: &str, ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name(zone), name(zone), 1, 2, 3, 4, minimum);
    Record::from_rdata(name(zone), ttl, RData::SOA(soa))
}

fn denial(code: ResponseCode, ttl: u32, minimum: u32) -> Reply {
    Reply {
        authorities: vec![soa("example.", ttl, minimum)],
        ..Reply::empty(code)
    }
}

struct Bed {
    cache: Cache,
    start: Instant,
}

impl Bed {
    fn new(settings: CacheSettings) -> Self {
        Self {
            cache: Cache::new(settings),
            start: Instant::now(),
        }
    }

    /// As the forwarder does it: limited, then remembered.
    fn put(&mut self, text: &str, reply: &Reply, at: u32) -> Option<(Kind, usize)> {
        let mut reply = reply.clone();
        self.cache.limit(&mut reply, &question(text));
        let now = self.start + SECOND * at;
        self.cache.insert(&key(text), &reply, &question(text), now)
    }

    fn find(&mut self, text: &str, at: u32) -> Option<Found> {
        self.cache.find(&key(text), self.start + SECOND * at)
    }

    /// TTL of the first record.
    fn ttl(&mut self, text: &str, at: u32) -> Option<u32> {
        let mut reply = self.find(text, at)?.reply(&question(text))?;
        reply.records_mut().next().map(|record| record.ttl)
    }
}

fn bed() -> Bed {
    Bed::new(CacheSettings::default())
}

fn strict() -> Bed {
    Bed::new(CacheSettings {
        serve_stale: Duration::ZERO,
        ..CacheSettings::default()
    })
}

#[test]
fn ttls_count_down_to_the_end() {
    let mut bed = strict();
    assert_eq!(
        bed.put("www.example.", &answer("www.example.", 10), 0),
        Some((Kind::Success, 0))
    );
    assert_eq!(bed.ttl("www.example.", 0), Some(10));
    assert_eq!(bed.ttl("www.example.", 9), Some(1));
    assert!(bed.find("www.example.", 10).is_none());
    assert_eq!(bed.cache.len(Kind::Success), 0, "and its memory is free");
    assert_eq!(bed.cache.answers.bytes, 0);
}

#[test]
fn the_shortest_ttl_of_a_chain_is_its_end() {
    let mut bed = strict();
    let alias = Record::from_rdata(
        name("www.example."),
        100,
        RData::CNAME(CNAME(name("host.example."))),
    );
    let mut reply = answer("host.example.", 7);
    reply.answers.insert(0, alias);
    bed.put("www.example.", &reply, 0);
    let found = bed.find("www.example.", 6).unwrap();
    let reply = found.reply(&question("www.example.")).unwrap();
    let ttls: Vec<u32> = reply.answers.iter().map(|record| record.ttl).collect();
    assert_eq!(ttls, [94, 1]);
    assert!(bed.find("www.example.", 7).is_none());
}

#[test]
fn the_name_is_spelled_as_asked() {
    let mut bed = bed();
    bed.put("www.example.", &answer("www.example.", 10), 0);
    let found = bed.find("WwW.eXample.", 1).unwrap();
    let reply = found.reply(&question("WwW.eXample.")).unwrap();
    assert!(reply.answers[0].name.eq_case(&name("WwW.eXample.")));
}

#[test]
fn types_and_proofs_are_told_apart() {
    let mut bed = bed();
    bed.put("www.example.", &answer("www.example.", 10), 0);
    let now = bed.start;
    let v6 = Query::query(name("www.example."), RecordType::AAAA);
    assert!(bed.cache.find(&Key::new(&v6, false), now).is_none());
    assert!(
        bed.cache
            .find(&Key::new(&question("www.example."), true), now)
            .is_none()
    );
    assert!(bed.find("www.example", 0).is_some());
    assert!(bed.find("ww.wexample.", 0).is_none());
}

#[test]
fn negative_answers_live_as_long_as_their_soa_says() {
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let mut bed = strict();
        assert_eq!(
            bed.put("no.example.", &denial(code, 60, 20), 0),
            Some((Kind::Denial, 0))
        );
        let found = bed.find("no.example.", 19).unwrap();
        assert_eq!(found.kind, Kind::Denial);
        let reply = found.reply(&question("no.example.")).unwrap();
        assert_eq!((reply.code, reply.authorities[0].ttl), (code, 1));
        assert!(bed.find("no.example.", 20).is_none());
        bed.put("no.example.", &denial(code, 5, 20), 0);
        assert!(
            bed.find("no.example.", 5).is_none(),
            "the TTL of the SOA itself"
        );
    }
}

#[test]
fn what_must_not_be_remembered_is_not() {
    let mut bed = bed();
    let without_soa = Reply::empty(ResponseCode::NXDomain);
    assert_eq!(bed.put("a.example.", &without_soa, 0), None);
    assert_eq!(bed.put("b.example.", &answer("b.example.", 0), 0), None);
    assert_eq!(
        bed.put("c.example.", &Reply::empty(ResponseCode::Refused), 0),
        None
    );
    let large = Reply {
        answers: vec![address("d.example.", 60); 60_000],
        ..Reply::empty(ResponseCode::NoError)
    };
    assert_eq!(
        bed.put("d.example.", &large, 0),
        None,
        "no message holds it"
    );
    assert_eq!(
        bed.cache.len(Kind::Success) + bed.cache.len(Kind::Denial),
        0
    );
}

#[test]
fn ttls_are_limited() {
    let mut bed = Bed::new(CacheSettings {
        min_ttl: 5 * SECOND,
        serve_stale: Duration::ZERO,
        ..CacheSettings::default()
    });
    bed.put("long.example.", &answer("long.example.", 1_000_000), 0);
    assert_eq!(bed.ttl("long.example.", 0), Some(3600));
    bed.put("short.example.", &answer("short.example.", 0), 0);
    assert_eq!(bed.ttl("short.example.", 4), Some(1));
    bed.put(
        "no.example.",
        &denial(ResponseCode::NXDomain, 9999, 9999),
        0,
    );
    assert_eq!(bed.ttl("no.example.", 0), Some(1800));
}

#[test]
fn servfail_is_remembered_for_five_seconds() {
    let mut bed = bed();
    bed.put("bad.example.", &Reply::empty(ResponseCode::ServFail), 0);
    let found = bed.find("bad.example.", 4).unwrap();
    assert!(!found.stale);
    let reply = found.reply(&question("bad.example.")).unwrap();
    assert_eq!(reply.code, ResponseCode::ServFail);
    for _ in 0..9 {
        assert!(!bed.find("bad.example.", 4).unwrap().refresh, "nor sought");
    }
    assert!(
        bed.find("bad.example.", 5).is_none(),
        "and is never given stale"
    );
}

#[test]
fn a_new_answer_takes_the_place_of_the_other_kind() {
    let mut bed = bed();
    bed.put("x.example.", &denial(ResponseCode::NXDomain, 60, 60), 0);
    bed.put("x.example.", &answer("x.example.", 60), 1);
    assert_eq!(bed.find("x.example.", 1).unwrap().kind, Kind::Success);
    bed.put("x.example.", &denial(ResponseCode::NXDomain, 60, 60), 2);
    assert_eq!(bed.find("x.example.", 2).unwrap().kind, Kind::Denial);
    assert_eq!(bed.cache.len(Kind::Success), 0);
}

#[test]
fn an_ended_answer_is_stale_for_a_day_and_a_denial_for_an_hour() {
    let mut bed = Bed::new(CacheSettings {
        serve_stale: 86_400 * SECOND,
        ..CacheSettings::default()
    });
    bed.put("x.example.", &answer("x.example.", 10), 0);
    bed.put("no.example.", &denial(ResponseCode::NXDomain, 10, 10), 0);
    let found = bed.find("x.example.", 10).unwrap();
    assert!(found.stale && found.refresh);
    let reply = found.reply(&question("x.example.")).unwrap();
    assert!(reply.stale);
    assert_eq!(reply.answers[0].ttl, 30);
    assert!(
        bed.find("no.example.", 3609)
            .is_some_and(|found| found.stale)
    );
    assert!(bed.find("no.example.", 3610).is_none());
    assert!(bed.find("x.example.", 86_409).is_some());
    assert!(bed.find("x.example.", 86_410).is_none());
}

#[test]
fn failing_upstreams_leave_the_stale_answer_and_are_left_alone_a_while() {
    let mut bed = bed();
    bed.put("x.example.", &answer("x.example.", 10), 0);
    assert_eq!(
        bed.put("x.example.", &Reply::empty(ResponseCode::ServFail), 20),
        None
    );
    let held = bed.find("x.example.", 24).unwrap();
    assert!(held.stale && !held.refresh);
    let again = bed.find("x.example.", 25).unwrap();
    assert!(again.stale && again.refresh);
    let now = bed.start + 30 * SECOND;
    bed.cache.failed(&key("x.example."), now, SECOND);
    assert!(!bed.find("x.example.", 30).unwrap().refresh);
    bed.put("x.example.", &answer("x.example.", 10), 31);
    let fresh = bed.find("x.example.", 31).unwrap();
    assert!(!fresh.stale && !fresh.refresh);
}

#[test]
fn popular_names_are_refreshed_before_their_end() {
    let mut bed = bed();
    bed.put("x.example.", &answer("x.example.", 100), 0);
    for at in 0..4 {
        assert!(!bed.find("x.example.", at).unwrap().refresh);
    }
    assert!(
        !bed.find("x.example.", 50).unwrap().refresh,
        "popular, and far from its end"
    );
    assert!(bed.find("x.example.", 91).unwrap().refresh);
    bed.put("x.example.", &answer("x.example.", 100), 91);
    assert!(
        bed.find("x.example.", 150)
            .is_some_and(|found| !found.refresh)
    );
    assert!(
        bed.find("x.example.", 182).unwrap().refresh,
        "it stays popular"
    );
    bed.put("rare.example.", &answer("rare.example.", 1000), 0);
    for at in [0, 100, 200, 300, 400, 950] {
        assert!(
            !bed.find("rare.example.", at).unwrap().refresh,
            "a minute's gap"
        );
    }
}

#[test]
fn the_least_recently_used_leaves() {
    let mut bed = Bed::new(CacheSettings {
        entries: 3,
        ..CacheSettings::default()
    });
    for text in ["a.example.", "b.example.", "c.example."] {
        assert_eq!(
            bed.put(text, &answer(text, 60), 0),
            Some((Kind::Success, 0))
        );
    }
    bed.find("a.example.", 1);
    assert_eq!(
        bed.put("d.example.", &answer("d.example.", 60), 1),
        Some((Kind::Success, 1))
    );
    assert!(bed.find("b.example.", 2).is_none());
    assert!(bed.find("a.example.", 2).is_some());
    bed.put("no.example.", &denial(ResponseCode::NXDomain, 60, 60), 2);
    assert_eq!(
        bed.cache.len(Kind::Success),
        3,
        "denials have a place of their own"
    );
}

#[test]
fn bytes_are_limited_and_accounted() {
    let mut bed = Bed::new(CacheSettings {
        bytes: 20_000,
        ..CacheSettings::default()
    });
    let mut left = 0;
    for number in 0..500 {
        let text = format!("name-{number}.example.");
        left += bed.put(&text, &answer(&text, 60), 0).unwrap().1;
        assert!(bed.cache.answers.bytes <= 20_000);
    }
    let kept = bed.cache.len(Kind::Success);
    assert_eq!(kept + left, 500);
    assert!(kept > 20, "{kept}");
    let sum: usize = bed
        .cache
        .answers
        .entries
        .iter()
        .map(|(key, entry)| key.len() + entry.message.len() + OVERHEAD)
        .sum();
    assert_eq!(sum, bed.cache.answers.bytes);
}

#[test]
fn one_name_does_not_drive_out_all_others() {
    let mut bed = Bed::new(CacheSettings {
        bytes: 20_000,
        ..CacheSettings::default()
    });
    bed.put("a.example.", &answer("a.example.", 60), 0);
    let large = Reply {
        answers: vec![address("d.example.", 60); 200],
        ..Reply::empty(ResponseCode::NoError)
    };
    assert_eq!(bed.put("d.example.", &large, 0), None);
    assert!(bed.find("d.example.", 0).is_none());
    assert!(bed.find("a.example.", 0).is_some());
}

#[test]
fn no_entries_means_no_cache() {
    let mut bed = Bed::new(CacheSettings {
        entries: 0,
        ..CacheSettings::default()
    });
    assert_eq!(bed.put("x.example.", &answer("x.example.", 60), 0), None);
    assert!(bed.find("x.example.", 0).is_none());
}
