//! Against what kube-apiserver 1.36.2 answered (`tests/data/defaulted`: without what a fork of it adds, without
//! managedFields, and without the finalizers that protect volumes).

use std::path::Path;

use super::*;
use crate::api::kinds;

fn recordings() -> Vec<(String, Value, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/defaulted");
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            let mut pair: Value =
                serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, pair["request"].take(), pair["stored"].take())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn kind_of(object: &Value) -> &'static Kind {
    kinds::of(
        object::text(object, &["apiVersion"]),
        object::text(object, &["kind"]),
    )
    .unwrap()
}

/// Takes the server's own choices over from the recording.
fn allocate(object: &mut Value, stored: &Value) {
    if object["kind"] != "Service" {
        return;
    }
    for key in ["clusterIP", "clusterIPs"] {
        if let Some(value) = stored["spec"]
            .get(key)
            .filter(|_| object["spec"].get(key).is_none())
        {
            object["spec"][key] = value.clone();
        }
    }
    let needs = service::needs_node_ports(object["spec"].as_object().unwrap());
    for (index, port) in object::list(stored, &["spec", "ports"]).iter().enumerate() {
        assert_eq!(needs, port.get("nodePort").is_some());
        if let Some(number) = port.get("nodePort") {
            object["spec"]["ports"][index]["nodePort"] = number.clone();
        }
    }
}

#[test]
fn objects_are_stored_as_the_reference_stores_them() {
    let recordings = recordings();
    assert_eq!(recordings.len(), 32);
    for (file, mut object, stored) in recordings {
        let kind = kind_of(&object);
        apply(kind, &mut object);
        let suffix = object::list(&stored, &["spec", "volumes"])
            .iter()
            .find_map(|volume| volume["name"].as_str()?.strip_prefix("kube-api-access-"))
            .unwrap_or("none");
        let account = None;
        admit(kind, &mut object, &Admission { suffix, account }).unwrap();
        for key in ["namespace", "uid", "creationTimestamp"] {
            if let Some(value) = stored["metadata"].get(key) {
                object["metadata"][key] = value.clone();
            }
        }
        prepare_create(kind, &mut object);
        assert_eq!(service::families(&mut object, &["IPv4"]), []);
        allocate(&mut object, &stored);
        assert_eq!(object, stored, "{file}");
        let mut again = object.clone();
        apply(kind, &mut again);
        assert_eq!(again, object, "{file}: what is stored is filled in already");
        assert!(!spec_changed(kind, &object, &stored), "{file}");
    }
}
