use super::*;
use crate::cni::{Env, Verb};
use proptest::prelude::*;
use serde_json::{Value, json};

fn load(args: &str, mut config: Value) -> Result<Config> {
    let env = Env::new([("CNI_ARGS", args)]);
    let object = config.as_object_mut().unwrap();
    object.insert("name".into(), "n".into());
    object.entry("cniVersion").or_insert_with(|| "1.0.0".into());
    Config::load(&Call::new(&env, Verb::Add, config)?)
}

fn ranges(config: &Config) -> Vec<String> {
    config.ranges.iter().map(ToString::to_string).collect()
}

#[test]
fn sets_given_at_run_time_come_first_then_the_old_form() {
    let config = load(
        "",
        json!({
            "ipam": {
                "ranges": [[{"subnet": "10.3.0.0/24"}]],
                "subnet": "10.2.0.0/24", "rangeEnd": "10.2.0.9", "Gateway": "10.2.0.3"
            },
            "runtimeConfig": {"ipRanges": [[{"subnet": "10.1.0.0/24"}]]}
        }),
    )
    .unwrap();
    assert_eq!(
        ranges(&config),
        [
            "10.1.0.1-10.1.0.254",
            "10.2.0.1-10.2.0.9",
            "10.3.0.1-10.3.0.254"
        ]
    );
}

#[test]
fn requested_addresses_come_from_three_places_once_each() {
    let config = load(
        "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.0.7/24",
        json!({
            "ipam": {"subnet": "10.1.0.0/24"},
            "args": {"cni": {"ips": ["10.1.0.8", "::ffff:10.1.0.7"]}},
            "runtimeConfig": {"ips": ["10.1.0.9/16"]}
        }),
    )
    .unwrap();
    let requested: Vec<_> = config.requested.iter().map(ToString::to_string).collect();
    assert_eq!(requested, ["10.1.0.7", "10.1.0.8", "10.1.0.9"]);
}

#[test]
fn errors_say_what_is_wrong_where() {
    for (args, config, code, text) in [
        ("", json!({}), 7, "IPAM config missing 'ipam' key"),
        ("", json!({"ipam": {}}), 7, "no IP ranges specified"),
        (
            "",
            json!({"ipam": {"rangeStart": "10.1.0.1"}}),
            7,
            "no IP ranges specified",
        ),
        (
            "",
            json!({"ipam": {"ranges": [[]]}}),
            7,
            "invalid range set 0: empty range set",
        ),
        (
            "",
            json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]]}}),
            7,
            "range set 0 overlaps with 1",
        ),
        (
            "",
            json!({"ipam": {"ranges": [[{"subnet": "10.1.0/24"}]]}}),
            6,
            "decode network config: ipam.ranges[0][0].subnet: invalid CIDR address: 10.1.0/24",
        ),
        (
            "",
            json!({"ipam": {"dataDir": 3, "routes": "x"}}),
            6,
            "decode network config: ipam.routes: invalid type: string \"x\", expected a sequence",
        ),
        (
            "IP=x",
            json!({"ipam": {}}),
            4,
            "ARGS: IP=x: invalid IP address x",
        ),
        (
            "FOO=1",
            json!({"ipam": {}}),
            4,
            "ARGS: unknown args [\"FOO=1\"]",
        ),
        (
            "",
            json!({"cniVersion": "0.2.0", "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}}),
            7,
            "CNI version 0.2.0 does not support more than 1 address per family",
        ),
    ] {
        let error = load(args, config).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (code, text));
    }
}

#[test]
fn a_range_from_a_file_is_used_when_none_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("range");
    std::fs::write(&path, r#"{"subnet": "10.5.0.0/24"}"#).unwrap();
    let config = load("", json!({"ipam": {"rangeFromFile": path}})).unwrap();
    assert_eq!(ranges(&config), ["10.5.0.1-10.5.0.254"]);
    std::fs::write(&path, "{}").unwrap();
    assert_eq!(
        load("", json!({"ipam": {"rangeFromFile": path}}))
            .unwrap_err()
            .code,
        7
    );
    let absent = load("", json!({"ipam": {"rangeFromFile": "/no/such"}}));
    assert_eq!(absent.unwrap_err().code, 5);
}

proptest! {
    #[test]
    fn any_subnet_text_is_read_or_refused_without_a_panic(subnet in "[0-9a-f.:/]{0,24}", start in "[0-9a-f.:]{0,16}") {
        let _ = load("", json!({"ipam": {"subnet": subnet, "rangeStart": start}}));
    }

    #[test]
    fn any_ipv4_subnet_large_enough_has_a_free_address(bits in any::<u32>(), len in 0..=30u8) {
        let net = ipnet::Ipv4Net::new(bits.into(), len).unwrap().trunc();
        let config = load("", json!({"ipam": {"subnet": net.to_string()}})).unwrap();
        let (first, range) = config.ranges[0].candidates(None).next().unwrap();
        prop_assert!(range.contains(first) && first != range.gateway);
    }
}
