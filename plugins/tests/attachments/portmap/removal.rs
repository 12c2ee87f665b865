//! `portmap`: what DEL, GC and a failed ADD take away, and what they leave.

use std::process::Command;

use serde_json::json;

use super::{BACKENDS, Mapped, mapping, tcp};
use crate::bed::{Bed, NO_PROGRAMS, Whose};

#[test]
fn without_mappings_no_program_is_needed() {
    let Some(mapped) = Mapped::new() else { return };
    let mut args = mapped.args.clone();
    args.hide = NO_PROGRAMS;
    let none = mapped.config("iptables", json!([]));
    let before = mapped.bed.footprint();
    for verb in ["ADD", "CHECK", "DEL"] {
        mapped.bed.ours(verb, "portmap", &args, &none);
    }
    assert_eq!(before, mapped.bed.footprint());
    let one = mapped.config("iptables", json!([mapping(8080, 80, "tcp")]));
    let message = mapped.bed.refused("ADD", "portmap", &args, &one);
    assert!(message.contains("iptables"), "{message}");
}

#[test]
fn del_clears_both_backends_and_families_whatever_the_configuration_says_now() {
    let Some(mapped) = Mapped::new() else { return };
    for (added, now) in [("iptables", "nftables"), ("nftables", "iptables")] {
        let mut config = mapped.config(added, json!([mapping(8080, 80, "tcp")]));
        mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        assert!(mapped.rules().contains("fd77::2"), "{}", mapped.rules());
        // The operator has changed the backend, with conditions that fit neither; and of what the
        // container had the runtime remembers half.
        config["backend"] = json!(now);
        config["conditionsV4"] = json!(["-s", "192.0.2.0/24"]);
        config["conditionsV6"] = json!(["ip6 saddr ::1"]);
        config["prevResult"]["ips"]
            .as_array_mut()
            .unwrap()
            .truncate(1);
        mapped.bed.refused("ADD", "portmap", &mapped.args, &config);
        assert!(mapped.rules().contains("10.77.0.2"), "{added}");
        mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
        assert_eq!(mapped.rules(), "", "{added} then {now}");
    }
    let mut args = mapped.args.clone();
    args.hide = NO_PROGRAMS;
    let config = mapped.config("iptables", json!([mapping(8080, 80, "tcp")]));
    let message = mapped.bed.refused("DEL", "portmap", &args, &config);
    assert!(message.contains("neither nft nor iptables"), "{message}");
}

#[test]
fn a_second_add_that_fails_leaves_the_first_one_s_ports() {
    let Some(mapped) = Mapped::new() else { return };
    for (backend, nonsense) in [
        ("iptables", json!(["-m", "no-such-match"])),
        ("nftables", json!(["no such condition"])),
    ] {
        let config = mapped.config(backend, json!([mapping(8080, 80, "tcp")]));
        mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        let before = mapped.rules();
        // IPv4 would do, IPv6 does not.
        let mut second = mapped.config(backend, json!([mapping(9090, 80, "tcp")]));
        second["conditionsV6"] = nonsense;
        mapped.bed.refused("ADD", "portmap", &mapped.args, &second);
        assert_eq!(mapped.rules(), before, "{backend}");
        mapped.bed.ours("CHECK", "portmap", &mapped.args, &config);
        for (target, reached) in [
            ("192.0.2.1:8080", true),
            ("[2001:db8::1]:8080", true),
            ("192.0.2.1:9090", false),
        ] {
            let seen = tcp(&mapped.world, target, &mapped.pod, 80);
            assert_eq!(seen.is_some(), reached, "{backend} {target}");
        }
        mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
        // The first ADD of all that fails leaves nothing.
        mapped.bed.refused("ADD", "portmap", &mapped.args, &second);
        assert_eq!(mapped.rules(), "", "{backend}");
    }
}

#[test]
fn a_kernel_without_ipv6_is_no_obstacle_for_del() {
    let Some(mut mapped) = Mapped::new() else {
        return;
    };
    let mut config = mapped.config("iptables", json!([mapping(8080, 80, "tcp")]));
    config["prevResult"]["ips"]
        .as_array_mut()
        .unwrap()
        .truncate(1);
    let folder = mapped.bed.folder.path().join("no-ipv6");
    std::fs::create_dir(&folder).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/bin", folder.display());
    mapped.args = mapped.args.with("PATH", &path);
    for (refusal, is_error) in [
        ("Address family not supported by protocol", false),
        ("Permission denied (you must be root)", true),
    ] {
        for (name, script) in [
            ("ip6tables", "echo 'ip6tables v1.8.9 (legacy)'".to_owned()),
            ("ip6tables-save", format!("echo '{refusal}' >&2; exit 3")),
        ] {
            // By a process of its own: a file that another test's child still has open for writing
            // cannot be run.
            let written = Command::new("sh")
                .args(["-c", r#"echo "$1" >"$0" && chmod 755 "$0""#])
                .arg(folder.join(name))
                .arg(format!("#!/bin/sh\n{script}"))
                .status()
                .unwrap();
            assert!(written.success());
        }
        mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        if is_error {
            let message = mapped.bed.refused("DEL", "portmap", &mapped.args, &config);
            assert!(message.contains(refusal), "{message}");
        } else {
            mapped.bed.ours("DEL", "portmap", &mapped.args, &config);
        }
        assert_eq!(mapped.rules(), "");
    }
}

#[test]
fn mapped_ports_change_hands() {
    if Bed::with_reference().is_none() {
        return;
    }
    let Some(mapped) = Mapped::new() else { return };
    use Whose::{Ours, Reference};
    let mut config = mapped.config(
        "iptables",
        json!([mapping(8080, 80, "tcp"), mapping(53, 53, "udp")]),
    );
    config["prevResult"]["ips"]
        .as_array_mut()
        .unwrap()
        .truncate(1);
    let rules = |_: Whose| mapped.bed.host.must("iptables-save -t nat");
    let plain = |text: String| {
        text.lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with(':'))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let mut seen = Vec::new();
    for (adds, deletes) in [(Reference, Ours), (Ours, Reference)] {
        mapped
            .bed
            .call(adds, "ADD", "portmap", &mapped.args, &config)
            .unwrap();
        seen.push(plain(rules(adds)));
        // The CHECK of 1.1.1 wants both families, whatever the container has; so ours alone.
        mapped.bed.ours("CHECK", "portmap", &mapped.args, &config);
        mapped
            .bed
            .call(deletes, "DEL", "portmap", &mapped.args, &config)
            .unwrap();
        let left = plain(rules(deletes));
        assert!(
            !left.contains("CNI-DN-"),
            "{deletes:?} DEL of {adds:?}: {left}"
        );
    }
    assert_eq!(seen[0], seen[1], "the rules of both are the same");
}

#[test]
fn gc_removes_the_rules_of_containers_that_are_gone() {
    let Some(mapped) = Mapped::new() else { return };
    for backend in BACKENDS {
        let mut config = mapped.config(backend, json!([mapping(8080, 80, "tcp")]));
        config["cniVersion"] = json!("1.1.0");
        mapped.bed.ours("ADD", "portmap", &mapped.args, &config);
        let rules = mapped.rules();
        assert!(
            rules.contains("10.77.0.2") && rules.contains("fd77::2"),
            "{rules}"
        );
        // The operator may have changed the backend since.
        for now in BACKENDS {
            config["backend"] = json!(now);
            config["cni.dev/valid-attachments"] =
                json!([{"containerID": "mapped", "ifname": "eth0"}]);
            mapped.bed.ours("GC", "portmap", &mapped.args, &config);
            assert_eq!(mapped.rules(), rules, "{backend} then {now}");
            let mut other = config.clone();
            other["name"] = json!("net2");
            other["cni.dev/valid-attachments"] = json!([]);
            mapped.bed.ours("GC", "portmap", &mapped.args, &other);
            assert_eq!(mapped.rules(), rules, "{backend}: another network");
        }
        config["cni.dev/valid-attachments"] = json!([]);
        mapped.bed.ours("GC", "portmap", &mapped.args, &config);
        assert_eq!(mapped.rules(), "", "{backend}");
    }
}
