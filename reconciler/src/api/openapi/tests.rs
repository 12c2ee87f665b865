use super::*;
use crate::api::kinds::KINDS;
use crate::api::kinds::Verbs;

fn get(path: &str) -> (Answer, Value) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let answer = respond(path, Some(query), Some("application/json"), None).unwrap();
    assert_eq!(answer.status, 200);
    let body = serde_json::from_slice(&answer.body).unwrap();
    (answer, body)
}

/// Every reference of a document leads somewhere.
fn check_references(value: &Value, root: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(root.pointer(pointer).is_some(), "{reference}");
            }
            map.values().for_each(|value| check_references(value, root));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(value, root)),
        _ => {}
    }
}

fn documents() -> Vec<Value> {
    let (_, root) = get("/openapi/v3");
    let paths = root["paths"].as_object().unwrap();
    assert_eq!(paths.len(), discovery::groups().len());
    paths
        .iter()
        .map(|(name, about)| {
            let url = about["serverRelativeURL"].as_str().unwrap();
            assert!(url.starts_with(&format!("/openapi/v3/{name}?hash=")));
            let (answer, body) = get(url);
            assert_eq!(answer.cache_control, Some(FOREVER));
            assert_eq!(get(&format!("/openapi/v3/{name}")).0.cache_control, None);
            body
        })
        .collect()
}

/// What kubectl looks for: an operation that takes `fieldValidation`, and a definition to explain.
#[test]
fn every_kind_can_be_validated_and_explained() {
    let documents = documents();
    for document in &documents {
        check_references(document, document);
    }
    for kind in KINDS {
        let mark = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let document = documents
            .iter()
            .find(|document| {
                let schemas = document["components"]["schemas"].as_object().unwrap();
                schemas
                    .values()
                    .any(|schema| schema["x-kubernetes-group-version-kind"] == json!([mark]))
            })
            .unwrap();
        let paths = document["paths"].as_object().unwrap();
        let validated = paths.values().any(|path| {
            let patch = &path["patch"];
            patch["x-kubernetes-group-version-kind"] == mark
                && patch["parameters"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|it| it["name"] == "fieldValidation" && it["in"] == "query")
        });
        assert_eq!(validated, kind.verbs != Verbs::ReadOnly, "{}", kind.kind);
        let list = match kind.group {
            "" => format!("/api/v1/{}", kind.plural),
            group => format!("/apis/{group}/v1/{}", kind.plural),
        };
        assert_eq!(paths[&list]["get"]["x-kubernetes-group-version-kind"], mark);
    }
}

/// Recorded from kube-apiserver 1.36.2.
#[test]
fn definitions_say_how_they_are_merged() {
    let (_, core) = get("/openapi/v3/api/v1");
    let schemas = &core["components"]["schemas"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["description"],
        "Pod is a collection of containers that can run on a host. This resource is created by clients and scheduled onto hosts."
    );
    assert_eq!(
        pod["properties"]["spec"]["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}])
    );
    assert_eq!(pod.get("required"), None);
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(spec["required"], json!(["containers"]));
    let mut containers = spec["properties"]["containers"].clone();
    containers.as_object_mut().unwrap().remove("description");
    assert_eq!(
        containers,
        json!({"type": "array", "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"},
            "x-kubernetes-list-map-keys": ["name"], "x-kubernetes-list-type": "map",
            "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge"})
    );
    assert_eq!(
        spec["properties"]["volumes"]["x-kubernetes-patch-strategy"],
        "merge,retainKeys"
    );
}

#[test]
fn version_2_is_empty_in_protobuf_and_whole_in_json() {
    let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = respond("/openapi/v2", None, Some(asked), None).unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.content_type, PROTOBUF);
    let (_, swagger) = get("/openapi/v2");
    assert_eq!(swagger["swagger"], "2.0");
    assert!(swagger["definitions"]["io.k8s.api.apps.v1.Deployment"].is_object());
    check_references(&swagger, &swagger);
}

#[test]
fn other_paths_are_not_ours() {
    for path in [
        "/openapi",
        "/openapi/v3/apis/none/v1",
        "/openapi/v4",
        "/openapi/v3/api",
        "/openapi/v2/x",
    ] {
        assert_eq!(respond(path, None, None, None), None, "{path}");
    }
}
