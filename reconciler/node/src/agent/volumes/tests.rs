//! Files of volumes, on a real file system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::payload::{File, Payload, Sources, payload};
use super::{place, write};
use crate::agent::fields::Facts;
use crate::agent::objects::{Data, Kind, Lookup};
use crate::agent::plan::tests::world::pod;
use crate::agent::spec;

fn files(pairs: &[(&str, &str)]) -> Payload {
    let file = |text: &str| File {
        data: text.as_bytes().to_vec(),
        mode: 0o644,
    };
    pairs
        .iter()
        .map(|(path, text)| ((*path).to_owned(), file(text)))
        .collect()
}

fn seen(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| !name.starts_with(".."));
    names.sort();
    names
}

#[test]
fn files_change_all_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("v");
    write::write(&volume, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
    assert_eq!(seen(&volume), ["a", "sub"]);
    assert_eq!(fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
    let first = fs::read_link(volume.join("..data")).unwrap();
    write::write(&volume, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
    assert_eq!(
        fs::read_link(volume.join("..data")).unwrap(),
        first,
        "nothing is written twice"
    );
    write::write(&volume, &files(&[("a", "3"), ("c", "4")]), None).unwrap();
    assert_eq!(seen(&volume), ["a", "c"]);
    assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
    assert!(!volume.join(first).exists(), "the old files are gone");
    write::write(&volume, &files(&[]), None).unwrap();
    assert_eq!(seen(&volume), [""; 0]);
}

#[test]
fn modes_are_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let group = nix::unistd::getegid().as_raw();
    let mut one = files(&[("a", "1")]);
    one.get_mut("a").unwrap().mode = 0o400;
    write::write(folder.path(), &one, None).unwrap();
    let meta = || fs::metadata(folder.path().join("a")).unwrap();
    assert_eq!(meta().permissions().mode() & 0o777, 0o400);
    write::write(folder.path(), &one, Some(group)).unwrap();
    assert_eq!(
        (meta().permissions().mode() & 0o777, meta().gid()),
        (0o440, group)
    );
}

struct Maps;

impl Lookup for Maps {
    fn find(&self, kind: Kind, _: &str, name: &str) -> Result<Option<Data>, String> {
        let data = match (kind, name) {
            (Kind::ConfigMap, "ca") => vec![("ca.crt", "CA")],
            (Kind::Secret, "s") => vec![("k", "v")],
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect(),
        )))
    }
}

fn made(volume: serde_json::Value) -> Result<Vec<String>, String> {
    let mut volume = volume;
    volume["name"] = json!("v");
    let pod = pod(json!({"containers": [{"name": "c"}], "volumes": [volume]}));
    let tokens = BTreeMap::from([((String::new(), 3607), "TOKEN".to_owned())]);
    let sources = Sources {
        pod: &pod,
        objects: &Maps,
        facts: &Facts::default(),
        tokens: &tokens,
    };
    let volume = &spec::spec(&pod).unwrap().volumes.as_ref().unwrap()[0];
    let files = payload(volume, sources)?.unwrap();
    Ok(files
        .into_iter()
        .map(|(path, file)| {
            format!(
                "{path} {:o} {}",
                file.mode,
                String::from_utf8_lossy(&file.data)
            )
        })
        .collect())
}

#[test]
fn each_kind() {
    assert_eq!(
        made(json!({"configMap": {"name": "ca"}})).unwrap(),
        ["ca.crt 644 CA"]
    );
    assert_eq!(
        made(json!({"secret": {"secretName": "s", "defaultMode": 256, "items": [{"key": "k", "path": "x/y"}]}})).unwrap(),
        ["x/y 400 v"]
    );
    assert_eq!(
        made(json!({"projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "ca"}},
            {"configMap": {"name": "absent", "optional": true}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}))
        .unwrap(),
        ["ca.crt 644 CA", "namespace 644 default", "token 644 TOKEN"]
    );
}

#[test]
fn what_is_missing_or_leads_upwards_is_refused() {
    assert_eq!(
        made(json!({"secret": {"secretName": "none"}})).unwrap_err(),
        "secret \"none\" not found"
    );
    assert_eq!(
        made(json!({"configMap": {"name": "ca", "items": [{"key": "no", "path": "x"}]}}))
            .unwrap_err(),
        "configmap references non-existent config key: no"
    );
    for path in ["../x", "a/../../x", "/etc/x", "", "a//b", "..data/x", "."] {
        let volume = json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": path}]}});
        assert!(made(volume).is_err(), "{path:?}");
    }
}

#[test]
fn parts_stay_within() {
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("v");
    fs::create_dir(&volume).unwrap();
    let inside = place::part(&volume, "a/b", false).unwrap();
    assert!(inside.ends_with("v/a/b") && inside.is_dir());
    symlink("/etc", volume.join("out")).unwrap();
    symlink("../..", volume.join("up")).unwrap();
    symlink("a", volume.join("in")).unwrap();
    assert!(place::part(&volume, "in/b", false).is_ok());
    for bad in [
        "../x",
        "a/../../x",
        "/etc",
        "out",
        "out/passwd",
        "up",
        "up/x",
    ] {
        assert!(place::part(&volume, bad, false).is_err(), "{bad}");
    }
    assert!(place::part(&volume, "absent", true).is_err());
}

#[test]
fn host_paths_are_of_their_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(
        place::host_path(&path("d"), "Directory")
            .unwrap_err()
            .contains("is not a directory")
    );
    place::host_path(&path("d"), "DirectoryOrCreate").unwrap();
    place::host_path(&path("d"), "Directory").unwrap();
    place::host_path(&path("f"), "FileOrCreate").unwrap();
    assert!(place::host_path(&path("f"), "Directory").is_err());
    assert!(place::host_path(Path::new("relative"), "").is_err());
    assert!(place::host_path(&path("f"), "Nonsense").is_err());
}

#[test]
fn memory_is_mounted_once_and_unmounted() {
    if !nix::unistd::geteuid().is_root() {
        assert!(
            std::env::var_os("WEFT_REQUIRE_ROOT").is_none_or(|value| value != "1"),
            "this test needs root"
        );
        eprintln!("SKIPPED: needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("pod/with space");
    fs::create_dir_all(&inner).unwrap();
    place::memory(&inner, Some(1 << 20)).unwrap();
    place::memory(&inner, Some(1 << 20)).unwrap();
    fs::write(inner.join("x"), "in memory").unwrap();
    place::remove(&folder.path().join("pod")).unwrap();
    assert!(!folder.path().join("pod").exists());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(&*folder.path().to_string_lossy()));
    place::remove(&folder.path().join("pod")).unwrap();
}

proptest! {
    #[test]
    fn no_part_leaves_its_volume(below in "[a-c./]{0,12}") {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        fs::create_dir(&volume).unwrap();
        if let Ok(path) = place::part(&volume, &below, false) {
            prop_assert!(path.starts_with(volume.canonicalize().unwrap()));
        }
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
