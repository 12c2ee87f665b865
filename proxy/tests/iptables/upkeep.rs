//! Restart, damage, removal, and others who hold the lock.

use std::{collections::BTreeSet, fs::File, net::SocketAddr, process::Command, time::Duration};

use proxy::{
    mode::{
        Mode as _,
        iptables::{Choice, IptablesMode, Options, remove_kube_proxy},
    },
    model::{Balancer, Changed, Family, Policy, Wanted},
};

use crate::bed::{Bed, on_each, port};

/// A bit of everything.
fn variety(bed: &Bed) -> Wanted {
    let mut sticky = bed.balancer(11, Some(30081), &[2, 3]);
    sticky.affinity = Some(10800);
    let mut local = bed.balancer(12, Some(30082), &[2, 3]);
    (local.external_policy, local.internal_policy) = (Policy::Local, Policy::Local);
    local.local = vec![local.cluster[0]];
    let ranges = Balancer {
        source_ranges: vec![match bed.family {
            Family::V4 => "192.0.2.0/24".parse().unwrap(),
            Family::V6 => "fd00:2::/64".parse().unwrap(),
        }],
        fronts: vec![proxy::model::Front {
            kind: proxy::model::FrontKind::LoadBalancer,
            ip: Some(bed.cluster_ip(200)),
            port: 443,
        }],
        ..bed.balancer(13, None, &[2])
    };
    let mut wanted = bed.wanted(vec![
        ("web", bed.balancer(10, Some(30080), &[2, 3])),
        ("sticky", sticky),
        ("local", local),
        ("ranges", ranges),
        ("empty", bed.balancer(14, Some(30083), &[])),
    ]);
    wanted.site.localhost_node_ports = true;
    wanted
}

#[test]
fn a_restart_writes_nothing() {
    on_each(|mut bed| {
        let wanted = variety(&bed);
        assert!(bed.sync(&wanted, &Changed::All).changes > 30);
        let before = bed.saved();
        bed.restart();
        let plan = bed.with_mode(|mode| mode.plan(&wanted)).unwrap();
        assert_eq!(plan, "");
        assert_eq!(bed.sync(&wanted, &Changed::All).changes, 0);
        assert_eq!(bed.saved(), before);
        assert_eq!(bed.with_mode(|mode| mode.disturbed()), None);
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

/// The lock is a file that all programs of the host share, so this runs in a process of its own
/// with a file of its own.
#[test]
fn a_lock_that_is_held_is_named_and_waited_for_again() {
    const FILE: &str = "XTABLES_LOCKFILE";
    if let Some(path) = std::env::var_os(FILE) {
        return with_lock(path.as_ref());
    }
    if Bed::new(Choice::Legacy, Family::V4).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "upkeep::a_lock_that_is_held_is_named_and_waited_for_again",
            "--nocapture",
        ])
        .env(FILE, folder.path().join("lock"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

fn with_lock(path: &std::path::Path) {
    let bed = Bed::new(Choice::Legacy, Family::V4).unwrap();
    let wanted = variety(&bed);
    let mut mode = IptablesMode::new(
        Family::V4,
        Options {
            choice: Choice::Legacy,
            lock_wait: Duration::from_secs(1),
            ..Options::default()
        },
    );
    let lock = File::create(path).unwrap();
    lock.lock().unwrap();
    let report = bed.in_node(|| mode.sync(&wanted, &Changed::All));
    assert_eq!(report.errors.len(), 1, "{report:?}");
    assert!(report.errors[0].contains("xtables lock"), "{report:?}");
    lock.unlock().unwrap();
    let report = bed.in_node(|| mode.sync(&wanted, &Changed::All));
    assert_eq!(report.errors, Vec::<String>::new());
    assert!(report.full && report.changes > 0);
}
