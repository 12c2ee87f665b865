//! Ports in VLANs, on kernels that have VLAN filtering (`scripts/test-vm.sh` brings one).

use serde_json::json;

use super::add;
use crate::bed::{Args, Bed, merge, skipped};

/// Whether bridges of this kernel can keep VLANs apart.
pub fn has_vlans(bed: &Bed) -> bool {
    let probe = bed
        .host
        .run("ip link add probe type bridge vlan_filtering 1");
    if !probe.status.success() {
        skipped("this kernel has no VLAN filtering (scripts/test-vm.sh runs it on one that has)");
        return false;
    }
    bed.host.must("ip link del probe");
    true
}

/// The VLANs of a port as `bridge vlan` prints them.
pub fn vlans(bed: &Bed, port: &str) -> Vec<String> {
    let list = bed.host.json(&format!("bridge -j vlan show dev {port}"));
    list[0]["vlans"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vlan| {
            let end = vlan["vlanEnd"].as_u64().map(|end| format!("-{end}"));
            let flags: Vec<_> = vlan["flags"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|flag| flag.as_str())
                .collect();
            format!(
                "{}{} {}",
                vlan["vlan"],
                end.unwrap_or_default(),
                flags.join(",")
            )
            .trim()
            .to_owned()
        })
        .collect()
}

#[test]
fn vlans_keep_containers_apart() {
    let Some(bed) = Bed::new() else { return };
    if !has_vlans(&bed) {
        return;
    }
    let vlan = |id: u16, subnet: &str| {
        json!({"cniVersion": "1.1.0", "name": format!("net{id}"), "type": "bridge",
            "bridge": "br0", "isGateway": true, "vlan": id, "preserveDefaultVlan": false,
            "ipam": bed.host_local(&[subnet], json!({}))})
    };
    let (red, args, result) = add(&bed, &vlan(100, "10.100.0.0/24"), 1).remove(0);
    let (blue, ..) = add(&bed, &vlan(200, "10.200.0.0/24"), 1).remove(0);
    assert_eq!(result["interfaces"][3]["name"], "br0.100");
    assert!(red.pings("10.100.0.1") && blue.pings("10.200.0.1"));
    // The host forwards between the two, so the stranger has to be on the same subnet.
    blue.must("ip addr add 10.100.0.9/24 dev eth0");
    assert!(!red.pings("10.100.0.9"));
    let port = result["interfaces"][1]["name"].as_str().unwrap();
    assert_eq!(vlans(&bed, port), ["100 PVID,Egress Untagged"]);
    // A second container of the VLAN finds the gateway's interface there.
    let second = bed.container();
    let config = vlan(100, "10.100.0.0/24");
    let more = bed.ours("ADD", "bridge", &Args::of("second", &second), &config);
    assert_eq!(more["interfaces"][3], result["interfaces"][3]);
    assert!(second.pings("10.100.0.2"));
    let mut config = vlan(100, "10.100.0.0/24");
    config["prevResult"] = result;
    bed.ours("CHECK", "bridge", &args, &config);
    bed.ours("DEL", "bridge", &args, &config);
}

#[test]
fn a_trunk_port_has_its_vlans() {
    let Some(bed) = Bed::new() else { return };
    if !has_vlans(&bed) {
        return;
    }
    for (more, expected) in [
        (json!({}), &["1 PVID,Egress Untagged", "7", "100-102"][..]),
        (json!({"preserveDefaultVlan": false}), &["7", "100-102"][..]),
        (
            json!({"vlan": 7, "preserveDefaultVlan": false}),
            &["7 PVID,Egress Untagged", "100-102"][..],
        ),
        (
            json!({"vlan": 7}),
            &["1 Egress Untagged", "7 PVID,Egress Untagged", "100-102"][..],
        ),
    ] {
        let mut config = json!({"cniVersion": "1.1.0", "name": "trunk", "type": "bridge",
            "bridge": "br0", "vlanTrunk": [{"id": 7}, {"minID": 100, "maxID": 102}]});
        merge(&mut config, more);
        let (_space, args, result) = add(&bed, &config, 1).remove(0);
        let port = result["interfaces"][1]["name"].as_str().unwrap();
        let single: Vec<String> = vlans(&bed, port);
        let expanded: Vec<_> = expected
            .iter()
            .flat_map(|text| match *text {
                "100-102" if !single.iter().any(|v| v == "100-102") => vec!["100", "101", "102"],
                text => vec![text],
            })
            .collect();
        assert_eq!(single, expanded, "{config}");
        bed.ours("DEL", "bridge", &args, &config);
    }
}
