//! An ADD that fails, at whichever stage, leaves the host as it was.

use serde_json::{Value, json};

use crate::{
    bed::{Args, Bed, Space, merge},
    bridge,
};

/// An ADD that must fail with `words` and leave no trace.
fn fails(bed: &Bed, container: &Space, plugin: &str, config: &Value, args: &Args, words: &str) {
    let before = (bed.footprint(), container.must("ip -o addr"));
    let message = bed.refused("ADD", plugin, args, config);
    assert!(message.contains(words), "{config}: {message}");
    let after = (bed.footprint(), container.must("ip -o addr"));
    assert_eq!(before, after, "after: {message}");
}

/// Every stage of ADD at which `bridge` and `ptp` can fail, as (configuration, words).
fn stages(bed: &Bed) -> Vec<(Value, &'static str)> {
    let ipam = |more: Value| json!({"ipam": bed.host_local(&["10.77.0.0/24", "fd77::/64"], more)});
    let mut late = ipam(json!({"routes": [{"dst": "10.200.0.0/16", "gw": "172.31.0.1"}]}));
    merge(&mut late, json!({"ipMasq": true, "macspoofchk": true}));
    vec![
        (json!({"mtu": -1}), "mtu"),
        (json!({"ipam": {"type": "no-such-ipam"}}), "no-such-ipam"),
        (
            json!({"ipam": bed.host_local(&["10.77.0.0/31"], json!({}))}),
            "10.77.0.0/31",
        ),
        (json!({"mtu": 70000}), ""),
        (late, "add route 10.200.0.0/16 via 172.31.0.1"),
        (json!({"ipMasq": true, "ipMasqBackend": "bad"}), "bad"),
    ]
}

#[test]
fn bridge_leaves_nothing_behind() {
    let Some(bed) = Bed::new() else { return };
    let container = bed.container();
    let args = Args::of("c", &container);
    for (more, words) in stages(&bed) {
        fails(
            &bed,
            &container,
            "bridge",
            &bridge::config(&bed, more),
            &args,
            words,
        );
    }
}

#[test]
fn a_vlan_gateway_goes_with_the_bridge_made_for_it() {
    let Some(bed) = Bed::new() else { return };
    if !bridge::vlan::has_vlans(&bed) {
        return;
    }
    let container = bed.container();
    let late = json!({"vlan": 100, "ipam": bed.host_local(&["10.77.0.0/24"],
        json!({"routes": [{"dst": "10.200.0.0/16", "gw": "172.31.0.1"}]}))});
    let config = bridge::config(&bed, late);
    fails(
        &bed,
        &container,
        "bridge",
        &config,
        &Args::of("c", &container),
        "172.31.0.1",
    );
}

#[test]
fn bridge_leaves_other_containers_alone() {
    let Some(bed) = Bed::new() else { return };
    let other = bed.container();
    let good = bridge::config(&bed, json!({"ipMasq": true}));
    bed.ours("ADD", "bridge", &Args::of("other", &other), &good);
    let container = bed.container();
    let args = Args::of("c", &container);
    for (more, words) in stages(&bed) {
        fails(
            &bed,
            &container,
            "bridge",
            &bridge::config(&bed, more),
            &args,
            words,
        );
    }
    assert!(other.pings("10.77.0.1"));
}

#[test]
fn a_bridge_of_the_operators_stays_as_it_was() {
    let Some(bed) = Bed::new() else { return };
    bed.host.must("ip link add br0 type bridge");
    bed.host.must("ip addr add 10.99.0.1/24 brd + dev br0");
    let container = bed.container();
    let args = Args::of("c", &container);
    let late = json!({"forceAddress": true, "promiscMode": true,
        "ipam": bed.host_local(&["10.77.0.0/24"],
            json!({"routes": [{"dst": "10.200.0.0/16", "gw": "172.31.0.1"}]}))});
    let before = bed.host.must("ip -o -d link show br0");
    fails(
        &bed,
        &container,
        "bridge",
        &bridge::config(&bed, late),
        &args,
        "172.31.0.1",
    );
    let flags = |text: &str| text.split('>').next().unwrap().to_owned();
    assert_eq!(
        flags(&before),
        flags(&bed.host.must("ip -o -d link show br0"))
    );
}

#[test]
fn what_is_in_the_way_is_named() {
    let Some(bed) = Bed::new() else { return };
    let container = bed.container();
    let args = Args::of("c", &container);
    container.must("ip link add eth0 type veth peer other");
    let config = bridge::config(&bed, json!({}));
    fails(&bed, &container, "bridge", &config, &args, "file exists");
    let ptp = json!({"cniVersion": "1.0.0", "name": "n", "type": "ptp",
        "ipam": bed.host_local(&["10.77.0.0/24"], json!({}))});
    fails(&bed, &container, "ptp", &ptp, &args, "file exists");
    container.must("ip link del eth0");
    bed.host.must("ip link add br0 type veth peer other");
    fails(
        &bed,
        &container,
        "bridge",
        &config,
        &args,
        "is not a bridge",
    );
}

#[test]
fn a_second_add_fails_and_leaves_the_first_alone() {
    let Some(bed) = Bed::new() else { return };
    for plugin in ["bridge", "ptp"] {
        let mut config = bridge::config(&bed, json!({"ipMasq": true, "macspoofchk": true}));
        merge(&mut config, json!({"type": plugin, "name": plugin}));
        let container = bed.container();
        let args = Args::of("twice", &container);
        bed.ours("ADD", plugin, &args, &config);
        bed.host.settle();
        fails(&bed, &container, plugin, &config, &args, "");
        assert!(container.pings("10.77.0.1"), "{plugin}");
        bed.ours("DEL", plugin, &args, &config);
        bed.host.run("ip link del br0");
    }
}

#[test]
fn a_path_that_is_no_namespace_is_named() {
    let Some(bed) = Bed::new() else { return };
    let container = bed.container();
    for (path, words) in [
        ("/run/netns/wpt-there-is-no-such", "no such file"),
        ("/etc/hostname", "not a network namespace"),
    ] {
        let args = Args {
            netns: path.into(),
            ..Args::of("c", &container)
        };
        let config = bridge::config(&bed, json!({}));
        fails(&bed, &container, "bridge", &config, &args, words);
    }
}

#[test]
fn ptp_leaves_nothing_behind() {
    let Some(bed) = Bed::new() else { return };
    let container = bed.container();
    let args = Args::of("c", &container);
    for (more, words) in stages(&bed) {
        let mut config = json!({"cniVersion": "1.0.0", "name": "n", "type": "ptp",
            "ipam": bed.host_local(&["10.77.0.0/24"], json!({}))});
        merge(&mut config, more);
        fails(&bed, &container, "ptp", &config, &args, words);
    }
}

#[test]
fn an_exhausted_range_fails_cleanly() {
    let Some(bed) = Bed::new() else { return };
    let mut config = bridge::config(&bed, json!({}));
    config["ipam"] = bed.host_local(&["10.77.0.0/30"], json!({}));
    let first = bed.container();
    bed.ours("ADD", "bridge", &Args::of("a", &first), &config);
    let second = bed.container();
    fails(
        &bed,
        &second,
        "bridge",
        &config,
        &Args::of("b", &second),
        "no IP addresses",
    );
}

#[test]
fn portmap_leaves_nothing_behind() {
    let Some(bed) = Bed::new() else { return };
    let container = bed.container();
    let args = Args::of("c", &container);
    let good = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    for (more, words) in [
        (
            json!({"conditionsV4": ["-m", "no-such-match"], "backend": "iptables"}),
            "iptables",
        ),
        (
            json!({"conditionsV4": ["no such condition"], "backend": "nftables"}),
            "nft",
        ),
        (
            json!({"externalSetMarkChain": "NO-SUCH-CHAIN", "backend": "iptables"}),
            "iptables",
        ),
        (
            json!({"backend": "iptables", "prevResult": null}),
            "chained",
        ),
    ] {
        let mut config = json!({"cniVersion": "1.0.0", "name": "n", "type": "portmap",
            "runtimeConfig": {"portMappings": good},
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.77.0.2/24"}]}});
        merge(&mut config, more);
        fails(&bed, &container, "portmap", &config, &args, words);
    }
}
