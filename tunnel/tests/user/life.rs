//! Starts, take-overs, failures.

use std::sync::Arc;

use tunnel::{
    DropReason, Wire,
    user::{
        Mode::{self, Offload, Plain},
        Settings, UserPath, probe,
    },
};

use super::{
    lab::{Lab, Node, Site, Underlay, eventually, mtu, pod, set_up_device},
    traffic::bulk,
};

fn start(site: &Site, mode: Mode) -> Result<UserPath, tunnel::user::Error> {
    let settings = Settings {
        mode,
        ..site.path.settings().clone()
    };
    let (table, counters) = (Arc::clone(&site.table), Arc::clone(&site.counters));
    site.node
        .run(|| UserPath::start(&settings, table, counters))
}

fn ping(lab: &Lab) {
    lab.sites[0]
        .node
        .sh(&format!("ping -c 2 -i 0.2 -W 5 {}", pod(2)));
}

#[test]
fn another_takes_the_device_over_in_another_mode() {
    let Some(mut lab) = Lab::new([Offload, Offload]) else {
        return;
    };
    ping(&lab);
    for mode in [Plain, Offload, Plain] {
        let site = &mut lab.sites[0];
        let error = start(site, mode).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("8285") && text.contains("uses the port")));
        // Two cannot be at once, so one that holds nothing stands in between.
        let settings = Settings {
            device: "other0".into(),
            bind: "127.0.0.1:0".parse().unwrap(),
            ..site.path.settings().clone()
        };
        let (table, counters) = (Arc::clone(&site.table), Arc::clone(&site.counters));
        let idle = site
            .node
            .run(|| UserPath::start(&settings, table, counters))
            .unwrap();
        let before = site.path.settings().clone();
        drop(std::mem::replace(&mut site.path, idle));
        let settings = Settings { mode, ..before };
        let (table, counters) = (Arc::clone(&site.table), Arc::clone(&site.counters));
        site.path = site
            .node
            .run(|| UserPath::start(&settings, table, counters))
            .unwrap();
        ping(&lab);
        let [one, two] = &lab.sites;
        bulk(&one.node, &two.node, pod(2), 3_000_000);
        bulk(&two.node, &one.node, pod(1), 3_000_000);
    }
}

/// A multi-queue device would let it in, and the kernel would share the packets between both.
#[test]
fn a_device_that_another_holds_is_refused() {
    let Some(lab) = Lab::new([Offload, Plain]) else {
        return;
    };
    for (site, mode) in lab.sites.iter().zip([Plain, Offload]) {
        let settings = Settings {
            bind: "127.0.0.1:0".parse().unwrap(),
            mode,
            ..site.path.settings().clone()
        };
        for state in ["up", "down"] {
            site.node.sh(&format!("ip link set flannel0 {state}"));
            let (table, counters) = (Arc::clone(&site.table), Arc::clone(&site.counters));
            let second = site
                .node
                .run(|| UserPath::start(&settings, table, counters));
            let error = second.unwrap_err();
            assert_eq!(error.errno(), Some(libc::EBUSY), "{state}: {error}");
            assert!(error.to_string().contains("another process holds it"));
        }
    }
}

#[test]
fn a_deleted_device_ends_it() {
    for mode in [Offload, Plain] {
        let Some(lab) = Lab::new([mode, mode]) else {
            return;
        };
        let one = &lab.sites[0];
        assert_eq!(one.path.ended(), None);
        one.node.sh("ip link delete flannel0");
        eventually("ended", || one.path.ended().is_some());
        let reason = one.path.ended().unwrap();
        assert!(reason.contains("flannel0 is gone"), "{reason}");
        assert_eq!(lab.sites[1].path.ended(), None);
    }
}

#[test]
fn a_device_that_goes_down_comes_back() {
    for mode in [Offload, Plain] {
        let Some(lab) = Lab::new([mode, mode]) else {
            return;
        };
        let [one, two] = &lab.sites;
        ping(&lab);
        two.node.sh("ip link set flannel0 down");
        one.node
            .try_sh(&format!("ping -c 3 -i 0.2 -W 1 {}", pod(2)));
        assert!(two.dropped(DropReason::DeviceError) >= 3);
        two.node
            .sh("ip addr flush dev flannel0; ip addr flush dev lo");
        two.node.sh("ip addr add 127.0.0.1/8 dev lo");
        set_up_device(&two.node, 2, mtu(Wire::Ip, Underlay::Veth));
        ping(&lab);
        assert_eq!(two.path.ended(), None);
    }
}

#[test]
fn an_underlay_that_flaps() {
    for mode in [Offload, Plain] {
        let Some(lab) = Lab::new([mode, mode]) else {
            return;
        };
        let one = &lab.sites[0];
        ping(&lab);
        one.node.sh("ip link set eth0 down");
        let lost = one
            .node
            .try_sh(&format!("ping -c 3 -i 0.2 -W 1 {}", pod(2)));
        assert!(one.dropped(DropReason::SendError) >= 3);
        let said = String::from_utf8_lossy(&lost.stdout);
        assert!(said.contains("Destination Host Unreachable"), "{said}");
        one.node.sh("ip addr del 192.168.66.11/24 dev eth0");
        one.node
            .try_sh(&format!("ping -c 2 -i 0.2 -W 1 {}", pod(2)));
        one.node
            .sh("ip addr add 192.168.66.11/24 dev eth0; ip link set eth0 up");
        ping(&lab);
        assert_eq!(one.path.ended(), None);
        assert_eq!(one.path.notes(), Vec::<String>::new());
    }
}

#[test]
fn a_device_of_a_former_version_and_things_that_are_none() {
    let Some(mut lab) = Lab::new([Offload, Offload]) else {
        return;
    };
    let site = &mut lab.sites[0];
    let settings = |device: &str| Settings {
        device: device.into(),
        bind: "127.0.0.1:0".parse().unwrap(),
        ..site.path.settings().clone()
    };
    let start = |device: &str| {
        let settings = settings(device);
        let (table, counters) = (Arc::clone(&site.table), Arc::clone(&site.counters));
        site.node
            .run(|| UserPath::start(&settings, table, counters))
    };
    site.node.sh("ip tuntap add old0 mode tun");
    let path = start("old0").unwrap();
    assert!(
        path.notes()[0].contains("single queue"),
        "{:?}",
        path.notes()
    );
    let busy = start("old0").unwrap_err().to_string();
    assert!(
        busy.contains("old0") && busy.contains("another process holds it"),
        "{busy}"
    );
    let wrong = start("eth0").unwrap_err().to_string();
    assert!(
        wrong.contains("eth0") && wrong.contains("not a TUN device"),
        "{wrong}"
    );
    let long = start("sixteen-letters-").unwrap_err().to_string();
    assert!(long.contains("longer than 15"), "{long}");
}

#[test]
fn probing_leaves_nothing_behind() {
    let Some(node) = Node::new("p") else {
        return;
    };
    let before = node.sh("ip -o link | cut -d: -f2");
    let found = node.run(probe).unwrap();
    assert_eq!(node.sh("ip -o link | cut -d: -f2"), before);
    assert!(found.tun_queues && found.tun_tso, "{found}");
    assert!(found.udp_segment && found.udp_gro, "{found}");
}
