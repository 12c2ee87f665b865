use super::*;
use crate::cni::Version;
use proptest::prelude::*;
use serde_json::json;

fn full() -> CniResult {
    CniResult {
        interfaces: vec![
            Interface {
                name: "cni0".into(),
                mac: "0a:58:0a:01:00:01".into(),
                ..Interface::default()
            },
            Interface {
                name: "eth0".into(),
                mac: "0a:58:0a:01:00:02".into(),
                mtu: 1450,
                sandbox: "/run/netns/x".into(),
                socket_path: "/run/s".into(),
                pci_id: "0000:00:1f.6".into(),
            },
        ],
        ips: vec![
            IpConfig {
                interface: Some(1),
                address: "10.1.0.2/24".parse().unwrap(),
                gateway: Some("10.1.0.1".parse().unwrap()),
            },
            IpConfig::new("fd00::2/64".parse().unwrap(), None),
        ],
        routes: vec![
            Route::new("0.0.0.0/0".parse().unwrap()),
            Route {
                gw: Some("fd00::1".parse().unwrap()),
                mtu: 1400,
                advmss: 1360,
                priority: 5,
                table: Some(0),
                scope: Some(253),
                ..Route::new("::/0".parse().unwrap())
            },
        ],
        dns: Dns {
            nameservers: vec!["10.1.0.1".into()],
            domain: "a&b".into(),
            ..Dns::default()
        },
    }
}

#[test]
fn form_of_0_2_0() {
    assert_eq!(
        full().render(Version::V020).unwrap(),
        r#"{
    "cniVersion": "0.2.0",
    "ip4": {
        "ip": "10.1.0.2/24",
        "gateway": "10.1.0.1",
        "routes": [
            {
                "dst": "0.0.0.0/0"
            }
        ]
    },
    "ip6": {
        "ip": "fd00::2/64",
        "routes": [
            {
                "dst": "::/0",
                "gw": "fd00::1"
            }
        ]
    },
    "dns": {
        "nameservers": [
            "10.1.0.1"
        ],
        "domain": "a\u0026b"
    }
}"#
    );
}

#[test]
fn form_of_0_4_0() {
    assert_eq!(
        full().render(Version::V040).unwrap(),
        r#"{
    "cniVersion": "0.4.0",
    "interfaces": [
        {
            "name": "cni0",
            "mac": "0a:58:0a:01:00:01"
        },
        {
            "name": "eth0",
            "mac": "0a:58:0a:01:00:02",
            "sandbox": "/run/netns/x"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 1,
            "address": "10.1.0.2/24",
            "gateway": "10.1.0.1"
        },
        {
            "version": "6",
            "address": "fd00::2/64"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "dst": "::/0",
            "gw": "fd00::1",
            "mtu": 1400,
            "advmss": 1360,
            "priority": 5,
            "table": 0,
            "scope": 253
        }
    ],
    "dns": {
        "nameservers": [
            "10.1.0.1"
        ],
        "domain": "a\u0026b"
    }
}"#
    );
}

#[test]
fn form_of_1_1_0_is_sorted_and_leaves_an_empty_dns_out() {
    let mut result = full();
    result.interfaces.remove(0);
    result.ips.truncate(1);
    result.routes.remove(0);
    result.dns = Dns::default();
    assert_eq!(
        result.render(Version::V110).unwrap(),
        r#"{
    "cniVersion": "1.1.0",
    "interfaces": [
        {
            "mac": "0a:58:0a:01:00:02",
            "mtu": 1450,
            "name": "eth0",
            "pciID": "0000:00:1f.6",
            "sandbox": "/run/netns/x",
            "socketPath": "/run/s"
        }
    ],
    "ips": [
        {
            "address": "10.1.0.2/24",
            "gateway": "10.1.0.1",
            "interface": 1
        }
    ],
    "routes": [
        {
            "advmss": 1360,
            "dst": "::/0",
            "gw": "fd00::1",
            "mtu": 1400,
            "priority": 5,
            "scope": 253,
            "table": 0
        }
    ]
}"#
    );
    let empty = CniResult::default();
    assert_eq!(
        empty.render(Version::V100).unwrap(),
        "{\n    \"cniVersion\": \"1.0.0\"\n}"
    );
    assert_eq!(
        empty.render(Version::V031).unwrap(),
        "{\n    \"cniVersion\": \"0.3.1\",\n    \"dns\": {}\n}"
    );
    assert_eq!(empty.render(Version::V010), Err(FormError::NoAddress));
}

#[test]
fn mapped_addresses_are_ipv4_and_empty_gateways_none() {
    let value = json!({"cniVersion": "1.0.0",
        "ips": [{"address": "::ffff:10.0.0.2/120", "gateway": ""}]});
    let result = CniResult::parse(&value, Version::CURRENT).unwrap();
    assert_eq!(
        result.ips,
        [IpConfig::new("10.0.0.2/24".parse().unwrap(), None)]
    );
}

#[test]
fn bad_results_name_the_key() {
    let parse = |value| {
        CniResult::parse(&value, Version::V110)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        parse(json!({"ips": [{"address": "10.0.0.2"}]})),
        "ips[0].address: invalid CIDR address: 10.0.0.2"
    );
    assert_eq!(
        parse(json!({"ips": [{}]})),
        "ips[0]: missing field `address`"
    );
    assert_eq!(
        parse(json!({"routes": [{"gw": "x"}]})),
        "routes[0].gw: invalid IP address: x"
    );
    assert_eq!(
        parse(json!({"cniVersion": "7.0.0"})),
        "unsupported CNI result version \"7.0.0\""
    );
}

/// The result as its reader sees it.
fn seen_as(result: &CniResult, version: Version) -> Result<CniResult, FormError> {
    let value = json::value(result.render(version)?.as_bytes())?;
    CniResult::parse(&value, Version::CURRENT)
}

fn cidr() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0..=32u8).prop_map(|(a, p)| IpNet::new(
            std::net::Ipv4Addr::from(a).into(),
            p
        )
        .unwrap()),
        (any::<u64>(), 0..=128u8).prop_map(|(a, p)| {
            let bits = (0xfd00_u128 << 112) | u128::from(a);
            IpNet::new(std::net::Ipv6Addr::from(bits).into(), p).unwrap()
        }),
    ]
}

prop_compose! {
    fn any_result()(
        interfaces in prop::collection::vec(("[a-z]{1,8}", "[a-f0-9:]{0,17}", any::<u32>(), "\\PC{0,9}"), 0..3),
        ips in prop::collection::vec((prop::option::of(0..9usize), cidr(), prop::option::of(cidr())), 0..4),
        routes in prop::collection::vec((cidr(), prop::option::of(cidr()), any::<u32>(), prop::option::of(any::<u32>()), prop::option::of(any::<u8>())), 0..4),
        domain in "\\PC{0,9}",
    ) -> CniResult {
        CniResult {
            interfaces: interfaces.into_iter().map(|(name, mac, mtu, sandbox)| Interface { name, mac, mtu, sandbox, ..Interface::default() }).collect(),
            ips: ips.into_iter().map(|(interface, address, gateway)| IpConfig { interface, address, gateway: gateway.map(|g| g.addr()) }).collect(),
            routes: routes.into_iter().map(|(dst, gw, n, table, scope)| Route { gw: gw.map(|g| g.addr()), mtu: n, advmss: n / 2, priority: n / 3, table, scope, ..Route::new(dst) }).collect(),
            dns: Dns { domain, ..Dns::default() },
        }
    }
}

proptest! {
    #[test]
    fn new_versions_lose_nothing(result in any_result()) {
        for version in [Version::V100, Version::V110] {
            prop_assert_eq!(&seen_as(&result, version).unwrap(), &result);
        }
    }

    #[test]
    fn old_versions_settle_after_one_pass(result in any_result()) {
        for version in Version::ALL {
            let Ok(once) = seen_as(&result, version) else {
                prop_assert!(version < Version::V030 && result.ips.is_empty());
                continue;
            };
            prop_assert_eq!(&seen_as(&once, version).unwrap(), &once);
            prop_assert_eq!(once.render(version).unwrap(), result.render(version).unwrap());
        }
    }

    #[test]
    fn any_json_is_read_or_refused_without_a_panic(text in r#"\{"ips":\[\{"address":"[0-9a-f:./]{0,20}","gateway":"[0-9a-f:.]{0,12}"\}\]\}"#) {
        if let Ok(value) = json::value(text.as_bytes()) {
            let _ = CniResult::parse(&value, Version::V110);
        }
    }
}
