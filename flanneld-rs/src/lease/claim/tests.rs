use proptest::prelude::*;

use super::*;
use crate::lease::{Lease, key};

const V4: &str = r#"{"Network":"10.3.0.0/16"}"#;
const DUAL: &str = r#"{"Network":"10.3.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48"}"#;
const V6: &str = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:42::/48"}"#;

fn config(text: &str) -> NetworkConfig {
    NetworkConfig::parse(text).unwrap()
}

fn subnet(text: &str) -> Subnet {
    key::parse(text).unwrap()
}

fn entry(text: &str, last: u8, revision: i64) -> Entry {
    let attrs = LeaseAttrs {
        public_ip: Some([192, 168, 66, last].into()),
        public_ipv6: Some(Ipv6Addr::from_bits(u128::from(last))),
        ..LeaseAttrs::default()
    };
    let lease = Ok(Lease {
        subnet: subnet(text),
        attrs,
    });
    Entry {
        key: text.to_owned(),
        lease,
        reserved: false,
        revision,
        created: revision,
    }
}

fn claimant(config: &NetworkConfig) -> Claimant<'_> {
    Claimant {
        config,
        public_ip: Some([192, 168, 66, 11].into()),
        public_ipv6: Some(Ipv6Addr::from_bits(11)),
        previous: None,
        published: None,
    }
}

fn adopt(text: &str, revision: i64, reserved: bool) -> Claim {
    Claim::Adopt {
        subnet: subnet(text),
        revision,
        reserved,
    }
}

fn create(text: &str) -> Claim {
    Claim::Create {
        subnet: subnet(text),
    }
}

#[test]
fn our_own_lease_is_found_by_its_address() {
    let config = config(V4);
    let entries = [entry("10.3.1.0-24", 12, 4), entry("10.3.9.0-24", 11, 5)];
    let plan = claimant(&config).plan(&entries, |_| 0).unwrap();
    assert_eq!(
        plan,
        Plan {
            delete: vec![],
            claim: adopt("10.3.9.0-24", 5, false)
        }
    );
}

#[test]
fn in_an_ipv6_only_network_the_ipv6_address_is_the_identity() {
    let config = config(V6);
    let mut other = entry("0.0.0.0-0&fd00:42:0:1::-64", 12, 4);
    let mut mine = entry("0.0.0.0-0&fd00:42:0:2::-64", 11, 5);
    for entry in [&mut other, &mut mine] {
        entry.lease.as_mut().unwrap().attrs.public_ip = None;
    }
    let claimant = Claimant {
        public_ip: None,
        ..claimant(&config)
    };
    let plan = claimant.plan(&[other.clone(), mine], |_| 0).unwrap();
    assert_eq!(plan.claim, adopt("0.0.0.0-0&fd00:42:0:2::-64", 5, false));
    let plan = claimant.plan(&[other], |_| 0).unwrap();
    assert_eq!(plan.claim, create("0.0.0.0-0&fd00:42:0:2::-64"));
}

#[test]
fn a_reservation_is_kept_without_expiry_by_its_owner_and_taken_by_nobody_else() {
    let config = config(V4);
    let reserved = Entry {
        reserved: true,
        ..entry("10.3.7.0-24", 11, 5)
    };
    let plan = claimant(&config)
        .plan(std::slice::from_ref(&reserved), |_| 0)
        .unwrap();
    assert_eq!(plan.claim, adopt("10.3.7.0-24", 5, true));

    let other = Claimant {
        public_ip: Some([192, 168, 66, 12].into()),
        previous: Some(subnet("10.3.7.0-24")),
        ..claimant(&config)
    };
    let Claim::Create { subnet: taken } = other.plan(&[reserved], |n| n - 1).unwrap().claim else {
        panic!("adopted a foreign reservation")
    };
    assert_ne!(taken, subnet("10.3.7.0-24"));
}

#[test]
fn a_lease_outside_the_configured_range_is_deleted_but_a_reservation_is_not() {
    let config = config(r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.5.0"}"#);
    let entries = [
        entry("10.3.1.0-24", 11, 4),
        Entry {
            reserved: true,
            ..entry("10.3.2.0-24", 11, 5)
        },
        entry("10.3.5.0-25", 11, 6),
    ];
    let plan = claimant(&config).plan(&entries, |_| 0).unwrap();
    let delete = vec![(subnet("10.3.1.0-24"), 4), (subnet("10.3.5.0-25"), 6)];
    assert_eq!(
        plan,
        Plan {
            delete,
            claim: create("10.3.5.0-24")
        }
    );
}

#[test]
fn the_previous_subnet_comes_before_a_random_one_unless_it_is_held() {
    let config = config(V4);
    let claimant = Claimant {
        previous: Some(subnet("10.3.200.0-24")),
        ..claimant(&config)
    };
    assert_eq!(
        claimant.plan(&[], |_| 0).unwrap().claim,
        create("10.3.200.0-24")
    );
    assert_eq!(
        claimant
            .plan(&[entry("10.3.200.0-24", 12, 1)], |_| 0)
            .unwrap()
            .claim,
        create("10.3.1.0-24")
    );
    assert_eq!(
        claimant
            .plan(&[entry("10.3.192.0-19", 12, 1)], |_| 0)
            .unwrap()
            .claim,
        create("10.3.1.0-24")
    );
}

#[test]
fn after_a_change_of_address_the_value_last_published_proves_ownership() {
    let config = config(V4);
    let entries = [entry("10.3.200.0-24", 99, 3)];
    let published = entries[0].lease.clone().unwrap().attrs;
    let claimant = Claimant {
        previous: Some(subnet("10.3.200.0-24")),
        published: Some(&published),
        ..claimant(&config)
    };
    assert_eq!(
        claimant.plan(&entries, |_| 0).unwrap().claim,
        adopt("10.3.200.0-24", 3, false)
    );
}

#[test]
fn an_unreadable_value_still_occupies_its_subnet() {
    let config = config(V4);
    let garbage = Entry {
        lease: Err("x".to_owned()),
        ..entry("10.3.1.0-24", 12, 1)
    };
    assert_eq!(
        claimant(&config).plan(&[garbage], |_| 0).unwrap().claim,
        create("10.3.2.0-24")
    );
}

#[test]
fn both_families_are_picked_apart_from_each_other() {
    let config = config(DUAL);
    let entries = [
        entry("10.3.1.0-24&fd00:42:0:1::-64", 12, 1),
        entry("10.3.2.0-24", 13, 1),
    ];
    assert_eq!(
        claimant(&config).plan(&entries, |_| 0).unwrap().claim,
        create("10.3.3.0-24&fd00:42:0:2::-64")
    );
}

#[test]
fn a_full_network_says_so() {
    let config = config(r#"{"Network":"10.3.0.0/16","SubnetMax":"10.3.2.0"}"#);
    let entries = [entry("10.3.1.0-24", 12, 1), entry("10.3.2.0-24", 13, 1)];
    let error = claimant(&config)
        .plan(&entries, |_| 0)
        .unwrap_err()
        .to_string();
    assert!(error.contains("10.3.0.0/16"), "{error}");
}

#[test]
fn the_later_of_two_overlapping_claims_yields() {
    let entries = [
        entry("10.3.1.0-24&fd00:42:0:1::-64", 12, 7),
        entry("10.3.2.0-24&fd00:42:0:1::-64", 11, 8),
    ];
    assert!(yields(&subnet("10.3.2.0-24&fd00:42:0:1::-64"), 8, &entries));
    assert!(!yields(
        &subnet("10.3.1.0-24&fd00:42:0:1::-64"),
        7,
        &entries
    ));
}

proptest! {
    #[test]
    fn what_is_created_is_always_free_and_in_range(held in proptest::collection::vec((any::<u8>(), 16u8..31), 0..300), seed: usize) {
        let config = config(V4);
        let entries: Vec<Entry> = held.iter().enumerate().map(|(i, (third, len))| {
            let net = ipnet::Ipv4Net::new([10, 3, *third, 64].into(), *len).unwrap().trunc();
            entry(&key::render(&Subnet { v4: Some(net), v6: None }), 12, i as i64)
        }).collect();
        if let Ok(plan) = claimant(&config).plan(&entries, |n| seed % n) {
            let Claim::Create { subnet } = plan.claim else { panic!("adopted a foreign lease") };
            prop_assert!(config.v4.unwrap().allows(subnet.v4.unwrap().into()));
            prop_assert!(entries.iter().all(|e| !e.subnet().unwrap().overlaps(&subnet)));
        }
    }
}
