//! Volumes and claims.

use jiff::Timestamp;
use serde_json::Value;

use super::super::object::{at, text};

/// How access modes are abbreviated, in the order in which they are printed.
const MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

/// `RWO,ROX`
pub fn modes(field: Option<&Value>) -> String {
    let given = field.and_then(Value::as_array);
    let has = |mode: &str| given.is_some_and(|given| given.iter().any(|one| one == mode));
    let short: Vec<_> = MODES
        .iter()
        .filter(|(mode, _)| has(mode))
        .map(|(_, short)| *short)
        .collect();
    short.join(",")
}

/// `storage` of a list of quantities as it is given, `0` if it is not.
pub fn size(quantities: Option<&Value>) -> String {
    match quantities.and_then(|quantities| quantities.get("storage")) {
        Some(Value::String(size)) => size.clone(),
        Some(Value::Number(size)) => size.to_string(),
        _ => "0".to_owned(),
    }
}

/// The class, which an old annotation also names.
pub fn class(object: &Value) -> String {
    let annotation = [
        "metadata",
        "annotations",
        "volume.beta.kubernetes.io/storage-class",
    ];
    at(object, &annotation)
        .and_then(Value::as_str)
        .unwrap_or_else(|| text(object, &["spec", "storageClassName"]))
        .to_owned()
}

/// `demo/pvc`: the claim that a volume is bound to.
pub fn claim(volume: &Value) -> String {
    match at(volume, &["spec", "claimRef"]).filter(|claim| claim.is_object()) {
        Some(claim) => format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"])),
        None => String::new(),
    }
}

/// Capacity and access modes of a claim's volume; empty until it has one.
pub fn bound(claim: &Value, _: Timestamp, out: &mut Vec<Value>) {
    if text(claim, &["spec", "volumeName"]).is_empty() {
        out.extend(["".into(), "".into()]);
    } else {
        out.push(size(at(claim, &["status", "capacity"])).into());
        out.push(modes(at(claim, &["status", "accessModes"])).into());
    }
}
