use kernel::{Address, Fdb, Link, LinkKind, Neigh, Route};

use super::*;
use crate::lease::key;

fn concern(event: &Event) -> Concern {
    let uplink = Uplink {
        index: 2,
        name: "eth0".to_owned(),
        mtu: 1500,
        address_v4: None,
        address_v6: None,
        public_v4: None,
        public_v6: None,
    };
    let own = key::parse("10.3.1.0-24").unwrap();
    let networks = ["10.3.0.0/16".parse().unwrap()];
    Scope {
        uplink: &uplink,
        own: &own,
        networks: &networks,
    }
    .concern(event)
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
const BOTH: Concern = Concern {
    uplink: true,
    datapath: true,
};

#[test]
fn only_what_may_hurt_us_wakes_us() {
    let event = |index, name, up, removed| Event::Link {
        link: link(index, name, up),
        removed,
    };
    assert_eq!(concern(&event(2, "eth0", true, false)), UPLINK);
    assert_eq!(concern(&event(9, "eth0", true, false)), UPLINK);
    assert_eq!(concern(&event(2, "eth0", false, false)), BOTH);
    assert_eq!(concern(&event(7, "flannel.1", true, false)), NONE);
    assert_eq!(concern(&event(7, "flannel.1", false, false)), DATAPATH);
    assert_eq!(concern(&event(7, "flannel.1", true, true)), DATAPATH);
    assert_eq!(concern(&event(8, "veth1", false, true)), NONE);

    assert_eq!(concern(&route("10.3.2.0/24", true)), DATAPATH);
    assert_eq!(concern(&route("10.3.2.0/24", false)), NONE);
    assert_eq!(concern(&route("10.3.1.0/24", true)), NONE);
    assert_eq!(concern(&route("192.168.0.0/24", true)), NONE);

    let address = |dev, net: &str, removed| Event::Address {
        address: Address::new(dev, net.parse().unwrap()),
        removed,
    };
    assert_eq!(concern(&address(2, "192.168.66.11/24", false)), UPLINK);
    assert_eq!(concern(&address(7, "10.3.1.0/32", true)), DATAPATH);
    assert_eq!(concern(&address(7, "10.3.1.0/32", false)), NONE);

    let mac = kernel::Mac::random_local().unwrap();
    let neigh = |ip: [u8; 4], removed| Event::Neigh {
        neigh: Neigh {
            dev: 7,
            ip: ip.into(),
            mac: None,
            permanent: true,
        },
        removed,
    };
    assert_eq!(concern(&neigh([10, 3, 2, 0], true)), DATAPATH);
    assert_eq!(concern(&neigh([10, 3, 1, 9], true)), NONE);
    let fdb = |dst: Option<[u8; 4]>| Event::Fdb {
        fdb: Fdb {
            dev: 7,
            mac,
            dst: dst.map(Into::into),
            permanent: true,
        },
        removed: true,
    };
    assert_eq!(concern(&fdb(Some([192, 168, 66, 12]))), DATAPATH);
    assert_eq!(concern(&fdb(None)), NONE);
    assert_eq!(concern(&Event::Overrun), BOTH);
}
