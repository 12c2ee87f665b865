use super::*;
use crate::cni::{Env, Verb};
use serde_json::json;
use std::os::unix::fs::MetadataExt;

fn saved(dir: &Path, id: &str, ifname: &str) -> Saved {
    let env = Env::new([("CNI_CONTAINERID", id), ("CNI_IFNAME", ifname)]);
    Saved::of(
        dir,
        &Call::new(&env, Verb::Del, json!({"name": "n"})).unwrap(),
    )
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn config(bridge: &str) -> Value {
    json!({"type": "bridge", "name": "n", "bridge": bridge})
}

#[test]
fn each_interface_has_its_own_and_the_first_the_references_name() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/b");
    let (eth0, net1) = (saved(&folder, "c1", "eth0"), saved(&folder, "c1", "net1"));
    assert!(eth0.read().unwrap().is_none());
    eth0.write(&config("one")).unwrap();
    net1.write(&config("two")).unwrap();
    assert_eq!(names(&folder), ["c1", "c1:net1"]);
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!(folder.join("c1").metadata().unwrap().mode() & 0o777, 0o600);
    let delegate = |saved: &Saved| saved.read().unwrap().unwrap().delegate().unwrap();
    assert_eq!(delegate(&eth0).config, config("one"));
    assert_eq!(delegate(&net1).config, config("two"));
    assert_eq!(delegate(&net1).plugin, "bridge");
    assert!(saved(&folder, "c1", "net2").read().unwrap().is_none());
    eth0.read().unwrap().unwrap().remove().unwrap();
    assert_eq!(names(&folder), ["c1:net1"]);
    assert!(eth0.read().unwrap().is_none());
}

#[test]
fn the_references_file_serves_any_interface_without_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c1"), config("theirs").to_string()).unwrap();
    let eth0 = saved(dir.path(), "c1", "eth0");
    assert_eq!(
        eth0.read().unwrap().unwrap().delegate().unwrap().config,
        config("theirs")
    );
    eth0.write(&config("ours")).unwrap();
    assert_eq!(names(dir.path()), ["c1", "c1:eth0"]);
    assert_eq!(
        eth0.read().unwrap().unwrap().delegate().unwrap().config,
        config("ours")
    );
}

#[test]
fn undo_puts_back_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let eth0 = saved(dir.path(), "c1", "eth0");
    eth0.write(&config("one")).unwrap().undo().unwrap();
    assert_eq!(names(dir.path()), [""; 0]);
    eth0.write(&config("one")).unwrap();
    eth0.write(&config("two")).unwrap().undo().unwrap();
    assert_eq!(
        eth0.read().unwrap().unwrap().delegate().unwrap().config,
        config("one")
    );
}

#[test]
fn malformed_text_has_no_delegate() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["", "{", "[]", "{}", r#"{"type": 3}"#] {
        std::fs::write(dir.path().join("c1"), text).unwrap();
        let found = saved(dir.path(), "c1", "eth0").read().unwrap().unwrap();
        assert_eq!(found.delegate(), None, "{text}");
    }
}

#[test]
fn stale_files_of_the_network_go_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    for (id, ifname) in [
        ("kept", "eth0"),
        ("kept", "net1"),
        ("gone", "eth0"),
        ("gone", "net1"),
    ] {
        saved(dir.path(), id, ifname).write(&config("x")).unwrap();
    }
    std::fs::write(dir.path().join("theirs"), config("x").to_string()).unwrap();
    std::fs::write(
        dir.path().join("other"),
        r#"{"name": "m", "type": "bridge"}"#,
    )
    .unwrap();
    std::fs::write(dir.path().join("torn"), "{").unwrap();
    let valid = |id: &str, ifname: &str| Attachment {
        container_id: id.into(),
        ifname: ifname.into(),
    };
    let list = [valid("kept", "eth0"), valid("theirs", "eth9")]
        .into_iter()
        .collect();
    remove_stale(dir.path(), "n", &list).unwrap();
    assert_eq!(names(dir.path()), ["kept", "other", "theirs", "torn"]);
    remove_stale(&dir.path().join("none"), "n", &list).unwrap();
}
