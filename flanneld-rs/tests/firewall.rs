//! Both firewall modes on the real kernel, in a namespace of their own: what they make, that drift is
//! mended, that a second look changes nothing, and that one mode removes the other's.

use std::process::Command;

use flanneld_rs::firewall::{self, FamilyNets, Wanted};
use kernel::Netns;

struct Node(String);

impl Drop for Node {
    fn drop(&mut self) {
        Netns::delete(&self.0).unwrap();
    }
}

/// Says that a test is skipped, past the harness, which swallows what a passing test prints.
fn skip(reason: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("SKIPPED: {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs `test` in a new namespace; skips loudly without the right to make one.
fn in_namespace(name: &str, test: impl FnOnce() + Send) {
    let name = format!("weft-f{}-{name}", std::process::id());
    match Netns::create(&name) {
        Ok(netns) => {
            let _node = Node(name);
            netns.run(test).unwrap();
        }
        Err(error) if std::env::var_os("WEFT_REQUIRE_ROOT").is_none() => {
            skip(format_args!(
                "needs root ({error}; run scripts/test.sh with sudo)"
            ));
        }
        Err(error) => panic!("{error}"),
    }
}

fn sh(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

fn wanted() -> Wanted {
    let nets = |network: &str, subnet: &str| FamilyNets {
        network: network.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
    };
    Wanted {
        families: vec![
            nets("10.244.0.0/16", "10.244.1.0/24"),
            nets("fd10::/48", "fd10:0:0:1::/64"),
        ],
        masquerade: true,
        fully_random: true,
        forward: true,
    }
}

#[test]
fn iptables_rules_are_made_mended_and_removed() {
    in_namespace("ipt", || {
        let mut mode = firewall::build(false);
        assert_eq!(mode.plan(&wanted()).unwrap().len(), 4);
        let report = mode.reconcile(&wanted(), true);
        assert_eq!((report.total(), report.errors.len()), (4, 0), "{report:?}");
        assert_eq!(mode.reconcile(&wanted(), true).total(), 0);
        assert_eq!(
            firewall::build(false).reconcile(&wanted(), true).total(),
            0,
            "restart"
        );
        assert!(mode.plan(&wanted()).unwrap().is_empty());
        let nat = sh("iptables-save", &["-t", "nat"]);
        let rules: Vec<&str> = nat
            .lines()
            .filter(|l| l.starts_with("-A FLANNEL-POSTRTG"))
            .collect();
        assert_eq!(rules.len(), 6, "{nat}");

        // Drift, each found by the cheap tick and mended.
        let drifts: [&[&str]; 3] = [
            &["-t", "nat", "-D", "FLANNEL-POSTRTG", "3"],
            &["-t", "nat", "-D", "POSTROUTING", "1"],
            &["-t", "nat", "-F", "FLANNEL-POSTRTG"],
        ];
        for drift in drifts {
            sh("iptables", drift);
            let report = mode.reconcile(&wanted(), false);
            assert_eq!(
                (report.total(), report.errors.len()),
                (1, 0),
                "{drift:?}: {report:?}"
            );
            assert_eq!(mode.reconcile(&wanted(), false).total(), 0);
        }
        let after = sh("iptables-save", &["-t", "nat"]);
        let rules_after: Vec<&str> = after
            .lines()
            .filter(|l| l.starts_with("-A FLANNEL-POSTRTG"))
            .collect();
        assert_eq!(rules_after, rules);

        // A rule of somebody else stays, in its place.
        sh(
            "iptables",
            &[
                "-t",
                "nat",
                "-I",
                "POSTROUTING",
                "-s",
                "192.0.2.1",
                "-j",
                "RETURN",
            ],
        );
        assert_eq!(mode.reconcile(&wanted(), false).total(), 0);
        let report = mode.cleanup();
        assert!(report.errors.is_empty(), "{report:?}");
        let nat = sh("iptables-save", &["-t", "nat"]);
        assert!(
            !nat.contains("FLANNEL") && nat.contains("192.0.2.1"),
            "{nat}"
        );
        assert!(!sh("ip6tables-save", &[]).contains("FLANNEL"));
        assert_eq!(mode.cleanup().total(), 0);
    });
}

#[test]
fn nftables_rules_are_made_mended_and_removed() {
    in_namespace("nft", || {
        let mut mode = firewall::build(true);
        assert_eq!(mode.plan(&wanted()).unwrap().len(), 2);
        let report = mode.reconcile(&wanted(), true);
        assert_eq!((report.total(), report.errors.len()), (2, 0), "{report:?}");
        assert_eq!(mode.reconcile(&wanted(), true).total(), 0);
        assert_eq!(
            firewall::build(true).reconcile(&wanted(), true).total(),
            0,
            "restart"
        );
        assert!(mode.plan(&wanted()).unwrap().is_empty());

        sh("nft", &["flush", "chain", "ip", "flannel-ipv4", "postrtg"]);
        let report = mode.reconcile(&wanted(), false);
        assert_eq!((report.total(), report.errors.len()), (1, 0), "{report:?}");
        sh("nft", &["delete", "table", "ip6", "flannel-ipv6"]);
        assert_eq!(mode.reconcile(&wanted(), false).total(), 1);
        assert_eq!(mode.reconcile(&wanted(), false).total(), 0);
        let table = sh("nft", &["list", "table", "ip6", "flannel-ipv6"]);
        assert!(
            table.contains("ip6 saddr fd10::/48 ip6 daddr != ff00::/8 masquerade"),
            "{table}"
        );

        // Without masquerading that chain goes, and forwarding stays.
        let less = Wanted {
            masquerade: false,
            ..wanted()
        };
        assert_eq!(mode.reconcile(&less, false).total(), 2);
        let table = sh("nft", &["list", "table", "ip", "flannel-ipv4"]);
        assert!(
            !table.contains("postrtg") && table.contains("forward"),
            "{table}"
        );
        assert!(mode.cleanup().errors.is_empty());
        assert!(!sh("nft", &["list", "ruleset"]).contains("flannel"));
    });
}

#[test]
fn a_mode_removes_what_the_other_left() {
    in_namespace("switch", || {
        firewall::build(false).reconcile(&wanted(), true);
        let report = firewall::build(true).reconcile(&wanted(), true);
        assert!(report.errors.is_empty(), "{report:?}");
        for save in ["iptables-save", "ip6tables-save"] {
            assert!(!sh(save, &[]).contains("FLANNEL"));
        }
        let report = firewall::build(false).reconcile(&wanted(), true);
        assert!(report.errors.is_empty(), "{report:?}");
        assert!(!sh("nft", &["list", "tables"]).contains("flannel"));
        assert!(sh("iptables-save", &[]).contains("FLANNEL-FWD"));
    });
}

/// The same on the legacy iptables, found first in PATH by a copy of this test program.
#[test]
fn iptables_rules_by_the_legacy_program() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["iptables", "ip6tables"] {
        for suffix in ["", "-save", "-restore"] {
            let legacy = format!("/usr/sbin/{name}-legacy{suffix}");
            if !std::path::Path::new(&legacy).exists() {
                skip(format_args!("no {legacy}"));
                return;
            }
            std::os::unix::fs::symlink(legacy, dir.path().join(format!("{name}{suffix}"))).unwrap();
        }
    }
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "iptables_rules_are_made_mended_and_removed",
            "--nocapture",
        ])
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
}
