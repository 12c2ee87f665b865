//! What the TUN device must carry, as a pure plan: MTU, our address, the route to the whole network,
//! for one family or both.

use ipnet::IpNet;
use kernel::{Address, Change, Link, Route, SetLink, scope};

/// One family of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The whole network, which the device's route leads to.
    pub network: IpNet,
    /// The device's own address: the first of our subnet, full length. `None` before the first lease.
    pub own: Option<IpNet>,
}

impl Family {
    fn route(&self, dev: u32) -> Route {
        Route {
            dev: Some(dev),
            ..Route::new(self.network)
        }
    }
}

/// What a device that is yet to be made will get; `mtu` is in bytes.
pub fn made(name: &str, mtu: u32, families: &[Family]) -> Vec<String> {
    let mut lines = vec![format!("add link {name} mtu {mtu} type tun multi_queue")];
    let name_of = |_| name.to_owned();
    for family in families {
        // Index 0 stands for the device that is yet to be made.
        let own = family
            .own
            .map(|net| Change::AddAddress(Address::new(0, net)));
        lines.extend(own.map(|change| change.describe(&name_of)));
        lines.push(Change::ReplaceRoute(family.route(0)).describe(&name_of));
    }
    lines
}

/// What the device still lacks, and what it has from an earlier lease or configuration. Of `routes`
/// only those count that are ours: table main, protocol boot.
pub fn plan(
    link: &Link,
    mtu: u32,
    families: &[Family],
    addresses: &[Address],
    routes: &[Route],
) -> Vec<Change> {
    let mut changes = Vec::new();
    let set = SetLink {
        index: link.index,
        mtu: Some(mtu).filter(|mtu| *mtu != link.mtu),
        up: (!link.up).then_some(true),
        ..SetLink::default()
    };
    if set.mtu.is_some() || set.up.is_some() {
        changes.push(Change::SetLink(set));
    }
    let own: Vec<IpNet> = families.iter().filter_map(|family| family.own).collect();
    let missing = own
        .iter()
        .filter(|net| !addresses.iter().any(|a| a.net == **net));
    changes.extend(missing.map(|net| Change::AddAddress(Address::new(link.index, *net))));
    // After the new ones: with its last address a device loses its routes. Before the first lease
    // nothing can be told to be wrong. The kernel's own link-local addresses stay.
    let foreign = addresses
        .iter()
        .filter(|a| !own.is_empty() && a.scope == scope::UNIVERSE && !own.contains(&a.net));
    changes.extend(foreign.cloned().map(Change::DeleteAddress));
    let wanted = |route: &Route| families.iter().any(|family| family.network == route.dst);
    let stale = routes.iter().filter(|route| !wanted(route));
    changes.extend(stale.cloned().map(Change::DeleteRoute));
    let lacking = families.iter().filter(|family| {
        let mut present = routes.iter();
        !present.any(|route| route.dst == family.network && route.via.is_none())
    });
    changes.extend(lacking.map(|family| Change::ReplaceRoute(family.route(link.index))));
    changes
}

#[cfg(test)]
mod tests {
    use kernel::LinkKind;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn both() -> [Family; 2] {
        [
            ("10.5.0.0/16", "10.5.7.0/32"),
            ("fd05::/48", "fd05:0:0:7::/128"),
        ]
        .map(|(network, own)| Family {
            network: net(network),
            own: Some(net(own)),
        })
    }

    fn link(mtu: u32, up: bool) -> Link {
        Link {
            index: 9,
            name: "flannel0".to_owned(),
            mac: None,
            mtu,
            up,
            running: up,
            loopback: false,
            promisc: false,
            master: None,
            parent: None,
            parent_netns: None,
            txqlen: 500,
            kind: LinkKind::Tun,
            port: None,
        }
    }

    fn text(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|change| change.describe(&|_| "flannel0".to_owned()))
            .collect()
    }

    #[test]
    fn a_fresh_device_gets_everything_in_both_families() {
        assert_eq!(
            text(&plan(&link(1500, false), 1472, &both(), &[], &[])),
            [
                "set link flannel0 up mtu 1472",
                "add address 10.5.7.0/32 dev flannel0",
                "add address fd05:0:0:7::/128 dev flannel0",
                "replace route 10.5.0.0/16 dev flannel0",
                "replace route fd05::/48 dev flannel0",
            ]
        );
        assert_eq!(
            made("flannel0", 1472, &both()[..1]),
            [
                "add link flannel0 mtu 1472 type tun multi_queue",
                "add address 10.5.7.0/32 dev flannel0",
                "replace route 10.5.0.0/16 dev flannel0",
            ]
        );
    }

    #[test]
    fn nothing_to_do_is_an_empty_plan_and_what_the_kernel_makes_stays() {
        let addresses = [
            Address::new(9, net("10.5.7.0/32")),
            Address::new(9, net("fd05:0:0:7::/128")),
            Address {
                scope: scope::LINK,
                ..Address::new(9, net("fe80::1/64"))
            },
        ];
        let routes = both().map(|family| Route {
            priority: family.network.addr().is_ipv6().then_some(1024),
            ..family.route(9)
        });
        assert_eq!(
            plan(&link(1472, true), 1472, &both(), &addresses, &routes),
            []
        );
    }

    #[test]
    fn what_an_earlier_lease_or_family_left_goes_after_the_new_is_there() {
        let addresses = [
            Address::new(9, net("10.5.3.0/32")),
            Address::new(9, net("fd05:0:0:7::/128")),
        ];
        let routes = both().map(|family| family.route(9));
        assert_eq!(
            text(&plan(
                &link(1472, true),
                1472,
                &both()[..1],
                &addresses,
                &routes
            )),
            [
                "add address 10.5.7.0/32 dev flannel0",
                "delete address 10.5.3.0/32 dev flannel0",
                "delete address fd05:0:0:7::/128 dev flannel0",
                "delete route fd05::/48 dev flannel0",
            ]
        );
    }
}
