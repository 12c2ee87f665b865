use super::*;
use crate::cni::{Env, Verb};
use serde_json::json;

fn load(mut config: Value) -> Result<Config> {
    config["name"] = "cbr0".into();
    Config::load(&Call::new(&Env::default(), Verb::Add, config)?)
}

fn planned(config: Value, env: &str) -> Delegate {
    plan(
        &load(config).unwrap(),
        &SubnetEnv::parse(env).unwrap(),
        "cbr0",
    )
    .unwrap()
}

const ENV: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

#[test]
fn kube_flannels_conflist_entry_becomes_a_bridge() {
    let got = planned(
        json!({
            "cniVersion": "0.3.1", "type": "flannel",
            "delegate": {"hairpinMode": true, "isDefaultGateway": true},
        }),
        ENV,
    );
    assert_eq!(got.plugin, "bridge");
    assert_eq!(
        got.config,
        json!({
            "cniVersion": "0.3.1",
            "hairpinMode": true,
            "ipMasq": false,
            "ipam": {
                "ranges": [[{"subnet": "10.244.1.0/24"}]],
                "routes": [{"dst": "10.244.0.0/16"}],
                "type": "host-local",
            },
            "isDefaultGateway": true,
            "isGateway": true,
            "mtu": 1450,
            "name": "cbr0",
            "type": "bridge",
        })
    );
}

#[test]
fn what_the_operator_wrote_wins() {
    let got = planned(
        json!({
            "cniVersion": "",
            "delegate": {"type": "ipvlan", "mtu": 900, "ipMasq": false, "runtimeConfig": {"old": 1}},
            "ipam": {"type": "other", "dataDir": "/x", "ranges": "ignored", "routes": [{"dst": "1.0.0.0/8", "gw": "10.244.1.9"}]},
            "runtimeConfig": {"portMappings": []},
        }),
        "FLANNEL_NETWORK=10.1.0.0/16,10.2.0.0/16\nFLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_SUBNET=10.1.3.1/24\nFLANNEL_IPV6_SUBNET=fd00:0:0:3::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
    );
    assert_eq!(
        got.config,
        json!({
            "ipMasq": false,
            "ipam": {
                "type": "other",
                "dataDir": "/x",
                "ranges": [[{"subnet": "10.1.3.0/24"}], [{"subnet": "fd00:0:0:3::/64"}]],
                "routes": [
                    {"dst": "1.0.0.0/8", "gw": "10.244.1.9"},
                    {"dst": "10.1.0.0/16"}, {"dst": "10.2.0.0/16"}, {"dst": "fd00::/48"}
                ],
            },
            "mtu": 900,
            "name": "cbr0",
            "runtimeConfig": {"portMappings": []},
            "type": "ipvlan",
        })
    );
    let masq = planned(json!({}), &ENV.replace("IPMASQ=true", "IPMASQ=false"));
    assert_eq!(masq.config["ipMasq"], true);
}

#[test]
fn what_flannel_sets_itself_is_refused() {
    for (config, code, text) in [
        (
            json!({"delegate": {"name": "x"}}),
            7,
            "must not have 'name' field",
        ),
        (
            json!({"delegate": {"ipam": {}}}),
            7,
            "must not have 'ipam' field",
        ),
        (
            json!({"delegate": {"type": 3}}),
            7,
            "must have (string) 'type' field",
        ),
        (
            json!({"ipam": {"routes": [{"dst": "x"}]}}),
            7,
            "failed to parse ipam.routes: routes[0].dst: invalid CIDR address: x",
        ),
        (
            json!({"delegate": []}),
            6,
            "decode network config: delegate: invalid type: sequence",
        ),
        (
            json!({"subnetFile": 1}),
            6,
            "decode network config: subnetFile: ",
        ),
    ] {
        let error = load(config).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.msg.contains(text), "{error}");
    }
}

#[test]
fn paths_have_flannels_defaults() {
    let config = load(json!({})).unwrap();
    assert_eq!(config.subnet_file.to_str(), Some("/run/flannel/subnet.env"));
    assert_eq!(config.data_dir.to_str(), Some("/var/lib/cni/flannel"));
}
