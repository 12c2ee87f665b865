use std::net::IpAddr;

use proptest::prelude::*;

use super::backend::{Extension, Udp, UdpPath, Vxlan, VxlanPath};
use super::*;

fn range(text: &str) -> SubnetRange {
    NetworkConfig::parse(text).unwrap().v4.unwrap()
}

fn refused(text: &str) -> String {
    match NetworkConfig::parse(text) {
        Ok(config) => panic!("{text} was taken: {config:?}"),
        Err(error) => error.to_string(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_bare_network_gets_flannels_defaults() {
    let config = NetworkConfig::parse(r#"{"Network":"10.3.0.0/16"}"#).unwrap();
    let v4 = config.v4.unwrap();
    assert_eq!(
        (v4.subnet_len, v4.min, v4.max),
        (24, ip("10.3.1.0"), ip("10.3.255.0"))
    );
    assert_eq!(config.backend, BackendConfig::Udp(Udp::default()));
    assert_eq!((config.v6, config.nftables), (None, false));
}

#[test]
fn the_length_follows_a_small_network() {
    assert_eq!(range(r#"{"Network":"10.3.0.0/22"}"#).subnet_len, 24);
    let small = range(r#"{"Network":"10.1.1.77/24"}"#);
    assert_eq!(
        (small.subnet_len, small.min, small.max),
        (26, ip("10.1.1.64"), ip("10.1.1.192"))
    );
    assert_eq!(small.network.to_string(), "10.1.1.0/24");
    assert_eq!(range(r#"{"Network":"10.1.1.0/28"}"#).subnet_len, 30);
}

#[test]
fn keys_match_in_any_case() {
    let text = r#"{"network":"10.3.0.0/16","SUBNETLEN":28,"subnetmin":"10.3.5.0","SubnetMax":"10.3.8.0",
        "backend":{"type":"VXLAN","vni":7,"port":4789,"directrouting":true,"mtu":1400}}"#;
    let config = NetworkConfig::parse(text).unwrap();
    let v4 = config.v4.unwrap();
    assert_eq!(
        (v4.subnet_len, v4.min, v4.max),
        (28, ip("10.3.5.0"), ip("10.3.8.0"))
    );
    let vxlan = Vxlan {
        vni: 7,
        port: Some(4789),
        mtu: Some(1400),
        gbp: false,
        learning: false,
        direct_routing: true,
        data_path: VxlanPath::Auto,
    };
    assert_eq!(config.backend, BackendConfig::Vxlan(vxlan));
}

#[test]
fn ranges_that_do_not_fit_are_refused_in_flannels_words() {
    for (keys, words) in [
        (
            r#""Network":"10.3.0.0/16","SubnetLen":31"#,
            "SubnetLen must be less than /31",
        ),
        (
            r#""Network":"10.3.0.0/16","SubnetLen":17"#,
            "network must be able to accommodate at least four subnets: SubnetLen 17 is less than 18 for 10.3.0.0/16",
        ),
        (
            r#""Network":"10.3.0.0/29""#,
            "Minimum useful network prefix is /28",
        ),
        (
            r#""Network":"10.3.0.0/16","SubnetMin":"10.4.0.0""#,
            "SubnetMin is not in the range of the Network",
        ),
        (
            r#""Network":"10.3.0.0/16","SubnetMax":"10.4.0.0""#,
            "SubnetMax is not in the range of the Network",
        ),
        (
            r#""Network":"10.3.0.0/16","SubnetMin":"10.3.0.8""#,
            "SubnetMin is not on a SubnetLen boundary: 10.3.0.8",
        ),
        (
            r#""Network":"10.3.0.0/16","SubnetMin":"10.3.9.0","SubnetMax":"10.3.8.0""#,
            "no subnet to lease",
        ),
        ("", "please define a correct Network parameter"),
        (
            r#""Network":"0.0.0.0/0""#,
            "please define a correct Network parameter",
        ),
        (r#""EnableIPv4":false"#, "neither EnableIPv4 nor EnableIPv6"),
        (
            r#""EnableIPv4":false,"EnableIPv6":true"#,
            "please define a correct IPv6Network parameter",
        ),
        (
            r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"::/0""#,
            "please define a correct IPv6Network",
        ),
        (
            r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/125""#,
            "Minimum useful network prefix is /124",
        ),
    ] {
        let error = refused(&format!("{{{keys}}}"));
        assert!(error.contains(words), "{keys}: {error}");
    }
}

#[test]
fn wrong_types_name_the_key() {
    for (text, word) in [
        ("", "JSON"),
        ("null", "JSON"),
        (r#"{"Network":"10.3.0.0/16"} x"#, "JSON"),
        (r#"{"Network":7}"#, "Network"),
        (r#"{"Network":null}"#, "Network"),
        (r#"{"Network":"10.3.0.0"}"#, "Network"),
        (r#"{"Network":"fd00::/48"}"#, "Network"),
        (r#"{"Network":"10.3.0.0/16","SubnetMin":null}"#, "SubnetMin"),
        (r#"{"Network":"10.3.0.0/16","SubnetLen":24.5}"#, "SubnetLen"),
        (r#"{"Network":"10.3.0.0/16","SubnetLen":-1}"#, "SubnetLen"),
        (
            r#"{"Network":"10.3.0.0/16","EnableIPv6":"yes"}"#,
            "EnableIPv6",
        ),
        (
            r#"{"Network":"10.3.0.0/16","Backend":{}}"#,
            "Type is missing",
        ),
        (
            r#"{"Network":"10.3.0.0/16","Backend":null}"#,
            "Type is missing",
        ),
        (r#"{"Network":"10.3.0.0/16","Backend":"vxlan"}"#, "Backend"),
        (
            r#"{"Network":"10.3.0.0/16","Backend":{"Type":"magic"}}"#,
            "unknown Type \"magic\"",
        ),
        (
            r#"{"Network":"10.3.0.0/16","Backend":{"Type":"wireguard"}}"#,
            "not in this release",
        ),
        (
            r#"{"Network":"10.3.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}"#,
            "VNI",
        ),
        (
            r#"{"Network":"10.3.0.0/16","Backend":{"Type":"vxlan","VNI":"1"}}"#,
            "VNI",
        ),
        (
            r#"{"Network":"10.3.0.0/16","Backend":{"Type":"udp","Port":70000}}"#,
            "Port",
        ),
        (
            r#"{"Network":"10.3.0.0/16","Backend":{"Type":"udp","DataPath":"fast"}}"#,
            "DataPath: \"fast\" is none of auto, ebpf, offload, plain",
        ),
        (
            r#"{"Network":"10.3.0.0/16","Backend":{"Type":"udp","DataPath":1}}"#,
            "DataPath",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn null_for_other_keys_means_unset() {
    let text = r#"{"Network":"10.3.0.0/16","SubnetLen":null,"EnableIPv4":null,"IPv6SubnetMin":null,"EnableIPv6":true,
        "IPv6Network":"fd00:42::/48"}"#;
    let v6 = NetworkConfig::parse(text).unwrap().v6.unwrap();
    assert_eq!(
        (v6.subnet_len, v6.min, v6.max),
        (64, ip("fd00:42:0:1::"), ip("fd00:42:0:ffff::"))
    );
}

#[test]
fn ipv6_alone_is_enough() {
    let text = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:42::/120","Backend":{"Type":"host-gw"}}"#;
    let config = NetworkConfig::parse(text).unwrap();
    assert_eq!(config.v4, None);
    let v6 = config.v6.unwrap();
    assert_eq!(
        (v6.subnet_len, v6.min, v6.max),
        (122, ip("fd00:42::40"), ip("fd00:42::c0"))
    );
    assert_eq!(config.backend, BackendConfig::HostGw);
}

#[test]
fn commands_of_extension_are_read() {
    let text = r#"{"Network":"10.3.0.0/16","Backend":{"Type":"extension","SubnetAddCommand":"ip route add $SUBNET via $PUBLIC_IP"}}"#;
    let wanted = Extension {
        subnet_add: "ip route add $SUBNET via $PUBLIC_IP".to_owned(),
        ..Extension::default()
    };
    assert_eq!(
        NetworkConfig::parse(text).unwrap().backend,
        BackendConfig::Extension(wanted)
    );
}

#[test]
fn vxlan_has_data_paths_of_its_own() {
    let parse = |keys: &str| {
        let text = format!(r#"{{"Network":"10.3.0.0/16","Backend":{{"Type":"vxlan"{keys}}}}}"#);
        NetworkConfig::parse(&text)
    };
    let path = |config: NetworkConfig| match config.backend {
        BackendConfig::Vxlan(vxlan) => vxlan.data_path,
        other => panic!("{other:?}"),
    };
    for (keys, wanted) in [
        ("", VxlanPath::Auto),
        (r#","DataPath":"auto""#, VxlanPath::Auto),
        (r#","dataPath":"Kernel""#, VxlanPath::Kernel),
        (r#","DATAPATH":"tun""#, VxlanPath::Tun),
    ] {
        assert_eq!(path(parse(keys).unwrap()), wanted, "{keys}");
    }
    let kernel = parse(r#","DataPath":"kernel""#).unwrap();
    let own = kernel.clone().with_data_path(Some("tun")).unwrap();
    assert_eq!(path(own.clone()), VxlanPath::Tun);
    // The other one takes over device and entries by itself.
    assert!(!own.backend.supersedes(&kernel.backend));
    assert_eq!(
        parse(r#","DataPath":"ebpf""#).unwrap_err().to_string(),
        "network config: DataPath: \"ebpf\" is none of auto, kernel, tun"
    );
    assert_eq!(
        kernel
            .with_data_path(Some("plain"))
            .unwrap_err()
            .to_string(),
        "--data-path: \"plain\" is none of auto, kernel, tun"
    );
}

#[test]
fn the_data_path_is_read_in_any_case_and_a_node_may_have_its_own() {
    let config = |keys: &str| {
        NetworkConfig::parse(&format!(
            r#"{{"Network":"10.3.0.0/16","Backend":{{{keys}}}}}"#
        ))
        .unwrap()
    };
    let udp = |data_path| {
        BackendConfig::Udp(Udp {
            port: 8285,
            data_path,
        })
    };
    for (keys, path) in [
        (r#""Type":"udp""#, UdpPath::Auto),
        (r#""Type":"udp","DataPath":"""#, UdpPath::Auto),
        (r#""Type":"udp","datapath":"EBPF""#, UdpPath::Ebpf),
        (r#""Type":"udp","DataPath":"offload""#, UdpPath::Offload),
        (r#""Type":"udp","DataPath":"plain""#, UdpPath::Plain),
    ] {
        assert_eq!(config(keys).backend, udp(path), "{keys}");
    }
    let own = |keys, name| config(keys).with_data_path(Some(name));
    let of = r#""Type":"udp","DataPath":"ebpf""#;
    assert_eq!(own(of, "Plain").unwrap().backend, udp(UdpPath::Plain));
    assert_eq!(config(of).with_data_path(None).unwrap(), config(of));
    for (keys, words) in [
        (
            of,
            "--data-path: \"fast\" is none of auto, ebpf, offload, plain",
        ),
        (
            r#""Type":"host-gw""#,
            "--data-path: the host-gw backend has one data path only",
        ),
    ] {
        assert_eq!(own(keys, "fast").unwrap_err().to_string(), words);
    }
}

#[test]
fn another_backend_or_vni_supersedes_and_other_keys_do_not() {
    let backend = |keys: &str| {
        NetworkConfig::parse(&format!(
            r#"{{"Network":"10.3.0.0/16","Backend":{{{keys}}}}}"#
        ))
        .unwrap()
        .backend
    };
    let vxlan = backend(r#""Type":"vxlan""#);
    assert!(!backend(r#""Type":"vxlan","MTU":1400,"Port":4789"#).supersedes(&vxlan));
    assert!(backend(r#""Type":"vxlan","VNI":2"#).supersedes(&vxlan));
    assert!(backend(r#""Type":"host-gw""#).supersedes(&vxlan));
    assert!(
        !backend(r#""Type":"udp","Port":1,"DataPath":"plain""#)
            .supersedes(&backend(r#""Type":"udp""#))
    );
}

#[test]
fn the_range_allows_exactly_its_subnets() {
    let range = range(r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.5.0","SubnetMax":"10.3.7.0"}"#);
    let all: Vec<String> = range.subnets().map(|net| net.to_string()).collect();
    assert_eq!(all, ["10.3.5.0/24", "10.3.6.0/24", "10.3.7.0/24"]);
    assert!(range.subnets().all(|net| range.allows(net)));
    for other in ["10.3.4.0/24", "10.3.8.0/24", "10.3.5.0/25", "fd00::/24"] {
        assert!(!range.allows(other.parse().unwrap()), "{other}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_panic(text in ".*") {
        let _ = NetworkConfig::parse(&text);
    }

    #[test]
    fn any_numbers_give_a_range_inside_its_network_or_an_error(base: u32, prefix in 0u8..=32, len in proptest::option::of(0u8..40), min in proptest::option::of(any::<u32>()), max in proptest::option::of(any::<u32>())) {
        let addr = std::net::Ipv4Addr::from_bits;
        let mut text = format!(r#"{{"Network":"{}/{prefix}""#, addr(base));
        for (key, value) in [("SubnetLen", len.map(|l| l.to_string())), ("SubnetMin", min.map(|m| format!("\"{}\"", addr(m)))), ("SubnetMax", max.map(|m| format!("\"{}\"", addr(m))))] {
            if let Some(value) = value {
                text += &format!(",\"{key}\":{value}");
            }
        }
        text.push('}');
        if let Ok(config) = NetworkConfig::parse(&text) {
            let range = config.v4.unwrap();
            for net in range.subnets().take(50) {
                prop_assert!(range.network.contains(&net) && range.allows(net));
            }
            prop_assert!(range.subnets().next().is_some());
        }
    }
}
