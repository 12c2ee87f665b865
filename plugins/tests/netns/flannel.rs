//! flannel → bridge → host-local, called in-process and executed.

use crate::bed::{Bed, Plugin, reference_or_skip};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const ENV: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

/// Plugins and files of one run.
struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("subnet.env"), ENV).unwrap();
        let bin = dir.path().join("bin");
        let installed = Command::new(env!("CARGO_BIN_EXE_weft-cni"))
            .arg("install")
            .arg(&bin)
            .output()
            .unwrap();
        assert!(installed.status.success());
        // The same program under other inodes: found, they are executed.
        std::fs::create_dir(dir.path().join("copies")).unwrap();
        for name in ["bridge", "host-local"] {
            std::fs::copy(bin.join(name), dir.path().join("copies").join(name)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn flannel(&self) -> PathBuf {
        self.path("bin/flannel")
    }

    fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "cbr0", "type": "flannel",
            "subnetFile": self.path("subnet.env"), "dataDir": self.path("flannel"),
            "ipam": {"dataDir": self.path("networks")},
            "delegate": {"hairpinMode": true, "isDefaultGateway": true},
        })
    }

    /// Files that an ADD makes and a DEL removes.
    fn left(&self) -> Vec<String> {
        let mut names = Vec::new();
        for dir in [self.path("networks/cbr0"), self.path("flannel")] {
            for entry in std::fs::read_dir(dir).into_iter().flatten() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name != "lock" && !name.starts_with("last_reserved_ip.") {
                    names.push(name);
                }
            }
        }
        names.sort();
        names
    }

    fn run(&self, bed: &Bed, plugin: &Path, path: &Path, verb: &str, config: &Value) -> Value {
        let path = path.to_str().unwrap();
        let done = bed.run_in_path(Plugin::File(plugin), verb, &bed.netns(), path, config);
        assert!(done.succeeded, "{verb}: {}", done.stdout);
        match done.stdout.as_str() {
            "" => Value::Null,
            _ => done.json(),
        }
    }
}

/// What does not depend on chance: names of veths and hardware addresses do.
fn settled(mut result: Value) -> Value {
    for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
        interface.as_object_mut().unwrap().remove("mac");
        if interface["name"].as_str().unwrap().starts_with("veth") {
            interface["name"] = "veth".into();
        }
    }
    result
}

#[test]
fn in_process_and_executed_delegates_give_the_same() {
    for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let [inside, executed] = ["bin", "copies"].map(|path| {
            let Some(bed) = Bed::new_or_skip() else {
                return Value::Null;
            };
            let node = Node::new();
            let config = node.config(version);
            let run = |verb: &str, config: &Value| {
                node.run(&bed, &node.flannel(), &node.path(path), verb, config)
            };
            let result = run("ADD", &config);
            assert_eq!(node.left(), ["10.244.1.2", "c1"]);
            let shown = bed.in_container(&["-4", "address", "show", "eth0"]);
            assert!(
                shown.contains("inet 10.244.1.2/24") && shown.contains("mtu 1450"),
                "{shown}"
            );
            let routes = bed.in_container(&["-4", "route"]);
            assert!(routes.contains("default via 10.244.1.1"), "{routes}");
            assert!(routes.contains("10.244.0.0/16 via 10.244.1.1"), "{routes}");
            if version >= "0.4.0" {
                let mut check = config.clone();
                check["prevResult"] = result.clone();
                run("CHECK", &check);
            }
            if version == "1.1.0" {
                run("STATUS", &config);
                let mut gc = config.clone();
                gc["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
                run("GC", &gc);
                assert_eq!(node.left(), ["10.244.1.2", "c1"]);
            }
            run("DEL", &config);
            run("DEL", &config);
            assert_eq!(node.left(), [""; 0]);
            assert!(!bed.in_container(&["link"]).contains("eth0"));
            settled(result)
        });
        let text = inside.to_string();
        let sandbox = |value: Value| {
            let mut value = value;
            for interface in value["interfaces"].as_array_mut().into_iter().flatten() {
                if let Some(sandbox) = interface.get_mut("sandbox") {
                    *sandbox = "container".into();
                }
            }
            value
        };
        assert_eq!(sandbox(inside), sandbox(executed), "{version}: {text}");
    }
}

#[test]
fn reference_delegates_serve_our_flannel() {
    let Some(bridge) = reference_or_skip("bridge") else {
        return;
    };
    let Some(bed) = Bed::new_or_skip() else {
        return;
    };
    let node = Node::new();
    let config = node.config("0.3.1");
    let theirs = bridge.parent().unwrap();
    let ours = node.path("bin");
    for (adder, deleter) in [(theirs, ours.as_path()), (ours.as_path(), theirs)] {
        node.run(&bed, &node.flannel(), adder, "ADD", &config);
        assert_eq!(node.left().len(), 2);
        node.run(&bed, &node.flannel(), deleter, "DEL", &config);
        assert_eq!(node.left(), [""; 0]);
        assert!(!bed.in_container(&["link"]).contains("eth0"));
    }
}

#[test]
fn a_full_range_fails_the_chain_and_leaves_nothing() {
    let Some(bed) = Bed::new_or_skip() else {
        return;
    };
    let node = Node::new();
    std::fs::write(
        node.path("subnet.env"),
        ENV.replace("10.244.1.1/24", "10.244.1.1/30"),
    )
    .unwrap();
    std::fs::create_dir_all(node.path("networks/cbr0")).unwrap();
    std::fs::write(node.path("networks/cbr0/10.244.1.2"), "other\r\neth0").unwrap();
    let path = node.path("bin");
    let done = bed.run_in_path(
        Plugin::File(&node.flannel()),
        "ADD",
        &bed.netns(),
        path.to_str().unwrap(),
        &node.config("1.0.0"),
    );
    let error = done.json();
    assert!(!done.succeeded);
    assert_eq!(
        error["msg"],
        "failed to allocate for range 0: no IP addresses available in range set: 10.244.1.1-10.244.1.2"
    );
    assert_eq!(node.left(), ["10.244.1.2"]);
    assert!(!bed.in_container(&["link"]).contains("eth0"));
}

#[test]
fn without_subnet_env_it_says_that_flanneld_is_not_ready() {
    let Some(bed) = Bed::new_or_skip() else {
        return;
    };
    let node = Node::new();
    std::fs::remove_file(node.path("subnet.env")).unwrap();
    let path = node.path("bin");
    for (verb, code) in [("ADD", 11), ("STATUS", 50)] {
        let done = bed.run_in_path(
            Plugin::File(&node.flannel()),
            verb,
            &bed.netns(),
            path.to_str().unwrap(),
            &node.config("1.1.0"),
        );
        let error = done.json();
        assert_eq!(error["code"], code);
        let msg = error["msg"].as_str().unwrap();
        assert!(
            msg.contains("flanneld is not ready") && msg.contains("subnet.env"),
            "{msg}"
        );
    }
    assert_eq!(node.left(), [""; 0]);
}
