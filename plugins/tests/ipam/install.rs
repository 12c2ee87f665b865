//! `weft-cni install`, `list` and friends.

use crate::harness::Call;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

fn weft_cni(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft-cni"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_listed_plugin_is_a_link_to_one_file_and_acts_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("bin");
    let done = weft_cni(&["install", target.to_str().unwrap()]);
    assert!(done.status.success(), "{}", text(done.stderr));
    let names = text(weft_cni(&["list"]).stdout);
    assert!(names.lines().any(|name| name == "host-local"), "{names}");
    let inode = target.join("weft-cni").metadata().unwrap().ino();
    for name in names.lines() {
        let file = target.join(name);
        assert_eq!(file.metadata().unwrap().ino(), inode, "{name}");
        let by_hand = Command::new(&file).env_clear().output().unwrap();
        assert!(by_hand.status.success());
        assert!(text(by_hand.stderr).starts_with(&format!("CNI {name} plugin weft ")));
        let version = Call::new(name, "VERSION", "").run_file(&file, &json!({}));
        assert_eq!(version.json()["supportedVersions"][6], "1.1.0");
    }
}

#[test]
fn it_says_its_version_and_how_it_is_used() {
    let version = text(weft_cni(&["--version"]).stdout);
    assert_eq!(version, format!("weft-cni {}\n", env!("CARGO_PKG_VERSION")));
    assert!(text(weft_cni(&["help"]).stdout).contains("install DIR"));
    for wrong in [&[][..], &["frobnicate"], &["install"]] {
        let done = weft_cni(wrong);
        assert!(!done.status.success());
        assert!(text(done.stderr).contains("usage: weft-cni"), "{wrong:?}");
    }
    let done = weft_cni(&["install", "/dev/null/x"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(done.stderr).contains("/dev/null/x"));
}
