use super::*;

fn wanted() -> Device {
    Device {
        name: "flannel.1".into(),
        options: Vxlan {
            vni: 1,
            port: 8472,
            parent: Some(2),
            local: Some("192.168.66.11".parse().unwrap()),
            ..Vxlan::default()
        },
        mtu: 1450,
        mac: Some(mac(1)),
        address: Some("10.244.1.0/32".parse().unwrap()),
        network: "10.244.0.0/16".parse().unwrap(),
    }
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn found(wanted: &Device) -> Link {
    Link {
        index: 7,
        name: wanted.name.clone(),
        mac: wanted.mac,
        mtu: wanted.mtu,
        up: true,
        running: true,
        loopback: false,
        promisc: false,
        master: None,
        parent: wanted.options.parent,
        parent_netns: None,
        txqlen: 0,
        kind: LinkKind::Vxlan(wanted.options.clone()),
        port: None,
    }
}

fn net(n: u8) -> IpNet {
    format!("10.244.{n}.0/24").parse().unwrap()
}

fn tunnel(n: u8) -> Tunnel {
    Tunnel {
        mac: mac(n),
        public: format!("192.168.66.1{n}").parse().unwrap(),
    }
}

fn text(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| change.describe(&|_| "flannel.1".into()))
        .collect()
}

#[test]
fn a_missing_device_is_made() {
    let DevicePlan::Make { first: None, link } = device(&wanted(), None) else {
        panic!("not made");
    };
    assert_eq!(
        Change::AddLink(link).to_string(),
        "add link flannel.1 mtu 1450 address 02:00:00:00:00:01 type vxlan id 1 dstport 8472 local \
         192.168.66.11 dev #2"
    );
}

#[test]
fn a_good_device_is_kept_and_a_little_drift_is_mended_in_place() {
    let wanted = wanted();
    let mut link = found(&wanted);
    assert_eq!(device(&wanted, Some(&link)), DevicePlan::Keep(Vec::new()));
    link.mtu = 1500;
    link.mac = Some(mac(9));
    link.kind = LinkKind::Vxlan(Vxlan {
        local: Some("192.168.66.99".parse().unwrap()),
        learning: true,
        ..wanted.options.clone()
    });
    let DevicePlan::Keep(changes) = device(&wanted, Some(&link)) else {
        panic!("thrown away");
    };
    assert_eq!(
        text(&changes),
        ["set link flannel.1 mtu 1450 address 02:00:00:00:00:01 learning off local 192.168.66.11"]
    );
}

#[test]
fn another_vni_port_or_kind_is_replaced() {
    let wanted = wanted();
    let others = [
        LinkKind::Plain,
        LinkKind::Vxlan(Vxlan {
            vni: 2,
            ..wanted.options.clone()
        }),
        LinkKind::Vxlan(Vxlan {
            port: 4789,
            ..wanted.options.clone()
        }),
        LinkKind::Vxlan(Vxlan {
            gbp: true,
            ..wanted.options.clone()
        }),
    ];
    for kind in others {
        let link = Link {
            kind,
            ..found(&wanted)
        };
        let plan = device(&wanted, Some(&link));
        assert!(
            matches!(plan, DevicePlan::Make { first: Some(_), .. }),
            "{link:?}"
        );
    }
}

#[test]
fn addresses_of_a_former_subnet_go() {
    let wanted = wanted();
    let link = Link {
        up: false,
        ..found(&wanted)
    };
    let present = [
        Address::new(7, "10.244.9.0/32".parse().unwrap()),
        Address::new(7, "192.0.2.1/24".parse().unwrap()),
        Address::new(7, "fe80::1/64".parse().unwrap()),
    ];
    assert_eq!(
        text(&addresses(wanted.network, wanted.address, &link, &present)),
        [
            "add address 10.244.1.0/32 dev flannel.1",
            "delete address 10.244.9.0/32 dev flannel.1",
            "set link flannel.1 up",
        ]
    );
}

#[test]
fn entries_in_the_order_the_first_packet_needs_and_left_overs_last() {
    let tunnels: Tunnels = [(net(2), tunnel(2)), (net(3), tunnel(3))].into();
    let mut entries_found = Entries::default();
    // Peer 2 has moved to another MAC; peer 8 is gone.
    for (subnet, old) in [(net(2), mac(22)), (net(8), mac(8))] {
        for change in entries_of(
            7,
            subnet,
            Tunnel {
                mac: old,
                ..tunnel(2)
            },
        ) {
            match change {
                Change::ReplaceNeigh(neigh) => entries_found.neighbours.push(neigh),
                Change::ReplaceFdb(fdb) => entries_found.fdb.push(fdb),
                Change::ReplaceRoute(route) => entries_found.routes.push(route),
                other => panic!("{other}"),
            }
        }
    }
    assert_eq!(
        text(&entries(7, wanted().network, &tunnels, &entries_found)),
        [
            "replace neigh 10.244.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent",
            "replace fdb 02:00:00:00:00:02 dev flannel.1 dst 192.168.66.12 self",
            "replace neigh 10.244.3.0 lladdr 02:00:00:00:00:03 dev flannel.1 nud permanent",
            "replace fdb 02:00:00:00:00:03 dev flannel.1 dst 192.168.66.13 self",
            "replace route 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
            "delete route 10.244.8.0/24 via 10.244.8.0 dev flannel.1 onlink",
            "delete fdb 02:00:00:00:00:16 dev flannel.1 dst 192.168.66.12 self",
            "delete fdb 02:00:00:00:00:08 dev flannel.1 dst 192.168.66.12 self",
            "delete neigh 10.244.8.0 dev flannel.1",
        ]
    );
}

#[test]
fn a_kernel_as_planned_needs_nothing() {
    let tunnels: Tunnels = [(net(2), tunnel(2))].into();
    let mut same = Entries::default();
    for change in entries(7, wanted().network, &tunnels, &same.clone()) {
        match change {
            Change::ReplaceNeigh(neigh) => same.neighbours.push(neigh),
            Change::ReplaceFdb(fdb) => same.fdb.push(fdb),
            Change::ReplaceRoute(route) => same.routes.push(route),
            other => panic!("{other}"),
        }
    }
    assert_eq!(entries(7, wanted().network, &tunnels, &same), []);
}
