//! Restart, damage, and changes one by one.

use std::{collections::BTreeSet, net::SocketAddr};

use kernel::process;
use proxy::{mode::Mode as _, model::Changed};

use crate::{
    bed::on_each,
    wanted::{port, varieties, variety},
};

#[test]
fn a_restart_writes_nothing() {
    on_each(|mut bed| {
        for wanted in varieties(&bed) {
            assert!(bed.sync(&wanted, &Changed::All).changes > 0);
            let before = bed.saved();
            bed.restart();
            let plan = bed.with_mode(|mode| mode.plan(&wanted)).unwrap();
            assert_eq!(plan, "");
            assert_eq!(bed.sync(&wanted, &Changed::All).changes, 0);
            assert_eq!(bed.saved(), before);
            assert_eq!(bed.with_mode(|mode| mode.disturbed()), None);
        }
    });
}

#[test]
fn an_upgrade_from_older_spelling_writes_nothing() {
    on_each(|mut bed| {
        let wanted = variety(&bed);
        bed.sync(&wanted, &Changed::All);
        // As kube-proxy writes it.
        bed.iptables("", "-t nat -F KUBE-MARK-MASQ");
        bed.iptables("", "-t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000");
        bed.restart();
        assert_eq!(bed.sync(&wanted, &Changed::All).changes, 0);
    });
}

#[test]
fn damage_is_noticed_and_repaired() {
    on_each(|mut bed| {
        bed.serve();
        let wanted = variety(&bed);
        bed.sync(&wanted, &Changed::All);
        let whole = bed.saved();
        for damage in [
            "-t nat -F KUBE-SERVICES",
            "-t nat -D POSTROUTING 1",
            "-t filter -D FORWARD 1",
            "-t nat -A KUBE-MARK-MASQ -j RETURN",
            "-t nat -F",
            "-t filter -F KUBE-FORWARD",
        ] {
            bed.iptables("", damage);
            assert_ne!(bed.saved(), whole, "{damage}");
            let noticed = bed.with_mode(|mode| mode.disturbed());
            assert!(noticed.is_some(), "{damage} was not noticed");
            assert!(bed.sync(&wanted, &Changed::All).changes > 0, "{damage}");
            assert_eq!(bed.with_mode(|mode| mode.disturbed()), None, "{damage}");
        }
        // Jumps come back first in their chains, and their order among themselves may differ.
        let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(sorted(&bed.saved()), sorted(&whole));
        bed.client_calls(SocketAddr::new(bed.cluster_ip(10), 80))
            .unwrap();
    });
}

#[test]
fn a_plan_replayed_by_hand_is_the_sync() {
    on_each(|mut bed| {
        let wanted = variety(&bed);
        let plan = bed.with_mode(|mode| mode.plan(&wanted)).unwrap();
        bed.in_node(|| process::run("replay the plan", "sh", &["-e"], &plan).unwrap());
        assert_eq!(bed.with_mode(|mode| mode.plan(&wanted)).unwrap(), "");
        assert_eq!(bed.sync(&wanted, &Changed::All).changes, 0);
    });
}

#[test]
fn changes_one_by_one_end_where_a_restart_finds_nothing_to_do() {
    on_each(|mut bed| {
        let mut wanted = variety(&bed);
        bed.sync(&wanted, &Changed::All);
        for host in 20..60 {
            let name = format!("s{host}");
            let balancer = bed.balancer(host, None, &[2]);
            wanted
                .balancers
                .extend(bed.wanted(vec![(&name, balancer)]).balancers);
            let changed = Changed::Ports(BTreeSet::from([port(&name)]));
            assert!(!bed.sync(&wanted, &changed).full);
        }
        for host in 25..50 {
            let name = port(&format!("s{host}"));
            wanted.balancers.remove(&name);
            bed.sync(&wanted, &Changed::Ports(BTreeSet::from([name])));
        }
        let changed = Changed::Ports(BTreeSet::from([port("web")]));
        wanted.balancers.extend(
            bed.wanted(vec![("web", bed.balancer(10, None, &[3]))])
                .balancers,
        );
        bed.sync(&wanted, &changed);
        bed.restart();
        assert_eq!(bed.with_mode(|mode| mode.plan(&wanted)).unwrap(), "");
    });
}
