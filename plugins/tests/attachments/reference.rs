//! Same inputs, ours and the reference's: results compared field by field, kernel state compared,
//! and either implementation undoing what the other did.

use serde_json::{Value, json};

use crate::{
    bed::{Args, Bed, Space, Whose, leases, merge},
    bridge,
};

/// A configuration for both, in a version that Debian's 1.1.1 knows.
fn config(bed: &Bed, plugin: &str, version: &str, subnets: &[&str], more: &Value) -> Value {
    let mut config = json!({"cniVersion": version, "name": "net1", "type": plugin});
    if !subnets.is_empty() {
        config["ipam"] = bed.host_local(subnets, json!({"routes": [{"dst": "10.200.0.0/16"}]}));
    }
    let mut more = more.clone();
    if let (Some(ipam), false) = (more.get_mut("ipam"), subnets.is_empty()) {
        let changes = ipam.take();
        merge(&mut config["ipam"], changes);
        more.as_object_mut().unwrap().remove("ipam");
    }
    merge(&mut config, more);
    config
}

/// A result without what is random (names, hardware addresses, the path of the namespace) and without
/// what 1.1.1 cannot say or says of nothing: the MTU, and an empty `dns`.
fn normal_result(result: &Value, container: &Space) -> Value {
    let mut text = result.to_string().replace(&container.path(), "NETNS");
    let empty = Vec::new();
    for interface in result["interfaces"].as_array().unwrap_or(&empty) {
        let name = interface["name"].as_str().unwrap();
        if name.starts_with("veth") {
            text = text.replace(name, "VETH");
        }
        if let Some(mac) = interface["mac"].as_str() {
            assert_eq!(mac.len(), 17, "{result}");
            // Which of its ports' addresses a bridge takes is a matter of chance.
            text = text.replace(mac, "MAC");
        }
    }
    let mut result: Value = serde_json::from_str(&text).unwrap();
    if result["dns"] == json!({}) {
        result.as_object_mut().unwrap().remove("dns");
    }
    for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
        interface.as_object_mut().unwrap().remove("mtu");
    }
    result
}

/// Links, addresses and routes of a namespace without what is random. (Not the transmit queue
/// length: 1.1.1 sets that of a veth to 0, which 1.9 calls a mistake and leaves to the kernel.)
fn normal_state(space: &Space) -> Vec<String> {
    let mut lines = Vec::new();
    for link in space.json("ip -d -j addr").as_array().unwrap() {
        let name = link["ifname"].as_str().unwrap();
        let name = if name.starts_with("veth") {
            "VETH"
        } else {
            name
        };
        let mut flags: Vec<_> = link["flags"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .filter(|flag| !["LOWER_UP", "NO-CARRIER"].contains(flag))
            .collect();
        flags.sort_unstable();
        let port = &link["linkinfo"]["info_slave_data"];
        lines.push(format!(
            "{name} mtu {} {flags:?} kind {} promisc {} master {} hairpin {} isolated {} learning {}",
            link["mtu"],
            link["linkinfo"]["info_kind"],
            link["promiscuity"],
            link["master"],
            port["hairpin"],
            port["isolated"],
            port["learning"],
        ));
        for address in link["addr_info"].as_array().unwrap() {
            if address["scope"] == "link" {
                continue;
            }
            lines.push(format!(
                "{name} {}/{} broadcast {} scope {} dynamic {} noprefixroute {}",
                address["local"],
                address["prefixlen"],
                address["broadcast"],
                address["scope"],
                address["dynamic"],
                address["noprefixroute"],
            ));
        }
    }
    for command in ["ip route", "ip -6 route"] {
        for line in space.must(command).lines() {
            let words: Vec<_> = line
                .split_ascii_whitespace()
                .filter(|word| *word != "linkdown")
                .map(|word| {
                    if word.starts_with("veth") {
                        "VETH"
                    } else {
                        word
                    }
                })
                .collect();
            if !line.starts_with("fe80::") {
                lines.push(words.join(" "));
            }
        }
    }
    lines.sort();
    lines
}

fn sysctls(space: &Space, link: &str, keys: &[&str]) -> Vec<String> {
    keys.iter()
        .map(|key| space.must(&format!("sysctl -e {}", key.replace("LINK", link))))
        .collect()
}

/// What one implementation makes of a configuration.
struct Made {
    result: Value,
    host: Vec<String>,
    container: Vec<String>,
    sysctls: Vec<String>,
    leases: String,
}

fn make(whose: Whose, plugin: &str, version: &str, subnets: &[&str], more: &Value) -> Made {
    let bed = Bed::new().unwrap();
    let container = bed.container();
    let args = Args::of("made", &container).with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=x");
    let config = config(&bed, plugin, version, subnets, more);
    let result = bed
        .call(whose, "ADD", plugin, &args, &config)
        .unwrap_or_else(|error| panic!("{whose:?} {config}: {error}"));
    let made = Made {
        result: normal_result(&result, &container),
        host: normal_state(&bed.host),
        container: normal_state(&container),
        sysctls: [
            sysctls(
                &bed.host,
                "br0",
                &[
                    "net/ipv4/ip_forward",
                    "net/ipv6/conf/all/forwarding",
                    "net/ipv6/conf/LINK/accept_ra",
                ],
            ),
            sysctls(
                &container,
                "eth0",
                &[
                    "net/ipv4/conf/LINK/arp_notify",
                    "net/ipv6/conf/LINK/accept_dad",
                    "net/ipv6/conf/LINK/disable_ipv6",
                    "net/ipv6/conf/lo/disable_ipv6",
                ],
            ),
        ]
        .concat(),
        leases: leases(&bed.data()),
    };
    bed.call(whose, "DEL", plugin, &args, &config).unwrap();
    made
}

fn compare(plugin: &str, version: &str, subnets: &[&str], more: &Value) {
    let ours = make(Whose::Ours, plugin, version, subnets, more);
    let reference = make(Whose::Reference, plugin, version, subnets, more);
    let case = format!("{plugin} {version} {subnets:?} {more}");
    assert_eq!(ours.result, reference.result, "result of {case}");
    assert_eq!(ours.host, reference.host, "host of {case}");
    assert_eq!(ours.container, reference.container, "container of {case}");
    assert_eq!(ours.sysctls, reference.sysctls, "sysctls of {case}");
    assert_eq!(ours.leases, reference.leases, "leases of {case}");
}

const V4: &[&str] = &["10.77.0.0/24"];
const DUAL: &[&str] = &["10.77.0.0/24", "fd77::/64"];

#[test]
fn bridge_in_every_version() {
    if Bed::with_reference().is_none() {
        return;
    }
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        compare(
            "bridge",
            version,
            V4,
            &json!({"bridge": "br0", "isGateway": true}),
        );
    }
}

#[test]
fn bridge_of_many_kinds() {
    if Bed::with_reference().is_none() {
        return;
    }
    let dns = json!({"nameservers": ["10.0.0.10"], "search": ["a.example"]});
    for (subnets, more) in [
        (V4, json!({})),
        (DUAL, json!({"isDefaultGateway": true, "bridge": "br0"})),
        (
            DUAL,
            json!({"isGateway": true, "bridge": "br0", "hairpinMode": true, "mtu": 1400}),
        ),
        (
            V4,
            json!({"isGateway": true, "bridge": "br0", "promiscMode": true, "dns": dns}),
        ),
        (
            V4,
            json!({"runtimeConfig": {"mac": "02:00:00:00:00:77"}, "bridge": "br0"}),
        ),
        (
            V4,
            json!({"bridge": "br0", "ipam": {"routes": [
                {"dst": "10.200.0.0/16", "gw": "10.77.0.9"},
                {"dst": "10.200.0.0/16", "gw": "10.77.0.8"}]}}),
        ),
        (V4, json!({"enabledad": true, "bridge": "br0"})),
        (&[], json!({"bridge": "br0", "mtu": 9000, "ipam": {}})),
    ] {
        compare("bridge", "1.0.0", subnets, &more);
    }
}

#[test]
fn bridge_with_vlans() {
    let Some(bed) = Bed::with_reference() else {
        return;
    };
    if !bridge::vlan::has_vlans(&bed) {
        return;
    }
    let more = json!({"bridge": "br0", "isGateway": true, "vlan": 100});
    compare("bridge", "1.0.0", V4, &more);
    let container = bed.container();
    let args = Args::of("vlan", &container);
    let config = config(&bed, "bridge", "1.0.0", V4, &more);
    let mut seen = Vec::new();
    for whose in [Whose::Ours, Whose::Reference] {
        let result = bed.call(whose, "ADD", "bridge", &args, &config).unwrap();
        seen.push(bridge::vlan::vlans(
            &bed,
            result["interfaces"][1]["name"].as_str().unwrap(),
        ));
        bed.call(whose, "DEL", "bridge", &args, &config).unwrap();
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn ptp_of_many_kinds() {
    if Bed::with_reference().is_none() {
        return;
    }
    compare("ptp", "0.4.0", V4, &json!({}));
    compare(
        "ptp",
        "1.0.0",
        DUAL,
        &json!({"mtu": 1400, "dns": {"domain": "a.example"}}),
    );
}

/// ADD, CHECK and DEL by every mixture of the two.
fn swap(plugin: &str, more: &Value) {
    let Some(bed) = Bed::with_reference() else {
        return;
    };
    use Whose::{Ours, Reference};
    for (adds, checks, deletes) in [(Ours, Reference, Reference), (Reference, Ours, Ours)] {
        let container = bed.container();
        let args = Args::of("swapped", &container);
        let mut config = config(&bed, plugin, "1.0.0", DUAL, more);
        // 1.1.1 does not find a route again that is written without its gateway.
        config["ipam"]["routes"] = json!([{"dst": "10.200.0.0/16", "gw": "10.77.0.1"}]);
        let result = bed.call(adds, "ADD", plugin, &args, &config).unwrap();
        config["prevResult"] = result;
        bed.call(checks, "CHECK", plugin, &args, &config)
            .unwrap_or_else(|error| panic!("{checks:?} CHECK of {adds:?}: {error}"));
        bed.call(deletes, "DEL", plugin, &args, &config).unwrap();
        assert!(!container.run("ip link show eth0").status.success());
        assert_eq!(leases(&bed.data()), "", "{deletes:?} DEL of {adds:?}");
        let rules = bed.host.must("iptables-save -t nat") + &bed.host.must("ip6tables-save -t nat");
        assert!(
            !rules.contains("swapped"),
            "{deletes:?} DEL of {adds:?}: {rules}"
        );
        let chains = bed.host.must("nft list ruleset bridge");
        assert!(
            !chains.contains("swapped"),
            "{deletes:?} DEL of {adds:?}: {chains}"
        );
    }
}

#[test]
fn a_bridge_attachment_changes_hands() {
    swap(
        "bridge",
        &json!({"bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "macspoofchk": true}),
    );
}

#[test]
fn a_ptp_attachment_changes_hands() {
    swap("ptp", &json!({"ipMasq": true}));
}

#[test]
fn an_address_is_given_once_by_both_on_one_network() {
    let Some(bed) = Bed::with_reference() else {
        return;
    };
    let config = config(
        &bed,
        "bridge",
        "1.0.0",
        V4,
        &json!({"bridge": "br0", "isGateway": true}),
    );
    let mut addresses = Vec::new();
    let containers: Vec<_> = (0..4).map(|_| bed.container()).collect();
    for (number, container) in containers.iter().enumerate() {
        let whose = if number % 2 == 0 {
            Whose::Ours
        } else {
            Whose::Reference
        };
        let args = Args::of(&format!("c{number}"), container);
        let result = bed.call(whose, "ADD", "bridge", &args, &config).unwrap();
        addresses.push(result["ips"][0]["address"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        addresses,
        [
            "10.77.0.2/24",
            "10.77.0.3/24",
            "10.77.0.4/24",
            "10.77.0.5/24"
        ]
    );
    assert!(containers[0].pings("10.77.0.5"));
}
