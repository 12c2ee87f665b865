//! PersistentVolumes and PersistentVolumeClaims.

use serde_json::Value;

use super::at::At;
use super::{names, scheduling, volume};
use crate::api::defaults::same;
use crate::api::status::Cause;

const MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// What a volume's spec has besides its source.
const OTHER: &[&str] = &[
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

/// A PersistentVolume.
pub fn volume(root: &At<'_>, causes: &mut Vec<Cause>) {
    let spec = root.field("spec");
    modes(&spec.field("accessModes"), causes);
    let capacity = spec.field("capacity");
    if capacity.count() == 0 {
        capacity.required(causes, "");
    }
    if capacity.count() != 1 || capacity.value.get("storage").is_none() {
        causes.push(Cause::not_supported(
            capacity.path(),
            capacity.value,
            &["storage"],
        ));
    }
    for (_, amount) in capacity.entries() {
        positive(&amount, causes);
    }
    spec.field("persistentVolumeReclaimPolicy")
        .one_of_if_set(causes, &["Delete", "Recycle", "Retain"]);
    let affinity = spec.field("nodeAffinity");
    let required = affinity.field("required");
    if required.is_set() {
        scheduling::node_selector(&required, causes);
    } else if affinity.is_set() {
        required.required(causes, "must specify required node constraints");
    }
    let mut count = 0;
    for key in sources(spec.value) {
        let source = spec.field(key);
        count += 1;
        if count > 1 {
            source.forbidden(causes, "may not specify more than 1 volume type");
        } else {
            volume::one(key, &source, causes);
        }
    }
    if count == 0 {
        spec.required(causes, "must specify a volume type");
    }
    class(&spec, causes);
}

fn sources(spec: &Value) -> impl Iterator<Item = &str> {
    let keys = spec.as_object().into_iter().flatten();
    keys.filter(|(key, value)| !OTHER.contains(&key.as_str()) && !value.is_null())
        .map(|(key, _)| key.as_str())
}

fn modes(modes: &At<'_>, causes: &mut Vec<Cause>) {
    if modes.count() == 0 {
        modes.required(causes, "at least 1 access mode is required");
    }
    for mode in modes.items() {
        if !MODES.contains(&mode.text()) {
            causes.push(Cause::not_supported(modes.path(), mode.value, MODES));
        }
    }
    if modes.count() > 1 && modes.items().any(|mode| mode.text() == "ReadWriteOncePod") {
        modes.forbidden(
            causes,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}

fn positive(amount: &At<'_>, causes: &mut Vec<Cause>) {
    if amount.amount(causes).is_some_and(|amount| amount.is_zero()) {
        amount.invalid(causes, "must be greater than zero");
    }
}

fn class(spec: &At<'_>, causes: &mut Vec<Cause>) {
    let class = spec.field("storageClassName");
    if !class.is_empty() {
        class.invalid_text(causes, names::subdomain(class.text()));
    }
    spec.field("volumeMode")
        .one_of_if_set(causes, &["Block", "Filesystem"]);
}

/// What a PersistentVolumeClaim asks for.
pub fn claim_spec(spec: &At<'_>, causes: &mut Vec<Cause>) {
    modes(&spec.field("accessModes"), causes);
    super::metadata::selector(&spec.field("selector"), causes);
    let resources = spec.field("resources");
    let requests = resources.field("requests");
    match requests.entries().find(|(name, _)| *name == "storage") {
        Some((_, amount)) => positive(&amount, causes),
        None => causes.push(Cause::required(format!("{}[storage]", requests.path()), "")),
    }
    class(spec, causes);
}

/// What may not change in a PersistentVolume: where its content is.
pub fn volume_update(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let changed = |key: &str| !same(spec.value.get(key), before.value.get(key));
    if sources(spec.value)
        .chain(sources(before.value))
        .any(changed)
    {
        causes.push(Cause::forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        ));
    }
    spec.field("volumeMode")
        .immutable(causes, &before.field("volumeMode"));
    let affinity = before.field("nodeAffinity");
    if affinity.is_set() {
        spec.field("nodeAffinity").immutable(causes, &affinity);
    }
}

/// What may not change in a PersistentVolumeClaim: all but how much it asks for, which may grow once it is bound.
pub fn claim_update(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let keys =
        |spec: &At<'_>| -> Vec<String> { spec.entries().map(|(key, _)| key.to_owned()).collect() };
    let binding = before.field("volumeName").is_empty();
    let bound = old.field("status").field("phase").text() == "Bound";
    let changed = keys(&spec).into_iter().chain(keys(&before)).any(|key| {
        let free = match key.as_str() {
            "volumeName" => binding,
            "resources" => bound,
            "volumeAttributesClassName" => true,
            // A class may be given afterwards.
            "storageClassName" => binding && before.field("storageClassName").is_empty(),
            _ => false,
        };
        !free && !same(spec.value.get(&key), before.value.get(&key))
    });
    if changed {
        spec.forbidden(
            causes,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let amount = |spec: &At<'_>| {
        let resources = spec.field("resources");
        let requests = resources.field("requests");
        crate::api::quantity::Quantity::of(requests.field("storage").value)
    };
    if let (true, Some(now), Some(then)) = (bound, amount(&spec), amount(&before))
        && now < then
    {
        causes.push(Cause::forbidden(
            "spec.resources.requests.storage",
            "field can not be less than status.capacity",
        ));
    }
}
