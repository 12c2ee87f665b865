//! Other programs' rules, and those of a former kube-proxy.

use kernel::iptables::Variant;
use proxy::{
    mode::{
        Mode as _,
        iptables::{Choice, remove_kube_proxy},
    },
    model::{Changed, Family},
};

use crate::{
    bed::{Bed, on_each},
    wanted::{port, variety},
};

#[test]
fn others_rules_stay_and_do_not_disturb() {
    on_each(|mut bed| {
        bed.iptables("", "-N MINE");
        bed.iptables("", "-A MINE -j RETURN");
        bed.iptables("", "-A INPUT -j MINE");
        let before = bed.saved();
        let wanted = variety(&bed);
        bed.sync(&wanted, &Changed::All);
        if bed.choice == Choice::Nft {
            for change in [
                "-A MINE -j RETURN",
                "-D MINE 1",
                "-A FORWARD -j MINE",
                "-D FORWARD -j MINE",
                "-t nat -A POSTROUTING -j RETURN",
                "-t nat -D POSTROUTING -j RETURN",
            ] {
                bed.iptables("", change);
                assert_eq!(bed.with_mode(|mode| mode.disturbed()), None, "{change}");
            }
        }
        let report = bed.with_mode(|mode| mode.cleanup());
        assert_eq!(report.errors, Vec::<String>::new());
        assert_eq!(bed.saved(), before);
        assert_eq!(bed.with_mode(|mode| mode.cleanup()).changes, 0);
    });
}

#[test]
fn a_stale_chain_that_others_use_does_not_stop_the_rest() {
    on_each(|mut bed| {
        let mut wanted = variety(&bed);
        bed.sync(&wanted, &Changed::All);
        let saved = bed.saved();
        let chain = saved
            .lines()
            .find(|line| line.contains("shop/ranges:http loadbalancer IP"))
            .and_then(|line| line.rsplit(' ').next())
            .unwrap();
        bed.iptables("", "-t nat -N MINE");
        bed.iptables("", &format!("-t nat -A MINE -j {chain}"));
        wanted.balancers.remove(&port("ranges"));
        bed.restart();
        bed.sync(&wanted, &Changed::All);
        assert!(bed.saved().contains(&format!(":{chain} ")));
        bed.iptables("", "-t nat -F MINE");
        assert!(bed.sync(&wanted, &Changed::All).changes > 0);
        assert!(!bed.saved().contains(chain));
    });
}

#[test]
fn a_former_kube_proxy_goes_and_the_kubelet_stays() {
    on_each(|bed| {
        for command in [
            "-t mangle -N KUBE-KUBELET-CANARY",
            "-t mangle -N KUBE-IPTABLES-HINT",
            "-N KUBE-FIREWALL",
            "-A KUBE-FIREWALL ! -s ::1/128 -d ::1/128 -j DROP",
            "-I INPUT -j KUBE-FIREWALL",
        ] {
            let command = match bed.family {
                Family::V4 => command.replace("::1/128", "127.0.0.0/8"),
                Family::V6 => command.to_owned(),
            };
            bed.iptables("", &command);
        }
        let before = bed.saved() + &bed.iptables("-save", "-t mangle");
        for command in [
            "-t mangle -N KUBE-PROXY-CANARY",
            "-t nat -N KUBE-PROXY-CANARY",
            "-t nat -N KUBE-SERVICES",
            "-t nat -N KUBE-XLB-ABCDEFGHABCDEFGH",
            "-t nat -A KUBE-SERVICES -j KUBE-XLB-ABCDEFGHABCDEFGH",
            "-t nat -I PREROUTING -j KUBE-SERVICES",
            "-t filter -N KUBE-IPVS-FILTER",
            "-t filter -I INPUT -j KUBE-IPVS-FILTER",
            "-t nat -N KUBE-LOAD-BALANCER",
            "-t nat -A KUBE-SERVICES -j KUBE-LOAD-BALANCER",
        ] {
            bed.iptables("", command);
        }
        let family = bed.family;
        let report = bed.in_node(|| remove_kube_proxy(family));
        assert_eq!(report.errors, Vec::<String>::new());
        let strip = |text: String| -> Vec<_> {
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| line.split(" [").next().unwrap_or(line).to_owned())
                .collect()
        };
        let after = bed.saved() + &bed.iptables("-save", "-t mangle");
        assert_eq!(strip(after), strip(before));
    });
}

#[test]
fn a_kube_proxys_chains_are_taken_over() {
    on_each(|mut bed| {
        for command in [
            "-t filter -N KUBE-NODEPORTS",
            "-t filter -A KUBE-NODEPORTS -p tcp --dport 32000 -j ACCEPT",
            "-t filter -I INPUT -m comment --comment health -j KUBE-NODEPORTS",
            "-t nat -N KUBE-PROXY-CANARY",
            "-t nat -N KUBE-SVC-ABCDEFGHABCDEFGH",
            "-t nat -N KUBE-SERVICES",
            "-t nat -A KUBE-SERVICES -p tcp --dport 80 -j KUBE-SVC-ABCDEFGHABCDEFGH",
            "-t nat -I PREROUTING -j KUBE-SERVICES",
        ] {
            bed.iptables("", command);
        }
        let wanted = variety(&bed);
        bed.sync(&wanted, &Changed::All);
        let saved = bed.saved();
        let filter = saved.split("*filter").nth(1).unwrap();
        assert!(!filter.contains("KUBE-NODEPORTS"), "{filter}");
        assert!(!saved.contains("KUBE-SVC-ABCDEFGHABCDEFGH"));
        assert!(!saved.contains("KUBE-PROXY-CANARY"));
        bed.restart();
        assert_eq!(bed.with_mode(|mode| mode.plan(&wanted)).unwrap(), "");
    });
}

#[test]
fn the_iptables_that_is_in_use_is_chosen() {
    for form in [Choice::Nft, Choice::Legacy] {
        for rule in ["-t mangle -N KUBE-IPTABLES-HINT", "-A INPUT -j ACCEPT"] {
            let Some(mut bed) = Bed::new(form, Family::V4) else {
                return;
            };
            bed.iptables("", rule);
            bed.choice = Choice::Auto;
            let wanted = variety(&bed);
            bed.sync(&wanted, &Changed::All);
            let chosen = bed.with_mode(|mode| mode.variant()).unwrap();
            assert_eq!(chosen == Variant::Legacy, form == Choice::Legacy, "{rule}");
        }
    }
}
