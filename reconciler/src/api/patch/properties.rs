//! What holds for all patches, however odd.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::strategic::{clean, is_directive};
use super::tests::{kind, strategic};
use super::{Format, apply};

/// JSON with the names that patches and Pods care for.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!(1)),
        Just(json!("a")),
        Just(json!("delete")),
        Just(json!("replace")),
        Just(json!("merge")),
    ];
    let key = prop_oneof![
        4 => prop::sample::select(vec!["spec", "metadata", "containers", "name", "finalizers", "env", "ports",
            "containerPort", "labels", "volumes", "a"]),
        3 => prop::sample::select(vec!["$patch", "$retainKeys", "$setElementOrder/containers",
            "$setElementOrder/finalizers", "$deleteFromPrimitiveList/finalizers", "$setElementOrder/env"]),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn has_directives(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_directives),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| is_directive(key) || has_directives(value)),
        _ => false,
    }
}

fn without_directives(value: &Value) -> Value {
    clean(value.clone()).unwrap_or_default()
}

proptest! {
    #[test]
    fn directives_never_stay(target in json(), patch in json()) {
        let pod = json!({"spec": without_directives(&target), "metadata": without_directives(&target)});
        let patch = json!({"spec": patch, "metadata": patch});
        if let Ok(result) = strategic("pods", &pod, &patch) {
            prop_assert!(!has_directives(&result), "{result}");
            prop_assert!(result.is_object());
        }
    }

    #[test]
    fn any_body_is_answered(target in json(), body in json()) {
        for format in [Format::Json, Format::Merge, Format::Strategic] {
            if let Err(status) = apply(format, &target, body.to_string().as_bytes(), kind("pods")) {
                prop_assert!((400..500).contains(&status.code));
            }
        }
    }

    #[test]
    fn a_strategic_patch_of_itself_changes_nothing(target in json()) {
        let pod = json!({"spec": without_directives(&target)});
        if let Ok(once) = strategic("pods", &pod, &pod) {
            // A list with one key twice is folded once; then it is stable.
            prop_assert_eq!(strategic("pods", &once, &once).unwrap(), once);
        }
    }
}
