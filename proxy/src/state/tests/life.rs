//! Lists and relists, updates and their copies, counts.

use super::*;
use crate::model::NodeInfo;

#[test]
fn nothing_goes_before_the_new_list_is_whole() {
    let mut state = state();
    assert!(!state.ready());
    let start = [
        Event::Restarted(Kind::Services),
        has(service("a", &["10.0.0.1"])),
        has(service("b", &["10.0.0.2"])),
        Event::Listed(Kind::Services),
        Event::Restarted(Kind::Slices),
        has_slice(slice("a-1", "a", &["10.1.0.1"])),
        has_slice(slice("a-2", "a", &["10.1.0.2"])),
    ];
    start.into_iter().for_each(|event| state.apply(event));
    assert!(!state.ready());
    state.apply(Event::Listed(Kind::Slices));
    assert!(state.ready());
    assert!(matches!(state.take(Family::V4), Some(Update::All(_))));
    assert_eq!(state.take(Family::V4), None);

    // A list that breaks off half-way, and begins again.
    state.apply(Event::Restarted(Kind::Services));
    state.apply(has(service("b", &["10.0.0.2"])));
    state.apply(Event::Restarted(Kind::Services));
    assert_eq!(state.take(Family::V4), None);
    state.apply(has(service("a", &["10.0.0.1"])));
    state.apply(Event::Listed(Kind::Services));
    let Some(Update::Ports(ports)) = state.take(Family::V4) else {
        panic!("b stays");
    };
    assert_eq!(ports, BTreeMap::from([(port("b"), None)]));

    state.apply(Event::Restarted(Kind::Slices));
    state.apply(has_slice(slice("a-2", "a", &["10.1.0.2"])));
    state.apply(Event::Listed(Kind::Slices));
    state.take(Family::V4);
    let balancer = &state.wanted(Family::V4).unwrap().balancers[&port("a")];
    assert_eq!(shown(&balancer.cluster), ["10.1.0.2:8080"]);
}

#[test]
fn the_own_node_goes_when_a_list_does_not_name_it() {
    let mut state = state();
    state.apply(Event::Restarted(Kind::Node));
    state.apply(Event::Node(Some(NodeInfo::default())));
    state.apply(Event::Listed(Kind::Node));
    assert!(state.node().is_some());
    state.apply(Event::Restarted(Kind::Node));
    assert!(state.node().is_some());
    state.apply(Event::Listed(Kind::Node));
    assert!(state.node().is_none());
}

#[test]
fn a_slice_may_move_to_another_service() {
    let mut state = state();
    state.apply(has(service("a", &["10.0.0.1"])));
    state.apply(has(service("b", &["10.0.0.2"])));
    state.apply(has_slice(slice("x", "a", &["10.1.0.1"])));
    state.take(Family::V4);
    state.apply(has_slice(slice("x", "b", &["10.1.0.1"])));
    state.take(Family::V4);
    let cluster = |name| {
        let balancers = &state.wanted(Family::V4).unwrap().balancers;
        shown(&balancers[&port(name)].cluster)
    };
    assert!(cluster("a").is_empty());
    assert_eq!(cluster("b"), ["10.1.0.1:8080"]);
}

#[test]
fn a_copy_follows_by_updates() {
    let mut state = state();
    let mut copy = None;
    state.apply(has(service("a", &["10.0.0.1"])));
    let changed = state.take(Family::V4).unwrap().apply(&mut copy);
    assert_eq!(changed, Changed::All);
    state.apply(has(service("b", &["10.0.0.2"])));
    state.apply(Event::ServiceGone(ObjectName::new("shop", "a")));
    let changed = state.take(Family::V4).unwrap().apply(&mut copy);
    assert_eq!(changed, Changed::Ports([port("a"), port("b")].into()));
    assert_eq!(copy.as_ref(), state.wanted(Family::V4));
    assert!(state.take(Family::V4).is_none());
}

#[test]
fn another_site_is_everything_and_the_same_site_is_nothing() {
    let [site, _] = sites();
    let mut state = state();
    state.take(Family::V4);
    state.set_site(site.clone());
    assert_eq!(state.take(Family::V4), None);
    state.set_site(Site {
        masquerade_all: true,
        ..site.clone()
    });
    assert!(matches!(state.take(Family::V4), Some(Update::All(_))));

    // Networks of the API server join those of the settings, and outlive another site.
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let nets = vec![net("10.0.0.0/16"), net("fd00::/112")];
    state.apply(Event::ServiceCidrs(nets));
    let site = Site {
        service_cidrs: vec![net("10.9.0.0/16")],
        ..site
    };
    state.set_site(site);
    let expected = [net("10.0.0.0/16"), net("10.9.0.0/16")];
    assert_eq!(
        state.wanted(Family::V4).unwrap().site.service_cidrs,
        expected
    );
    assert_eq!(
        state.wanted(Family::V6).unwrap().site.service_cidrs,
        [net("fd00::/112")]
    );
}

#[test]
fn another_node_has_other_local_endpoints() {
    let [site, _] = sites();
    let mut state = state();
    state.apply(has(service("a", &["10.0.0.1"])));
    state.apply(has_slice(slice("a-1", "a", &["10.1.0.1 on=n2"])));
    state.take(Family::V4);
    state.set_site(Site {
        node: "n2".into(),
        ..site
    });
    state.take(Family::V4);
    let balancer = &state.wanted(Family::V4).unwrap().balancers[&port("a")];
    assert_eq!(shown(&balancer.cluster), ["10.1.0.1:8080!"]);
}

#[test]
fn changes_and_triggers_are_counted_per_family() {
    let mut state = state();
    let both = service("a", &["10.0.0.1", "fd00::1"]);
    state.apply(has(both.clone()));
    state.apply(has(both));
    let mut one = slice("a-1", "a", &["10.1.0.1"]);
    one.triggered = Some(1_000);
    state.apply(has_slice(one.clone()));
    state.apply(has_slice(one));
    let counts = |services_pending, services_total, endpoints_pending, endpoints_total| Counts {
        services_pending,
        services_total,
        endpoints_pending,
        endpoints_total,
    };
    assert_eq!(state.counts(Family::V4), counts(1, 1, 1, 1));
    assert_eq!(state.counts(Family::V6), counts(1, 1, 0, 0));
    assert_eq!(state.take_triggers(Family::V4), [1_000]);
    assert!(state.take_triggers(Family::V4).is_empty());
    state.take(Family::V4);
    assert_eq!(state.counts(Family::V4), counts(0, 1, 0, 1));
    state.apply(Event::SliceGone(ObjectName::new("shop", "a-1")));
    state.apply(Event::SliceGone(ObjectName::new("shop", "a-1")));
    assert_eq!(state.counts(Family::V4), counts(0, 1, 1, 2));
}

#[test]
fn a_family_that_is_not_served_is_left_alone() {
    let [site, _] = sites();
    let mut state = State::new([site]);
    state.apply(has(service("a", &["10.0.0.1", "fd00::1"])));
    state.apply(has_slice(slice("a-2", "a", &["fd01::1"])));
    assert!(state.take(Family::V4).is_some());
    assert_eq!(state.take(Family::V6), None);
    assert!(state.wanted(Family::V6).is_none());
    assert_eq!(state.counts(Family::V6), Counts::default());
}

#[test]
fn nothing_is_kept_of_what_is_gone() {
    let mut state = state();
    for round in 0..3 {
        let name = format!("a{round}");
        state.apply(has(service(&name, &["10.0.0.1"])));
        state.apply(has_slice(slice("x", &name, &["10.1.0.1"])));
        state.take(Family::V4);
        state.apply(Event::ServiceGone(ObjectName::new("shop", &name)));
        state.take(Family::V4);
    }
    state.apply(Event::SliceGone(ObjectName::new("shop", "x")));
    state.take(Family::V4);
    assert!(state.store.is_empty());
    assert!(
        state
            .families
            .values()
            .all(|family| family.wanted().balancers.is_empty())
    );
}
