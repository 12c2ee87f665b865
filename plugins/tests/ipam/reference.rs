//! The IPAM plugins beside the reference's (Debian's containernetworking-plugins): same input, same
//! result, same files, and each releases what the other reserved. Needs no root.

use crate::harness::{Call, Which, reference_or_skip};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Configurations of host-local that the reference accepts; `DIR` is its data folder.
fn host_local_inputs() -> Vec<(&'static str, &'static str, Value)> {
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.1"}]);
    vec![
        (
            "old form",
            "",
            json!({"ipam": {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.20", "gateway": "10.1.0.254", "routes": routes}}),
        ),
        (
            "two sets",
            "",
            json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]], "routes": routes}}),
        ),
        (
            "two ranges in a set",
            "",
            json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]]}}),
        ),
        (
            "requested by CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.1.0.77",
            json!({"ipam": {"subnet": "10.1.0.0/24"}}),
        ),
        (
            "requested by args",
            "",
            json!({"ipam": {"subnet": "10.1.0.0/24"}, "args": {"cni": {"ips": ["10.1.0.78"]}}}),
        ),
        (
            "requested at run time",
            "",
            json!({"ipam": {"subnet": "10.1.0.0/24"}, "runtimeConfig": {"ips": ["10.1.0.79"]}}),
        ),
        (
            "ranges at run time",
            "",
            json!({"ipam": {"subnet": "10.1.0.0/24"}, "runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/24"}]]}}),
        ),
        (
            "names in another case",
            "",
            json!({"IPAM": {"Subnet": "10.1.0.0/24", "RANGESTART": "10.1.0.40"}}),
        ),
        (
            "resolv.conf",
            "",
            json!({"ipam": {"subnet": "10.1.0.0/24", "resolvConf": "written by the test"}}),
        ),
        (
            "no such range",
            "",
            json!({"ipam": {"subnet": "10.1.0.0/31"}}),
        ),
        ("host bits", "", json!({"ipam": {"subnet": "10.1.0.5/24"}})),
        (
            "overlap",
            "",
            json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]]}}),
        ),
        (
            "gateway requested",
            "IP=10.1.0.1",
            json!({"ipam": {"subnet": "10.1.0.0/24"}}),
        ),
        (
            "stranger requested",
            "IP=10.2.0.1",
            json!({"ipam": {"subnet": "10.1.0.0/24"}}),
        ),
        (
            "unknown args",
            "FOO=1",
            json!({"ipam": {"subnet": "10.1.0.0/24"}}),
        ),
        ("no ipam", "", json!({})),
    ]
}

fn config(base: &Value, version: &str, dir: &Path) -> Value {
    let mut config = base.clone();
    config["cniVersion"] = version.into();
    config["name"] = "net".into();
    for key in ["ipam", "IPAM"] {
        if let Some(ipam) = config.get_mut(key) {
            ipam["dataDir"] = dir.to_str().unwrap().into();
            if ipam.get("resolvConf").is_some() {
                let file = dir.join("resolv.conf");
                let text =
                    "#x\nnameserver 10.0.0.1\ndomain a.b\nsearch a b\nsearch c\noptions ndots:5\n";
                std::fs::write(&file, text).unwrap();
                ipam["resolvConf"] = file.to_str().unwrap().into();
            }
        }
    }
    config
}

/// File names with contents, but for the lock.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = std::fs::read_dir(dir.join("net")) else {
        return BTreeMap::new();
    };
    entries
        .map(|entry| entry.unwrap())
        .map(|e| {
            let name = e.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(e.path()).unwrap())
        })
        .filter(|(name, _)| name != "lock")
        .collect()
}

#[test]
fn host_local_gives_the_references_results_and_files() {
    let Some(reference) = reference_or_skip("host-local") else {
        return;
    };
    for (name, args, base) in host_local_inputs() {
        for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0"] {
            let outcomes = [Which::Ours, Which::Reference(&reference)].map(|which| {
                let dir = tempfile::tempdir().unwrap();
                let config = config(&base, version, dir.path());
                let mut seen = Vec::new();
                for id in ["c1", "c2", "c1"] {
                    let add = Call::new("host-local", "ADD", id)
                        .args(args)
                        .run(which, &config);
                    let mut left = files(dir.path());
                    // The reference moves its cursor on in an ADD that fails; ours changes nothing.
                    left.retain(|name, _| add.succeeded || !name.starts_with("last_reserved_ip."));
                    seen.push((add.succeeded, add.comparable(), left));
                }
                let del = Call::new("host-local", "DEL", "c1")
                    .args(args)
                    .run(which, &config);
                // Where the configuration is wrong, ours releases all the same.
                if seen[0].0 {
                    seen.push((del.succeeded, del.comparable(), files(dir.path())));
                }
                seen
            });
            let [ours, theirs] = outcomes;
            assert_eq!(ours, theirs, "{name}, version {version}");
        }
    }
}

#[test]
fn host_local_walks_a_small_range_as_the_reference_does() {
    let Some(reference) = reference_or_skip("host-local") else {
        return;
    };
    let walk = |which: Which<'_>| {
        let dir = tempfile::tempdir().unwrap();
        let base =
            json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/29"}, {"subnet": "10.1.1.0/30"}]]}});
        let config = config(&base, "0.4.0", dir.path());
        let mut seen = Vec::new();
        for step in 0..24 {
            let verb = if step % 3 == 2 { "DEL" } else { "ADD" };
            let id = format!("c{}", if verb == "DEL" { step - 2 } else { step });
            let done = Call::new("host-local", verb, &id).run(which, &config);
            seen.push((id, done.comparable(), files(dir.path())));
        }
        seen
    };
    assert_eq!(walk(Which::Ours), walk(Which::Reference(&reference)));
}

#[test]
fn host_local_and_the_reference_release_what_the_other_reserved() {
    let Some(reference) = reference_or_skip("host-local") else {
        return;
    };
    let reference = Which::Reference(&reference);
    for (adder, deleter) in [(Which::Ours, reference), (reference, Which::Ours)] {
        let dir = tempfile::tempdir().unwrap();
        let base =
            json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}});
        let config = config(&base, "1.0.0", dir.path());
        let run = |which, verb, id: &str| {
            let done = Call::new("host-local", verb, id).run(which, &config);
            assert!(done.succeeded, "{verb} {id}: {}", done.stdout);
        };
        run(adder, "ADD", "c1");
        run(deleter, "ADD", "c2");
        run(deleter, "CHECK", "c1");
        run(deleter, "DEL", "c1");
        run(adder, "DEL", "c2");
        run(adder, "ADD", "c3");
        let left = files(dir.path());
        let held: Vec<_> = left
            .iter()
            .filter(|(_, content)| content.as_str() == "c3\r\neth0")
            .collect();
        assert_eq!((left.len(), held.len()), (4, 2), "{left:?}");
        assert!(
            left.contains_key("10.1.0.4") && left.contains_key("fd00::4"),
            "{left:?}"
        );
    }
}

#[test]
fn static_gives_the_references_results() {
    let Some(reference) = reference_or_skip("static") else {
        return;
    };
    let inputs = [
        (
            "",
            json!({"ipam": {"addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["1.1.1.1"], "search": ["a", "b"]}}}),
        ),
        (
            "IP=10.2.0.5/24;GATEWAY=10.1.0.9,10.2.0.9",
            json!({"ipam": {"addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]}}),
        ),
        ("", json!({"ipam": {}})),
        (
            "",
            json!({"ipam": {"addresses": [{"address": "10.1.0.5"}]}}),
        ),
        (
            "",
            json!({"ipam": {"addresses": [{"address": "10.1.0.5/24"}, {"address": "10.1.0.6/24"}]}}),
        ),
        ("GATEWAY=zz", json!({"ipam": {}})),
        (
            "",
            json!({"ipam": {"addresses": [{"address": "10.1.0.5/24"}]}, "args": {"cni": {"ips": ["10.7.0.5/24"]}}}),
        ),
        (
            "",
            json!({"ipam": {"addresses": [{"address": "10.1.0.5/24"}]}, "args": {"cni": {"ips": ["10.7.0.5/24"]}}, "runtimeConfig": {"ips": ["10.8.0.5/24"]}}),
        ),
        (
            "",
            json!({"ipam": {"addresses": [{"address": "::ffff:10.1.0.5/120"}]}}),
        ),
    ];
    for (args, base) in inputs {
        for version in ["0.1.0", "0.3.0", "0.4.0", "1.0.0"] {
            let [ours, theirs] = [Which::Ours, Which::Reference(&reference)].map(|which| {
                let config = config(&base, version, Path::new("/no/such"));
                let add = Call::new("static", "ADD", "c1")
                    .args(args)
                    .run(which, &config);
                let del = Call::new("static", "DEL", "c1")
                    .args(args)
                    .run(which, &config);
                (add.succeeded, add.comparable(), del.succeeded, del.stdout)
            });
            assert_eq!(ours, theirs, "{base}, {args:?}, version {version}");
        }
    }
}

/// Results older than 1.0.0 have one form: they must agree to the byte.
#[test]
fn old_results_agree_with_the_reference_to_the_byte() {
    let Some(reference) = reference_or_skip("host-local") else {
        return;
    };
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0"] {
        let [ours, theirs] = [Which::Ours, Which::Reference(&reference)].map(|which| {
            let dir = tempfile::tempdir().unwrap();
            let base = json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::9"}]}});
            Call::new("host-local", "ADD", "c1").run(which, &config(&base, version, dir.path())).stdout
        });
        assert_eq!(ours, theirs, "version {version}");
    }
}
