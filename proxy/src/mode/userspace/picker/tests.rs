use super::*;
use crate::model::Policy;
use std::collections::HashMap;

const TABLE: Stickiness = Stickiness::Table(100);

fn balancer(endpoints: u8, affinity: Option<u32>) -> Balancer {
    let cluster = (1..=endpoints).map(|n| Endpoint {
        ip: [10, 244, 0, n].into(),
        port: 80,
        local: n == 1,
    });
    let cluster: Vec<_> = cluster.collect();
    Balancer {
        fronts: Vec::new(),
        internal_policy: Policy::Cluster,
        external_policy: Policy::Local,
        affinity,
        source_ranges: Vec::new(),
        local: cluster.iter().filter(|e| e.local).copied().collect(),
        cluster,
        any_endpoint: true,
    }
}

fn client(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn last(endpoints: &[Endpoint]) -> Vec<u8> {
    let octet = |endpoint: &Endpoint| match endpoint.ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => 0,
    };
    endpoints.iter().map(octet).collect()
}

#[test]
fn every_endpoint_has_its_turn_and_the_next_ones_stand_by() {
    let now = Instant::now();
    let mut picker = Picker::starting_at(2);
    let b = balancer(4, None);
    let mut pick = |list| last(&picker.pick(&b, list, client(1), TABLE, now));
    assert_eq!(pick(List::Cluster), [3, 4, 1]);
    assert_eq!(pick(List::Local), [1]);
    assert_eq!(pick(List::Cluster), [4, 1, 2]);
    assert_eq!(pick(List::Cluster), [1, 2, 3]);
    assert_eq!(pick(List::Cluster), [2, 3, 4]);
    let none = balancer(0, None);
    assert!(
        picker
            .pick(&none, List::Cluster, client(1), TABLE, now)
            .is_empty()
    );
    // A shorter list, whatever the turn was.
    let two = balancer(2, None);
    assert_eq!(
        picker
            .pick(&two, List::Cluster, client(1), TABLE, now)
            .len(),
        2
    );
}

#[test]
fn an_endpoint_that_left_the_list_gets_no_new_connection() {
    let now = Instant::now();
    let mut picker = Picker::new();
    let mut b = balancer(3, Some(100));
    let first = picker.pick(&b, List::Cluster, client(1), TABLE, now)[0];
    picker.settle(&b, client(1), first, TABLE, now);
    b.cluster.retain(|endpoint| *endpoint != first);
    for _ in 0..10 {
        let picked = picker.pick(&b, List::Cluster, client(1), TABLE, now);
        assert!(!picked.contains(&first));
    }
}

#[test]
fn a_client_sticks_until_its_time_is_over_and_each_connection_restarts_it() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut picker = Picker::starting_at(0);
    let b = balancer(4, Some(100));
    let first = picker.pick(&b, List::Cluster, client(1), TABLE, at(0))[0];
    picker.settle(&b, client(1), first, TABLE, at(0));
    for seconds in [50, 140, 230] {
        // Others take their turns in between.
        picker.pick(&b, List::Cluster, client(2), TABLE, at(seconds));
        let picked = picker.pick(&b, List::Cluster, client(1), TABLE, at(seconds));
        assert_eq!(picked[0], first);
        assert_eq!(picked.len(), TRIES);
        assert!(!picked[1..].contains(&first));
    }
    let later = picker.pick(&b, List::Cluster, client(1), TABLE, at(330))[0];
    assert_ne!(later, first, "the round has moved on");
}

#[test]
fn a_client_whose_endpoint_failed_sticks_to_the_one_that_answered() {
    let now = Instant::now();
    let mut picker = Picker::starting_at(0);
    let b = balancer(4, Some(100));
    let picked = picker.pick(&b, List::Cluster, client(1), TABLE, now);
    picker.settle(&b, client(1), picked[2], TABLE, now);
    let again = picker.pick(&b, List::Cluster, client(1), TABLE, now);
    assert_eq!(again[0], picked[2]);
    picker.forget(client(1));
    let other = picker.pick(&b, List::Cluster, client(1), TABLE, now);
    assert_eq!(last(&other), [3, 4, 1]);
}

#[test]
fn the_table_of_clients_is_bounded_and_goes_with_the_affinity() {
    let start = Instant::now();
    let few = Stickiness::Table(2);
    let mut picker = Picker::starting_at(0);
    let b = balancer(4, Some(100));
    for n in 1..=3 {
        let now = start + Duration::from_secs(n.into());
        let picked = picker.pick(&b, List::Cluster, client(n), few, now);
        picker.settle(&b, client(n), picked[0], few, now);
    }
    let now = start + Duration::from_secs(4);
    assert_eq!(picker.former(&b, client(1), few, now), None);
    assert!(picker.former(&b, client(3), few, now).is_some());
    let without = balancer(4, None);
    picker.pick(&without, List::Cluster, client(3), few, now);
    assert!(picker.clients.is_none());
}

#[test]
fn by_hash_only_the_share_of_a_lost_endpoint_moves() {
    let now = Instant::now();
    let before = balancer(5, Some(100));
    let mut after = before.clone();
    let lost = after.cluster.remove(2);
    let mut share = HashMap::new();
    for n in 0..=255 {
        let pick = |b: &Balancer| {
            // A picker of its own each time: nothing is remembered.
            Picker::new().pick(b, List::Cluster, client(n), Stickiness::Hash, now)
        };
        let (was, is) = (pick(&before), pick(&after));
        *share.entry(was[0].ip).or_insert(0) += 1;
        if was[0] == lost {
            assert_eq!(is[0], was[1], "its clients go to their second choice");
        } else {
            assert_eq!(is[0], was[0]);
        }
    }
    assert!(
        share.len() == 5 && share.values().all(|clients| *clients > 25),
        "{share:?}"
    );
}
