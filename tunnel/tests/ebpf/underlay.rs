//! What lies between the nodes is not always one plain link.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    bed::{Bed, may_run},
    stream,
};

/// The programs know one link. Where the routes lead to a peer by another one, the packets are left to
/// the kernel: they go on into the TUN device.
#[test]
fn a_peer_behind_another_link_is_left_to_the_kernel() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let (one, two) = (bed.node(1), bed.node(2));
    let paths = bed.attach();
    assert!(one.ping("-c 1 10.5.2.0"));
    one.ip(&format!(
        "link add u1 type veth peer name u1 netns {}",
        two.name
    ));
    for (number, node) in [(1, one), (2, two)] {
        node.ip(&format!("addr add 192.168.67.{number}/24 dev u1"));
        node.ip("link set u1 up");
    }
    one.ip("route add 192.168.66.2/32 via 192.168.67.2 dev u1 src 192.168.66.1");
    // What is known of the next hop is used for a second.
    thread::sleep(Duration::from_millis(1500));
    let before = paths[0].counts().unwrap();
    assert!(!one.ping("-c 3 10.5.2.0"), "nobody reads the device");
    let after = paths[0].counts().unwrap();
    assert_eq!(after.sent, before.sent);
    assert!(after.passed_out >= before.passed_out + 3);
    one.ip("route del 192.168.66.2/32");
    assert!(one.ping("-c 3 10.5.2.0"));
}

/// A shaper cuts what is longer than its bucket: large packets must be such that they can be cut.
#[test]
fn a_shaper_may_cut_large_packets() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let (one, two) = (bed.node(1), bed.node(2));
    let _paths = bed.attach();
    assert!(one.ping("-c 2 10.5.2.0"));
    one.sh("tc qdisc add dev u0 root tbf rate 2gbit burst 20kb limit 10mb");
    let started = Instant::now();
    let address = "10.5.2.0:5001".parse().unwrap();
    stream::tcp(one, two, address, 64 << 20);
    let took = started.elapsed();
    // At 2 Gbit/s it is a third of a second.
    assert!(took < Duration::from_secs(15), "64 MiB took {took:?}");
}
