//! `ptp`: everything goes by way of the host.

use serde_json::{Value, json};

use crate::bed::{Args, Bed, leases};

fn config(bed: &Bed) -> Value {
    json!({"cniVersion": "1.1.0", "name": "p2p", "type": "ptp",
        "ipam": bed.host_local(&["10.78.0.0/24", "fd78::/64"],
            json!({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}))})
}

#[test]
fn containers_reach_each_other_by_way_of_the_host() {
    let Some(bed) = Bed::new() else { return };
    let config = config(&bed);
    let (one, two) = (bed.container(), bed.container());
    bed.ours("ADD", "ptp", &Args::of("one", &one), &config);
    bed.ours("ADD", "ptp", &Args::of("two", &two), &config);
    for address in ["10.78.0.1", "10.78.0.3", "fd78::1", "fd78::3"] {
        assert!(one.pings(address), "{address}");
    }
    let way = one.must("ip route get 10.78.0.3");
    assert!(way.contains("via 10.78.0.1"), "{way}");
}

#[test]
fn check_del_and_status() {
    let Some(bed) = Bed::new() else { return };
    let mut config = config(&bed);
    let space = bed.container();
    let args = Args::of("one", &space);
    let result = bed.ours("ADD", "ptp", &args, &config);
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    assert_eq!(result["ips"][0]["interface"], 1);
    bed.ours("STATUS", "ptp", &args, &config);
    config["prevResult"] = result;
    bed.ours("CHECK", "ptp", &args, &config);
    space.must("ip route del 10.78.0.0/24");
    let message = bed.refused("CHECK", "ptp", &args, &config);
    assert!(message.contains("10.78.0.0/24"), "{message}");
    for _ in 0..2 {
        bed.ours("DEL", "ptp", &args, &config);
        assert_eq!(leases(&bed.data()), "");
    }
    assert!(!bed.host.must("ip route").contains("10.78"));
}
