//! Everything that travels, travels: between all pairs of modes, both directions, both families.

use tunnel::{
    DropReason, Wire,
    user::Mode::{self, Offload, Plain},
};

use super::{
    lab::{Lab, Node, PORT, Underlay, eventually, join, pod, pod6, site},
    traffic::{bulk, echo},
};

/// ICMP data sizes: around the device's MTU of 1472, and fragmented ones.
const PINGS: [usize; 10] = [0, 1, 7, 56, 1000, 1443, 1444, 1445, 1472, 5000];

fn carries_everything(modes: [Mode; 2], wire: Wire) {
    carries_everything_over(Underlay::Veth, modes, wire);
}

fn carries_everything_over(underlay: Underlay, modes: [Mode; 2], wire: Wire) {
    let Some(lab) = Lab::with(modes, underlay, wire) else {
        return;
    };
    for (from, to) in [(0, 1), (1, 0)] {
        let (a, b) = (&lab.sites[from].node, &lab.sites[to].node);
        for address in [pod(to + 1), pod6(to + 1)] {
            for size in PINGS {
                a.sh(&format!("ping -c 1 -W 5 -s {size} {address}"));
            }
            echo(
                a,
                b,
                address,
                &[0, 1, 31, 1000, 1400, 1444, 1445, 9000, 65_000],
            );
            bulk(a, b, address, 8_000_001);
        }
    }
    for site in &lab.sites {
        assert_eq!(site.path.ended(), None);
        assert_eq!(site.path.notes(), Vec::<String>::new());
        for reason in DropReason::ALL {
            // Router solicitations and the like, which the device's own kernel sends.
            if reason != DropReason::Unsupported {
                assert_eq!(site.dropped(reason), 0, "{reason:?}");
            }
        }
        let (packets, bytes) = site.counters.sent();
        assert!(packets > 5000 && bytes > 16_000_000, "{packets} {bytes}");
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let [sent, received] = [&lab.sites[from], &lab.sites[to]].map(|site| &site.counters);
        eventually("all that was sent was received", || {
            sent.sent() == received.received()
        });
    }
}

/// A node as flannel's vxlan backend sets it up; its kernel leaves checksums and cutting to the receiver, across the veth pair.
fn kernel_vxlan(node: &Node) {
    node.sh(&format!(
        "set -e; ip addr add 192.168.66.11/24 dev eth0; ip link set eth0 up
         ip link add flannel.1 address 02:00:00:00:00:01 type vxlan id 77 local 192.168.66.11 dev eth0 dstport {PORT} nolearning
         ip addr add 10.9.1.0/32 dev flannel.1; ip -6 addr add fd09:1::/128 dev flannel.1 nodad; ip link set flannel.1 up
         ip addr add 10.9.1.1/32 dev lo; ip -6 addr add fd09:1::1/128 dev lo nodad
         ip neigh add 10.9.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent
         ip neigh add fd09:2:: lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent
         bridge fdb add 02:00:00:00:00:02 dst 192.168.66.12 dev flannel.1
         ip route add 10.9.2.0/24 via 10.9.2.0 dev flannel.1 onlink src 10.9.1.1
         ip route add fd09:2::/64 via fd09:2:: dev flannel.1 onlink src fd09:1::1"
    ));
}

fn with_a_kernel(mode: Mode) {
    let (Some(one), Some(two)) = (Node::new("a"), Node::new("b")) else {
        return;
    };
    join(&one, &two);
    kernel_vxlan(&one);
    let two = site(two, 2, mode, Underlay::Veth, Wire::Vxlan { vni: 77 });
    let mtu = two.path.settings().mtu as usize;
    for (from, to, n) in [(&one, &two.node, 2), (&two.node, &one, 1)] {
        for address in [pod(n), pod6(n)] {
            for size in [1, 56, 1400, 5000] {
                from.sh(&format!("ping -c 1 -W 5 -s {size} {address}"));
            }
            echo(from, to, address, &[0, 1, 1000, mtu - 48, 9000]);
            bulk(from, to, address, 30_000_001);
        }
    }
    assert_eq!(two.path.ended(), None);
    for reason in DropReason::ALL {
        if reason != DropReason::Unsupported {
            assert_eq!(two.dropped(reason), 0, "{reason:?}");
        }
    }
}

#[test]
fn kernel_vxlan_and_offload() {
    with_a_kernel(Offload);
}

#[test]
fn kernel_vxlan_and_plain() {
    with_a_kernel(Plain);
}

#[test]
fn offload_to_offload() {
    carries_everything([Offload, Offload], Wire::Ip);
}

#[test]
fn offload_to_plain() {
    carries_everything([Offload, Plain], Wire::Ip);
}

#[test]
fn plain_to_plain() {
    carries_everything([Plain, Plain], Wire::Ip);
}

#[test]
fn the_same_with_vxlan() {
    carries_everything([Offload, Plain], Wire::Vxlan { vni: 77 });
}

#[test]
fn vxlan_over_ipv6() {
    let wire = Wire::Vxlan { vni: 1 };
    carries_everything_over(Underlay::VethIpv6, [Offload, Plain], wire);
}
