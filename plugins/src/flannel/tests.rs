use super::*;
use crate::cni::Env;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const ENV: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

/// A folder with a subnet.env, a data folder and a delegate `probe` that notes its calls.
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let bed = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::write(bed.path("subnet.env"), ENV).unwrap();
        bed.delegate("");
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the delegate; `more` runs after it noted its call.
    fn delegate(&self, more: &str) {
        let file = self.path("probe");
        let calls = self.path("calls");
        let text = format!(
            "#!/bin/sh\nprintf '%s ' $CNI_COMMAND >> {calls}\ncat >> {calls}\necho >> {calls}\n{more}\n\
             [ $CNI_COMMAND != ADD ] || echo '{{\"ips\":[{{\"address\":\"10.244.1.2/24\"}}]}}'\n",
            calls = calls.display()
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn call(&self, verb: Verb, ifname: &str) -> Call {
        let env = Env::new([
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", ifname),
            ("CNI_PATH", self.dir.path().to_str().unwrap()),
        ]);
        let config = json!({
            "cniVersion": "1.1.0", "name": "cbr0", "type": "flannel",
            "subnetFile": self.path("subnet.env"), "dataDir": self.path("data"),
            "delegate": {"type": "probe"},
            "prevResult": {"ips": []},
            "cni.dev/valid-attachments": [],
        });
        Call::new(&env, verb, config).unwrap()
    }

    fn add(&self) -> Result<CniResult> {
        Flannel.add(&self.call(Verb::Add, "eth0"))
    }

    fn del(&self) -> Result<()> {
        Flannel.del(&self.call(Verb::Del, "eth0"))
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn verbs(&self) -> Vec<String> {
        let calls = self.calls();
        calls
            .iter()
            .map(|c| c.split(' ').next().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn add_calls_the_delegate_and_del_does_with_the_same_configuration() {
    let bed = Bed::new();
    let result = bed.add().unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.244.1.2/24");
    std::fs::write(bed.path("subnet.env"), "gone").unwrap();
    bed.del().unwrap();
    bed.del().unwrap();
    let calls = bed.calls();
    assert_eq!(bed.verbs(), ["ADD", "DEL"]);
    // The same, and what the runtime remembers of the ADD.
    let remembered = r#""prevResult":{"ips":[]},"#;
    assert!(calls[1].contains(remembered), "{}", calls[1]);
    assert_eq!(
        calls[0].trim_start_matches("ADD "),
        calls[1].trim_start_matches("DEL ").replace(remembered, "")
    );
    assert!(calls[0].contains(r#""ranges":[[{"subnet":"10.244.1.0/24"}]]"#));
    assert!(!bed.path("data/c1").exists());
}

#[test]
fn a_failed_add_deletes_the_delegates_part_and_its_file() {
    let bed = Bed::new();
    bed.delegate(r#"[ $CNI_COMMAND = DEL ] || { echo '{"code":11,"msg":"full"}'; exit 1; }"#);
    assert_eq!(bed.add().unwrap_err(), Error::new(11, "full"));
    assert_eq!(bed.verbs(), ["ADD", "DEL"]);
    assert!(!bed.path("data/c1").exists());
}

#[test]
fn where_that_del_fails_too_the_file_stays_for_the_runtimes() {
    let bed = Bed::new();
    bed.delegate(r#"echo '{"code":100,"msg":"no"}'; exit 1"#);
    let error = bed.add().unwrap_err();
    assert_eq!(error.details, "undo failed: DEL of probe: no");
    assert!(bed.path("data/c1").exists());
}

#[test]
fn a_second_add_that_fails_leaves_the_first_alone() {
    let bed = Bed::new();
    bed.add().unwrap();
    bed.delegate("exit 1");
    assert!(bed.add().is_err());
    assert_eq!(bed.verbs(), ["ADD", "ADD"]);
    bed.delegate("");
    bed.del().unwrap();
    assert_eq!(bed.verbs(), ["ADD", "ADD", "DEL"]);
}

#[test]
fn an_absent_delegate_is_found_before_anything_is_written() {
    let bed = Bed::new();
    std::fs::remove_file(bed.path("probe")).unwrap();
    assert!(
        bed.add()
            .unwrap_err()
            .msg
            .contains("failed to find plugin \"probe\"")
    );
    assert!(!bed.path("data").exists());
}

#[test]
fn a_failed_del_can_be_repeated() {
    let bed = Bed::new();
    bed.add().unwrap();
    bed.delegate(r#"echo '{"code":11,"msg":"busy"}'; exit 1"#);
    assert_eq!(bed.del().unwrap_err(), Error::new(11, "busy"));
    bed.delegate("");
    bed.del().unwrap();
    assert_eq!(bed.verbs(), ["ADD", "DEL", "DEL"]);
}

#[test]
fn a_torn_file_is_planned_anew_or_given_up() {
    let bed = Bed::new();
    std::fs::create_dir(bed.path("data")).unwrap();
    std::fs::write(bed.path("data/c1"), "").unwrap();
    bed.del().unwrap();
    assert_eq!(bed.verbs(), ["DEL"]);
    std::fs::remove_file(bed.path("subnet.env")).unwrap();
    std::fs::write(bed.path("data/c1"), "").unwrap();
    bed.del().unwrap();
    assert_eq!(bed.verbs(), ["DEL"]);
    assert!(!bed.path("data/c1").exists());
}

#[test]
fn check_status_and_gc_reach_the_delegate() {
    let bed = Bed::new();
    bed.add().unwrap();
    Flannel.check(&bed.call(Verb::Check, "eth0")).unwrap();
    Flannel.status(&bed.call(Verb::Status, "")).unwrap();
    Flannel.gc(&bed.call(Verb::Gc, "")).unwrap();
    let calls = bed.calls();
    assert_eq!(bed.verbs(), ["ADD", "CHECK", "STATUS", "GC"]);
    assert!(calls[1].contains(r#""prevResult":{"ips":[]}"#));
    assert!(calls[3].contains(r#""cni.dev/valid-attachments":[]"#));
    assert!(!bed.path("data/c1").exists());
}

#[test]
fn without_a_lease_add_says_try_again_and_status_not_available() {
    let bed = Bed::new();
    std::fs::remove_file(bed.path("subnet.env")).unwrap();
    let add = bed.add().unwrap_err();
    assert_eq!(add.code, 11);
    assert!(add.msg.starts_with("flanneld is not ready: open "), "{add}");
    let status = Flannel.status(&bed.call(Verb::Status, "")).unwrap_err();
    assert_eq!((status.code, status.msg), (50, add.msg));
    assert_eq!(bed.verbs(), [""; 0]);
}
