use super::*;
use crate::host_local::range::Range;
use serde_json::json;

fn set(subnet: &str) -> RangeSet {
    let written = crate::cni::json::from_value(&json!({"subnet": subnet})).unwrap();
    RangeSet::check(vec![Range::check(written).unwrap()]).unwrap()
}

fn holder(id: &str, ifname: Option<&str>) -> Holder {
    Holder {
        container_id: id.into(),
        ifname: ifname.map(str::to_owned),
    }
}

fn held(ip: &str, by: Option<Holder>) -> Reservation {
    Reservation {
        ip: ip.parse().unwrap(),
        holder: by,
    }
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn chosen(
    sets: &[RangeSet],
    requested: &[&str],
    reservations: &[Reservation],
) -> Result<Vec<String>, String> {
    let last = vec![None; sets.len()];
    plan(
        sets,
        &ips(requested),
        reservations,
        &last,
        &holder("me", Some("eth0")),
    )
    .map(|list| list.iter().map(|a| a.address().to_string()).collect())
    .map_err(|e| e.msg)
}

#[test]
fn the_next_free_address_is_chosen_and_the_gateway_is_not() {
    let sets = [set("10.1.0.0/24"), set("fd00::/64")];
    assert_eq!(
        chosen(&sets, &[], &[]).unwrap(),
        ["10.1.0.2/24", "fd00::2/64"]
    );
    let other = || Some(holder("other", Some("eth0")));
    let taken = [held("10.1.0.2", other()), held("10.1.0.3", None)];
    assert_eq!(chosen(&sets[..1], &[], &taken).unwrap(), ["10.1.0.3/24"]);
}

#[test]
fn the_choice_goes_on_after_the_last() {
    let sets = [set("10.1.0.0/29")];
    let last = [Some("10.1.0.6".parse().unwrap())];
    let got = plan(&sets, &[], &[], &last, &holder("me", Some("eth0"))).unwrap();
    assert_eq!(got[0].ip.to_string(), "10.1.0.2");
    assert_eq!(got[0].gateway.to_string(), "10.1.0.1");
}

#[test]
fn a_full_set_is_named() {
    let sets = [set("10.1.0.0/30")];
    let taken = [held("10.1.0.2", Some(holder("other", None)))];
    assert_eq!(
        chosen(&sets, &[], &taken).unwrap_err(),
        "failed to allocate for range 0: no IP addresses available in range set: 10.1.0.1-10.1.0.2"
    );
    assert!(any_free(&sets, &taken).is_err());
    assert!(any_free(&sets, &[held("10.1.0.2", None)]).is_ok());
}

#[test]
fn requested_addresses_go_to_the_set_that_has_them() {
    let sets = [set("10.1.0.0/24"), set("fd00::/64")];
    assert_eq!(
        chosen(&sets, &["fd00::9", "10.1.0.9"], &[]).unwrap(),
        ["10.1.0.9/24", "fd00::9/64"]
    );
    assert_eq!(
        chosen(&sets, &["10.1.0.1"], &[]).unwrap_err(),
        "failed to allocate for range 0: requested ip 10.1.0.1 is subnet's gateway"
    );
    assert_eq!(
        chosen(
            &sets,
            &["10.1.0.9"],
            &[held("10.1.0.9", Some(holder("x", None)))]
        )
        .unwrap_err(),
        "failed to allocate for range 0: requested IP address 10.1.0.9 is not available in range set 10.1.0.1-10.1.0.254"
    );
    assert_eq!(
        chosen(&sets, &["10.1.0.9", "10.1.0.8", "10.9.9.9"], &[]).unwrap_err(),
        "failed to allocate all requested IPs: 10.1.0.8 10.9.9.9"
    );
}

#[test]
fn a_second_add_of_the_same_interface_is_refused() {
    let sets = [set("10.1.0.0/24")];
    for by in [holder("me", Some("eth0")), holder("me", None)] {
        assert_eq!(
            chosen(&sets, &[], &[held("10.1.0.7", Some(by))]).unwrap_err(),
            "failed to allocate for range 0: 10.1.0.7 has been allocated to me, duplicate allocation is not allowed"
        );
    }
    let elsewhere = [
        held("10.1.0.2", Some(holder("me", Some("eth1")))),
        held("10.2.0.7", Some(holder("me", Some("eth0")))),
    ];
    assert_eq!(chosen(&sets, &[], &elsewhere).unwrap(), ["10.1.0.3/24"]);
}
