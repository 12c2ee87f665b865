use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::api::body::Target;

/// Bodies that kubectl 1.36.2 and 1.32.4 sent, and what they say.
fn recordings() -> Vec<(Vec<u8>, Value)> {
    let all: Vec<Value> =
        serde_json::from_str(include_str!("../../../../tests/data/protobuf-bodies.json")).unwrap();
    all.iter()
        .map(|it| (unhex(it["hex"].as_str().unwrap()), it["json"].clone()))
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn type_of(envelope: &Envelope<'_>) -> &'static Type {
    let (group, version) = envelope
        .api_version
        .split_once('/')
        .unwrap_or(("", envelope.api_version));
    if envelope.kind == "DeleteOptions" {
        return schema::object("meta/v1.DeleteOptions");
    }
    schema::in_group(group, version, envelope.kind).unwrap()
}

fn decode(body: &[u8]) -> Result<Value, String> {
    let envelope = open(body)?;
    let mut map = object(envelope.raw, type_of(&envelope))?;
    map.insert("apiVersion".into(), envelope.api_version.into());
    map.insert("kind".into(), envelope.kind.into());
    Ok(Value::Object(map))
}

#[test]
fn what_kubectl_sends_is_read() {
    let all = recordings();
    assert!(all.len() > 15);
    for (body, mut wanted) in all {
        let of = type_of(&open(&body).unwrap());
        let mut read = decode(&body).unwrap();
        for value in [&mut read, &mut wanted] {
            let unknown = crate::api::conform::conform(value, of, |text| Some(text.into()));
            assert_eq!(unknown, Ok(Vec::new()));
        }
        assert_eq!(read, wanted);
    }
}

#[test]
fn what_is_cut_off_is_an_error_or_a_smaller_object() {
    for (body, _) in recordings() {
        let envelope = open(&body).unwrap();
        let of = type_of(&envelope);
        for end in 0..envelope.raw.len() {
            let _ = object(&envelope.raw[..end], of);
        }
        // Two empty fields are last.
        for end in 0..body.len() - 4 {
            let cut = open(&body[..end]);
            assert!(cut.is_err() || cut.unwrap().raw.is_empty());
        }
    }
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    out.extend(bytes);
    out
}

#[test]
fn what_kubectl_does_not_send() {
    let secret = schema::object("core/v1.Secret");
    let entry = [field(1, b"k"), field(2, &[0, 1, 255])].concat();
    let read = object(&field(2, &entry), secret).unwrap();
    assert_eq!(
        Value::Object(read),
        serde_json::json!({"data": {"k": "AAH/"}})
    );
    // A key alone: its value is the zero one.
    let read = object(&field(2, &field(1, b"k")), secret).unwrap();
    assert_eq!(Value::Object(read), serde_json::json!({"data": {"k": ""}}));
    let info = schema::object("authentication/v1.UserInfo");
    let values = [field(1, b"a"), field(1, b"b")].concat();
    let entry = [field(1, b"k"), field(2, &values)].concat();
    let read = object(&field(4, &entry), info).unwrap();
    assert_eq!(
        Value::Object(read),
        serde_json::json!({"extra": {"k": ["a", "b"]}})
    );
    // A message in two parts; a number packed; fields that nobody knows.
    let meta = [
        field(1, &field(1, b"n")),
        field(1, &field(5, b"u")),
        vec![0xf8, 0x7f, 1],
    ]
    .concat();
    let read = object(&meta, secret).unwrap();
    assert_eq!(
        Value::Object(read),
        serde_json::json!({"metadata": {"name": "n", "uid": "u"}})
    );
    let context = schema::object("core/v1.PodSecurityContext");
    let read = object(&field(4, &[1, 2, 0xac, 2]), context).unwrap();
    assert_eq!(
        Value::Object(read),
        serde_json::json!({"supplementalGroups": [1, 2, 300]})
    );
    let meta = schema::object("meta/v1.ObjectMeta");
    let read = object(&field(9, &[8, 1]), meta).unwrap();
    assert_eq!(
        Value::Object(read),
        serde_json::json!({"deletionTimestamp": "1970-01-01T00:00:01Z"})
    );
}

#[test]
fn what_is_no_message_is_refused() {
    let pod = schema::object("core/v1.Pod");
    for (bytes, wanted) in [
        (&[0x0a, 0x05, 0x01][..], "unexpected EOF"),
        (
            &[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
            "unexpected EOF",
        ),
        (&[0xff; 12], "proto: integer overflow"),
        (
            &[0x08, 0x01],
            "proto: wrong wireType = 0 for field metadata",
        ),
        (&[0x0b], "proto: illegal wireType 3"),
        (&[0x02, 0x00], "proto: illegal tag 0"),
        (
            &[0x0a, 0x03, 0x0a, 0x01, 0xff],
            "proto: name contains invalid UTF-8",
        ),
    ] {
        assert_eq!(object(bytes, pod).unwrap_err(), wanted);
    }
    assert!(open(b"{}").unwrap_err().contains("expected prefix"));
    let revision = schema::object("apps/v1.ControllerRevision");
    let deep = "[".repeat(55) + &"]".repeat(55);
    let error = object(&field(2, &field(1, deep.as_bytes())[..]), revision);
    assert_eq!(error.unwrap_err(), "data: exceeded max depth");
}

/// Any type that can be sent.
fn targets() -> Vec<Target> {
    crate::api::kinds::KINDS.iter().map(Target::of).collect()
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        which in any::<prop::sample::Index>(),
    ) {
        let targets = targets();
        let target = targets[which.index(targets.len())];
        let _ = object(&bytes, target.of);
        let _ = open(&[b"k8s\0", &bytes[..]].concat());
        let _ = crate::api::body::read(Some(crate::api::body::PROTOBUF), &bytes, &target, |_| None);
    }

    #[test]
    fn changed_recordings_do_no_harm(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let all = recordings();
        let (mut body, _) = all[which.index(all.len())].clone();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(envelope) = open(&body) {
            for target in targets() {
                if let Ok(map) = object(envelope.raw, target.of) {
                    let mut value = Value::Object(map);
                    let first = crate::api::conform::conform(&mut value, target.of, |text| Some(text.into()));
                    // What the table reads is of the table's types.
                    prop_assert!(first.is_ok_and(|unknown| unknown.is_empty()));
                }
            }
        }
    }
}
