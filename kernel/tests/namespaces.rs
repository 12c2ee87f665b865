//! The kernel crate against the real kernel, in namespaces made for each test.

use std::{net::IpAddr, os::fd::AsFd as _, os::fd::AsRawFd as _};

use kernel::{
    Address, Change, Fdb, LinkKind, Mac, Neigh, Netlink, Netns, NewLink, NewLinkKind, Route,
    RouteFilter, SetLink, Vxlan,
    monitor::{Event, Group, Monitor},
};

/// Says that a test is skipped, past the harness, which swallows what a passing test prints.
fn skip(reason: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("SKIPPED: {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A namespace removed at the end of the test.
struct Node {
    name: String,
    netns: Netns,
}

impl Node {
    /// `None`, said loudly, without the rights to make one.
    fn new(test: &str) -> Option<Self> {
        let name = format!("weft-k{}-{test}", std::process::id());
        match Netns::create(&name) {
            Ok(netns) => Some(Self { name, netns }),
            Err(error) if std::env::var_os("WEFT_REQUIRE_ROOT").is_none() => {
                skip(format_args!(
                    "needs root ({error}; run scripts/test.sh with sudo)"
                ));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        Netns::delete(&self.name).unwrap();
    }
}

fn add(nl: &mut Netlink, link: NewLink) -> u32 {
    let (link, made) = nl.ensure_link(&link).unwrap();
    assert!(made);
    link.index
}

#[test]
fn a_veth_pair_across_namespaces_on_a_bridge() {
    let (Some(host), Some(pod)) = (Node::new("veth-h"), Node::new("veth-p")) else {
        return;
    };
    let mut nl = Netlink::open_in(&host.netns).unwrap();
    let mut inside = Netlink::open_in(&pod.netns).unwrap();
    let bridge = add(
        &mut nl,
        NewLink {
            up: true,
            ..NewLink::new(
                "br0",
                NewLinkKind::Bridge {
                    vlan_filtering: None,
                },
            )
        },
    );
    let mac: Mac = "02:00:00:00:00:01".parse().unwrap();
    let peer = NewLink {
        mac: Some(mac),
        mtu: Some(1400),
        netns: Some(pod.netns.as_fd().as_raw_fd()),
        ..NewLink::new("eth0", NewLinkKind::Plain)
    };
    let port = add(
        &mut nl,
        NewLink {
            up: true,
            master: Some(bridge),
            mtu: Some(1400),
            ..NewLink::new(
                "veth1",
                NewLinkKind::Veth {
                    peer: Box::new(peer),
                },
            )
        },
    );
    nl.apply(&Change::SetLink(SetLink {
        index: port,
        hairpin: Some(true),
        isolated: Some(true),
        ..SetLink::default()
    }))
    .unwrap();
    let seen = nl.expect_link("veth1").unwrap();
    assert_eq!(
        (seen.kind, seen.master, seen.mtu),
        (LinkKind::Veth, Some(bridge), 1400)
    );
    let options = seen.port.unwrap();
    assert!(options.hairpin && options.isolated);
    let eth0 = inside.expect_link("eth0").unwrap();
    assert!(inside.ensure_up(&eth0).unwrap());
    let eth0 = inside.expect_link("eth0").unwrap();
    assert!(!inside.ensure_up(&eth0).unwrap());
    assert_eq!((eth0.mac, eth0.up, eth0.mtu), (Some(mac), true, 1400));

    // Addresses and routes, ensured twice: the second time changes nothing.
    let address = Address::new(eth0.index, "10.1.0.2/24".parse().unwrap());
    assert!(inside.ensure_address(&address).unwrap());
    assert!(!inside.ensure_address(&address).unwrap());
    let listed = inside.addresses(Some(eth0.index)).unwrap();
    assert!(listed.iter().any(|a| a.net == address.net && a.permanent));
    let route = Route {
        via: Some("10.1.0.1".parse().unwrap()),
        dev: Some(eth0.index),
        mtu: Some(1300),
        ..Route::new("0.0.0.0/0".parse().unwrap())
    };
    assert!(inside.ensure_route(&route).unwrap());
    assert!(!inside.ensure_route(&route).unwrap());
    let found = inside
        .route_to("192.0.2.1".parse().unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(found.via, route.via);
    assert_eq!(nl.route_to("192.0.2.1".parse().unwrap()).unwrap(), None);

    // Errors name operation, object and cause.
    let error = nl
        .apply(&Change::AddRoute(Route {
            via: Some("10.9.9.9".parse().unwrap()),
            dev: Some(bridge),
            ..Route::new("10.2.0.0/16".parse().unwrap())
        }))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "add route 10.2.0.0/16 via 10.9.9.9 dev br0: network is unreachable \
         (Nexthop has invalid gateway)"
    );
    assert!(nl.link("nosuch").unwrap().is_none());
}

#[test]
fn a_batch_reports_each_failure_and_goes_on() {
    let Some(node) = Node::new("batch") else {
        return;
    };
    let mut nl = Netlink::open_in(&node.netns).unwrap();
    let vxlan = Vxlan {
        vni: 1,
        port: 8472,
        local: Some("192.0.2.1".parse().unwrap()),
        ..Vxlan::default()
    };
    let dev = add(
        &mut nl,
        NewLink {
            up: true,
            ..NewLink::new("flannel.1", NewLinkKind::Vxlan(vxlan.clone()))
        },
    );
    assert_eq!(
        nl.expect_link("flannel.1").unwrap().kind,
        LinkKind::Vxlan(vxlan)
    );
    // Without any address the kernel has no local table, and takes no gateway for a unicast one.
    nl.ensure_address(&Address::new(dev, "10.0.0.0/32".parse().unwrap()))
        .unwrap();
    let ip = |n: u32| IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes());
    let mac = |n: u32| Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
    let mut changes = Vec::new();
    for n in 1..=2000 {
        changes.push(Change::ReplaceNeigh(Neigh {
            dev,
            ip: ip(n),
            mac: Some(mac(n)),
            permanent: true,
        }));
        changes.push(Change::ReplaceFdb(Fdb {
            dev,
            mac: mac(n),
            dst: Some("192.0.2.9".parse().unwrap()),
            permanent: true,
        }));
        changes.push(Change::ReplaceRoute(Route {
            via: Some(ip(n)),
            dev: Some(dev),
            onlink: true,
            ..Route::new(format!("{}/24", ip(n)).parse().unwrap())
        }));
        // A route that exists already: one failure in four.
        changes.push(Change::AddRoute(Route {
            via: Some(ip(n)),
            dev: Some(dev),
            onlink: true,
            ..Route::new(format!("{}/24", ip(n)).parse().unwrap())
        }));
    }
    let results = nl.apply_all(&changes);
    assert_eq!(results.len(), changes.len());
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), n % 4 == 3, "{}: {result:?}", changes[n]);
    }
    assert!(results[3].as_ref().unwrap_err().is_exists());
    let filter = RouteFilter {
        dev: Some(dev),
        ..RouteFilter::default()
    };
    let routes = nl.routes(filter).unwrap();
    assert_eq!(routes.iter().filter(|r| r.onlink).count(), 2000);
    let neighbours = nl.neighbours(dev).unwrap();
    assert_eq!(
        neighbours
            .iter()
            .filter(|n| n.permanent && n.mac.is_some())
            .count(),
        2000
    );
    let fdb = nl.fdb(dev).unwrap();
    assert_eq!(fdb.iter().filter(|e| e.dst.is_some()).count(), 2000);
    assert_eq!(fdb[0].dst, Some("192.0.2.9".parse().unwrap()));

    // The ensure forms change nothing the second time.
    let neigh = Neigh {
        dev,
        ip: "10.250.0.1".parse().unwrap(),
        mac: Some(mac(1)),
        permanent: true,
    };
    assert!(nl.ensure_neigh(&neigh).unwrap());
    assert!(!nl.ensure_neigh(&neigh).unwrap());
    let moved = Fdb {
        dst: Some("192.0.2.10".parse().unwrap()),
        ..fdb[0].clone()
    };
    assert!(nl.ensure_fdb(&moved).unwrap());
    assert!(!nl.ensure_fdb(&moved).unwrap());

    // All of them removed again, every request failing the second time.
    let undo: Vec<Change> = routes
        .into_iter()
        .filter(|r| r.onlink)
        .map(Change::DeleteRoute)
        .collect();
    assert!(nl.apply_all(&undo).iter().all(Result::is_ok));
    assert!(
        nl.apply_all(&undo)
            .iter()
            .all(|r| r.as_ref().is_err_and(kernel::Error::is_not_found))
    );
}

#[test]
fn events_tell_what_changed() {
    let Some(node) = Node::new("events") else {
        return;
    };
    let mut nl = Netlink::open_in(&node.netns).unwrap();
    let mut monitor = node
        .netns
        .run(|| Monitor::open(&[Group::Link, Group::Ipv4Address, Group::Ipv4Route]))
        .unwrap()
        .unwrap();
    let dev = add(
        &mut nl,
        NewLink {
            up: true,
            ..NewLink::new(
                "br9",
                NewLinkKind::Bridge {
                    vlan_filtering: None,
                },
            )
        },
    );
    let address = Address::new(dev, "10.3.0.1/24".parse().unwrap());
    nl.ensure_address(&address).unwrap();
    nl.apply(&Change::DeleteLink {
        index: dev,
        name: "br9".into(),
    })
    .unwrap();
    let mut events = Vec::new();
    loop {
        let more = monitor.events().unwrap();
        if more.is_empty() {
            break;
        }
        events.extend(more);
    }
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Link { link, removed: false } if link.name == "br9"))
    );
    assert!(events.iter().any(
        |e| matches!(e, Event::Address { address: a, removed: false } if a.net == address.net)
    ));
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Link { link, removed: true } if link.name == "br9"))
    );
}

#[test]
fn what_is_no_namespace_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Netns::open(file.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("it is there but is not a network namespace"),
        "{error}"
    );
    assert!(Netns::open("/proc/self/ns/uts").is_err());
    assert!(Netns::open("/no/such/place").unwrap_err().is_not_found());
    assert!(Netns::create("../evil").is_err());
    let current = Netns::current().unwrap();
    assert_eq!(current.id(), Netns::open("/proc/self/ns/net").unwrap().id());
}

#[test]
fn nft_transactions_and_generation() {
    let Some(node) = Node::new("nft") else {
        return;
    };
    node.netns
        .run(|| {
            if !kernel::nft::available() {
                skip(format_args!("no nft program"));
                return;
            }
            let before = kernel::nft::generation().unwrap();
            assert_eq!(kernel::nft::list_table("ip", "weft-test").unwrap(), None);
            kernel::nft::apply("add table ip weft-test\n").unwrap();
            assert_ne!(kernel::nft::generation().unwrap(), before);
            assert!(
                kernel::nft::list_table_json("ip", "weft-test")
                    .unwrap()
                    .is_some()
            );
            let error = kernel::nft::apply("add rule ip nosuch x accept\n").unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("apply nftables transaction: nft:"),
                "{error}"
            );
            assert_eq!(
                kernel::conntrack::delete_flows_to(false, 17, None, 53).unwrap(),
                0
            );
        })
        .unwrap();
}
