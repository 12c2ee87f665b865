//! Everything that travels, travels: between all pairs of modes, both directions, both families.

use tunnel::{
    DropReason, Wire,
    user::Mode::{self, Offload, Plain},
};

use super::{
    lab::{Lab, Underlay, eventually, pod, pod6},
    traffic::{bulk, echo},
};

/// ICMP data sizes: around the device's MTU of 1472, and fragmented ones.
const PINGS: [usize; 10] = [0, 1, 7, 56, 1000, 1443, 1444, 1445, 1472, 5000];

fn carries_everything(modes: [Mode; 2], wire: Wire) {
    let Some(lab) = Lab::with(modes, Underlay::Veth, wire) else {
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
