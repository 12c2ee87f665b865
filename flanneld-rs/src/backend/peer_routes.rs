//! Plain routes to the peers' subnets through the external interface: all of `host-gw`, and
//! `DirectRouting` of `vxlan`.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kernel::{Change, Route, RouteKind};

/// Peer subnet → the peer's address on the external interface.
pub type Gateways = BTreeMap<IpNet, IpAddr>;

/// The route to one peer.
pub fn route(dev: u32, subnet: IpNet, gateway: IpAddr) -> Route {
    Route {
        via: Some(gateway),
        dev: Some(dev),
        ..Route::new(subnet)
    }
}

/// Changes that make the routes through `dev` those of `wanted`. `observed` are the routes of table
/// main of one family through `dev`; `network` is that family's whole network and `subnet_len` how it is
/// cut.
///
/// Routes have no owner's mark (flannel uses protocol `boot`, as `ip route add` does), so a route
/// counts as left over by a peer that is gone only if it could have been made for one: via a
/// gateway, protocol boot, no metric of its own, and exactly one node's subnet inside the network.
pub fn plan(
    dev: u32,
    network: IpNet,
    subnet_len: u8,
    wanted: &Gateways,
    observed: &[Route],
) -> Vec<Change> {
    let present: BTreeMap<IpNet, &Route> = observed
        .iter()
        .filter(|route| is_ours(route, dev, network))
        .map(|route| (route.dst, route))
        .collect();
    let added = wanted.iter().filter_map(|(subnet, gateway)| {
        let same = |route: &&&Route| route.via == Some(*gateway) && !route.onlink;
        match present.get(subnet).filter(same) {
            Some(_) => None,
            None => Some(Change::ReplaceRoute(route(dev, *subnet, *gateway))),
        }
    });
    let stale = present
        .iter()
        .filter(|(dst, _)| !wanted.contains_key(dst) && dst.prefix_len() == subnet_len)
        .map(|(_, route)| Change::DeleteRoute(Route::clone(route)));
    added.chain(stale).collect()
}

fn is_ours(route: &Route, dev: u32, network: IpNet) -> bool {
    // The kernel reports IPv6's default metric; IPv4's is none.
    let plain_metric = match route.priority {
        None => true,
        Some(metric) => metric == 1024 && route.dst.addr().is_ipv6(),
    };
    route.dev == Some(dev)
        && route.table == Route::TABLE_MAIN
        && route.kind == RouteKind::Unicast
        && route.protocol == Route::PROTOCOL_BOOT
        && route.via.is_some()
        && plain_metric
        && network.contains(&route.dst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|change| change.describe(&|_| "eth0".into()))
            .collect()
    }

    #[test]
    fn adds_mends_and_removes_only_what_can_be_ours() {
        let network: IpNet = "10.244.0.0/16".parse().unwrap();
        let net = |n: u8| -> IpNet { format!("10.244.{n}.0/24").parse().unwrap() };
        let gw = |n: u8| -> IpAddr { format!("192.168.66.1{n}").parse().unwrap() };
        let wanted: Gateways = [(net(1), gw(1)), (net(2), gw(2)), (net(3), gw(3))].into();
        let foreign = |route: Route| Route {
            dev: Some(2),
            via: Some(gw(9)),
            ..route
        };
        let observed = [
            route(2, net(1), gw(1)),
            // Another gateway than the lease says.
            route(2, net(2), gw(7)),
            // A peer that is gone.
            route(2, net(8), gw(8)),
            // Not ours: another metric, another protocol, outside the network, not a node's subnet.
            foreign(Route {
                priority: Some(100),
                ..Route::new(net(20))
            }),
            foreign(Route {
                protocol: 4,
                ..Route::new(net(21))
            }),
            foreign(Route::new("10.9.0.0/24".parse().unwrap())),
            foreign(Route::new("10.244.99.7/32".parse().unwrap())),
        ];
        assert_eq!(
            text(&plan(2, network, 24, &wanted, &observed)),
            [
                "replace route 10.244.2.0/24 via 192.168.66.12 dev eth0",
                "replace route 10.244.3.0/24 via 192.168.66.13 dev eth0",
                "delete route 10.244.8.0/24 via 192.168.66.18 dev eth0",
            ]
        );
    }

    #[test]
    fn nothing_to_do_is_an_empty_plan() {
        let network: IpNet = "fd00::/48".parse().unwrap();
        let subnet: IpNet = "fd00:0:0:1::/64".parse().unwrap();
        let gateway: IpAddr = "fd66::12".parse().unwrap();
        let observed = [Route {
            priority: Some(1024),
            ..route(2, subnet, gateway)
        }];
        let wanted = [(subnet, gateway)].into();
        assert_eq!(plan(2, network, 64, &wanted, &observed), []);
    }
}
