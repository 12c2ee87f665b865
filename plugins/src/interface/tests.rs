use super::*;

fn ips() -> Vec<IpConfig> {
    vec![
        IpConfig::new(
            "10.1.0.5/24".parse().unwrap(),
            Some("10.1.0.1".parse().unwrap()),
        ),
        IpConfig::new(
            "fd00::5/64".parse().unwrap(),
            Some("fd00::1".parse().unwrap()),
        ),
    ]
}

fn routes() -> Vec<Route> {
    vec![
        Route::new("0.0.0.0/0".parse().unwrap()),
        Route {
            gw: Some("fd00::9".parse().unwrap()),
            priority: 7,
            ..Route::new("fd01::/64".parse().unwrap())
        },
        Route {
            scope: Some(253),
            table: Some(100),
            ..Route::new("10.9.0.0/16".parse().unwrap())
        },
    ]
}

fn text(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|c| c.describe(&|_| "eth0".into()))
        .collect()
}

#[test]
fn a_fresh_link_lacks_everything() {
    let (ips, routes) = (ips(), routes());
    let desired = Desired {
        ips: &ips,
        routes: &routes,
        nodad: false,
    };
    let nothing = Observed::default();
    assert_eq!(
        text(&plan_addresses(7, desired, &nothing)),
        [
            "add address 10.1.0.5/24 dev eth0",
            "add address fd00::5/64 dev eth0"
        ]
    );
    assert_eq!(
        text(&plan_routes(7, desired, &nothing)),
        [
            "add route default via 10.1.0.1 dev eth0",
            "add route fd01::/64 via fd00::9 dev eth0 metric 7",
            "add route 10.9.0.0/16 dev eth0 table 100 scope link",
        ]
    );
}

#[test]
fn what_is_there_is_not_planned_again() {
    let (ips, routes) = (ips(), routes());
    let desired = Desired {
        ips: &ips,
        routes: &routes,
        nodad: true,
    };
    let mut observed = Observed::default();
    for change in plan_addresses(7, desired, &observed.clone())
        .into_iter()
        .chain(plan_routes(7, desired, &observed.clone()))
    {
        match change {
            Change::AddAddress(address) => observed.addresses.push(address),
            Change::AddRouteBeside(route) => observed.routes.push(route),
            other => panic!("{other}"),
        }
    }
    assert!(plan_addresses(7, desired, &observed).is_empty());
    assert!(plan_routes(7, desired, &observed).is_empty());
    observed.routes.remove(0);
    assert_eq!(
        text(&plan_routes(7, desired, &observed)),
        ["add route default via 10.1.0.1 dev eth0"]
    );
}

#[test]
fn no_duplicate_detection_is_for_ipv6_only() {
    let ips = ips();
    let desired = Desired {
        ips: &ips,
        routes: &[],
        nodad: true,
    };
    let flags: Vec<_> = plan_addresses(1, desired, &Observed::default())
        .into_iter()
        .map(|change| match change {
            Change::AddAddress(address) => address.nodad,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(flags, [false, true]);
}
