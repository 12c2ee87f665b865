use proptest::prelude::*;
use serde_json::json;

use super::validation::{Mode, warning};
use super::*;

fn config_map() -> Target {
    Target::of(kinds::find("", "v1", "configmaps").unwrap())
}

fn read_as(content_type: Option<&str>, body: &str) -> Result<Decoded, Status> {
    read(content_type, body.as_bytes(), &config_map(), |text| {
        Some(text.into())
    })
}

fn message(body: &str) -> String {
    let status = read_as(None, body).unwrap_err();
    assert_eq!((status.code, status.reason), (400, "BadRequest"));
    status.message
}

#[test]
fn bodies_are_read_in_each_format() {
    let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"a": "1"}});
    let json = r#"{"metadata":{"name":"cm"},"data":{"a":"1"}}"#;
    for content_type in [
        None,
        Some("application/json"),
        Some("application/json; charset=utf-8"),
        Some("Application/JSON"),
    ] {
        assert_eq!(read_as(content_type, json).unwrap().value, wanted);
    }
    let yaml = "# a comment\nkind: ConfigMap\nmetadata:\n  name: cm\ndata:\n  a: '1'\n";
    for body in [yaml, json] {
        let read = read_as(Some("application/yaml"), body).unwrap();
        assert_eq!(read.value, wanted);
        assert_eq!(read.findings, Vec::<String>::new());
    }
    let status = read_as(Some("application/x-www-form-urlencoded"), "a=b").unwrap_err();
    assert_eq!(
        status.to_value(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            "reason": "UnsupportedMediaType", "code": 415})
    );
}

/// Recorded from kube-apiserver 1.36.2, but for the last three.
#[test]
fn bodies_that_are_no_such_object_are_refused() {
    for (body, wanted) in [
        (
            r#"{"apiVersion":"#,
            r#"the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({"apiVersion":)"#,
        ),
        (
            r#"{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"x"}}"#,
            r#"ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v2" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
        (
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}"#,
            r#"Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion"#,
        ),
        (
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":1}}"#,
            r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#,
        ),
        (
            "",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            "[]",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct (5b5d)",
        ),
        (
            r#"{"kind":["ConfigMap"],"metadata":{"name":"x"}}"#,
            r#"the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go struct field .kind of type string ({"kind":["ConfigMap"],"metadat ...)"#,
        ),
    ] {
        assert_eq!(message(body), wanted);
    }
    let deep = "[".repeat(100_000);
    assert!(message(&deep).contains("recursion limit"));
}

#[test]
fn aliases_in_yaml_may_not_grow() {
    let read = read_as(
        Some("application/yaml"),
        "metadata:\n  labels: &l {a: b}\n  annotations: *l\n",
    )
    .unwrap();
    assert_eq!(
        read.value["metadata"],
        json!({"labels": {"a": "b"}, "annotations": {"a": "b"}})
    );
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let before = format!("*a{},", level - 1).repeat(9);
        bomb += &format!("a{level}: &a{level} [{before}]\n");
    }
    let status = read_as(Some("application/yaml"), &bomb).unwrap_err();
    assert_eq!(status.code, 400);
    let deep = "[".repeat(10_000);
    assert_eq!(
        read_as(Some("application/yaml"), &deep).unwrap_err().code,
        400
    );
    for odd in [
        "a: b\n---\nc: d",
        "\u{feff}",
        "? [a]\n: b",
        "a: .nan",
        "&a [*a]",
        "{a",
        "\t",
    ] {
        assert_eq!(
            read_as(Some("application/yaml"), odd).unwrap_err().code,
            400,
            "{odd}"
        );
    }
}

/// Recorded from kube-apiserver 1.36.2.
#[test]
fn findings_are_refused_told_or_dropped() {
    let twice = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"1","a":"2"}}"#;
    let read = read_as(None, twice).unwrap();
    assert_eq!(read.value["data"]["a"], "2");
    assert_eq!(
        Mode::Strict.judge(&config_map(), read.findings),
        Err(Status::bad_request(
            r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data.a""#
        ))
    );
    let unknown = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"foo":1}"#;
    let findings = read_as(None, unknown).unwrap().findings;
    assert_eq!(
        Mode::Strict.judge(&config_map(), findings.clone()),
        Err(Status::bad_request(
            r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "foo""#
        ))
    );
    let warnings = Mode::default().judge(&config_map(), findings.clone());
    let headers: Vec<_> = warnings.unwrap().iter().map(|text| warning(text)).collect();
    assert_eq!(headers, [r#"299 - "unknown field \"foo\"""#]);
    assert_eq!(
        Mode::Ignore.judge(&config_map(), findings.clone()),
        Ok(Vec::new())
    );
    assert_eq!(
        Mode::Strict.judge(&config_map(), Vec::new()),
        Ok(Vec::new())
    );
    let status = Mode::Strict
        .judge_patch(&json!({"foo": 1}), findings)
        .unwrap_err()
        .to_value();
    assert_eq!(
        status,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": " \"\" is invalid: patch: Invalid value: \"{\\\"foo\\\":1}\": strict decoding error: unknown field \"foo\"",
            "reason": "Invalid", "code": 422, "details": {"causes": [{"reason": "FieldValueInvalid",
                "message": "Invalid value: \"{\\\"foo\\\":1}\": strict decoding error: unknown field \"foo\"",
                "field": "patch"}]}})
    );
    let status = Mode::of(Some("Foo"), "CreateOptions").unwrap_err();
    assert_eq!(
        status.to_value(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Foo\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            "reason": "Invalid", "code": 422, "details": {"group": "meta.k8s.io", "kind": "CreateOptions",
                "causes": [{"reason": "FieldValueNotSupported",
                    "message": "Unsupported value: \"Foo\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
                    "field": "fieldValidation"}]}})
    );
    assert_eq!(warning("a\r\nb\\"), r#"299 - "ab\\""#);
}

#[test]
fn options_of_deletes_are_read() {
    assert_eq!(delete_options(None, b"").unwrap(), json!({}));
    let read = delete_options(
        None,
        br#"{"kind":"DeleteOptions","apiVersion":"policy/v1","propagationPolicy":"Background","gracePeriodSeconds":0}"#,
    )
    .unwrap();
    assert_eq!(read["propagationPolicy"], "Background");
    assert_eq!(read["gracePeriodSeconds"], 0);
    let read = delete_options(Some("application/yaml"), b"preconditions: {uid: u}").unwrap();
    assert_eq!(read["preconditions"]["uid"], "u");
    let recorded: Vec<Value> =
        serde_json::from_str(include_str!("../../../tests/data/protobuf-bodies.json")).unwrap();
    let drain = recorded
        .iter()
        .find(|it| it["json"]["kind"] == "DeleteOptions")
        .unwrap();
    let hex = drain["hex"].as_str().unwrap();
    let body: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(
        delete_options(Some(PROTOBUF), &body).unwrap(),
        drain["json"]
    );
    assert_eq!(
        delete_options(None, br#"{"kind":"Pod","apiVersion":"v1"}"#)
            .unwrap_err()
            .code,
        400
    );
    assert_eq!(delete_options(None, b"[]").unwrap_err().code, 400);
}

/// YAML 1.1, as Kubernetes reads it.
#[test]
fn scalars_of_yaml_are_read_as_kubernetes_reads_them() {
    let text = "a: 0644\nb: yes\nc: ~\nd: 0x10\ne: 1_000\n1: x\ntrue: y\nf: 2026-11-21T06:00:00Z\ng: .5\nh: '1'\ni: 1:30\nj: +1\nk: |\n  two\n  lines\n";
    assert_eq!(
        text::yaml(text.as_bytes()).unwrap().value,
        json!({"a": 420, "b": true, "c": null, "d": 16, "e": 1000, "1": "x", "true": true,
            "f": "2026-11-21T06:00:00Z", "g": 0.5, "h": "1", "i": "1:30", "j": 1, "k": "two\nlines\n"})
    );
    let twice = text::yaml(b"a:\n- b: 1\n  b: 2\n").unwrap();
    assert_eq!(twice.findings, [r#"duplicate field "a[0].b""#]);
    assert_eq!(twice.value, json!({"a": [{"b": 2}]}));
}

proptest! {
    #[test]
    fn odd_texts_do_no_harm(body in "[-{}\\[\\]:,&*a-c\"'#| \n0-9.?!~%<]{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        for body in [body.as_bytes(), &bytes] {
            for content_type in [None, Some("application/yaml"), Some(PROTOBUF)] {
                let read = read(content_type, body, &config_map(), |text| Some(text.into()));
                prop_assert!(read.is_ok() || read.is_err_and(|status| status.code == 400));
                let _ = delete_options(content_type, body);
            }
        }
    }

    #[test]
    fn what_is_read_can_be_read_again(key in "[a-z]{1,3}", text in ".{0,8}") {
        let body = json!({"metadata": {"name": text, "labels": {&key: &text}}, "data": {key: text}}).to_string();
        let once = read_as(None, &body).unwrap().value;
        let twice = read_as(Some("application/yaml"), &once.to_string()).unwrap();
        prop_assert_eq!(twice, Decoded { value: once, findings: Vec::new() });
    }
}
