use kernel::LinkKind;

use super::*;
use crate::cni::{Call, Env, IpConfig, Verb};

fn config(json: &str) -> Config {
    let mut value: serde_json::Value = serde_json::from_str(json).unwrap();
    value["name"] = "n".into();
    let call = Call::new(&Env::default(), Verb::Add, value).unwrap();
    Config::read(&call).unwrap()
}

fn result(ips: &[(&str, Option<&str>)]) -> CniResult {
    CniResult {
        ips: ips
            .iter()
            .map(|(ip, gateway)| {
                IpConfig::new(ip.parse().unwrap(), gateway.map(|g| g.parse().unwrap()))
            })
            .collect(),
        ..CniResult::default()
    }
}

fn bridge() -> Link {
    Link {
        index: 3,
        name: "br".into(),
        mac: Some(Mac([2, 0, 0, 0, 0, 3])),
        mtu: 1500,
        up: true,
        running: true,
        loopback: false,
        promisc: false,
        master: None,
        parent: None,
        parent_netns: None,
        txqlen: 1000,
        kind: LinkKind::Bridge {
            vlan_filtering: false,
        },
        port: None,
    }
}

const SPARE: Mac = Mac([2, 0, 0, 0, 0, 0xff]);

fn addresses(texts: &[&str]) -> Vec<Address> {
    texts
        .iter()
        .map(|text| Address::new(3, text.parse().unwrap()))
        .collect()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn text(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| change.describe(&|index| if index == 3 { "br" } else { "port" }.into()))
        .collect()
}

#[test]
fn gateways_are_found_or_given() {
    let mut result = result(&[("fd00::5/64", None), ("10.1.0.5/24", Some("10.1.0.254"))]);
    let own = gateways(&config(r#"{"isDefaultGateway": true}"#), &mut result);
    assert_eq!(own, nets(&["10.1.0.254/24", "fd00::1/64"]));
    assert_eq!(result.ips[0].gateway, Some("fd00::1".parse().unwrap()));
    assert!(result.ips.iter().all(|ip| ip.interface == Some(2)));
    let routes: Vec<_> = result
        .routes
        .iter()
        .map(|route| (route.dst.to_string(), route.gw.unwrap().to_string()))
        .collect();
    assert_eq!(
        routes,
        [
            ("::/0".to_owned(), "fd00::1".to_owned()),
            ("0.0.0.0/0".to_owned(), "10.1.0.254".to_owned())
        ]
    );
}

#[test]
fn a_default_route_of_the_ipam_plugin_stays_alone() {
    let mut result = result(&[("10.1.0.5/24", None)]);
    result.routes.push(Route {
        gw: Some("10.1.0.9".parse().unwrap()),
        ..Route::new("0.0.0.0/0".parse().unwrap())
    });
    gateways(&config(r#"{"isDefaultGateway": true}"#), &mut result);
    assert_eq!(result.routes.len(), 1);
}

#[test]
fn without_a_gateway_the_bridge_gets_no_address() {
    let mut result = result(&[("10.1.0.5/24", None)]);
    assert!(gateways(&config("{}"), &mut result).is_empty());
    assert_eq!(result.ips[0].gateway, None);
    assert_eq!(result.ips[0].interface, Some(2));
}

#[test]
fn only_a_gateway_bridge_keeps_an_address_of_its_own() {
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    assert_eq!(new_bridge(&config("{}"), mac).mac, None);
    let vlan = config(r#"{"isGateway": true, "vlan": 5}"#);
    assert_eq!(new_bridge(&vlan, mac).mac, None);
    assert_eq!(
        new_bridge(&config(r#"{"isGateway": true}"#), mac).mac,
        Some(mac)
    );
}

#[test]
fn a_bridge_gets_the_addresses_it_lacks() {
    let observed = addresses(&["10.1.0.1/24", "fd01::1/64"]);
    let wanted = nets(&["10.1.0.1/24", "fd00::1/64"]);
    assert_eq!(
        text(&gateway_addresses(&bridge(), &wanted, &observed, false, SPARE).unwrap()),
        [
            "add address fd00::1/64 dev br",
            "set link br address 02:00:00:00:00:03"
        ]
    );
    assert!(
        gateway_addresses(&bridge(), &nets(&["10.1.0.1/24"]), &observed, false, SPARE)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_bridge_that_lost_its_address_with_its_ports_gets_a_new_one() {
    let mut bridge = bridge();
    bridge.mac = Some(Mac([0; 6]));
    let changes = gateway_addresses(&bridge, &nets(&["10.1.0.1/24"]), &[], false, SPARE);
    assert_eq!(
        text(&changes.unwrap())[1],
        "set link br address 02:00:00:00:00:ff"
    );
}

#[test]
fn another_address_is_replaced_only_by_force() {
    for (there, wanted) in [("10.9.0.1/24", "10.1.0.1/24"), ("fd00::9/64", "fd00::1/64")] {
        let observed = addresses(&[there]);
        let wanted = nets(&[wanted]);
        let error = gateway_addresses(&bridge(), &wanted, &observed, false, SPARE).unwrap_err();
        assert!(error.msg.contains("forceAddress"), "{error}");
        let changes = text(&gateway_addresses(&bridge(), &wanted, &observed, true, SPARE).unwrap());
        assert_eq!(changes[0], format!("delete address {there} dev br"));
        assert_eq!(changes[1], format!("add address {} dev br", wanted[0]));
    }
}

#[test]
fn a_port_as_the_kernel_makes_it_needs_no_change() {
    assert!(port_options(&config("{}"), 7).is_empty());
    assert_eq!(
        text(&port_options(
            &config(r#"{"hairpinMode": true, "portIsolation": true}"#),
            7
        )),
        ["set link port hairpin on isolated on"]
    );
}

#[test]
fn vlans_of_a_port() {
    let default = [BridgeVlan {
        vid: 1,
        pvid: true,
        untagged: true,
    }];
    assert_eq!(
        text(&port_vlans(100, [200, 100], true, 7, &default)),
        [
            "add vlan dev port vid 100 pvid untagged",
            "add vlan dev port vid 200"
        ]
    );
    assert_eq!(
        text(&port_vlans(0, [1, 200], true, 7, &default)),
        ["add vlan dev port vid 200"]
    );
    assert_eq!(
        text(&port_vlans(100, [], false, 7, &default)),
        [
            "delete vlan dev port vid 1",
            "add vlan dev port vid 100 pvid untagged"
        ]
    );
}

#[test]
fn vlans_that_are_there_are_left_alone() {
    let there = [
        BridgeVlan {
            vid: 100,
            pvid: true,
            untagged: true,
        },
        BridgeVlan {
            vid: 200,
            pvid: false,
            untagged: false,
        },
    ];
    for preserve in [false, true] {
        assert!(port_vlans(100, [200], preserve, 7, &there).is_empty());
    }
}
