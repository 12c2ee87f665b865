//! The series as a scrape shows them.

use super::*;

fn scrape(registry: &Registry) -> String {
    prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap()
}

fn seen() -> Seen {
    Seen {
        transport: Transport::Udp,
        zone: ZoneLabel::Cluster,
        writer: Writer::Zone,
        record_type: RecordType::A,
        dnssec_ok: false,
        size: 50,
        answer_size: 150,
        code: ResponseCode::NoError,
        took: Duration::from_micros(300),
    }
}

#[test]
fn a_query_is_counted_under_coredns_s_names_and_labels() {
    let registry = Registry::new();
    let metrics =
        Arc::new(Metrics::new(&registry, &Name::from_ascii("Cluster.Local.").unwrap()).unwrap());
    let server = metrics.server("10.96.0.10:53".parse().unwrap());
    server.count(&seen());
    server.count(&Seen {
        dnssec_ok: true,
        record_type: RecordType::from(4711),
        code: ResponseCode::BADVERS,
        ..seen()
    });
    metrics.programmed("headless_with_selector", Duration::from_millis(3));
    let text = scrape(&registry);
    for line in [
        r#"coredns_dns_requests_total{family="1",proto="udp",server="dns://10.96.0.10:53",type="A",view="",zone="cluster.local."} 1"#,
        r#"coredns_dns_requests_total{family="1",proto="udp",server="dns://10.96.0.10:53",type="other",view="",zone="cluster.local."} 1"#,
        r#"coredns_dns_request_duration_seconds_bucket{server="dns://10.96.0.10:53",view="",zone="cluster.local.",le="0.0005"} 2"#,
        r#"coredns_dns_request_size_bytes_bucket{proto="udp",server="dns://10.96.0.10:53",view="",zone="cluster.local.",le="100"} 2"#,
        r#"coredns_dns_response_size_bytes_bucket{proto="udp",server="dns://10.96.0.10:53",view="",zone="cluster.local.",le="100"} 0"#,
        r#"coredns_dns_response_size_bytes_bucket{proto="udp",server="dns://10.96.0.10:53",view="",zone="cluster.local.",le="200"} 2"#,
        r#"coredns_dns_do_requests_total{server="dns://10.96.0.10:53",view="",zone="cluster.local."} 1"#,
        r#"coredns_dns_responses_total{plugin="kubernetes",rcode="NOERROR",server="dns://10.96.0.10:53",view="",zone="cluster.local."} 1"#,
        r#"coredns_dns_responses_total{plugin="kubernetes",rcode="BADVERS",server="dns://10.96.0.10:53",view="",zone="cluster.local."} 1"#,
        r#"coredns_panics_total 0"#,
        r#"coredns_kubernetes_dns_programming_duration_seconds_bucket{service_kind="headless_with_selector",le="0.004"} 1"#,
    ] {
        assert!(text.contains(line), "missing {line} in\n{text}");
    }
    assert!(
        text.contains("coredns_build_info{goversion=\"\",revision=\"\",version=\"weft-dns-"),
        "{text}"
    );
}

#[test]
fn each_address_and_zone_has_its_own_series() {
    let registry = Registry::new();
    let metrics =
        Arc::new(Metrics::new(&registry, &Name::from_ascii("cluster.local.").unwrap()).unwrap());
    let (four, six) = (
        metrics.server("10.96.0.10:53".parse().unwrap()),
        metrics.server("[fd00::a]:53".parse().unwrap()),
    );
    four.count(&Seen {
        zone: ZoneLabel::Root,
        writer: Writer::Forward,
        ..seen()
    });
    six.count(&Seen {
        zone: ZoneLabel::Dropped,
        transport: Transport::Tcp,
        ..seen()
    });
    let text = scrape(&registry);
    assert!(
        text.contains(
            r#"family="1",proto="udp",server="dns://10.96.0.10:53",type="A",view="",zone="."} 1"#
        ),
        "{text}"
    );
    assert!(text.contains(r#"family="2",proto="tcp",server="dns://[fd00::a]:53",type="A",view="",zone="dropped"} 1"#), "{text}");
}

#[test]
fn a_name_that_is_taken_is_an_error() {
    let registry = Registry::new();
    let domain = Name::from_ascii("cluster.local.").unwrap();
    assert!(Metrics::new(&registry, &domain).is_ok());
    assert!(Metrics::new(&registry, &domain).is_err());
}
