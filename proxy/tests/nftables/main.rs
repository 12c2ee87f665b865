//! nftables mode against the real kernel: what is written, what a restart writes, what is mended.
//! Traffic through it is tested with the other modes (`tests/tests/proxy_*.rs`).

mod place;

use std::collections::BTreeSet;

use kernel::nft::{Element, Socket, Transaction};
use proxy::mode::Mode as _;
use proxy::mode::nftables::layout::{At, Key, Set};
use proxy::mode::nftables::ruleset::table;
use proxy::mode::nftables::slots;
use proxy::model::{Changed, Family, Protocol};

use place::{Place, port};

#[test]
fn the_kernel_takes_it_and_a_restart_writes_nothing() {
    Place::each(|place| {
        let wanted = place.variety();
        let report = place.sync(&wanted, &Changed::All);
        assert!(report.changes > 20, "{report:?}");
        let before = place.listing();
        let generation = kernel::nft::generation().unwrap();
        place.restart();
        let report = place.sync(&wanted, &Changed::All);
        assert_eq!(report.changes, 0, "{report:?}");
        assert_eq!(kernel::nft::generation().unwrap(), generation);
        assert_eq!(place.listing(), before);
        assert_eq!(place.mode.plan(&wanted).unwrap(), "");
        place.mode.cleanup();
        assert_eq!(place.nft("list ruleset"), "");
    });
}

#[test]
fn the_number_of_rules_does_not_depend_on_the_number_of_services() {
    Place::each(|place| {
        let mut counts = BTreeSet::new();
        for services in [10, 500] {
            let wanted = place.many(services, 3);
            place.sync(&wanted, &Changed::All);
            let mut socket = Socket::open().unwrap();
            counts.insert(socket.rules(&table(place.family)).unwrap().len());
        }
        assert_eq!(counts.len(), 1, "{counts:?}");
    });
}

#[test]
fn damage_is_noticed_and_mended_without_a_flush() {
    Place::each(|place| {
        let wanted = place.variety();
        place.sync(&wanted, &Changed::All);
        let whole = place.listing();
        assert_eq!(place.mode.disturbed(), None, "our own writing is no damage");
        let ip = place.word();
        let front = format!("{} . tcp . 80", place.cluster_ip(1));
        let damages = [
            format!("delete element {ip} weft-proxy service-ips {{ {front} }}"),
            format!("flush map {ip} weft-proxy endpoints"),
            format!("flush chain {ip} weft-proxy services"),
            format!("add rule {ip} weft-proxy services counter drop"),
            format!(
                "add element {ip} weft-proxy cluster-ips {{ {} }}",
                place.cluster_ip(99)
            ),
            format!("delete table {ip} weft-proxy"),
            "flush ruleset".to_owned(),
        ];
        for damage in damages {
            place.nft(&damage);
            let what = place.mode.disturbed();
            assert!(what.is_some(), "{damage} was not noticed");
            let report = place.sync(&wanted, &Changed::All);
            assert!(report.changes > 0, "{damage}");
            assert_eq!(place.listing(), whole, "after {damage}");
            assert_eq!(place.mode.disturbed(), None, "after {damage}");
        }
    });
}

#[test]
fn others_tables_are_no_concern() {
    Place::each(|place| {
        let wanted = place.variety();
        place.sync(&wanted, &Changed::All);
        place.nft("add table inet other");
        place.nft("add chain inet other input { type filter hook input priority 0; }");
        assert_eq!(place.mode.disturbed(), None);
        place.mode.cleanup();
        assert!(place.nft("list ruleset").contains("table inet other"));
    });
}

#[test]
fn what_others_change_while_a_port_is_written_does_no_harm() {
    Place::each(|place| {
        let mut wanted = place.many(3, 2);
        place.sync(&wanted, &Changed::All);
        // An element that the next change would delete is gone already.
        let front = format!("{} . tcp . 80", place.cluster_ip(1));
        place.nft(&format!(
            "delete element {} weft-proxy service-ips {{ {front} }}",
            place.word()
        ));
        let gone = wanted.balancers.remove(&port(1));
        assert!(gone.is_some());
        let report = place.sync(&wanted, &Changed::Ports([port(1)].into()));
        assert!(report.full, "it compared everything: {report:?}");
        place.restart();
        assert_eq!(place.sync(&wanted, &Changed::All).changes, 0);
    });
}

#[test]
fn changes_one_by_one_end_where_a_restart_finds_nothing_to_do() {
    Place::each(|place| {
        let all = place.variety();
        let mut wanted = all.clone();
        wanted.balancers.clear();
        place.sync(&wanted, &Changed::All);
        for (name, balancer) in &all.balancers {
            wanted.balancers.insert(name.clone(), balancer.clone());
            let report = place.sync(&wanted, &Changed::Ports([name.clone()].into()));
            assert!(!report.full && report.changes > 0, "{name}: {report:?}");
        }
        // The same as all at once, but for the chain of an affinity that came late.
        place.restart();
        assert_eq!(place.sync(&wanted, &Changed::All).changes, 0);
        for name in all.balancers.keys() {
            wanted.balancers.remove(name);
            place.sync(&wanted, &Changed::Ports([name.clone()].into()));
        }
        let mut socket = Socket::open().unwrap();
        for set in Set::all()
            .into_iter()
            .filter(|set| *set != Set::NodePortIps)
        {
            let left = socket.elements(&table(place.family), set.name()).unwrap();
            assert_eq!(left.map(|left| left.len()), Some(0), "{}", set.name());
        }
    });
}

#[test]
fn a_client_of_an_endpoint_that_is_gone_is_forgotten() {
    Place::each(|place| {
        let mut wanted = place.many(1, 2);
        place.change(&mut wanted, 0, |balancer| balancer.affinity = Some(600));
        place.sync(&wanted, &Changed::All);
        let at = At {
            ip: Some(place.cluster_ip(0)),
            protocol: Protocol::Tcp,
            port: 80,
        };
        let endpoints: Vec<_> = wanted.balancers[&port(0)].cluster.clone();
        let clients = [place.client(1), place.client(2)];
        let mut socket = Socket::open().unwrap();
        let mut note = Transaction::new(&table(place.family));
        for (client, endpoint) in clients.iter().zip(&endpoints) {
            let (key, _) = Key::From(*client, at).encode();
            let data = proxy::mode::nftables::layout::Data::Endpoint(endpoint.ip, endpoint.port);
            note.add(
                Set::Affinity.name(),
                &Element::of_map(key, data.encode().unwrap()),
            );
        }
        socket.commit(&note).unwrap();
        place.change(&mut wanted, 0, |balancer| {
            balancer.cluster.remove(0);
        });
        place.sync(&wanted, &Changed::Ports([port(0)].into()));
        let left = socket
            .elements(&table(place.family), Set::Affinity.name())
            .unwrap()
            .unwrap();
        let keys: Vec<_> = left.iter().map(|each| each.key.to_vec()).collect();
        assert_eq!(keys, [Key::From(clients[1], at).encode().0]);
    });
}

#[test]
fn a_hundred_thousand_endpoints_in_one_service() {
    Place::each(|place| {
        let mut wanted = place.many(1, 100_000);
        place.sync(&wanted, &Changed::All);
        assert_eq!(slots::size_for(100_000), 131_072);
        place.change(&mut wanted, 0, |balancer| {
            balancer.cluster.remove(501);
        });
        let report = place.sync(&wanted, &Changed::Ports([port(0)].into()));
        // The hole is filled by the last one: one slot changed, one gone.
        assert!(!report.full && report.changes == 3, "{report:?}");
    });
}

#[test]
fn a_table_of_another_form_is_replaced() {
    Place::each(|place| {
        let ip = place.word();
        place.nft(&format!("add table {ip} weft-proxy"));
        place.nft(&format!(
            "add set {ip} weft-proxy service-ips {{ type mark; }}"
        ));
        let wanted = place.variety();
        let report = place.sync(&wanted, &Changed::All);
        assert!(report.changes > 0);
        place.restart();
        assert_eq!(place.sync(&wanted, &Changed::All).changes, 0);
    });
}

#[test]
fn source_ranges_that_overlap_those_before_replace_them() {
    Place::each(|place| {
        let mut wanted = place.many(1, 2);
        let (wide, narrow) = match place.family {
            Family::V4 => ("192.0.2.0/24", "192.0.2.128/25"),
            Family::V6 => ("2001:db8::/32", "2001:db8:1::/48"),
        };
        let lb = place.load_balancer(wide);
        place.change(&mut wanted, 0, |balancer| *balancer = lb);
        place.sync(&wanted, &Changed::All);
        place.change(&mut wanted, 0, |balancer| {
            balancer.source_ranges = vec![narrow.parse().unwrap()];
        });
        // By a change, and by a process that finds the old ones.
        place.sync(&wanted, &Changed::Ports([port(0)].into()));
        place.change(&mut wanted, 0, |balancer| {
            balancer.source_ranges = vec![wide.parse().unwrap()];
        });
        place.restart();
        assert_eq!(
            place.sync(&wanted, &Changed::All).errors,
            Vec::<String>::new()
        );
        assert!(place.listing().contains(wide));
    });
}
