//! Volumes of Pods, and references to fields of a Pod.

use std::collections::HashSet;

use serde_json::json;

use super::at::At;
use super::{container, names};
use crate::api::status::Cause;

/// What has no source of its own.
const NO_SOURCE: &[&str] = &["name"];

/// The volumes of a Pod.
pub fn volumes(volumes: &At<'_>, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for volume in volumes.items() {
        let name = volume.field("name");
        let before = causes.len();
        container::name(&name, causes);
        if causes.len() == before && !seen.insert(name.text().to_owned()) {
            name.duplicate(causes);
        }
        sources(&volume, causes);
    }
}

fn sources(volume: &At<'_>, causes: &mut Vec<Cause>) {
    let mut count = 0;
    let map = volume.value.as_object();
    for (key, value) in map.into_iter().flatten() {
        if NO_SOURCE.contains(&key.as_str()) || value.is_null() {
            continue;
        }
        count += 1;
        let source = volume.field(key);
        if count > 1 {
            source.forbidden(causes, "may not specify more than 1 volume type");
            continue;
        }
        one(key, &source, causes);
    }
    if count == 0 {
        volume.required(causes, "must specify a volume type");
    }
}

/// What a kind of volume must say.
const REQUIRED: &[(&str, &[&str])] = &[
    ("secret", &["secretName"]),
    ("configMap", &["name"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("hostPath", &["path"]),
    ("nfs", &["server", "path"]),
    ("csi", &["driver"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("local", &["path"]),
];

/// One source of a volume, in a Pod or a PersistentVolume.
pub fn one(kind: &str, source: &At<'_>, causes: &mut Vec<Cause>) {
    let required = REQUIRED.iter().filter(|(name, _)| *name == kind);
    for key in required.flat_map(|(_, keys)| *keys) {
        let field = source.field(key);
        if field.is_empty() {
            field.required(causes, "");
        }
    }
    mode(&source.field("defaultMode"), causes);
    match kind {
        "secret" | "configMap" => items(&source.field("items"), causes),
        "downwardAPI" => downward(&source.field("items"), causes),
        "emptyDir" => {
            let limit = source.field("sizeLimit");
            if limit.is_set() {
                limit.amount(causes);
            }
        }
        "hostPath" => {
            let path = source.field("path");
            if path.text().split('/').any(|part| part == "..") {
                path.invalid(causes, "must not contain '..'");
            }
            source.field("type").one_of_if_set(
                causes,
                &[
                    "",
                    "BlockDevice",
                    "CharDevice",
                    "Directory",
                    "DirectoryOrCreate",
                    "File",
                    "FileOrCreate",
                    "Socket",
                ],
            );
        }
        "nfs" if !source.field("path").text().starts_with('/') => {
            let path = source.field("path");
            path.invalid_text(causes, vec!["must be an absolute path".to_owned()]);
        }
        "projected" => projected(&source.field("sources"), causes),
        "ephemeral" => {
            let template = source.field("volumeClaimTemplate");
            if template.is_set() {
                super::storage::claim_spec(&template.field("spec"), causes);
            } else {
                template.required(causes, "");
            }
        }
        _ => {}
    }
}

fn projected(sources: &At<'_>, causes: &mut Vec<Cause>) {
    for part in sources.items() {
        let mut count = 0;
        for key in [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            let source = part.field(key);
            if !source.is_set() {
                continue;
            }
            count += 1;
            if count > 1 {
                source.forbidden(causes, "may not specify more than 1 volume type");
                continue;
            }
            match key {
                "secret" | "configMap" => {
                    let name = source.field("name");
                    if name.is_empty() {
                        name.required(causes, "");
                    }
                    items(&source.field("items"), causes);
                }
                "downwardAPI" => downward(&source.field("items"), causes),
                "serviceAccountToken" => {
                    let seconds = source.field("expirationSeconds");
                    if seconds.number().is_some_and(|seconds| seconds < 600) {
                        seconds.invalid(causes, "may not specify a duration less than 10 minutes");
                    }
                    path(&source.field("path"), causes);
                }
                _ => {}
            }
        }
        if count == 0 {
            part.required(causes, "must specify a volume type");
        }
    }
}

fn items(items: &At<'_>, causes: &mut Vec<Cause>) {
    for item in items.items() {
        let key = item.field("key");
        if key.is_empty() {
            key.required(causes, "");
        }
        path(&item.field("path"), causes);
        mode(&item.field("mode"), causes);
    }
}

fn downward(items: &At<'_>, causes: &mut Vec<Cause>) {
    const FIELDS: &[&str] = &[
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
    ];
    for item in items.items() {
        path(&item.field("path"), causes);
        let (field, resource) = (item.field("fieldRef"), item.field("resourceFieldRef"));
        if field.is_set() {
            field_ref(&field, FIELDS, causes);
            if resource.is_set() {
                item.invalid(
                    causes,
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        } else if resource.is_set() {
            resource_ref(&resource, true, causes);
        } else {
            item.required(causes, "one of fieldRef and resourceFieldRef is required");
        }
        mode(&item.field("mode"), causes);
    }
}

/// A field of the Pod: one of some, or a label or annotation by its key.
pub fn field_ref(field: &At<'_>, known: &[&str], causes: &mut Vec<Cause>) {
    let path = field.field("fieldPath");
    if field.field("apiVersion").is_empty() {
        field.field("apiVersion").required(causes, "");
        return;
    }
    if path.is_empty() {
        path.required(causes, "");
        return;
    }
    let subscript = path
        .text()
        .strip_suffix("']")
        .and_then(|text| text.split_once("['"));
    match subscript {
        Some(("metadata.labels", key)) => path.invalid_text(causes, names::qualified(key)),
        Some(("metadata.annotations", key)) => {
            path.invalid_text(causes, names::qualified(&key.to_lowercase()));
        }
        Some(_) => path.invalid(causes, "does not support subscript"),
        None => path.one_of_if_set(causes, known),
    }
}

/// A resource of a container.
pub fn resource_ref(reference: &At<'_>, container_needed: bool, causes: &mut Vec<Cause>) {
    let (resource, container) = (
        reference.field("resource"),
        reference.field("containerName"),
    );
    if container_needed && container.is_empty() {
        container.required(causes, "");
    } else if resource.is_empty() {
        resource.required(causes, "");
    } else {
        let known = &[
            "limits.cpu",
            "limits.ephemeral-storage",
            "limits.memory",
            "requests.cpu",
            "requests.ephemeral-storage",
            "requests.memory",
        ];
        if !resource.text().contains("hugepages-") {
            resource.one_of_if_set(causes, known);
        }
    }
}

fn path(path: &At<'_>, causes: &mut Vec<Cause>) {
    if path.is_empty() {
        path.required(causes, "");
    }
    descending(path, causes);
}

/// A path below a directory.
pub fn descending(path: &At<'_>, causes: &mut Vec<Cause>) {
    if path.text().starts_with('/') {
        path.invalid(causes, "must be a relative path");
    }
    if path.text().split('/').any(|part| part == "..") {
        path.invalid(causes, "must not contain '..'");
    }
}

fn mode(mode: &At<'_>, causes: &mut Vec<Cause>) {
    if let Some(bits) = mode.number()
        && !(0..=0o777).contains(&bits)
    {
        causes.push(Cause::invalid(
            mode.path(),
            &json!(bits),
            "must be a number between 0 and 0777 (octal), both inclusive",
        ));
    }
}
