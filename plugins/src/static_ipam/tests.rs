use super::*;
use crate::cni::{Env, Verb};
use proptest::prelude::*;
use serde_json::{Value, json};

fn call(verb: Verb, args: &str, mut config: Value) -> Call {
    let env = Env::new([("CNI_ARGS", args), ("CNI_IFNAME", "eth0")]);
    let object = config.as_object_mut().unwrap();
    object.insert("name".into(), "n".into());
    object.entry("cniVersion").or_insert_with(|| "1.0.0".into());
    Call::new(&env, verb, config).unwrap()
}

fn add(args: &str, config: Value) -> Result<Vec<String>> {
    let result = StaticIpam.add(&call(Verb::Add, args, config))?;
    let shown = result.ips.iter().map(|ip| match ip.gateway {
        Some(gateway) => format!("{} via {gateway}", ip.address),
        None => ip.address.to_string(),
    });
    Ok(shown.collect())
}

#[test]
fn written_addresses_and_those_of_cni_args_add_up() {
    let config =
        json!({"ipam": {"addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]}});
    assert_eq!(
        add(
            "IP=10.2.0.5/24, fd00::5/64;GATEWAY=10.1.0.9,10.2.0.9",
            config
        )
        .unwrap(),
        [
            "10.1.0.5/24 via 10.1.0.1",
            "10.2.0.5/24 via 10.2.0.9",
            "fd00::5/64"
        ]
    );
    assert_eq!(add("", json!({"ipam": {}})).unwrap(), [""; 0]);
}

#[test]
fn addresses_given_at_run_time_replace_the_others() {
    let mut config = json!({
        "ipam": {"addresses": [{"address": "10.1.0.5/24"}]},
        "args": {"cni": {"ips": ["10.7.0.5/24"]}},
    });
    assert_eq!(
        add("IP=10.9.0.5/24", config.clone()).unwrap(),
        ["10.7.0.5/24"]
    );
    config["runtimeConfig"] = json!({"ips": ["10.8.0.5/24"]});
    assert_eq!(add("", config).unwrap(), ["10.8.0.5/24"]);
}

#[test]
fn errors_say_what_is_wrong_where() {
    for (args, config, code, text) in [
        ("", json!({}), 7, "IPAM config missing 'ipam' key"),
        (
            "",
            json!({"ipam": {"addresses": [{"address": "10.1.0.5"}]}}),
            7,
            "the 'address' field is expected to be in CIDR notation, got: '10.1.0.5'",
        ),
        (
            "",
            json!({"ipam": {"addresses": [{"address": "10.1.0.5/24", "gateway": 1}]}}),
            6,
            "decode network config: ipam.addresses[0].gateway: invalid type: integer `1`, expected a string",
        ),
        (
            "IP=10.1.0.5",
            json!({"ipam": {}}),
            4,
            "ARGS: invalid CIDR 10.1.0.5",
        ),
        (
            "GATEWAY=zz",
            json!({"ipam": {}}),
            4,
            "ARGS: invalid gateway address: zz",
        ),
        (
            "IP=10.1.0.5/24,10.2.0.5/24",
            json!({"cniVersion": "0.2.0", "ipam": {}}),
            7,
            "CNI version 0.2.0 does not support more than 1 address per family",
        ),
    ] {
        let error = add(args, config).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (code, text));
    }
}

#[test]
fn check_wants_every_address_with_its_gateway() {
    let check = |prev: Value| {
        let config = json!({
            "ipam": {"addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]},
            "prevResult": prev,
        });
        StaticIpam.check(&call(Verb::Check, "", config))
    };
    let ips = |ips: Value| json!({"cniVersion": "1.0.0", "ips": ips});
    assert_eq!(
        check(ips(
            json!([{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}])
        )),
        Ok(())
    );
    let other = check(ips(
        json!([{"address": "10.1.0.5/24", "gateway": "10.1.0.2"}]),
    ))
    .unwrap_err();
    assert_eq!(
        other.msg,
        "static: Failed to match addr 10.1.0.5 on interface eth0"
    );
    assert!(check(ips(json!([]))).is_err());
    assert_eq!(check(Value::Null).unwrap_err().code, 7);
}

proptest! {
    #[test]
    fn any_args_are_read_or_refused_without_a_panic(ip in "[0-9a-f.:/, ]{0,24}", gateway in "[0-9a-f.:, ]{0,16}") {
        let _ = parse_args(&format!("IP={ip};GATEWAY={gateway}"));
    }
}
