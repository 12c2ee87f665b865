//! From start to clean-up: routes, errors that mend, other people's hands.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use super::lab::*;
use proxy::mode::Mode as _;
use proxy::mode::userspace::{Options, Userspace};
use proxy::model::{Changed, Family, FrontKind, Protocol};

fn local_routes(lab: &Lab, family: Family) -> String {
    let flag = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    lab.node
        .ip(&format!("{flag} route show table local proto 87"))
}

fn lab(family: Family) -> Option<Lab> {
    let mut lab = Lab::new(family)?;
    for (host, name) in lab.ends.iter().zip(["one", "two"]) {
        host.tcp_server("[::]:8080", name);
    }
    let report = lab.set("web", Protocol::Tcp, web(family));
    assert_eq!((report.errors, report.changes), (Vec::new(), 2));
    Some(lab)
}

#[test]
fn a_restart_adopts_what_is_there_and_removes_what_is_stale() {
    for family in Family::ALL {
        let Some(mut lab) = lab(family) else { return };
        let stale = match family {
            Family::V4 => "10.96.0.99",
            Family::V6 => "fd96::99",
        };
        lab.node.ip(&format!(
            "route add local {stale} dev lo table local proto 87"
        ));
        // The process dies: the routes stay.
        lab.mode = None;
        let before = local_routes(&lab, family);
        assert!(
            before.contains(stale) && before.lines().count() == 2,
            "{before}"
        );
        let mode = lab.node.run(|| Userspace::new(family, Options::default()));
        lab.mode = Some(mode.unwrap());
        let report = lab.sync(&Changed::All);
        // The stale route and the listener.
        assert_eq!((report.errors, report.changes), (Vec::new(), 2));
        assert!(!local_routes(&lab, family).contains(stale));
        assert_eq!(lab.sync(&Changed::All).changes, 0);
        let front = match family {
            Family::V4 => "10.96.0.10:80",
            Family::V6 => "[fd96::10]:80",
        };
        lab.ask(front);
        let report = lab.mode().cleanup();
        assert_eq!((report.errors, report.changes), (Vec::new(), 2));
        assert_eq!(local_routes(&lab, family), "");
        assert_eq!(lab.mode().cleanup().changes, 0);
        // And it can begin again.
        assert_eq!(lab.sync(&Changed::All).changes, 2);
        lab.ask(front);
    }
}

#[test]
fn a_route_taken_away_is_noticed_and_put_back() {
    for family in Family::ALL {
        let Some(mut lab) = lab(family) else { return };
        assert_eq!(lab.mode().disturbed(), None);
        let ip = match family {
            Family::V4 => "10.96.0.10",
            Family::V6 => "fd96::10",
        };
        lab.node
            .ip(&format!("route delete local {ip} dev lo table local"));
        let what = lab.mode().disturbed().unwrap();
        assert_eq!(what, format!("the local route of {ip} is gone"));
        assert_eq!(lab.sync(&Changed::All).changes, 1);
        assert_eq!(lab.mode().disturbed(), None);
        // Our own changes are no disturbance.
        lab.unset("web", Protocol::Tcp);
        lab.set("web", Protocol::Tcp, web(family));
        assert_eq!(lab.mode().disturbed(), None);
        lab.node.ip("address add 192.0.2.77/24 dev v0");
        lab.node.ip("address add fd02::77/64 dev v0 nodad");
        let what = lab.mode().disturbed().unwrap();
        assert_eq!(what, "the node's addresses have changed");
        lab.sync(&Changed::All);
        assert_eq!(lab.mode().disturbed(), None);
    }
}

#[test]
fn a_port_in_use_is_named_and_served_once_it_is_free() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    let other = lab.node.listen("0.0.0.0:81");
    let mut b = web(Family::V4);
    b.fronts = vec![front(FrontKind::ClusterIp, "10.96.0.11", 81)];
    let report = lab.set("taken", Protocol::Tcp, b);
    assert_eq!(report.errors.len(), 1);
    let error = &report.errors[0];
    assert!(
        error.starts_with(
            "listen on 10.96.0.11:81/tcp for default/taken: another program has this port"
        ),
        "{error}"
    );
    lab.ask("10.96.0.10:80");
    drop(other);
    // Whatever comes next compares everything.
    let report = lab.unset("nothing", Protocol::Tcp);
    assert_eq!((report.errors, report.full), (Vec::new(), true));
    lab.ask("10.96.0.11:81");
    assert!(!lab.unset("nothing", Protocol::Tcp).full);
}

#[test]
fn addresses_of_the_node_get_no_route_and_next_hops_are_refused() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    lab.node.ip(&format!("route add default via {CLIENT}"));
    let mut b = web(Family::V4);
    b.fronts = vec![
        front(FrontKind::ExternalIp, NODE[1], 8888),
        front(FrontKind::ExternalIp, CLIENT, 8888),
    ];
    lab.wanted
        .balancers
        .insert(port_name("ext", Protocol::Tcp), b.into());
    let report = lab.sync(&Changed::All);
    assert_eq!(
        report.errors,
        [format!(
            "route {CLIENT} of default/ext to this node: this node reaches other networks by it, and would be cut \
             off; give the Service another address"
        )]
    );
    assert_eq!(local_routes(&lab, Family::V4).lines().count(), 1);
    lab.ask(&format!("{}:8888", NODE[1]));
}

#[test]
fn an_address_passes_from_one_service_to_another_in_one_sync() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    let mut b = web(Family::V4);
    b.cluster.remove(0);
    let (old, new) = (
        port_name("web", Protocol::Tcp),
        port_name("new", Protocol::Tcp),
    );
    lab.wanted.balancers.remove(&old);
    lab.wanted.balancers.insert(new.clone(), b.into());
    let report = lab.sync(&Changed::Ports([old, new].into()));
    assert_eq!(report.errors, [""; 0]);
    for _ in 0..3 {
        assert_eq!(lab.ask("10.96.0.10:80").0, "two");
    }
}

#[test]
fn the_plan_says_what_a_sync_does() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    let wanted = lab.wanted.clone();
    assert_eq!(lab.mode().plan(&wanted).unwrap(), "");
    let mut wanted = lab.wanted.clone();
    let mut b = web(Family::V4);
    b.fronts = vec![front(FrontKind::LoadBalancer, "203.0.113.5", 80)];
    b.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
    wanted.balancers = [(port_name("lb", Protocol::Tcp), b.into())].into();
    let plan = lab.mode().plan(&wanted).unwrap();
    assert_eq!(
        plan,
        "ip route delete local 10.96.0.10/32 dev lo table 255 scope host proto 87\n\
         ip route add local 203.0.113.5/32 dev lo table 255 scope host proto 87\n\
         close 10.96.0.10:80/tcp\n\
         listen on 203.0.113.5:80/tcp for default/lb only from {198.51.100.0/24}\n"
    );
    // It changes nothing, and its routes can be replayed by hand.
    lab.ask("10.96.0.10:80");
    for line in plan.lines().filter_map(|line| line.strip_prefix("ip ")) {
        lab.node.ip(line);
    }
    assert!(local_routes(&lab, Family::V4).contains("203.0.113.5"));
}

#[test]
fn draining_waits_for_connections_and_takes_no_new_ones() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    let mut stream = lab.client.connect("10.96.0.10:80").unwrap();
    ask(&mut stream);
    assert!(!lab.mode().drain(Duration::from_millis(50)));
    let error = lab.client.connect("10.96.0.10:80").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let ending = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        drop(stream);
    });
    let start = Instant::now();
    assert!(lab.mode().drain(PATIENCE));
    assert!(start.elapsed() < Duration::from_secs(5));
    ending.join().unwrap();
    // What is still there at the end is reset.
    lab.sync(&Changed::All);
    let mut stream = lab.client.connect("10.96.0.10:80").unwrap();
    ask(&mut stream);
    lab.mode = None;
    let error = try_ask(&mut stream).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn two_thousand_services_one_change_costs_one() {
    let Some(mut lab) = lab(Family::V4) else {
        return;
    };
    for n in 0..2000_u32 {
        let mut b = web(Family::V4);
        let ip = format!("10.97.{}.{}", n / 250, n % 250 + 1);
        b.fronts = vec![front(FrontKind::ClusterIp, &ip, 80)];
        let name = port_name(&format!("many-{n}"), Protocol::Tcp);
        lab.wanted.balancers.insert(name, b.into());
    }
    let report = lab.sync(&Changed::All);
    assert_eq!((report.errors, report.changes), (Vec::new(), 4000));
    lab.ask("10.97.7.250:80");
    let counters = lab.counters();
    until("no stream holds the address", || {
        counters.open_tcp.get() == 0
    });
    let report = lab.unset("many-1999", Protocol::Tcp);
    assert_eq!((report.changes, report.full), (2, false));
    assert!(lab.client.connect("10.97.7.250:80").is_err());
    lab.ask("10.97.7.249:80");
}
