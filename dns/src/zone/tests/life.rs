//! Lists, restarts and changes.

use super::*;
use crate::model::{Endpoint, ObjectName, Service, Slice, Target};

fn of(text: &str) -> ObjectName {
    ObjectName {
        namespace: "shop".into(),
        name: text.into(),
    }
}

fn web(ip: &str) -> Event {
    Event::Service(Service {
        name: of("web"),
        target: Target::ClusterIps([ip.parse().unwrap()].into()),
        ports: [].into(),
        publish_not_ready: false,
    })
}

fn headless(text: &str, publish_not_ready: bool) -> Event {
    Event::Service(Service {
        name: of(text),
        target: Target::Headless,
        ports: [].into(),
        publish_not_ready,
    })
}

fn slice(text: &str, service: &str, ip: &str, ready: bool) -> Event {
    let addresses = [ip.parse().unwrap()].into();
    Event::Slice(Slice {
        name: of(text),
        service: service.into(),
        endpoints: [Endpoint {
            addresses,
            hostname: None,
            ready,
        }]
        .into(),
        ports: [].into(),
        changed: None,
    })
}

fn a(zone: &Zone, asked: &str) -> String {
    let answer = ask(zone, &format!("{asked}.cluster.local."), RecordType::A);
    answer
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ")
}

fn ptr(zone: &Zone, asked: &str) -> String {
    let answer = ask(zone, asked, RecordType::PTR);
    answer
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn nothing_is_denied_before_everything_is_listed() {
    let mut zone = zone_of(
        settings(),
        vec![Event::Restarted(Kind::Services), web("10.96.0.2")],
    );
    zone.apply(vec![Event::Listed(Kind::Services)]);
    assert!(!zone.is_complete());
    assert_eq!(a(&zone, "web.shop.svc"), "SERVFAIL");
    assert_eq!(a(&zone, "none.shop.svc"), "SERVFAIL");
    assert_eq!(ptr(&zone, "2.0.96.10.in-addr.arpa."), "SERVFAIL");
    assert_eq!(ptr(&zone, "8.8.8.8.in-addr.arpa."), "FOREIGN");
    // What needs no objects.
    assert_eq!(ask(&zone, "svc.cluster.local.", RecordType::A), "NODATA");
    assert_eq!(ask(&zone, "cluster.local.", RecordType::A), "NODATA");
    assert_eq!(a(&zone, "ns.dns"), "10.96.0.10");
    assert_eq!(a(&zone, "none"), "NXDOMAIN");
    zone.apply(vec![Event::Listed(Kind::Slices)]);
    assert!(zone.is_complete());
    assert_eq!(a(&zone, "web.shop.svc"), "10.96.0.2");
}

#[test]
fn a_new_list_takes_back_at_its_end_alone() {
    let mut zone = zone_of(
        settings(),
        vec![
            web("10.96.0.2"),
            headless("db", false),
            slice("db-1", "db", "10.244.0.1", true),
        ],
    );
    zone.apply(ALL.map(Event::Listed).into());
    assert_eq!(a(&zone, "db.shop.svc"), "10.244.0.1");
    zone.apply(vec![
        Event::Restarted(Kind::Services),
        headless("db", false),
    ]);
    assert!(zone.is_complete());
    assert_eq!(a(&zone, "web.shop.svc"), "10.96.0.2");
    // It begins anew: what the broken one told does not count.
    zone.apply(vec![Event::Restarted(Kind::Services), web("10.96.0.3")]);
    assert_eq!(a(&zone, "db.shop.svc"), "10.244.0.1");
    zone.apply(vec![Event::Listed(Kind::Services)]);
    assert_eq!(a(&zone, "web.shop.svc"), "10.96.0.3");
    assert_eq!(a(&zone, "db.shop.svc"), "NXDOMAIN");
    assert_eq!(ptr(&zone, "2.0.96.10.in-addr.arpa."), "NXDOMAIN");
    // The slice was not part of that list.
    zone.apply(vec![headless("db", false)]);
    assert_eq!(a(&zone, "db.shop.svc"), "10.244.0.1");
    zone.apply(vec![
        Event::Restarted(Kind::Slices),
        Event::Listed(Kind::Slices),
    ]);
    assert_eq!(a(&zone, "db.shop.svc"), "NXDOMAIN");
    assert_eq!(zone.counts(), [2, 0, 0]);
}

#[test]
fn what_a_new_list_tells_unchanged_stays() {
    let news = || {
        vec![
            web("10.96.0.2"),
            headless("db", false),
            slice("db-1", "db", "10.244.0.1", true),
        ]
    };
    let mut zone = zone_of(settings(), news());
    zone.apply(ALL.map(Event::Listed).into());
    for _ in 0..2 {
        zone.apply(ALL.map(Event::Restarted).into());
        zone.apply(news());
        zone.apply(ALL.map(Event::Listed).into());
        assert_eq!(a(&zone, "web.shop.svc"), "10.96.0.2");
        assert_eq!(a(&zone, "db.shop.svc"), "10.244.0.1");
        assert_eq!(zone.counts(), [2, 1, 0]);
    }
}

#[test]
fn a_service_changes_what_it_is() {
    let mut zone = zone_of(settings(), ALL.map(Event::Listed).into());
    zone.apply(vec![slice("web-1", "web", "10.244.0.1", false)]);
    assert_eq!(a(&zone, "web.shop.svc"), "NXDOMAIN");
    zone.apply(vec![headless("web", true)]);
    assert_eq!(a(&zone, "web.shop.svc"), "10.244.0.1");
    assert_eq!(
        ptr(&zone, "1.0.244.10.in-addr.arpa."),
        "10-244-0-1.web.shop.svc.cluster.local."
    );
    zone.apply(vec![headless("web", false)]);
    assert_eq!(a(&zone, "web.shop.svc"), "NXDOMAIN");
    assert_eq!(ptr(&zone, "1.0.244.10.in-addr.arpa."), "NXDOMAIN");
    zone.apply(vec![web("10.96.0.2")]);
    assert_eq!(a(&zone, "web.shop.svc"), "10.96.0.2");
    zone.apply(vec![web("10.96.0.3")]);
    assert_eq!(a(&zone, "web.shop.svc"), "10.96.0.3");
    assert_eq!(ptr(&zone, "2.0.96.10.in-addr.arpa."), "NXDOMAIN");
    assert_eq!(
        ptr(&zone, "3.0.96.10.in-addr.arpa."),
        "web.shop.svc.cluster.local."
    );
    zone.apply(vec![Event::ServiceGone(of("web"))]);
    assert_eq!(a(&zone, "web.shop.svc"), "NXDOMAIN");
    // The slice still belongs to the name.
    zone.apply(vec![headless("web", true)]);
    assert_eq!(a(&zone, "web.shop.svc"), "10.244.0.1");
}

#[test]
fn a_slice_moves_to_another_service() {
    let mut zone = zone_of(settings(), ALL.map(Event::Listed).into());
    zone.apply(vec![
        headless("a", false),
        headless("b", false),
        slice("x", "a", "10.244.0.1", true),
    ]);
    assert_eq!(
        (a(&zone, "a.shop.svc"), a(&zone, "b.shop.svc")),
        ("10.244.0.1".into(), "NXDOMAIN".into())
    );
    zone.apply(vec![slice("x", "b", "10.244.0.1", true)]);
    assert_eq!(
        (a(&zone, "a.shop.svc"), a(&zone, "b.shop.svc")),
        ("NXDOMAIN".into(), "10.244.0.1".into())
    );
    assert_eq!(
        ptr(&zone, "1.0.244.10.in-addr.arpa."),
        "10-244-0-1.b.shop.svc.cluster.local."
    );
}

#[test]
fn an_address_in_two_slices_stays_until_both_are_gone() {
    let mut zone = zone_of(settings(), ALL.map(Event::Listed).into());
    zone.apply(vec![
        headless("a", false),
        slice("x", "a", "10.244.0.1", true),
        slice("y", "a", "10.244.0.1", true),
    ]);
    zone.apply(vec![
        Event::SliceGone(of("x")),
        Event::SliceGone(of("never-seen")),
    ]);
    assert_eq!(a(&zone, "a.shop.svc"), "10.244.0.1");
    assert_eq!(
        ptr(&zone, "1.0.244.10.in-addr.arpa."),
        "10-244-0-1.a.shop.svc.cluster.local."
    );
    zone.apply(vec![Event::SliceGone(of("y"))]);
    assert_eq!(a(&zone, "a.shop.svc"), "NXDOMAIN");
    assert_eq!(ptr(&zone, "1.0.244.10.in-addr.arpa."), "NXDOMAIN");
}

#[test]
fn pods_of_a_first_list_are_awaited() {
    let settings = Settings {
        pods: PodMode::Verified,
        ..settings()
    };
    let mut zone = zone_of(
        settings,
        vec![Event::Listed(Kind::Services), Event::Listed(Kind::Slices)],
    );
    assert_eq!(a(&zone, "10-244-0-1.shop.pod"), "SERVFAIL");
    zone.apply(vec![Event::Listed(Kind::Pods)]);
    assert_eq!(a(&zone, "10-244-0-1.shop.pod"), "NXDOMAIN");
}

#[test]
fn a_zone_of_nothing_holds_nothing() {
    let mut zone = zone_of(settings(), cluster());
    assert_eq!(zone.counts(), [11, 11, 1]);
    // https, http, dns, dns-tcp, metrics, pg, stats, gossip, raft, and none.
    assert_eq!(zone.store.port_names(), 10);
    for kind in ALL {
        zone.apply(vec![Event::Restarted(kind), Event::Listed(kind)]);
    }
    assert_eq!(zone.counts(), [0, 0, 0]);
    assert!(zone.store.is_empty());
    assert_eq!(zone.store.port_names(), 0);
}
