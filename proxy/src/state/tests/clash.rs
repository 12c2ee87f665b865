//! Two Services that claim one address and port.

use super::*;

fn names(clashes: &[Clash]) -> Vec<String> {
    clashes.iter().map(ToString::to_string).collect()
}

fn aged(name: &str, ip: &str, created: i64) -> Service {
    Service {
        created,
        ..service(name, &[ip])
    }
}

#[test]
fn the_older_one_has_it_and_the_clash_is_told_once() {
    let mut state = state();
    let mut young = aged("a", "10.0.0.1", 20);
    // The other's cluster IP as one of its own external ones.
    young.external_ips = vec!["10.0.0.2".parse().unwrap(), "192.0.2.1".parse().unwrap()];
    state.apply(has(young));
    state.take(Family::V4);
    let mine = [
        "ClusterIp 10.0.0.1:80",
        "ExternalIp 10.0.0.2:80",
        "ExternalIp 192.0.2.1:80",
    ];
    assert_eq!(shown_fronts(&state, Family::V4, "a"), mine);
    assert_eq!(state.take_clash_news(), ClashNews::default());

    state.apply(has(aged("b", "10.0.0.2", 10)));
    let Some(Update::Ports(ports)) = state.take(Family::V4) else {
        panic!("no ports");
    };
    assert_eq!(
        ports.into_keys().collect::<Vec<_>>(),
        [port("a"), port("b")]
    );
    let left = ["ClusterIp 10.0.0.1:80", "ExternalIp 192.0.2.1:80"];
    assert_eq!(shown_fronts(&state, Family::V4, "a"), left);
    assert_eq!(
        shown_fronts(&state, Family::V4, "b"),
        ["ClusterIp 10.0.0.2:80"]
    );
    let clash =
        "external IP 10.0.0.2 port 80/tcp of shop/a:http belongs to shop/b:http, which is older";
    let news = state.take_clash_news();
    assert_eq!(names(&news.begun), [clash]);
    assert_eq!(state.take_clash_news(), ClashNews::default());

    // What does not touch the claim does not tell it again.
    state.apply(has_slice(slice("b-1", "b", &["10.1.0.1"])));
    state.take(Family::V4);
    assert_eq!(state.take_clash_news(), ClashNews::default());
    assert_eq!(state.clashes().count(), 1);

    state.apply(Event::ServiceGone(ObjectName::new("shop", "b")));
    state.take(Family::V4);
    assert_eq!(shown_fronts(&state, Family::V4, "a"), mine);
    assert_eq!(names(&state.take_clash_news().ended), [clash]);
    assert_eq!(state.clashes().count(), 0);
}

#[test]
fn of_one_age_the_name_decides_and_a_third_inherits() {
    let mut state = state();
    for name in ["c", "a", "b"] {
        let mut one = service(name, &[&format!("10.0.1.{}", name.as_bytes()[0])]);
        one.ports[0].node_port = Some(30080);
        state.apply(has(one));
    }
    state.take(Family::V4);
    let owners = |state: &State| {
        let has = |name: &&str| {
            let fronts = shown_fronts(state, Family::V4, name);
            fronts.contains(&"NodePort 30080".to_owned())
        };
        ["a", "b", "c"].into_iter().filter(has).collect::<Vec<_>>()
    };
    assert_eq!(owners(&state), ["a"]);
    assert_eq!(state.take_clash_news().begun.len(), 2);
    state.apply(Event::ServiceGone(ObjectName::new("shop", "a")));
    state.take(Family::V4);
    assert_eq!(owners(&state), ["b"]);
    let news = state.take_clash_news();
    // Both lost to a; now c loses to b.
    assert_eq!((news.begun.len(), news.ended.len()), (1, 2), "{news:?}");
    let clash = "IPv4 node port 30080/tcp of shop/c:http belongs to shop/b:http, which is older";
    assert_eq!(names(&news.begun), [clash]);
}

#[test]
fn ports_and_protocols_of_one_address_do_not_clash() {
    let mut state = state();
    let shared = vec!["192.0.2.1".parse().unwrap()];
    let mut one = service("a", &["10.0.0.1"]);
    one.load_balancer_ips = shared.clone();
    let mut other_port = service("b", &["10.0.0.2"]);
    other_port.load_balancer_ips = shared.clone();
    other_port.ports[0].port = 81;
    let mut other_protocol = service("c", &["10.0.0.3"]);
    other_protocol.load_balancer_ips = shared;
    other_protocol.ports[0].protocol = Protocol::Udp;
    for service in [one, other_port, other_protocol] {
        state.apply(has(service));
    }
    state.take(Family::V4);
    assert_eq!(state.clashes().count(), 0);
}

#[test]
fn an_address_that_is_given_twice_is_one_front() {
    let mut state = state();
    let mut one = service("a", &["10.0.0.1"]);
    one.external_ips = vec!["192.0.2.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
    one.load_balancer_ips = vec!["192.0.2.1".parse().unwrap()];
    state.apply(has(one));
    state.take(Family::V4);
    // The load balancer's: its source ranges have to hold.
    let expected = ["ClusterIp 10.0.0.1:80", "LoadBalancer 192.0.2.1:80"];
    assert_eq!(shown_fronts(&state, Family::V4, "a"), expected);
    assert_eq!(state.clashes().count(), 0);
}

#[test]
fn many_that_claim_one_spot_are_no_burden() {
    let mut state = state();
    for number in 0..3000_u16 {
        let [high, low] = number.to_be_bytes();
        let mut one = service(&format!("s{number:05}"), &[&format!("10.1.{high}.{low}")]);
        one.external_ips = vec!["192.0.2.1".parse().unwrap()];
        state.apply(has(one));
    }
    state.take(Family::V4);
    assert_eq!(state.clashes().count(), 2999);
    let front = "ExternalIp 192.0.2.1:80".to_owned();
    assert!(shown_fronts(&state, Family::V4, "s00000").contains(&front));
}
