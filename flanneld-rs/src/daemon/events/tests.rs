use std::sync::Arc;

use kernel::{Address, Fdb, Link, LinkKind, Neigh, Route};

use super::*;
use crate::lease::{Lease, LeaseAttrs, key};

/// The device with index 7 is ours; the one peer is 10.3.2.0/24 at 192.168.66.12.
fn judged(event: &Event, uplink_lost: bool) -> Concern {
    let uplink = Uplink {
        index: 2,
        name: "eth0".to_owned(),
        mtu: 1500,
        address_v4: None,
        address_v6: None,
        public_v4: None,
        public_v6: None,
    };
    let peer = Lease {
        subnet: key::parse("10.3.2.0-24").unwrap(),
        attrs: LeaseAttrs {
            public_ip: Some([192, 168, 66, 12].into()),
            ..LeaseAttrs::default()
        },
    };
    let networks = ["10.3.0.0/16".parse().unwrap()];
    Scope {
        uplink: &uplink,
        uplink_lost,
        networks: &networks,
        peers: &[Arc::new(peer)].into_iter().collect(),
    }
    .concern(event, &[7].into())
}

fn concern(event: &Event) -> Concern {
    judged(event, false)
}

fn link(index: u32, name: &str, up: bool) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: None,
        mtu: 1500,
        up,
        running: up,
        loopback: false,
        promisc: false,
        master: None,
        parent: None,
        parent_netns: None,
        txqlen: 0,
        kind: LinkKind::Plain,
        port: None,
    }
}

fn route(dst: &str, removed: bool) -> Event {
    Event::Route {
        route: Route::new(dst.parse().unwrap()),
        removed,
    }
}

const NONE: Concern = Concern {
    uplink: false,
    datapath: false,
};
const UPLINK: Concern = Concern {
    uplink: true,
    datapath: false,
};
const DATAPATH: Concern = Concern {
    uplink: false,
    datapath: true,
};
#[test]
fn only_what_may_hurt_us_wakes_us() {
    let event = |index, name, up, removed| Event::Link {
        link: link(index, name, up),
        removed,
    };
    assert_eq!(concern(&event(2, "eth0", true, false)), EVERYTHING);
    assert_eq!(concern(&event(9, "eth0", true, false)), EVERYTHING);
    assert_eq!(concern(&event(2, "eth0", false, false)), EVERYTHING);
    assert_eq!(concern(&event(7, "flannel.1", true, false)), NONE);
    assert_eq!(concern(&event(7, "flannel.1", false, false)), DATAPATH);
    assert_eq!(concern(&event(7, "flannel.1", true, true)), DATAPATH);
    assert_eq!(concern(&event(8, "veth1", false, true)), NONE);

    assert_eq!(concern(&route("10.3.2.0/24", true)), DATAPATH);
    assert_eq!(concern(&route("10.3.2.0/24", false)), NONE);
    assert_eq!(concern(&route("10.3.1.0/24", true)), NONE);
    assert_eq!(concern(&route("192.168.0.0/24", true)), NONE);
    assert_eq!(concern(&route("10.3.0.0/16", true)), DATAPATH);
    // A peer that is gone: our own deletion.
    assert_eq!(concern(&route("10.3.9.0/24", true)), NONE);

    let address = |dev, net: &str, removed| Event::Address {
        address: Address::new(dev, net.parse().unwrap()),
        removed,
    };
    assert_eq!(concern(&address(2, "192.168.66.11/24", false)), EVERYTHING);
    assert_eq!(concern(&address(2, "192.168.66.11/24", true)), EVERYTHING);
    assert_eq!(concern(&address(8, "10.3.1.1/24", true)), NONE);
    assert_eq!(concern(&address(7, "10.3.1.0/32", true)), DATAPATH);
    assert_eq!(concern(&address(7, "10.3.1.0/32", false)), NONE);

    let mac = kernel::Mac::random_local().unwrap();
    let neigh = |dev, ip: [u8; 4]| Event::Neigh {
        neigh: Neigh {
            dev,
            ip: ip.into(),
            mac: None,
            permanent: true,
        },
        removed: true,
    };
    assert_eq!(concern(&neigh(7, [10, 3, 2, 0])), DATAPATH);
    assert_eq!(concern(&neigh(8, [10, 3, 2, 0])), NONE);
    assert_eq!(concern(&neigh(7, [10, 3, 9, 0])), NONE);
    let fdb = |dev, dst: Option<[u8; 4]>| Event::Fdb {
        fdb: Fdb {
            dev,
            mac,
            dst: dst.map(Into::into),
            permanent: true,
        },
        removed: true,
    };
    assert_eq!(concern(&fdb(7, Some([192, 168, 66, 12]))), DATAPATH);
    assert_eq!(concern(&fdb(8, Some([192, 168, 66, 12]))), NONE);
    assert_eq!(concern(&fdb(7, Some([192, 168, 66, 19]))), NONE);
    assert_eq!(concern(&fdb(7, None)), NONE);
    assert_eq!(concern(&Event::Overrun), EVERYTHING);
}

#[test]
fn without_an_external_interface_anything_about_links_makes_us_look() {
    let made = Event::Link {
        link: link(12, "eth1", true),
        removed: false,
    };
    let address = Event::Address {
        address: Address::new(12, "192.168.66.11/24".parse().unwrap()),
        removed: false,
    };
    for event in [made, address, route("0.0.0.0/0", false)] {
        assert_eq!(concern(&event), NONE);
        assert_eq!(judged(&event, true), UPLINK);
    }
    assert_eq!(judged(&route("10.9.0.0/24", false), true), NONE);
}
