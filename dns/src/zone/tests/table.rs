//! The table of the specification, and what we add to it, as cases.

use std::fmt::Write as _;

use super::*;

#[test]
fn the_table_holds() {
    let zone = zone_of(settings(), cluster());
    let table = include_str!("../../../tests/data/answers.txt");
    let serial = zone.store.serial().to_string();
    let mut answered = String::new();
    let mut questions = 0;
    for line in table.lines() {
        if line.starts_with(' ') {
            continue;
        }
        let _ = writeln!(answered, "{line}");
        if let Some((asked, kind)) = line.split_once(' ').filter(|_| !line.starts_with('#')) {
            questions += 1;
            for line in show(&zone.resolve(&name(asked), kind.parse().unwrap())) {
                let line = line.replace(&format!(" {serial} 7200"), " SERIAL 7200");
                let _ = writeln!(answered, "{line}");
            }
        }
    }
    assert!(questions > 100, "{questions}");
    let differing = answered
        .lines()
        .zip(table.lines())
        .position(|(one, other)| one != other);
    if let Some(at) = differing {
        let around = |text: &str| {
            text.lines()
                .skip(at.saturating_sub(3))
                .take(8)
                .collect::<Vec<_>>()
                .join("\n")
        };
        panic!(
            "line {}:\n{}\n-- in the table:\n{}",
            at + 1,
            around(&answered),
            around(table)
        );
    }
    assert_eq!(answered.lines().count(), table.lines().count());
}

#[test]
fn pods_that_must_exist() {
    let zone = zone_of(
        Settings {
            pods: PodMode::Verified,
            ..settings()
        },
        cluster(),
    );
    for (asked, kind, answer) in [
        (
            "10-244-1-60.batch.pod.cluster.local.",
            RecordType::A,
            "10-244-1-60.batch.pod.cluster.local. 5 IN A 10.244.1.60",
        ),
        (
            "FD00-244-1--60.batch.pod.cluster.local.",
            RecordType::AAAA,
            "FD00-244-1--60.batch.pod.cluster.local. 5 IN AAAA fd00:244:1::60",
        ),
        (
            "10-244-1-60.batch.pod.cluster.local.",
            RecordType::AAAA,
            "NODATA",
        ),
        (
            "10-244-1-60.shop.pod.cluster.local.",
            RecordType::A,
            "NXDOMAIN",
        ),
        (
            "10-244-1-61.batch.pod.cluster.local.",
            RecordType::A,
            "NXDOMAIN",
        ),
        ("batch.pod.cluster.local.", RecordType::A, "NODATA"),
        ("none.pod.cluster.local.", RecordType::A, "NXDOMAIN"),
        ("pod.cluster.local.", RecordType::A, "NODATA"),
    ] {
        assert_eq!(ask(&zone, asked, kind), answer, "{asked} {kind}");
    }
    let pod = zone.pod("10.244.1.60".parse().unwrap()).unwrap();
    assert_eq!(pod.to_string(), "batch/job-7");
    assert_eq!(zone.pod("10.244.1.61".parse().unwrap()), None);
}

#[test]
fn pods_without_names() {
    let zone = zone_of(
        Settings {
            pods: PodMode::Disabled,
            ..settings()
        },
        cluster(),
    );
    assert_eq!(
        ask(&zone, "10-244-1-60.batch.pod.cluster.local.", RecordType::A),
        "NXDOMAIN"
    );
    assert_eq!(
        ask(&zone, "batch.pod.cluster.local.", RecordType::A),
        "NXDOMAIN"
    );
    assert_eq!(ask(&zone, "pod.cluster.local.", RecordType::A), "NODATA");
}

#[test]
fn negative_answers_name_the_zone_of_the_question() {
    let zone = zone_of(settings(), cluster());
    let apex = |asked: &str| zone.soa_for(&name(asked)).name.to_string();
    assert_eq!(zone.soa().name.to_string(), "cluster.local.");
    assert_eq!(apex("x.svc.CLUSTER.local."), "cluster.local.");
    assert_eq!(apex("9.0.96.10.in-addr.arpa."), "96.10.in-addr.arpa.");
    assert_eq!(apex("9.0.100.10.in-addr.arpa."), "100.10.in-addr.arpa.");
    assert_eq!(
        apex("1.2.0.0.4.4.2.0.0.0.d.f.ip6.arpa."),
        "4.4.2.0.0.0.d.f.ip6.arpa."
    );
    assert_eq!(apex("10.2.0.192.in-addr.arpa."), "10.2.0.192.in-addr.arpa.");
}
