//! A path that carries less than the links at its ends.

use tunnel::{
    DropReason, Wire,
    user::Mode::{self, Offload, Plain},
};

use super::{
    lab::{Lab, Underlay, eventually, narrow, pod, pod6},
    traffic::{bulk, echo},
};

fn narrow_path(mode: Mode, wire: Wire) {
    let Some(lab) = Lab::with([mode, mode], Underlay::Router(1350), wire) else {
        return;
    };
    let [one, two] = &lab.sites;
    let fits = 1350 - 28 - wire.overhead();
    // The first tells the tunnel, the next ones the sender.
    let ping = format!("ping -c 4 -i 0.2 -W 2 -M do -s 1400 {}", pod(2));
    let output = one.node.try_sh(&ping);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains(&format!("mtu={fits}")) || said.contains(&format!("mtu = {fits}")),
        "{said}"
    );
    assert!(one.dropped(DropReason::TooBig) >= 1);
    one.node
        .sh(&format!("ping -c 1 -W 5 -M do -s {} {}", fits - 28, pod(2)));
    // Without DF it travels in fragments, after the path MTU is known.
    one.node
        .sh(&format!("ping -c 2 -i 0.2 -W 5 -M dont -s 1400 {}", pod(2)));
    for (at, address) in [(1, pod(2)), (1, pod6(2)), (0, pod(1)), (0, pod6(1))] {
        let (from, to) = (&lab.sites[1 - at].node, &lab.sites[at].node);
        bulk(from, to, address, 3_000_000);
    }
    echo(&one.node, &two.node, pod(2), &[100, 1250]);
    assert_eq!(one.path.ended(), None);
    assert_eq!(one.path.notes(), Vec::<String>::new());
}

/// The way becomes narrow while a stream runs over it.
#[test]
fn a_stream_goes_on() {
    let Some(lab) = Lab::with([Offload, Offload], Underlay::Router(1500), Wire::Ip) else {
        return;
    };
    let [one, two] = &lab.sites;
    let router = lab.router.as_ref().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| bulk(&one.node, &two.node, pod(2), 60_000_000));
        scope.spawn(|| bulk(&two.node, &one.node, pod(1), 60_000_000));
        eventually("it runs", || one.counters.sent().1 > 5_000_000);
        narrow(router, &two.node, 1350);
    });
    assert!(one.dropped(DropReason::TooBig) > 0);
}

#[test]
fn narrow_path_in_mode_offload() {
    narrow_path(Offload, Wire::Ip);
}

#[test]
fn narrow_path_in_mode_plain() {
    narrow_path(Plain, Wire::Ip);
}

#[test]
fn narrow_path_with_vxlan() {
    narrow_path(Offload, Wire::Vxlan { vni: 5 });
}
