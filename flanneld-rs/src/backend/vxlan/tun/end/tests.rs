use std::net::IpAddr;

use kernel::Vxlan;

use super::*;

fn vxlan(up: bool, port: u16, local: Option<&str>) -> Link {
    Link {
        index: 7,
        name: "other".to_owned(),
        mac: None,
        mtu: 1450,
        up,
        running: up,
        loopback: false,
        promisc: false,
        master: None,
        parent: None,
        parent_netns: None,
        txqlen: 0,
        kind: LinkKind::Vxlan(Vxlan {
            port,
            local: local.map(|ip| ip.parse::<IpAddr>().unwrap()),
            ..Vxlan::default()
        }),
        port: None,
    }
}

#[test]
fn vxlan_devices_that_are_up_hold_the_port_of_their_family() {
    let v4: SocketAddr = "192.168.66.11:8472".parse().unwrap();
    let v6: SocketAddr = "[fd66::11]:8472".parse().unwrap();
    let holds = |link: &Link| (holds_port(link, v4), holds_port(link, v6));
    assert_eq!(
        holds(&vxlan(true, 8472, Some("192.168.66.11"))),
        (true, false)
    );
    assert_eq!(holds(&vxlan(true, 8472, None)), (true, false));
    assert_eq!(holds(&vxlan(true, 8472, Some("fd66::11"))), (false, true));
    assert_eq!(holds(&vxlan(true, 4789, None)), (false, false));
    assert_eq!(holds(&vxlan(false, 8472, None)), (false, false));
    let tun = Link {
        kind: LinkKind::Tun,
        ..vxlan(true, 8472, None)
    };
    assert_eq!(holds(&tun), (false, false));
}
