//! ConfigMaps and Secrets.

use base64::Engine;
use serde_json::{Value, json};

use super::at::At;
use super::names;
use crate::api::defaults::same;
use crate::api::object;
use crate::api::status::Cause;

/// Values may have so many bytes together.
const LIMIT: usize = 1024 * 1024;

/// A ConfigMap.
pub fn config_map(root: &At<'_>, causes: &mut Vec<Cause>) {
    let (texts, bytes) = (root.field("data"), root.field("binaryData"));
    let mut size = 0;
    for (key, value) in texts.entries() {
        self::key(&texts, key, causes);
        if bytes.value.get(key).is_some() {
            causes.push(Cause::invalid(
                format!("data[{key}]"),
                &json!(key),
                "duplicate of key present in binaryData",
            ));
        }
        size += value.text().len();
    }
    size += blobs(&bytes, causes);
    if size > LIMIT {
        causes.push(Cause::too_long("", LIMIT));
    }
}

fn key(list: &At<'_>, key: &str, causes: &mut Vec<Cause>) {
    for wrong in names::config_key(key) {
        causes.push(Cause::invalid(
            format!("{}[{key}]", list.path()),
            &json!(key),
            &wrong,
        ));
    }
}

/// Checks values that are bytes in base64, and counts them.
fn blobs(list: &At<'_>, causes: &mut Vec<Cause>) -> usize {
    let mut size = 0;
    for (name, value) in list.entries() {
        key(list, name, causes);
        match base64::engine::general_purpose::STANDARD.decode(value.text()) {
            Ok(bytes) => size += bytes.len(),
            Err(_) => causes.push(Cause::invalid(
                value.path(),
                &json!("<contents redacted>"),
                "illegal base64 data",
            )),
        }
    }
    size
}

/// A Secret.
pub fn secret(root: &At<'_>, causes: &mut Vec<Cause>) {
    let data = root.field("data");
    if blobs(&data, causes) > LIMIT {
        causes.push(Cause::too_long("data", LIMIT));
    }
    let has = |key: &str| data.value.get(key).is_some();
    let required = |key: &str, causes: &mut Vec<Cause>| {
        if !has(key) {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    };
    match root.field("type").text() {
        "kubernetes.io/service-account-token" => {
            const ACCOUNT: &str = "kubernetes.io/service-account.name";
            let account = object::text(root.value, &["metadata", "annotations", ACCOUNT]);
            if account.is_empty() {
                causes.push(Cause::required(
                    format!("metadata.annotations[{ACCOUNT}]"),
                    "",
                ));
            }
        }
        "kubernetes.io/dockercfg" => docker(&data, ".dockercfg", causes),
        "kubernetes.io/dockerconfigjson" => docker(&data, ".dockerconfigjson", causes),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            required("username", causes);
            required("password", causes);
        }
        "kubernetes.io/ssh-auth" => required("ssh-privatekey", causes),
        "kubernetes.io/tls" => {
            required("tls.crt", causes);
            required("tls.key", causes);
        }
        _ => {}
    }
}

fn docker(data: &At<'_>, key: &str, causes: &mut Vec<Cause>) {
    let path = format!("data[{key}]");
    let Some(value) = data.value.get(key).and_then(Value::as_str) else {
        causes.push(Cause::required(path, ""));
        return;
    };
    let engine = base64::engine::general_purpose::STANDARD;
    // What is no base64 has been told already.
    if let Ok(bytes) = engine.decode(value)
        && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
    {
        causes.push(Cause::invalid(
            path,
            &json!("<secret contents redacted>"),
            &error.to_string(),
        ));
    }
}

/// What may not change once it was said that nothing may.
pub fn update(new: &At<'_>, old: &At<'_>, causes: &mut Vec<Cause>) {
    if !old.field("immutable").is_true() {
        return;
    }
    let fixed = |at: &At<'_>, causes: &mut Vec<Cause>| {
        at.forbidden(causes, "field is immutable when `immutable` is set");
    };
    let immutable = new.field("immutable");
    if !immutable.is_true() {
        fixed(&immutable, causes);
    }
    for key in ["data", "binaryData"] {
        let (now, then) = (new.field(key), old.field(key));
        if !same(Some(now.value), Some(then.value)) {
            fixed(&now, causes);
        }
    }
}
