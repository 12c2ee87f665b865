//! `ipMasq` by both backends, as the world outside sees it.

use serde_json::json;

use crate::{
    bed::{Args, Bed, Space, merge},
    bridge,
};

/// The address that the world sees when `space` connects to it.
pub fn seen_by(world: &Space, at: &str, space: &Space) -> String {
    let listener = world.inside(|| std::net::TcpListener::bind((at, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let _stream = space.inside(move || {
        std::net::TcpStream::connect_timeout(&target, std::time::Duration::from_secs(3)).unwrap()
    });
    listener.accept().unwrap().1.ip().to_string()
}

#[test]
fn the_world_sees_the_hosts_address_and_containers_see_each_others() {
    let Some(bed) = Bed::new() else { return };
    let world = bed.world();
    for backend in ["iptables", "nftables"] {
        for plugin in ["bridge", "ptp"] {
            let mut config =
                bridge::config(&bed, json!({"ipMasq": true, "ipMasqBackend": backend}));
            merge(&mut config, json!({"type": plugin}));
            if plugin == "ptp" {
                config["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
            }
            let spaces = [bed.container(), bed.container()];
            let args: Vec<_> = spaces
                .iter()
                .zip(["a", "b"])
                .map(|(space, id)| Args::of(id, space))
                .collect();
            let mut addresses = Vec::new();
            for args in &args {
                let result = bed.ours("ADD", plugin, args, &config);
                for at in 0..2 {
                    let text = result["ips"][at]["address"].as_str().unwrap();
                    addresses.push(text.split('/').next().unwrap().to_owned());
                }
            }
            let case = format!("{plugin} {backend}");
            assert_eq!(
                seen_by(&world, "192.0.2.2", &spaces[0]),
                "192.0.2.1",
                "{case}"
            );
            assert_eq!(
                seen_by(&world, "2001:db8::2", &spaces[0]),
                "2001:db8::1",
                "{case}"
            );
            assert_eq!(
                seen_by(&spaces[1], &addresses[2], &spaces[0]),
                addresses[0],
                "{case}"
            );
            assert_eq!(
                seen_by(&spaces[1], &addresses[3], &spaces[0]),
                addresses[1],
                "{case}"
            );
            for args in &args {
                bed.ours("DEL", plugin, args, &config);
            }
            let rules = bed.footprint();
            assert!(!rules.contains("id: "), "{case}: {rules}");
        }
    }
}

#[test]
fn gc_of_either_backend_spares_the_valid() {
    let Some(bed) = Bed::new() else { return };
    for backend in ["iptables", "nftables"] {
        let mut config = bridge::config(&bed, json!({"ipMasq": true, "ipMasqBackend": backend}));
        let spaces = [bed.container(), bed.container()];
        for (space, id) in spaces.iter().zip(["first", "second"]) {
            bed.ours("ADD", "bridge", &Args::of(id, space), &config);
        }
        config["cni.dev/valid-attachments"] = json!([{"containerID": "second", "ifname": "eth0"}]);
        bed.ours("GC", "bridge", &Args::of("", &spaces[0]), &config);
        let rules = bed.footprint();
        assert!(
            !rules.contains("first") && rules.contains("second"),
            "{backend}: {rules}"
        );
        for (space, id) in spaces.iter().zip(["first", "second"]) {
            bed.ours("DEL", "bridge", &Args::of(id, space), &config);
        }
    }
}
