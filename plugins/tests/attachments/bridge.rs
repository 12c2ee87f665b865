//! What `bridge` makes: that packets flow, or do not where they must not.

pub mod vlan;

use serde_json::{Value, json};

use crate::bed::{Args, Bed, NO_PROGRAMS, Space, leases, merge};

pub fn config(bed: &Bed, more: Value) -> Value {
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "net1", "type": "bridge", "bridge": "br0",
        "isDefaultGateway": true,
        "ipam": bed.host_local(&["10.77.0.0/24", "fd77::/64"], json!({}))});
    merge(&mut config, more);
    config
}

/// Adds one container after another; their namespaces and results.
fn add(bed: &Bed, config: &Value, count: usize) -> Vec<(Space, Args, Value)> {
    (0..count)
        .map(|number| {
            let space = bed.container();
            let args = Args::of(&format!("c{number}"), &space);
            let result = bed.ours("ADD", "bridge", &args, config);
            (space, args, result)
        })
        .collect()
}

#[test]
fn containers_reach_each_other_and_the_host_by_both_families() {
    let Some(bed) = Bed::new() else { return };
    let made = add(&bed, &config(&bed, json!({})), 2);
    bed.host.settle();
    for address in ["10.77.0.3", "10.77.0.1", "fd77::3"] {
        assert!(made[0].0.pings(address), "{address}");
    }
    assert!(bed.host.pings("10.77.0.2"));
    assert_eq!(made[1].2["interfaces"][2]["mtu"], 1500);
    assert_eq!(made[1].2["ips"][1]["address"], "fd77::3/64");
}

#[test]
fn check_passes_and_then_names_what_is_missing() {
    let Some(bed) = Bed::new() else { return };
    let mut config = config(&bed, json!({}));
    let (space, args, result) = add(&bed, &config, 1).remove(0);
    config["prevResult"] = result;
    bed.ours("CHECK", "bridge", &args, &config);
    for (damage, repair, words) in [
        (
            "ip route del default",
            "ip route add default via 10.77.0.1",
            "add route default via 10.77.0.1 dev eth0",
        ),
        (
            "ip addr del fd77::2/64 dev eth0",
            "ip addr add fd77::2/64 dev eth0 nodad",
            "add address fd77::2/64 dev eth0",
        ),
        (
            "ip link set eth0 address 02:00:00:00:00:99",
            "true",
            "02:00:00:00:00:99",
        ),
    ] {
        space.must(damage);
        let message = bed.refused("CHECK", "bridge", &args, &config);
        assert!(message.contains(words), "{damage}: {message}");
        space.must(repair);
    }
    let mac = config["prevResult"]["interfaces"][2]["mac"]
        .as_str()
        .unwrap();
    space.must(&format!("ip link set eth0 address {mac}"));
    bed.ours("CHECK", "bridge", &args, &json!(config));
    let port = config["prevResult"]["interfaces"][1]["name"]
        .as_str()
        .unwrap();
    bed.host.must(&format!("ip link set {port} nomaster"));
    let message = bed.refused("CHECK", "bridge", &args, &config);
    assert!(message.contains("no port of bridge br0"), "{message}");
}

#[test]
fn del_leaves_the_bridge_and_nothing_else_and_may_be_repeated() {
    let Some(bed) = Bed::new() else { return };
    let config = config(&bed, json!({"ipMasq": true, "macspoofchk": true}));
    let (space, args, _) = add(&bed, &config, 1).remove(0);
    for _ in 0..2 {
        bed.ours("DEL", "bridge", &args, &config);
        assert!(!space.run("ip link show eth0").status.success());
        assert_eq!(leases(&bed.data()), "");
        let footprint = bed.footprint();
        assert!(!footprint.contains("veth"), "{footprint}");
        assert!(!footprint.contains("CNI-"), "{footprint}");
        assert!(!footprint.contains("cni-br-iface"), "{footprint}");
        assert!(footprint.contains("br0"), "{footprint}");
    }
}

#[test]
fn del_without_a_namespace_still_releases_addresses_and_rules() {
    let Some(bed) = Bed::new() else { return };
    let config = config(&bed, json!({"ipMasq": true, "macspoofchk": true}));
    for gone in ["", "/run/netns/wpt-there-is-no-such", "/etc/hostname"] {
        let (space, mut args, _) = add(&bed, &config, 1).remove(0);
        drop(space);
        args.netns = gone.into();
        bed.ours("DEL", "bridge", &args, &config);
        let footprint = bed.footprint();
        assert_eq!(leases(&bed.data()), "", "{gone:?}");
        assert!(!footprint.contains("CNI-"), "{gone:?}: {footprint}");
        assert!(!footprint.contains("cni-br-iface"), "{gone:?}: {footprint}");
    }
}

#[test]
fn without_rules_no_program_is_needed() {
    let Some(bed) = Bed::new() else { return };
    let config = config(&bed, json!({}));
    let space = bed.container();
    let mut args = Args::of("c", &space);
    args.hide = NO_PROGRAMS;
    bed.ours("ADD", "bridge", &args, &config);
    bed.ours("DEL", "bridge", &args, &config);
    let masquerading = json!({"cniVersion": "1.1.0", "name": "net1", "type": "bridge",
        "bridge": "br0", "ipMasq": true, "ipam": config["ipam"]});
    let message = bed.refused("ADD", "bridge", &args, &masquerading);
    assert!(message.contains("iptables"), "{message}");
}

#[test]
fn fifty_at_once_get_fifty_addresses() {
    let Some(bed) = Bed::new() else { return };
    let config = config(&bed, json!({}));
    let spaces: Vec<_> = (0..50).map(|_| bed.container()).collect();
    let mut addresses: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = spaces
            .iter()
            .enumerate()
            .map(|(number, space)| {
                let (bed, config) = (&bed, &config);
                scope.spawn(move || {
                    let args = Args::of(&format!("c{number}"), space);
                    bed.ours("ADD", "bridge", &args, config)["ips"][0]["address"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 50);
    assert_eq!(leases(&bed.data()).lines().count(), 100);
    let ports = bed.host.json("ip -j link show master br0");
    assert_eq!(ports.as_array().unwrap().len(), 50);
    assert!(spaces[0].pings("10.77.0.40"));
}

#[test]
fn rules_of_many_at_once_are_all_there_and_all_go() {
    let Some(bed) = Bed::new() else { return };
    for backend in ["iptables", "nftables"] {
        let more = json!({"ipMasq": true, "ipMasqBackend": backend, "macspoofchk": true});
        let config = config(&bed, more);
        let spaces: Vec<_> = (0..16).map(|_| bed.container()).collect();
        let at_once = |verb: &str| {
            std::thread::scope(|scope| {
                for (number, space) in spaces.iter().enumerate() {
                    let (bed, config) = (&bed, &config);
                    let verb = verb.to_owned();
                    scope.spawn(move || {
                        let args = Args::of(&format!("many{number}-"), space);
                        bed.ours(&verb, "bridge", &args, config);
                    });
                }
            });
        };
        at_once("ADD");
        let footprint = bed.footprint();
        for number in 0..16 {
            let id = format!("many{number}-");
            assert!(footprint.contains(&id), "{backend} {id}: {footprint}");
            assert!(
                footprint.contains(&format!("macspoofchk-{id}")),
                "{id}: {footprint}"
            );
        }
        at_once("DEL");
        let footprint = bed.footprint();
        assert!(!footprint.contains("many"), "{backend}: {footprint}");
    }
}

#[test]
fn status_asks_the_ipam_plugin() {
    let Some(bed) = Bed::new() else { return };
    let space = bed.container();
    let args = Args::of("", &space);
    let mut config = config(&bed, json!({}));
    bed.ours("STATUS", "bridge", &args, &config);
    config["ipam"] = json!({"type": "no-such-ipam"});
    let message = bed.refused("STATUS", "bridge", &args, &config);
    assert!(message.contains("no-such-ipam"), "{message}");
}

#[test]
fn a_spoofed_source_address_is_dropped_only_when_checked() {
    let Some(bed) = Bed::new() else { return };
    for (checked, passes) in [(false, true), (true, false)] {
        let config = config(&bed, json!({"macspoofchk": checked}));
        let (space, args, _) = add(&bed, &config, 1).remove(0);
        assert!(space.pings("10.77.0.1"), "checked {checked}");
        space.must("ip link set eth0 address 02:00:00:00:00:99");
        bed.host.must("ip neigh flush dev br0");
        assert_eq!(space.pings("10.77.0.1"), passes, "checked {checked}");
        bed.ours("DEL", "bridge", &args, &config);
    }
}

#[test]
fn isolated_ports_see_the_gateway_but_not_each_other() {
    let Some(bed) = Bed::new() else { return };
    let made = add(&bed, &config(&bed, json!({"portIsolation": true})), 2);
    assert!(made[0].0.pings("10.77.0.1"));
    let last = made[1].2["ips"][0]["address"].as_str().unwrap();
    assert!(!made[0].0.pings(last.split('/').next().unwrap()));
}

#[test]
fn the_mac_asked_for_is_the_mac_given() {
    let Some(bed) = Bed::new() else { return };
    let config = config(&bed, json!({}));
    let space = bed.container();
    let args = Args::of("c", &space).with("CNI_ARGS", "IgnoreUnknown=1;MAC=02:11:22:33:44:55");
    let result = bed.ours("ADD", "bridge", &args, &config);
    assert_eq!(result["interfaces"][2]["mac"], "02:11:22:33:44:55");
    assert!(
        space
            .must("ip link show eth0")
            .contains("02:11:22:33:44:55")
    );
}

#[test]
fn neighbours_hear_of_a_new_owner_at_once() {
    let Some(bed) = Bed::new() else { return };
    let mut config = config(&bed, json!({}));
    let made = add(&bed, &config, 2);
    for address in ["10.77.0.3", "fd77::3"] {
        assert!(made[0].0.pings(address), "{address}");
    }
    bed.ours("DEL", "bridge", &made[1].1, &config);
    // The kernel holds on to a neighbour for a second against contradicting news.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    config["args"] = json!({"cni": {"ips": ["10.77.0.3", "fd77::3"]}});
    let heir = bed.container();
    let result = bed.ours("ADD", "bridge", &Args::of("heir", &heir), &config);
    let mac = result["interfaces"][2]["mac"].as_str().unwrap();
    for address in ["10.77.0.3", "fd77::3"] {
        let known = made[0].0.must(&format!("ip neigh show {address}"));
        assert!(known.contains(mac), "{address} is at {mac}: {known}");
    }
}

#[test]
fn ipv6_is_switched_on_where_it_is_asked_for() {
    let Some(bed) = Bed::new() else { return };
    let config = config(&bed, json!({}));
    let space = bed.container();
    for name in ["all", "default"] {
        space.must(&format!("sysctl -w net.ipv6.conf.{name}.disable_ipv6=1"));
    }
    bed.ours("ADD", "bridge", &Args::of("c", &space), &config);
    assert!(space.must("ip -6 addr show eth0").contains("fd77::2/64"));
    assert!(space.must("ip -6 addr show lo").contains("::1/128"));
}

#[test]
fn a_disabled_container_interface_stays_down() {
    let Some(bed) = Bed::new() else { return };
    let config = json!({"cniVersion": "1.1.0", "name": "net1", "type": "bridge",
        "bridge": "br0", "disableContainerInterface": true});
    let (space, args, result) = add(&bed, &config, 1).remove(0);
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
    let link = space.must("ip link show eth0");
    assert!(
        link.contains("state DOWN") && !link.contains(",UP"),
        "{link}"
    );
    bed.ours("DEL", "bridge", &args, &config);
}

#[test]
fn another_bridge_address_needs_force() {
    let Some(bed) = Bed::new() else { return };
    bed.host.must("ip link add br0 type bridge");
    bed.host.must("ip addr add 10.99.0.1/24 dev br0");
    let space = bed.container();
    let args = Args::of("c", &space);
    let message = bed.refused("ADD", "bridge", &args, &config(&bed, json!({})));
    assert!(
        message.contains("10.99.0.1/24") && message.contains("forceAddress"),
        "{message}"
    );
    assert!(bed.host.must("ip addr show br0").contains("10.99.0.1/24"));
    bed.ours(
        "ADD",
        "bridge",
        &args,
        &config(&bed, json!({"forceAddress": true})),
    );
    let addresses = bed.host.must("ip addr show br0");
    assert!(
        addresses.contains("10.77.0.1/24") && !addresses.contains("10.99.0.1"),
        "{addresses}"
    );
}

#[test]
fn gc_removes_what_no_valid_attachment_owns() {
    let Some(bed) = Bed::new() else { return };
    let mut config = config(&bed, json!({"ipMasq": true, "macspoofchk": true}));
    let made = add(&bed, &config, 2);
    let kept = made[1].2["ips"][0]["address"].as_str().unwrap().to_owned();
    // The first container's DEL never comes; its namespace and so its port is gone.
    let mut made = made.into_iter();
    drop(made.next());
    await_ports(&bed, 1);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    bed.ours(
        "GC",
        "bridge",
        &Args::of("", &made.next().unwrap().0),
        &config,
    );
    let footprint = bed.footprint();
    assert!(!footprint.contains("\"c0\\\""), "{footprint}");
    assert!(footprint.contains("c1"), "{footprint}");
    assert!(!footprint.contains("cni-br-iface-c0"), "{footprint}");
    assert!(leases(&bed.data()).contains(kept.split('/').next().unwrap()));
    assert!(!leases(&bed.data()).contains("10.77.0.2"));
}

#[test]
fn an_add_killed_at_any_moment_is_healed_by_del() {
    let Some(bed) = Bed::new() else { return };
    let config = config(&bed, json!({"ipMasq": true, "macspoofchk": true}));
    // The bridge and the shared chains are there from the first container on.
    let other = add(&bed, &config, 1).remove(0);
    bed.host.settle();
    let before = bed.footprint();
    let mut cut_short = 0;
    for microseconds in (200..12_000).step_by(400) {
        let space = bed.container();
        let args = Args::of("killed", &space);
        cut_short += u32::from(!bed.add_killed_after(microseconds, "bridge", &args, &config));
        bed.ours("DEL", "bridge", &args, &config);
        // An nft or iptables that the plugin had started goes on for a moment; a runtime repeats
        // its DEL.
        for _ in 0..20 {
            if bed.footprint() == before {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            bed.ours("DEL", "bridge", &args, &config);
        }
        assert_eq!(before, bed.footprint(), "after {microseconds} microseconds");
    }
    assert!(cut_short > 3, "only {cut_short} were cut short");
    assert!(other.0.pings("10.77.0.1"));
}

/// The kernel removes the links of a dead namespace a little later.
fn await_ports(bed: &Bed, count: usize) {
    for _ in 0..200 {
        let ports = bed.host.json("ip -j link show master br0");
        if ports.as_array().unwrap().len() == count {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    panic!("there are not {count} ports");
}

#[test]
fn a_duplicate_ipv6_address_is_found_when_asked_for() {
    let Some(bed) = Bed::with_reference() else {
        return;
    };
    let config = |enable: bool| {
        json!({"cniVersion": "1.0.0", "name": "net1", "type": "bridge", "bridge": "br0",
            "enabledad": enable,
            "ipam": {"type": "static", "addresses": [{"address": "fd77::9/64", "gateway": "fd77::1"}]}})
    };
    let first = bed.container();
    let path = format!("{}:{}", crate::bed::ours().display(), crate::bed::REFERENCE);
    bed.ours(
        "ADD",
        "bridge",
        &Args::of("a", &first).with("CNI_PATH", &path),
        &config(true),
    );
    let second = bed.container();
    let args = Args::of("b", &second).with("CNI_PATH", &path);
    let message = bed.refused("ADD", "bridge", &args, &config(true));
    assert!(message.contains("another host has it"), "{message}");
    assert!(!second.run("ip link show eth0").status.success());
    bed.ours("ADD", "bridge", &args, &config(false));
}
