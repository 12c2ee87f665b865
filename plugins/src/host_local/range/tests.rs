use super::*;
use proptest::prelude::*;
use serde_json::json;

fn range(value: serde_json::Value) -> Result<Range, String> {
    Range::check(crate::cni::json::from_value(&value).unwrap())
}

fn set(ranges: &[(&str, &str, &str)]) -> RangeSet {
    let ranges = ranges.iter().map(|(subnet, start, end)| {
        range(json!({"subnet": subnet, "rangeStart": start, "rangeEnd": end})).unwrap()
    });
    RangeSet::check(ranges.collect()).unwrap()
}

fn walk(set: &RangeSet, last: Option<&str>) -> Vec<String> {
    set.candidates(last.map(|ip| ip.parse().unwrap()))
        .map(|(ip, _)| ip.to_string())
        .collect()
}

#[test]
fn what_is_not_written_is_filled_in() {
    let v4 = range(json!({"subnet": "10.1.0.0/24"})).unwrap();
    assert_eq!(v4.to_string(), "10.1.0.1-10.1.0.254");
    assert_eq!(v4.gateway.to_string(), "10.1.0.1");
    let v6 = range(json!({"subnet": "fd00::/120"})).unwrap();
    assert_eq!(v6.to_string(), "fd00::1-fd00::ff");
    let all = range(json!({"subnet": "0.0.0.0/0", "rangeStart": "0.0.0.0"})).unwrap();
    assert_eq!(all.to_string(), "0.0.0.0-255.255.255.254");
}

#[test]
fn what_does_not_fit_is_refused() {
    for (written, reason) in [
        (
            json!({"subnet": "10.1.0.0/31"}),
            "Network 10.1.0.0/31 too small to allocate from",
        ),
        (
            json!({"subnet": "fd00::/127"}),
            "Network fd00::/127 too small to allocate from",
        ),
        (
            json!({"subnet": "10.1.0.7/24"}),
            "Network has host bits set. For a subnet mask of length 24 the network address is 10.1.0.0",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}),
            "RangeStart 10.2.0.1 not in network 10.1.0.0/24",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}),
            "RangeEnd 10.1.0.8 not in network 10.1.0.0/24",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "rangeStart": "fd00::1"}),
            "RangeStart fd00::1 not in network 10.1.0.0/24",
        ),
        (json!({}), "range without subnet"),
    ] {
        assert_eq!(range(written).unwrap_err(), reason);
    }
}

#[test]
fn sets_are_of_one_family_and_do_not_overlap() {
    let v4 = range(json!({"subnet": "10.1.0.0/24"})).unwrap();
    let v6 = range(json!({"subnet": "fd00::/64"})).unwrap();
    assert_eq!(RangeSet::check(vec![]).unwrap_err(), "empty range set");
    assert_eq!(
        RangeSet::check(vec![v4.clone(), v6]).unwrap_err(),
        "mixed address families"
    );
    assert_eq!(
        RangeSet::check(vec![v4.clone(), v4]).unwrap_err(),
        "subnets 10.1.0.1-10.1.0.254 and 10.1.0.1-10.1.0.254 overlap"
    );
    let set = set(&[
        ("10.1.0.0/24", "10.1.0.2", "10.1.0.3"),
        ("10.1.0.0/24", "10.1.0.8", "10.1.0.9"),
    ]);
    assert_eq!(set.to_string(), "10.1.0.2-10.1.0.3,10.1.0.8-10.1.0.9");
}

#[test]
fn the_walk_goes_on_after_the_last_address_and_round() {
    let two = set(&[
        ("10.1.0.0/24", "10.1.0.1", "10.1.0.4"),
        ("10.2.0.0/24", "10.2.0.8", "10.2.0.9"),
    ]);
    assert_eq!(
        walk(&two, None),
        ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.2.0.8", "10.2.0.9"]
    );
    assert_eq!(
        walk(&two, Some("10.1.0.3")),
        ["10.1.0.4", "10.2.0.8", "10.2.0.9", "10.1.0.2", "10.1.0.3"]
    );
    assert_eq!(
        walk(&two, Some("10.2.0.9")),
        ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.2.0.8", "10.2.0.9"]
    );
    assert_eq!(walk(&two, Some("10.3.0.1")), walk(&two, None));
}

#[test]
fn the_ends_of_the_number_space_are_reached() {
    let top = set(&[(
        "ffff::/16",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    )]);
    assert_eq!(
        walk(&top, Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")).len(),
        2
    );
    let bottom = set(&[("0.0.0.0/8", "0.0.0.0", "0.0.0.2")]);
    assert_eq!(walk(&bottom, None), ["0.0.0.0", "0.0.0.2"]);
    assert_eq!(walk(&bottom, Some("0.0.0.0")), ["0.0.0.2", "0.0.0.0"]);
}

proptest! {
    #[test]
    fn every_address_comes_once_wherever_the_walk_begins(last in 0..20u8, a in 1..9u8, b in 9..16u8) {
        let one = format!("10.0.0.{a}");
        let two = format!("10.0.0.{b}");
        let set = set(&[("10.0.0.0/28", &one, "10.0.0.8"), ("10.0.0.0/28", &two, "10.0.0.15")]);
        let mut all: Vec<_> = set.candidates(Some(Ipv4Addr::new(10, 0, 0, last).into())).map(|(ip, _)| ip).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        prop_assert_eq!(all.len(), count);
        let expected = (u32::from(a)..=8).chain(u32::from(b)..=15).filter(|n| *n != 1).count();
        prop_assert_eq!(count, expected);
    }
}
