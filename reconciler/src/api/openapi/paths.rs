//! The paths of a group, and what may be done on them.

use serde_json::{Map, Value, json};

use super::schemas;
use crate::api::discovery::Resource;

/// The types that a patch may be of.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// A type that a path takes and gives.
struct Thing<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

/// Every path of a group.
pub fn of(group: &str, resources: &[Resource]) -> Map<String, Value> {
    let root = match group {
        "" => "/api/v1".to_owned(),
        group => format!("/apis/{group}/v1"),
    };
    let mut paths = Map::new();
    for resource in resources {
        let thing = Thing {
            group,
            version: "v1",
            kind: resource.kind,
        };
        let plural = resource.plural;
        let collection = if resource.namespaced {
            format!("{root}/namespaces/{{namespace}}/{plural}")
        } else {
            format!("{root}/{plural}")
        };
        let has = |verb| resource.verbs.contains(&verb);
        let mut operations = Vec::new();
        if has("list") {
            operations.push(("get", "list", thing.list(), false));
            if resource.namespaced {
                let list = vec![("get", "list", thing.list(), false)];
                paths.insert(format!("{root}/{plural}"), thing.path(list, &[]));
            }
        }
        if has("create") {
            operations.push(("post", "post", thing.reference(), true));
        }
        if has("deletecollection") {
            operations.push(("delete", "deletecollection", schemas::STATUS.into(), false));
        }
        let namespace: &[&str] = if resource.namespaced {
            &["namespace"]
        } else {
            &[]
        };
        paths.insert(collection.clone(), thing.path(operations, namespace));
        let parameters = [&["name"], namespace].concat();
        let item = format!("{collection}/{{name}}");
        let mut operations = Vec::new();
        for (verb, method, action, body) in [
            ("get", "get", "get", false),
            ("update", "put", "put", true),
            ("patch", "patch", "patch", true),
            ("delete", "delete", "delete", false),
        ] {
            if has(verb) {
                operations.push((method, action, thing.reference(), body));
            }
        }
        if !operations.is_empty() {
            paths.insert(item.clone(), thing.path(operations, &parameters));
        }
        for sub in resource.subresources {
            let below = match resource.below(*sub) {
                ("", _, kind) => Thing { kind, ..thing },
                (group, version, kind) => Thing {
                    group,
                    version,
                    kind,
                },
            };
            let operations = sub.verbs().iter().map(|verb| match *verb {
                "create" => ("post", "post", below.reference(), true),
                "update" => ("put", "put", below.reference(), true),
                "patch" => ("patch", "patch", below.reference(), true),
                _ => ("get", "get", below.reference(), false),
            });
            let path = format!("{item}/{}", sub.name());
            paths.insert(path, below.path(operations.collect(), &parameters));
        }
    }
    paths
}

impl Thing<'_> {
    fn reference(&self) -> String {
        schemas::definition(self.group, self.version, self.kind).unwrap_or_default()
    }

    fn list(&self) -> String {
        self.reference() + "List"
    }

    /// A path with its operations: method, action, definition of the answer, and whether there is a body.
    fn path(&self, operations: Vec<(&str, &str, String, bool)>, parameters: &[&str]) -> Value {
        let mut path = Map::new();
        for (method, action, definition, body) in operations {
            path.insert(
                method.into(),
                self.operation(method, action, &definition, body),
            );
        }
        if !parameters.is_empty() {
            path.insert("parameters".into(), parameters.iter().map(|name| {
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
            }).collect());
        }
        Value::Object(path)
    }

    fn operation(&self, method: &str, action: &str, definition: &str, body: bool) -> Value {
        let mut answer = json!({"description": "OK"});
        // Streams and logs are no type.
        if !definition.is_empty() {
            answer["content"] = content(&["application/json", "application/yaml"], definition);
        }
        let mut operation = json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind":
                {"group": self.group, "version": self.version, "kind": self.kind},
            "responses": {"200": answer},
        });
        if body {
            operation["parameters"] = ["dryRun", "fieldManager", "fieldValidation"]
                .iter()
                .map(|name| query(name, "string"))
                .chain((method == "patch").then(|| query("force", "boolean")))
                .collect();
            operation["requestBody"] = if method == "patch" {
                json!({"required": true, "content": content(&PATCHES, schemas::PATCH)})
            } else if definition.is_empty() {
                json!({"content": {"*/*": {}}})
            } else {
                json!({"required": true, "content":
                    content(&["application/json", "application/yaml"], definition)})
            };
        }
        operation
    }
}

fn query(name: &str, of: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": of, "uniqueItems": true}})
}

fn content(media: &[&str], definition: &str) -> Value {
    media
        .iter()
        .map(|media| {
            let schema = json!({"$ref": format!("#/components/schemas/{definition}")});
            ((*media).to_owned(), json!({ "schema": schema }))
        })
        .collect::<Map<_, _>>()
        .into()
}
