//! Volumes that outlive Pods, and the sources that they share with the volumes of Pods.

use serde_json::{Value, json};

use super::fields::{child, make, resource_list, word_default};
use crate::api::object::{self, Object};

/// A PersistentVolume.
pub fn volume(volume: &mut Object) {
    if let Some(spec) = make(volume, "spec") {
        word_default(spec, "persistentVolumeReclaimPolicy", "Retain");
        object::default(spec, "volumeMode", "Filesystem");
        resource_list(spec, "capacity");
        source(spec);
    }
}

/// A PersistentVolumeClaim, also as a StatefulSet's template.
pub fn claim(claim: &mut Object) {
    claim_spec(claim);
    if let Some(status) = make(claim, "status") {
        word_default(status, "phase", "Pending");
        resource_list(status, "capacity");
    }
}

/// A claim's spec, also as the template in a Pod.
pub fn claim_spec(claim: &mut Object) {
    let Some(spec) = make(claim, "spec") else {
        return;
    };
    object::default(spec, "volumeMode", "Filesystem");
    if let Some(resources) = make(spec, "resources") {
        resource_list(resources, "requests");
        resource_list(resources, "limits");
    }
}

/// What kinds of volumes have by default, one line each: the kind, the field, the value.
const SOURCES: &[(&str, &str, &str)] = &[
    ("hostPath", "type", ""),
    ("iscsi", "iscsiInterface", "default"),
    ("rbd", "pool", "rbd"),
    ("rbd", "user", "admin"),
    ("rbd", "keyring", "/etc/ceph/keyring"),
    ("azureDisk", "cachingMode", "ReadWrite"),
    ("azureDisk", "fsType", "ext4"),
    ("azureDisk", "kind", "Shared"),
    ("scaleIO", "storageMode", "ThinProvisioned"),
    ("scaleIO", "fsType", "xfs"),
];

/// The source of a volume, in a Pod or a PersistentVolume.
pub fn source(holder: &mut Object) {
    for (kind, key, value) in SOURCES {
        if let Some(source) = child(holder, kind) {
            object::default(source, key, *value);
        }
    }
    if let Some(disk) = child(holder, "azureDisk") {
        object::default(disk, "readOnly", false);
    }
}

/// What a volume that was just created is in. The time is that of its creation.
pub fn first_status(volume: &mut Object) {
    let created = volume
        .get("metadata")
        .and_then(|metadata| metadata.get("creationTimestamp"))
        .filter(|created| !created.is_null())
        .cloned();
    let mut status = json!({"phase": "Pending"});
    if let (Some(created), Value::Object(status)) = (created, &mut status) {
        status.insert("lastPhaseTransitionTime".to_owned(), created);
    }
    volume.insert("status".to_owned(), status);
}
