//! What operators are told: counts and logs.

use super::*;

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
        // A name that would begin another line, and colour it.
        let mut packet = query("inXYjected.shop.svc.cluster.local.", RecordType::A)
            .to_vec()
            .unwrap();
        packet[15..17].copy_from_slice(b"\n\x1b");
        assert!(bench.answer_bytes(&packet, Transport::Udp).is_some());
        bench.handler.log_queries(false);
        bench.ask("web.shop.svc.cluster.local.", RecordType::A);
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && !text.contains('\x1b'), "{text}");
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
