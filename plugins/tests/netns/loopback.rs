//! `loopback`, also beside the reference.

use crate::bed::{Bed, Plugin, reference_or_skip};
use serde_json::{Value, json};
use std::path::Path;

const OURS: Plugin<'_> = Plugin::Ours("loopback");

fn config(version: &str) -> Value {
    json!({"cniVersion": version, "name": "lo", "type": "loopback"})
}

fn is_up(bed: &Bed) -> bool {
    bed.in_container(&["link", "show", "lo"]).contains(",UP")
}

#[test]
fn add_check_and_del() {
    let Some(bed) = Bed::new_or_skip() else {
        return;
    };
    let netns = bed.netns();
    let run = |verb: &str| bed.run(OURS, verb, &netns, &config("1.1.0"));
    let down = run("CHECK");
    assert_eq!(down.json()["msg"], "loopback interface is down");
    let add = run("ADD");
    assert_eq!(
        add.json(),
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"mac": "00:00:00:00:00:00", "name": "lo", "sandbox": netns}],
            "ips": [
                {"address": "127.0.0.1/8", "interface": 0},
                {"address": "::1/128", "interface": 0}
            ],
        })
    );
    assert!(is_up(&bed));
    for verb in ["CHECK", "STATUS", "DEL", "DEL"] {
        let done = run(verb);
        assert!(
            done.succeeded && done.stdout.is_empty(),
            "{verb}: {}",
            done.stdout
        );
    }
    assert!(!is_up(&bed));
}

#[test]
fn a_previous_result_is_passed_on() {
    let Some(bed) = Bed::new_or_skip() else {
        return;
    };
    let mut config = config("0.4.0");
    config["prevResult"] = json!({"cniVersion": "0.4.0", "dns": {"domain": "a"},
        "ips": [{"version": "4", "address": "10.0.0.2/24"}]});
    let done = bed.run(OURS, "ADD", &bed.netns(), &config);
    assert_eq!(done.json(), config["prevResult"]);
    config["prevResult"] = json!({"ips": [{"address": 3}]});
    let done = bed.run(OURS, "ADD", &bed.netns(), &config);
    assert_eq!(done.json()["code"], 6);
}

#[test]
fn a_foreign_address_is_refused_and_the_link_left_as_it_was() {
    let Some(bed) = Bed::new_or_skip() else {
        return;
    };
    bed.in_container(&["address", "add", "10.0.0.1/8", "dev", "lo"]);
    let done = bed.run(OURS, "ADD", &bed.netns(), &config("1.0.0"));
    assert_eq!(
        done.json()["msg"],
        "loopback interface found with non-loopback address \"10.0.0.1\""
    );
    assert!(!is_up(&bed));
}

#[test]
fn paths_that_are_no_namespace() {
    let Some(bed) = Bed::new_or_skip() else {
        return;
    };
    for (verb, netns, good) in [
        ("ADD", "/no/such/netns", false),
        ("ADD", "/etc/passwd", false),
        ("DEL", "/no/such/netns", true),
        ("DEL", "", true),
        // What is left of a namespace that was unmounted is such a file too.
        ("DEL", "/etc/passwd", true),
    ] {
        let done = bed.run(OURS, verb, netns, &config("1.0.0"));
        assert_eq!(done.succeeded, good, "{verb} {netns}: {}", done.stdout);
        assert!(good || done.json()["msg"].as_str().unwrap().contains(netns));
    }
}

#[test]
fn the_reference_does_the_same_and_takes_down_what_ours_brought_up() {
    let Some(reference) = reference_or_skip("loopback") else {
        return;
    };
    let Some(bed) = Bed::new_or_skip() else {
        return;
    };
    let reference: &Path = &reference;
    let netns = bed.netns();
    for version in ["0.2.0", "0.4.0", "1.0.0"] {
        let [ours, theirs] = [OURS, Plugin::File(reference)].map(|plugin| {
            let add = bed.run(plugin, "ADD", &netns, &config(version));
            assert!(is_up(&bed));
            let other = match plugin {
                Plugin::Ours(_) => Plugin::File(reference),
                Plugin::File(_) => OURS,
            };
            assert!(bed.run(other, "DEL", &netns, &config(version)).succeeded);
            assert!(!is_up(&bed));
            let mut result = add.json();
            result.as_object_mut().unwrap().remove("dns");
            result
        });
        // The reference prints the form of 1.0.0 whatever the version, which the spec does not allow.
        if version == "1.0.0" {
            assert_eq!(ours, theirs);
        } else {
            assert_eq!(
                theirs["ips"][0].get("version"),
                None,
                "the reference mended this"
            );
        }
    }
}
