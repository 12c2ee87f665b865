use super::*;
use crate::cni::{Env, Verb};
use serde_json::{Value, json};

struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn call(&self, verb: Verb, id: &str, ifname: &str, ipam: Value) -> Call {
        let env = Env::new([("CNI_CONTAINERID", id), ("CNI_IFNAME", ifname)]);
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "n", "ipam": ipam,
            "cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}],
        });
        config["ipam"]["dataDir"] = self.dir.path().to_str().unwrap().into();
        Call::new(&env, verb, config).unwrap()
    }

    fn add(&self, id: &str, ifname: &str) -> Result<String> {
        let result = HostLocal.add(&self.call(Verb::Add, id, ifname, two_sets()))?;
        Ok(result
            .ips
            .iter()
            .map(|ip| ip.address.to_string())
            .collect::<Vec<_>>()
            .join(" "))
    }

    fn del(&self, id: &str, ifname: &str) -> Result<()> {
        HostLocal.del(&self.call(Verb::Del, id, ifname, json!({})))
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path().join("n"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock" && !name.starts_with("last_"))
            .collect();
        names.sort();
        names
    }

    fn write(&self, name: &str, content: &str) {
        let folder = self.dir.path().join("n");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), content).unwrap();
    }
}

fn two_sets() -> Value {
    json!({"ranges": [[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00::/64"}]]})
}

#[test]
fn add_gives_an_address_of_each_set_and_del_takes_them_back() {
    let bed = Bed::new();
    assert_eq!(bed.add("a", "eth0").unwrap(), "10.1.0.2/29 fd00::2/64");
    assert_eq!(bed.add("a", "eth1").unwrap(), "10.1.0.3/29 fd00::3/64");
    bed.del("a", "eth0").unwrap();
    assert_eq!(bed.files(), ["10.1.0.3", "fd00::3"]);
    bed.del("a", "eth0").unwrap();
    bed.del("a", "eth1").unwrap();
    assert_eq!(bed.files(), [""; 0]);
    assert_eq!(bed.add("b", "eth0").unwrap(), "10.1.0.4/29 fd00::4/64");
}

#[test]
fn a_failed_add_leaves_what_was_there() {
    let bed = Bed::new();
    bed.write("fd00::9", "a\r\neth0");
    let error = bed.add("a", "eth0").unwrap_err();
    assert!(
        error.msg.contains("fd00::9 has been allocated to a"),
        "{error}"
    );
    assert_eq!(bed.files(), ["fd00::9"]);
    // A file that cannot be made after the first set's was: the first is released.
    std::fs::create_dir_all(bed.dir.path().join("n/last_reserved_ip.1")).unwrap();
    bed.del("a", "eth0").unwrap();
    assert!(bed.add("a", "eth0").is_err());
    assert_eq!(bed.files(), [""; 0]);
}

#[test]
fn del_releases_what_an_old_version_reserved_but_not_beside_its_own() {
    let bed = Bed::new();
    bed.write("10.1.0.5", "a");
    bed.write("10.1.0.6", "a\r\neth0");
    bed.del("a", "eth0").unwrap();
    assert_eq!(bed.files(), ["10.1.0.5"]);
    bed.del("a", "eth0").unwrap();
    assert_eq!(bed.files(), [""; 0]);
}

#[test]
fn del_without_a_folder_and_with_other_ranges_succeeds() {
    let bed = Bed::new();
    bed.del("a", "eth0").unwrap();
    assert!(!bed.dir.path().join("n").exists());
}

#[test]
fn check_wants_an_address_of_the_interface() {
    let bed = Bed::new();
    let check =
        |id: &str, ifname: &str| HostLocal.check(&bed.call(Verb::Check, id, ifname, two_sets()));
    assert!(check("a", "eth0").is_err());
    bed.add("a", "eth0").unwrap();
    assert_eq!(check("a", "eth0"), Ok(()));
    assert_eq!(
        check("a", "eth1").unwrap_err().msg,
        "host-local: Failed to find address added by container a"
    );
}

#[test]
fn gc_keeps_valid_attachments_and_removes_the_rest_and_crash_traces() {
    let bed = Bed::new();
    for (ip, content) in [
        ("10.1.0.2", "kept\r\neth0"),
        ("10.1.0.3", "kept\r\neth1"),
        ("10.1.0.4", "kept"),
        ("10.1.0.5", "gone"),
        ("10.1.0.6", ""),
        ("notes", "gone"),
    ] {
        bed.write(ip, content);
    }
    HostLocal
        .gc(&bed.call(Verb::Gc, "", "", json!({})))
        .unwrap();
    assert_eq!(bed.files(), ["10.1.0.2", "10.1.0.4", "notes"]);
}

#[test]
fn status_fails_when_no_address_is_left() {
    let bed = Bed::new();
    let status =
        || HostLocal.status(&bed.call(Verb::Status, "", "", json!({"subnet": "10.1.0.0/30"})));
    assert_eq!(status(), Ok(()));
    assert!(!bed.dir.path().join("n").exists());
    bed.write("10.1.0.2", "a");
    assert_eq!(status().unwrap_err().code, 50);
}

#[test]
fn a_crash_trace_is_given_out_again() {
    let bed = Bed::new();
    bed.write("10.1.0.2", "");
    assert_eq!(bed.add("a", "eth0").unwrap(), "10.1.0.2/29 fd00::2/64");
}
