use super::*;
use crate::api::body::Target;
use crate::api::kinds::{self, KINDS};
use proptest::prelude::*;

fn as_is(text: &str) -> Option<String> {
    (text != "bad").then(|| text.to_owned())
}

fn of(api_version: &str, kind: &str) -> &'static Type {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    schema::in_group(group, version, kind).unwrap()
}

fn conformed(kind: &str, mut value: Value) -> (Value, Vec<String>) {
    let unknown = conform(&mut value, of("v1", kind), as_is).unwrap();
    (value, unknown)
}

fn error(kind: &str, mut value: Value) -> String {
    conform(&mut value, of("v1", kind), as_is).unwrap_err()
}

/// Objects of kube-apiserver 1.36.2, as it answered them.
#[test]
fn what_the_reference_stores_stays_as_it_is() {
    let all: Vec<Value> =
        serde_json::from_str(include_str!("../../../tests/data/stored-objects.json")).unwrap();
    assert!(all.len() > 50);
    for object in all {
        let of = of(
            object["apiVersion"].as_str().unwrap(),
            object["kind"].as_str().unwrap(),
        );
        let mut value = object.clone();
        let unknown = conform(&mut value, of, as_is).unwrap();
        assert_eq!(unknown, Vec::<String>::new());
        assert_eq!(value, object);
    }
}

#[test]
fn what_was_not_set_is_as_go_writes_it() {
    let (pod, unknown) = conformed(
        "Pod",
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "creationTimestamp": null, "labels": {}, "annotations": null,
                "finalizers": [], "generation": 0},
            "spec": {
                "containers": [
                    {"name": "c", "image": "", "ports": [], "env": null, "securityContext": {}, "stdin": false,
                     "resources": {"limits": {"cpu": 2}, "requests": {}},
                     "livenessProbe": {"httpGet": {"port": "http"}}},
                    null
                ],
                "nodeName": "", "priority": 0, "hostNetwork": false, "nodeSelector": {"a": null},
                "volumes": [{"name": "v", "emptyDir": {}}]
            }
        }),
    );
    assert_eq!(unknown, Vec::<String>::new());
    assert_eq!(
        pod,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {
                "containers": [
                    {"name": "c", "securityContext": {}, "resources": {"limits": {"cpu": "2"}},
                     "livenessProbe": {"httpGet": {"port": "http"}}},
                    {"name": "", "resources": {}}
                ],
                "priority": 0, "nodeSelector": {"a": ""},
                "volumes": [{"name": "v", "emptyDir": {}}]
            },
            "status": {}
        })
    );
    assert_eq!(
        Value::Object(empty(of("v1", "Service"))),
        json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}})
    );
    let (event, _) = conformed("Event", json!({"eventTime": "2026-11-21T08:00:00+02:00"}));
    assert_eq!(event["eventTime"], "2026-11-21T06:00:00.000000Z");
    assert_eq!(event["lastTimestamp"], Value::Null);
    let (secret, _) = conformed("Secret", json!({"data": {"a": "YWJj\nZGVm"}}));
    assert_eq!(secret["data"]["a"], "YWJjZGVm");
}

#[test]
fn unknown_fields_are_told_and_removed() {
    let (pod, unknown) = conformed(
        "Pod",
        json!({"foo": 1, "metadata": {"labels": {"x": "y"}, "bar": {}},
            "spec": {"containers": [{"name": "a"}, {"name": "b", "foo": [], "env": [{"name": "e", "va\"l": 1}]}]}}),
    );
    assert_eq!(
        unknown,
        [
            r#"unknown field "foo""#,
            r#"unknown field "metadata.bar""#,
            r#"unknown field "spec.containers[1].env[0].va\"l""#,
            r#"unknown field "spec.containers[1].foo""#,
        ]
    );
    assert_eq!(
        pod["spec"]["containers"][1],
        json!({"name": "b", "env": [{"name": "e"}], "resources": {}})
    );
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    for (kind, value, wanted) in [
        (
            // Recorded.
            "ConfigMap",
            json!({"data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "Pod",
            json!({"spec": {"containers": [{"image": {}}]}}),
            "json: cannot unmarshal object into Go struct field Container.spec.containers.image of type string",
        ),
        (
            "Pod",
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "Pod",
            json!({"spec": "x"}),
            "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            "ReplicationController",
            json!({"spec": {"replicas": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field ReplicationControllerSpec.spec.replicas of type int32",
        ),
        (
            "ReplicationController",
            json!({"spec": {"replicas": 3_000_000_000_u32}}),
            "json: cannot unmarshal number 3000000000 into Go struct field ReplicationControllerSpec.spec.replicas of type int32",
        ),
        (
            "ReplicationController",
            json!({"spec": {"replicas": "1"}}),
            "json: cannot unmarshal string into Go struct field ReplicationControllerSpec.spec.replicas of type int32",
        ),
        (
            "Service",
            json!({"spec": {"ports": [{"targetPort": true}]}}),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            "ConfigMap",
            json!({"metadata": {"labels": []}}),
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            "ConfigMap",
            json!({"metadata": {"creationTimestamp": "now"}}),
            "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\"",
        ),
        (
            "Secret",
            json!({"data": {"a": "a*"}}),
            "illegal base64 data at input byte 1",
        ),
        (
            "Node",
            json!({"status": {"capacity": {"cpu": "bad"}}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "ConfigMap",
            json!([]),
            "json: cannot unmarshal array into Go value of type v1.ConfigMap",
        ),
    ] {
        assert_eq!(error(kind, value), wanted);
    }
}

/// A value of a type's shape, more or less.
fn shaped(shape: &Shape, depth: u32) -> BoxedStrategy<Value> {
    let odd = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9:.]{0,5}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{"a": null}])),
    ];
    if depth == 0 {
        return odd.boxed();
    }
    let right = match shape {
        Shape::Object(name) => {
            let fields: Vec<_> = schema::object(name).json_fields().cloned().collect();
            proptest::collection::vec(any::<prop::sample::Index>(), 0..4)
                .prop_flat_map(move |which| {
                    which
                        .iter()
                        .map(|which| {
                            let field = &fields[which.index(fields.len())];
                            shaped(&field.shape, depth - 1).prop_map({
                                let name = field.name;
                                move |value| (name.to_owned(), value)
                            })
                        })
                        .collect::<Vec<_>>()
                })
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
                .boxed()
        }
        Shape::List(item) => proptest::collection::vec(shaped(item, depth - 1), 0..3)
            .prop_map(Value::Array)
            .boxed(),
        Shape::Map(value) => {
            proptest::collection::btree_map("[a-z]{1,2}", shaped(value, depth - 1), 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
                .boxed()
        }
        Shape::Int32 | Shape::Int64 => any::<i32>().prop_map(Value::from).boxed(),
        Shape::Bool => any::<bool>().prop_map(Value::from).boxed(),
        _ => "[a-z]{0,3}".prop_map(Value::from).boxed(),
    };
    prop_oneof![30 => right, 1 => odd].boxed()
}

fn objects() -> impl Strategy<Value = (&'static Type, Value)> {
    (0..KINDS.len()).prop_flat_map(|at| {
        let of = Target::of(&KINDS[at]).of;
        shaped(&Shape::Object(of.name), 5).prop_map(move |value| (of, value))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_second_time_changes_nothing((of, mut value) in objects()) {
        if conform(&mut value, of, as_is).is_ok() {
            let mut again = value.clone();
            prop_assert_eq!(conform(&mut again, of, as_is), Ok(Vec::new()));
            prop_assert_eq!(again, value);
        }
    }
}

#[test]
fn kinds_have_types() {
    assert_eq!(
        Target::of(kinds::find("", "v1", "pods").unwrap()).of.name,
        "core/v1.Pod"
    );
}
