//! Objects as JSON values, and as the bytes that are stored.
//!
//! Stored form: `{"apiVersion":…,"kind":…,"metadata":{…},…}`, with `metadata` third and without a `resourceVersion`,
//! which is the store's revision. So an object that nobody looks into is answered by splicing the revision into its
//! bytes, without parsing them.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};

use super::kinds::Kind;
use crate::store::Revision;

/// A JSON object.
pub type Object = Map<String, Value>;

/// Walks down a path of keys: `at(pod, &["spec", "nodeName"])`.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(*key))
}

/// The string at a path, or `""`.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a path.
pub fn number(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// The items of the list at a path; none if there is no list.
pub fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The object at a key, made if it is absent or null. What is there and no object is replaced.
pub fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Object {
    if !value.is_object() {
        *value = json!({});
    }
    let slot = &mut value[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("it has just been made one"),
    }
}

/// Writes a value unless there is one; null counts as none.
pub fn default(map: &mut Object, key: &str, value: impl Into<Value>) {
    let slot = map.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value.into();
    }
}

/// `metadata.name`, or `""`.
pub fn name(value: &Value) -> &str {
    text(value, &["metadata", "name"])
}

/// `metadata.namespace`; absent in objects of the cluster.
pub fn namespace(value: &Value) -> Option<&str> {
    at(value, &["metadata", "namespace"])?.as_str()
}

/// `metadata.uid`, or `""`.
pub fn uid(value: &Value) -> &str {
    text(value, &["metadata", "uid"])
}

/// Whether it is being deleted.
pub fn deleting(value: &Value) -> bool {
    at(value, &["metadata", "deletionTimestamp"]).is_some_and(|time| !time.is_null())
}

/// The stored form. Its revision is left out.
pub fn encode(kind: &Kind, value: &Value) -> Bytes {
    let mut out = BytesMut::with_capacity(1024).writer();
    let empty = Object::new();
    let object = value.as_object().unwrap_or(&empty);
    let mut metadata = object
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    metadata.remove("resourceVersion");
    let write = |out: &mut bytes::buf::Writer<BytesMut>, part: &Value| {
        serde_json::to_writer(out, part)
            .unwrap_or_else(|error| unreachable!("a JSON value is written to memory: {error}"));
    };
    out.get_mut().put_slice(head(kind).as_bytes());
    let mut metadata = Value::Object(metadata).to_string();
    metadata.remove(0);
    out.get_mut().put_slice(metadata.as_bytes());
    for (key, part) in object {
        if !["apiVersion", "kind", "metadata"].contains(&key.as_str()) {
            out.get_mut().put_u8(b',');
            write(&mut out, &Value::String(key.clone()));
            out.get_mut().put_u8(b':');
            write(&mut out, part);
        }
    }
    out.get_mut().put_u8(b'}');
    // Recent changes are kept for long: without the room that the text grew into.
    Bytes::copy_from_slice(&out.into_inner())
}

/// Reads the stored form (also one that another program wrote in another order).
///
/// # Errors
/// The bytes are no JSON object.
pub fn decode(bytes: &[u8], revision: Revision) -> Result<Value, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(bytes)?;
    object(&mut value, "metadata").insert("resourceVersion".into(), json!(revision.to_string()));
    Ok(value)
}

/// The bytes of an answer: the stored form with its revision. Within a list of one kind (`item`) the type is left out,
/// as the reference does.
///
/// # Errors
/// The bytes are no JSON object.
pub fn splice(
    kind: &Kind,
    bytes: &[u8],
    revision: Revision,
    item: bool,
    out: &mut BytesMut,
) -> Result<(), serde_json::Error> {
    let head = head(kind);
    let Some(rest) = bytes.strip_prefix(head.as_bytes()) else {
        let mut value = decode(bytes, revision)?;
        if item {
            let map = value.as_object_mut();
            map.map(|map| [map.remove("apiVersion"), map.remove("kind")]);
        }
        out.put_slice(value.to_string().as_bytes());
        return Ok(());
    };
    out.put_slice(if item {
        b"{\"metadata\":{"
    } else {
        head.as_bytes()
    });
    out.put_slice(b"\"resourceVersion\":\"");
    out.put_slice(revision.to_string().as_bytes());
    out.put_u8(b'"');
    if rest.first() != Some(&b'}') {
        out.put_u8(b',');
    }
    out.put_slice(rest);
    Ok(())
}

/// How the stored form begins.
fn head(kind: &Kind) -> String {
    format!(
        "{{\"apiVersion\":\"{}\",\"kind\":\"{}\",\"metadata\":{{",
        kind.api_version(),
        kind.kind
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinds;

    fn spliced(kind: &Kind, bytes: &[u8], item: bool) -> Value {
        let mut out = BytesMut::new();
        splice(kind, bytes, 7, item, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn what_is_stored_comes_back_with_its_revision() {
        let kind = kinds::find("", "v1", "configmaps").unwrap();
        let written = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "ü\n\""},
            "metadata": {"name": "cm", "namespace": "demo", "resourceVersion": "3"}});
        let mut read = written.clone();
        read["metadata"]["resourceVersion"] = json!("7");
        let bytes = encode(kind, &written);
        assert!(!String::from_utf8_lossy(&bytes).contains("resourceVersion"));
        assert_eq!(decode(&bytes, 7).unwrap(), read);
        assert_eq!(spliced(kind, &bytes, false), read);
        // From another program.
        assert_eq!(spliced(kind, written.to_string().as_bytes(), false), read);
        for bytes in [bytes, written.to_string().into()] {
            let item = spliced(kind, &bytes, true);
            assert_eq!(item.get("kind"), None);
            assert_eq!(item["data"], read["data"]);
        }
        let bare = encode(kind, &json!({}));
        assert_eq!(
            spliced(kind, &bare, false)["metadata"],
            json!({"resourceVersion": "7"})
        );
    }
}
