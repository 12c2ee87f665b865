use kernel::LinkKind;
use regex_lite::Regex;

use super::*;

const V4: Families = Families {
    v4: true,
    v6: false,
};
const DUAL: Families = Families { v4: true, v6: true };

fn link(index: u32, name: &str, mtu: u32) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: None,
        mtu,
        up: true,
        running: true,
        loopback: false,
        promisc: false,
        master: None,
        parent: None,
        parent_netns: None,
        txqlen: 1000,
        kind: LinkKind::Plain,
        port: None,
    }
}

fn address(dev: u32, net: &str) -> Address {
    Address::new(dev, net.parse().unwrap())
}

fn default(dev: u32, family: &str, metric: u32) -> Route {
    let dst = if family == "v4" { "0.0.0.0/0" } else { "::/0" };
    Route {
        dev: Some(dev),
        priority: Some(metric),
        ..Route::new(dst.parse().unwrap())
    }
}

fn host() -> Host {
    Host {
        links: vec![
            link(1, "lo", 65536),
            link(2, "eth0", 1500),
            link(3, "eth1", 9000),
        ],
        addresses: vec![
            address(1, "127.0.0.1/8"),
            address(2, "10.0.0.2/24"),
            address(2, "fe80::2/64"),
            address(2, "fd00::2/64"),
            address(3, "192.168.66.11/24"),
            address(3, "192.168.66.12/24"),
        ],
        defaults: vec![
            default(3, "v4", 200),
            default(2, "v4", 100),
            default(2, "v6", 100),
        ],
        reach: Some(3),
    }
}

fn name(
    host: &Host,
    options: &IfaceOptions,
    families: Families,
) -> Result<(String, String), String> {
    let uplink = choose(host, options, families).map_err(|e| e.to_string())?;
    Ok((
        uplink.name,
        uplink
            .public_v4
            .map(|ip| ip.to_string())
            .unwrap_or_default(),
    ))
}

fn is(name: &str, ip: &str) -> Result<(String, String), String> {
    Ok((name.to_owned(), ip.to_owned()))
}

#[test]
fn without_flags_the_default_route_with_the_lowest_metric_decides() {
    let uplink = choose(&host(), &IfaceOptions::default(), V4).unwrap();
    assert_eq!(
        (uplink.name.as_str(), uplink.mtu, uplink.address_v6),
        ("eth0", 1500, None)
    );
    let none = Host {
        defaults: vec![],
        ..host()
    };
    assert!(
        name(&none, &IfaceOptions::default(), V4)
            .unwrap_err()
            .contains("no IPv4 default route")
    );
}

#[test]
fn dual_stack_wants_both_defaults_on_one_link_and_a_global_address() {
    let uplink = choose(&host(), &IfaceOptions::default(), DUAL).unwrap();
    assert_eq!(uplink.address_v6, "fd00::2".parse().ok());
    let mut split = host();
    split.defaults[2].dev = Some(3);
    split.defaults.remove(0);
    assert!(
        name(&split, &IfaceOptions::default(), DUAL)
            .unwrap_err()
            .contains("both")
    );
}

#[test]
fn iface_takes_names_and_addresses_first_match_wins() {
    let iface = |list: &[&str]| IfaceOptions {
        iface: list.iter().map(|s| (*s).to_owned()).collect(),
        ..IfaceOptions::default()
    };
    assert_eq!(
        name(&host(), &iface(&["nope", "eth1", "eth0"]), V4),
        is("eth1", "192.168.66.11")
    );
    assert_eq!(
        name(&host(), &iface(&["192.168.66.12"]), V4),
        is("eth1", "192.168.66.12")
    );
    assert!(
        name(&host(), &iface(&["nope"]), V4)
            .unwrap_err()
            .contains("nope")
    );
    assert!(
        name(&host(), &iface(&["eth1"]), DUAL)
            .unwrap_err()
            .contains("eth1 has no IPv6 address")
    );
}

#[test]
fn a_regex_matches_addresses_before_names_and_comes_after_iface() {
    let regex = |text: &str| IfaceOptions {
        regex: vec![Regex::new(text).unwrap()],
        ..IfaceOptions::default()
    };
    assert_eq!(
        name(&host(), &regex(r"^192\.168\.66\.12$"), V4),
        is("eth1", "192.168.66.12")
    );
    assert_eq!(
        name(&host(), &regex("^eth1$"), V4),
        is("eth1", "192.168.66.11")
    );
    let both = IfaceOptions {
        iface: vec!["eth0".to_owned()],
        ..regex("^eth1$")
    };
    assert_eq!(name(&host(), &both, V4), is("eth0", "10.0.0.2"));
}

#[test]
fn can_reach_is_the_kernels_own_choice() {
    let options = IfaceOptions {
        can_reach: "192.168.66.1".parse().ok(),
        ..IfaceOptions::default()
    };
    assert_eq!(name(&host(), &options, V4), is("eth1", "192.168.66.11"));
    let none = Host {
        reach: None,
        ..host()
    };
    assert!(
        name(&none, &options, V4)
            .unwrap_err()
            .contains("192.168.66.1")
    );
}

#[test]
fn a_public_address_names_its_interface_or_is_announced_as_it_is() {
    let owned = IfaceOptions {
        public_ip: "192.168.66.12".parse().ok(),
        ..IfaceOptions::default()
    };
    assert_eq!(name(&host(), &owned, V4), is("eth1", "192.168.66.12"));
    let foreign = IfaceOptions {
        public_ip: "203.0.113.9".parse().ok(),
        ..IfaceOptions::default()
    };
    assert_eq!(name(&host(), &foreign, V4), is("eth0", "203.0.113.9"));
}

#[test]
fn better_addresses_come_first() {
    let mut host = host();
    host.addresses = vec![
        Address {
            deprecated: true,
            ..address(2, "10.0.0.9/24")
        },
        address(2, "169.254.1.1/16"),
        Address {
            permanent: false,
            ..address(2, "10.0.0.3/24")
        },
        Address {
            secondary: true,
            ..address(2, "10.0.0.4/24")
        },
        address(2, "10.0.0.5/24"),
    ];
    let mut order = Vec::new();
    while let Ok((_, ip)) = name(&host, &IfaceOptions::default(), V4) {
        host.addresses.retain(|a| a.net.addr().to_string() != ip);
        order.push(ip);
    }
    assert_eq!(order, ["10.0.0.5", "10.0.0.4", "10.0.0.3", "169.254.1.1"]);
}

#[test]
fn a_running_daemon_stays_on_its_interface_and_follows_its_address_and_mtu() {
    let options = IfaceOptions::default();
    let first = choose(&host(), &options, V4).unwrap();
    let mut changed = host();
    changed.defaults.remove(1);
    changed.links[1].mtu = 1400;
    let now = follow(&changed, &options, V4, &first).unwrap();
    assert_eq!(
        now,
        Uplink {
            mtu: 1400,
            ..first.clone()
        }
    );

    changed.addresses[1] = address(2, "10.0.0.77/24");
    assert_eq!(
        follow(&changed, &options, V4, &first).unwrap().public_v4,
        Some([10, 0, 0, 77].into())
    );
    changed.links.remove(1);
    assert_eq!(follow(&changed, &options, V4, &first).unwrap().name, "eth1");
}
