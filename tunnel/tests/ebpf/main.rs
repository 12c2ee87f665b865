//! The eBPF data path between two nodes on the real kernel. Nobody has the TUN devices open, so what
//! arrives was carried by the programs alone.

mod bed;
mod capture;
mod ipsec;
mod stream;
mod underlay;

use bed::{Bed, may_run, peer, table};
use tunnel::{DropReason, Own, Table};

/// Ping of both families and sizes, a stream each way, and nothing left at the end.
fn carries_and_leaves_nothing(bpffs: bool, kind: &str) {
    if !may_run() {
        return;
    }
    let bed = Bed::new(bpffs);
    let (one, two) = (bed.node(1), bed.node(2));
    // Somebody else's qdisc and filter stay.
    one.add_foreign_filter();
    let paths = bed.attach();
    for (path, node) in paths.iter().zip(&bed.nodes) {
        assert!(path.describe().starts_with(kind), "{}", path.describe());
        assert!(node.netns.run(|| path.check()).unwrap().unwrap());
    }
    assert!(one.ping("-c 3 10.5.2.0"));
    assert!(two.ping("-c 3 10.5.1.0"));
    assert!(
        one.ping("-c 3 -M do -s 1444 10.5.2.0"),
        "the largest packet"
    );
    // Fragments of inner packets.
    assert!(one.ping("-c 3 -s 9000 10.5.2.0"));
    assert!(one.ping("-c 3 fd00:2::1"));
    assert!(one.ping("-c 3 -M do -s 1424 fd00:2::1"));
    for (from, to, address) in [
        (one, two, "10.5.2.0:5000"),
        (two, one, "10.5.1.0:5000"),
        (one, two, "[fd00:2::1]:5000"),
    ] {
        stream::tcp(from, to, address.parse().unwrap(), 30 << 20);
    }
    let counts = paths[0].counts().unwrap();
    assert!(
        counts.sent.0 > 20_000 && counts.sent.1 > 60 << 20,
        "{counts:?}"
    );
    assert!(counts.received.0 > 10_000, "{counts:?}");
    for reason in DropReason::ALL {
        assert_eq!(counts.dropped(reason), 0, "{reason:?} {counts:?}");
    }

    let [first, second] = paths;
    one.netns.run(|| first.detach()).unwrap().unwrap();
    // As `cleanup` does, without a process.
    drop(second);
    // The kernel lets a link go some moments after its pin.
    assert!((0..20).any(|_| !one.ping("-c 1 10.5.2.0")));
    assert_eq!(two.remove(), 2);
    assert_eq!(two.remove(), 0);
    assert!(one.sh("tc filter show dev u0 ingress").contains("pref 100"));
    assert!(!one.sh("tc filter show dev u0 ingress").contains("weft"));
    assert!(
        !two.sh("tc qdisc show").contains("clsact"),
        "{}",
        two.sh("tc qdisc show")
    );
    for node in &bed.nodes {
        assert!(!node.settings.pins.exists());
        let gone = |_| !node.sh("bpftool net show").contains("weft");
        assert!((0..20).any(gone), "{}", node.sh("bpftool net show"));
    }
}

#[test]
fn by_tcx() {
    carries_and_leaves_nothing(true, "tcx on flannel0 and u0");
}

#[test]
fn by_clsact_where_no_bpffs_is() {
    carries_and_leaves_nothing(false, "clsact on flannel0 and u0 (");
}

/// A process ends, another comes, again and again: no packet is lost, no counter goes back.
fn restarts_without_a_lost_packet(bpffs: bool) {
    if !may_run() {
        return;
    }
    let bed = Bed::new(bpffs);
    let mut paths = bed.attach();
    assert!(bed.node(1).ping("-c 1 10.5.2.0"));
    let mut last = paths[0].counts().unwrap();
    let lost = stream::udp_meanwhile(bed.node(1), bed.node(2), "10.5.2.0:5001", || {
        for round in 0..8 {
            for ((path, node), other) in paths.iter_mut().zip(&bed.nodes).zip([2, 1]) {
                // The old handle ends first or last: both happen.
                let new = node.attach(&table(other));
                *path = new;
                assert!(
                    node.netns.run(|| path.check()).unwrap().unwrap(),
                    "round {round}"
                );
            }
            let now = paths[0].counts().unwrap();
            assert!(
                now.sent.0 > last.sent.0 && now.sent.1 > last.sent.1,
                "{last:?} {now:?}"
            );
            last = now;
        }
    });
    assert_eq!(lost, 0);
    let (sent, received) = (paths[0].counts().unwrap(), paths[1].counts().unwrap());
    assert_eq!(
        sent.sent, received.received,
        "what one sent the other took, over all restarts"
    );
    drop(paths);
    assert!(bed.node(1).ping("-c 3 10.5.2.0"), "with no process at all");
    assert_eq!(bed.node(1).remove(), 2);
}

#[test]
fn restarts_by_tcx() {
    restarts_without_a_lost_packet(true);
}

#[test]
fn restarts_by_clsact() {
    restarts_without_a_lost_packet(false);
}

/// From clsact to tcx and back, as when a bpffs comes or goes between two runs. (The qdisc is there
/// before: the kernel stops a link's queues for a moment when one is made or removed.)
#[test]
fn changes_the_kind_without_a_lost_packet() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(true);
    bed.node(1).add_foreign_filter();
    let mut paths = bed.attach();
    let mut elsewhere = bed.node(1).settings.clone();
    elsewhere.pins = std::env::temp_dir().join(format!("{}-none", bed.node(1).name));
    let lost = stream::udp_meanwhile(bed.node(1), bed.node(2), "10.5.2.0:5001", || {
        for (settings, kind) in [
            (&elsewhere, "clsact"),
            (&bed.node(1).settings, "tcx"),
            (&elsewhere, "clsact"),
        ] {
            // What the new place cannot know of: the pins of the old one.
            let attach = || tunnel::ebpf::Ebpf::attach(settings, &table(2)).unwrap();
            paths[0] = bed.node(1).netns.run(attach).unwrap();
            assert!(paths[0].describe().starts_with(kind));
        }
    });
    assert_eq!(lost, 0);
}

/// A process ends without a word, and the next has another port, another underlay, or wants no programs.
#[test]
fn nothing_of_a_former_life_stays_at_another_place() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let one = bed.node(1);
    one.ip("link add u1 type veth peer name u2");
    one.ip("link set u1 up");
    // Of another network on the same underlay: stays.
    one.ip("tuntap add mode tun other0 multi_queue");
    let mut other = one.settings.clone();
    (other.device, other.pins) = ("other0".to_owned(), one.settings.pins.join("other"));
    other.local.set_port(7285);
    let attach = |settings: &tunnel::ebpf::Settings| {
        let attach = || tunnel::ebpf::Ebpf::attach(settings, &table(2)).unwrap();
        one.netns.run(attach).unwrap()
    };
    let ours = |link: &str| {
        let filters = one.sh(&format!("tc filter show dev {link} ingress"));
        let ours = |line: &&str| line.contains("weft_ingress");
        filters.lines().filter(ours).count()
    };
    drop((attach(&other), attach(&one.settings)));
    assert_eq!((ours("u0"), ours("u1")), (2, 0));
    let mut changed = one.settings.clone();
    changed.local.set_port(9285);
    let path = attach(&changed);
    assert!(one.netns.run(|| path.check()).unwrap().unwrap());
    assert_eq!((ours("u0"), ours("u1")), (2, 0), "another port");
    changed.underlay = "u1".to_owned();
    let path = attach(&changed);
    assert!(one.netns.run(|| path.check()).unwrap().unwrap());
    assert_eq!((ours("u0"), ours("u1")), (1, 1), "another underlay");
    let remove = |settings: &tunnel::ebpf::Settings| {
        let (device, pins) = (&settings.device, &settings.pins);
        let remove = || tunnel::ebpf::remove(device, None, pins).unwrap();
        one.netns.run(remove).unwrap()
    };
    assert_eq!(remove(&changed), 2);
    assert_eq!((ours("u0"), ours("u1")), (1, 0));
    assert_eq!(remove(&other), 2);
    let left = one.sh("tc qdisc show");
    assert!(!left.contains("clsact"), "{left}");
}

#[test]
fn a_published_table_takes_effect_at_once() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let [mut first, _second] = bed.attach();
    let one = bed.node(1);
    let mut publish = |table: Table| one.netns.run(|| first.publish(&table)).unwrap().unwrap();
    assert!(one.ping("-c 1 10.5.2.0"));
    publish(Table::default());
    assert!(!one.ping("-c 1 10.5.2.0"));
    // More than the maps hold: they are replaced by larger ones.
    let many = (0..3000u32).map(|n| tunnel::Peer {
        address: ([172, 16, (n >> 8) as u8, n as u8], 8285).into(),
        v4: Some(ipnet::Ipv4Net::new((0x0a64_0000 + (n << 8)).into(), 24).unwrap()),
        v6: None,
        ..peer(9)
    });
    publish(Table::new(Own::default(), many.chain([peer(2)]).collect()));
    assert!(one.ping("-c 1 10.5.2.0"));
    publish(table(2));
    assert!(one.ping("-c 1 10.5.2.0"));
}

/// The smallest maps hold each of the two tables, but not both at once.
#[test]
fn a_table_may_be_replaced_by_another_as_large() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let [mut first, _second] = bed.attach();
    let one = bed.node(1);
    let mut publish = |table: Table| one.netns.run(|| first.publish(&table)).unwrap().unwrap();
    for start in [0, 1000, 2000u32] {
        let many = (start..start + 1000).map(|n| tunnel::Peer {
            address: ([172, 16, (n >> 8) as u8, n as u8], 8285).into(),
            v4: Some(ipnet::Ipv4Net::new((0x0a64_0000 + (n << 8)).into(), 24).unwrap()),
            v6: None,
            ..peer(9)
        });
        publish(Table::new(Own::default(), many.chain([peer(2)]).collect()));
        assert!(one.ping("-c 1 10.5.2.0"));
    }
}

#[test]
fn check_sees_what_others_did() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let [first, _second] = bed.attach();
    let one = bed.node(1);
    let check = || one.netns.run(|| first.check()).unwrap().unwrap();
    assert!(check());
    one.sh("tc qdisc del dev flannel0 clsact");
    assert!(!check());
    let first = one.attach(&table(2));
    assert!(one.ping("-c 1 10.5.2.0"));
    // The device goes and comes again under the same name.
    one.ip("link del flannel0");
    assert!(!one.netns.run(|| first.check()).unwrap().unwrap());
    one.ip("tuntap add mode tun flannel0 multi_queue");
    assert!(!one.netns.run(|| first.check()).unwrap().unwrap());
}

#[test]
fn refuses_an_underlay_that_is_not_there() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let mut settings = bed.node(1).settings.clone();
    settings.underlay = "u9".to_owned();
    let error = bed
        .node(1)
        .netns
        .run(|| tunnel::ebpf::Ebpf::attach(&settings, &table(2)).err());
    let error = error.unwrap().unwrap().to_string();
    assert!(error.contains("u9") && !error.contains('\n'), "{error}");
    settings.underlay = "flannel0".to_owned();
    let error = bed
        .node(1)
        .netns
        .run(|| tunnel::ebpf::Ebpf::attach(&settings, &table(2)).err());
    assert!(error.unwrap().unwrap().to_string().contains("Ethernet"));
}

/// Through a gateway, and with a narrower link behind it: what is too big for that path is left to the
/// user-space path, once the router has said so.
#[test]
fn learns_the_path_mtu_behind_a_router() {
    if !may_run() {
        return;
    }
    let bed = Bed::routed(1400);
    let [first, _second] = bed.attach();
    let one = bed.node(1);
    let passed = || first.counts().unwrap().passed_out;
    assert!(one.ping("-c 3 10.5.2.0"));
    assert!(one.ping("-c 3 fd00:2::1"));
    let before = passed();
    // 1500 bytes outside; the first one makes the router speak.
    assert!(!one.ping("-c 3 -i 0.3 -M do -s 1444 10.5.2.0"));
    assert!(
        passed() > before,
        "too big for the path, so left to the user-space path"
    );
    let before = passed();
    assert!(one.ping("-c 3 -M do -s 1344 10.5.2.0"), "just fits");
    assert_eq!(passed(), before);
}
