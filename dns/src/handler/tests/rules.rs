//! What memory answers, and what is turned down.

use super::*;

#[test]
fn a_service_is_answered_with_authority_and_the_case_that_was_asked() {
    let bench = Bench::alone();
    let answer = bench.ask("WeB.shop.SVC.cluster.local.", RecordType::A);
    assert_eq!(answer.metadata.id, 4711);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
    assert!(
        answer.metadata.recursion_available,
        "there are upstreams, by the settings"
    );
    assert!(!answer.metadata.truncation && !answer.metadata.authentic_data);
    assert_eq!(
        answer.queries[0].name.to_ascii(),
        "WeB.shop.SVC.cluster.local."
    );
    assert_eq!(
        lines(&answer.answers),
        ["WeB.shop.SVC.cluster.local. A 10.96.0.20"]
    );
    assert!(
        answer.edns.is_none(),
        "no OPT record for a client without EDNS"
    );
}

#[test]
fn negative_answers_carry_the_soa() {
    let bench = Bench::alone();
    for (asked, record_type, code) in [
        (
            "web.shop.svc.cluster.local.",
            RecordType::AAAA,
            ResponseCode::NoError,
        ),
        (
            "missing.shop.svc.cluster.local.",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
    ] {
        let answer = bench.ask(asked, record_type);
        assert_eq!(answer.metadata.response_code, code, "{asked}");
        assert!(answer.answers.is_empty() && answer.metadata.authoritative);
        assert_eq!(answer.authorities.len(), 1);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
        assert_eq!(answer.authorities[0].name.to_ascii(), "cluster.local.");
    }
}

#[test]
fn before_the_lists_are_in_the_answer_is_servfail_with_a_reason() {
    let empty = Zone::new(zone::Settings::new(name("cluster.local.")));
    let bench = Bench::new(empty, Vec::new(), settings());
    let mut question = query("web.shop.svc.cluster.local.", RecordType::A);
    question.edns = Some(edns(1232));
    let answer = bench.answer(&question);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(reason(&answer), Some(14));
}

#[test]
fn aliases_within_the_cluster_are_followed_in_one_answer() {
    let bench = Bench::alone();
    let answer = bench.ask("alias2.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(
        lines(&answer.answers),
        [
            "alias2.shop.svc.cluster.local. CNAME alias.shop.svc.cluster.local.",
            "alias.shop.svc.cluster.local. CNAME web.shop.svc.cluster.local.",
            "web.shop.svc.cluster.local. A 10.96.0.20",
        ]
    );
    let answer = bench.ask("alias2.shop.svc.cluster.local.", RecordType::CNAME);
    assert_eq!(
        lines(&answer.answers),
        ["alias2.shop.svc.cluster.local. CNAME alias.shop.svc.cluster.local."]
    );
    let answer = bench.ask("alias.shop.svc.cluster.local.", RecordType::AAAA);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!((answer.answers.len(), answer.authorities.len()), (1, 1));
    let answer = bench.ask("nowhere.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(
        answer.metadata.response_code,
        ResponseCode::NXDomain,
        "RFC 6604: the code is the last name's"
    );
    assert_eq!((answer.answers.len(), answer.authorities.len()), (1, 1));
}

#[test]
fn aliases_in_a_circle_are_cut() {
    let bench = Bench::alone();
    for asked in [
        "ring.shop.svc.cluster.local.",
        "self.shop.svc.cluster.local.",
    ] {
        let answer = bench.ask(asked, RecordType::A);
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::ServFail,
            "{asked}"
        );
        assert!(answer.answers.len() <= 2, "{:?}", lines(&answer.answers));
    }
}

#[test]
fn a_chain_of_too_many_aliases_is_cut() {
    let mut zone = zone();
    let target = |n: u32| format!("link{}.shop.svc.cluster.local", n + 1);
    zone.apply(
        (0..20)
            .map(|n| external(&format!("link{n}"), &target(n)))
            .collect(),
    );
    let bench = Bench::new(zone, Vec::new(), settings());
    let answer = bench.ask("link0.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(answer.answers.len(), 8);
}

#[test]
fn questions_that_are_not_served_are_turned_down() {
    let bench = Bench::alone();
    let code = |message: &Message| bench.answer(message).metadata.response_code;
    let web = "web.shop.svc.cluster.local.";
    for (asked, record_type, expected) in [
        ("cluster.local.", RecordType::AXFR, ResponseCode::Refused),
        ("cluster.local.", RecordType::IXFR, ResponseCode::Refused),
        ("example.com.", RecordType::AXFR, ResponseCode::Refused),
        (web, RecordType::OPT, ResponseCode::FormErr),
        (web, RecordType::from(249), ResponseCode::NotImp),
        (web, RecordType::from(250), ResponseCode::NotImp),
    ] {
        assert_eq!(
            code(&query(asked, record_type)),
            expected,
            "{asked} {record_type}"
        );
    }
    for class in [
        DNSClass::CH,
        DNSClass::HS,
        DNSClass::ANY,
        DNSClass::NONE,
        DNSClass::from(77),
    ] {
        let mut question = query(web, RecordType::A);
        question.queries[0].query_class = class;
        assert_eq!(code(&question), ResponseCode::Refused, "{class}");
    }
    for number in 1..16 {
        let mut question = query(web, RecordType::A);
        question.metadata.op_code = OpCode::from_u8(number);
        let answer = bench.answer(&question);
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NotImp,
            "opcode {number}"
        );
        assert_eq!(u8::from(answer.metadata.op_code), number);
    }
    for count in [0, 2, 3] {
        let mut question = query(web, RecordType::A);
        let one = question.queries[0].clone();
        question.queries = vec![one; count];
        assert_eq!(code(&question), ResponseCode::FormErr, "{count} questions");
    }
}

#[test]
fn the_version_is_told_in_class_chaos() {
    let bench = Bench::alone();
    for asked in ["version.bind.", "VERSION.server."] {
        let mut question = query(asked, RecordType::TXT);
        question.queries[0].query_class = DNSClass::CH;
        let answer = bench.answer(&question);
        assert_eq!(answer.answers.len(), 1);
        let text = answer.answers[0].data.to_string();
        assert!(text.contains("weft-dns"), "{text}");
    }
}

#[test]
fn any_is_answered_with_one_small_record() {
    let bench = Bench::alone();
    for asked in [
        "many.shop.svc.cluster.local.",
        "alias.shop.svc.cluster.local.",
    ] {
        let answer = bench.ask(asked, RecordType::ANY);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].record_type(), RecordType::HINFO);
    }
    let answer = bench.ask("missing.shop.svc.cluster.local.", RecordType::ANY);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn edns_is_answered_in_kind() {
    let bench = Bench::alone();
    let mut question = query("web.shop.svc.cluster.local.", RecordType::A);
    let mut offer = edns(4096);
    offer.set_dnssec_ok(true);
    offer
        .options_mut()
        .insert(EdnsOption::Unknown(4711, vec![1, 2, 3]));
    question.edns = Some(offer);
    let answer = bench.answer(&question);
    let told = answer.edns.unwrap();
    assert_eq!(
        (told.version(), told.max_payload(), told.flags().dnssec_ok),
        (0, 1232, true)
    );
    assert!(
        told.option(4711u16.into()).is_none(),
        "an option that we do not know is not answered"
    );

    question.edns.as_mut().unwrap().set_version(1);
    let answer = bench.answer(&question);
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS");
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert!(answer.answers.is_empty());
}

#[test]
fn udp_answers_are_cut_to_what_the_client_takes_and_tcp_answers_are_not() {
    let bench = Bench::alone();
    let mut question = query("many.shop.svc.cluster.local.", RecordType::A);
    let offers = [
        (None, 512),
        (Some(0), 512),
        (Some(600), 600),
        (Some(1232), 1232),
        (Some(65535), 1232),
    ];
    for (offer, limit) in offers {
        question.edns = offer.map(edns);
        let bytes = bench
            .answer_bytes(&question.to_vec().unwrap(), Transport::Udp)
            .unwrap();
        let size = bytes.len();
        assert!(
            size <= limit && size > limit - 40,
            "{offer:?}: {size} of {limit}"
        );
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.metadata.truncation);
        assert_eq!(
            answer.edns.is_some(),
            offer.is_some(),
            "the OPT record is never cut off"
        );
    }
    let bytes = bench
        .answer_bytes(&question.to_vec().unwrap(), Transport::Tcp)
        .unwrap();
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(
        (answer.metadata.truncation, answer.answers.len()),
        (false, 100)
    );
    // Each owner is a pointer to the question: 12 + 33 + 100 × 16 + 11 bytes.
    assert!(
        bytes.len() < 1700,
        "names are compressed: {} bytes",
        bytes.len()
    );
}

#[test]
fn additional_records_are_left_out_without_a_sign() {
    let bench = Bench::alone();
    let mut question = query("_http._tcp.three.shop.svc.cluster.local.", RecordType::SRV);
    question.edns = Some(edns(1232));
    let whole = bench.answer(&question);
    assert_eq!((whole.answers.len(), whole.additionals.len()), (3, 3));
    let answer = Answer {
        answers: whole.answers.clone(),
        additionals: whole.additionals.clone(),
        ..Answer::default()
    };
    let Reading::Question(head) = question::read(&question.to_vec().unwrap()) else {
        panic!("it is a question")
    };
    let mut out = Vec::new();
    answer.write(&head, true, 1232, &mut out);
    let one_less = u16::try_from(out.len()).unwrap() - 1;
    let sent = answer.write(&head, true, one_less, &mut out);
    let cut = Message::from_vec(&out).unwrap();
    assert!(!sent.truncated && !cut.metadata.truncation);
    assert_eq!(
        (cut.answers.len(), cut.additionals.len(), cut.edns.is_some()),
        (3, 2, true)
    );
}

#[test]
fn addresses_come_in_any_order() {
    let bench = Bench::alone();
    let mut firsts = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let answer = bench.ask("three.shop.svc.cluster.local.", RecordType::A);
        assert_eq!(answer.answers.len(), 3);
        firsts.insert(answer.answers[0].data.to_string());
    }
    assert_eq!(firsts.len(), 3, "200 answers began with {firsts:?}");
}

#[test]
fn answers_and_scraps_get_no_answer() {
    let bench = Bench::alone();
    let mut message = query("web.shop.svc.cluster.local.", RecordType::A);
    message.metadata.message_type = MessageType::Response;
    let bytes = message.to_vec().unwrap();
    assert_eq!(bench.answer_bytes(&bytes, Transport::Udp), None);
    assert_eq!(
        bench.answer_bytes(&bytes[..20], Transport::Udp),
        None,
        "nor what cannot be read"
    );
    let scrap = query("a.", RecordType::A).to_vec().unwrap();
    for length in 0..12 {
        assert_eq!(bench.answer_bytes(&scrap[..length], Transport::Udp), None);
    }
}

#[test]
fn a_client_over_its_limit_is_dropped_and_counted_and_others_are_not() {
    let limits = limits::Settings {
        queries: 5,
        ..limits::Settings::default()
    };
    let bench = Bench::new(
        zone(),
        Vec::new(),
        Settings {
            limits,
            ..settings()
        },
    );
    let packet = query("web.shop.svc.cluster.local.", RecordType::A)
        .to_vec()
        .unwrap();
    let answered = |client: &str| {
        let mut out = Vec::new();
        let mut ask = || bench.begin(&packet, client, Transport::Udp, &mut out);
        (0..50).filter(|_| matches!(ask(), Step::Answered)).count()
    };
    assert!((5..50).contains(&answered(CLIENT)));
    assert!(answered("10.244.0.8:1") >= 5);
    assert_eq!(
        answered("127.0.0.1:1"),
        50,
        "the host itself is not limited"
    );
    let text = bench.scrape();
    assert!(
        !text.contains("weft_dns_over_limit_total{done=\"dropped\"} 0"),
        "{text}"
    );
}

#[test]
fn queries_are_counted_by_zone_type_and_code() {
    let bench = Bench::alone();
    bench.ask("web.shop.svc.cluster.local.", RecordType::A);
    bench.ask("missing.shop.svc.cluster.local.", RecordType::A);
    let text = bench.scrape();
    let server = r#"server="dns://10.96.0.10:53""#;
    for line in [
        format!(
            r#"coredns_dns_requests_total{{family="1",proto="udp",{server},type="A",view="",zone="cluster.local."}} 2"#
        ),
        format!(
            r#"coredns_dns_responses_total{{plugin="kubernetes",rcode="NXDOMAIN",{server},view="",zone="cluster.local."}} 1"#
        ),
    ] {
        assert!(text.contains(&line), "missing {line} in\n{text}");
    }
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn queries_are_logged_in_a_line_with_the_pod_s_name_while_that_is_on() {
    let log = Log::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || sink.clone())
        .finish();
    let bench = Bench::alone();
    tracing::subscriber::with_default(subscriber, || {
        bench.ask("web.shop.svc.cluster.local.", RecordType::A);
        bench.handler.log_queries(true);
        bench.ask("missing.shop.svc.cluster.local.", RecordType::AAAA);
        bench.ask("in\\010\\032jected.shop.svc.cluster.local.", RecordType::A);
        bench.handler.log_queries(false);
        bench.ask("web.shop.svc.cluster.local.", RecordType::A);
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for part in [
        "dns::query",
        "client=10.244.0.7:40000",
        "pod=\"shop/cart\"",
        "proto=\"udp\"",
        "name=missing.shop.svc.cluster.local.",
        "type=AAAA",
        "code=\"NXDOMAIN\"",
        "flags=qr,aa,rd,ra",
        "size=48",
        "micros=",
    ] {
        assert!(lines[0].contains(part), "missing {part} in {}", lines[0]);
    }
}
