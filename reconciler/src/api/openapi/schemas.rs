//! The definitions of types: text and shapes from `k8s-openapi`, how they are merged from the table of fields.

use k8s_openapi::Resource as _;
use k8s_openapi::api::{
    apps::v1 as apps, authentication::v1 as authentication, authorization::v1 as authorization,
    autoscaling::v1 as autoscaling, batch::v1 as batch, coordination::v1 as coordination,
    core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    networking::v1 as networking, policy::v1 as policy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::JsonSchema as _;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::api::discovery::Resource;
use crate::api::schema::{self, ListType, Shape, Type};

/// The definition of the answer to a deletion.
pub const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
/// The definition of the body of a patch.
pub const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// A type that is a kind.
struct Known {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    define: fn(&mut SchemaGenerator),
    definition: fn() -> String,
}

macro_rules! known {
    ($($of:ty),* $(,)?) => {
        &[$(Known {
            group: <$of>::GROUP,
            version: <$of>::VERSION,
            kind: <$of>::KIND,
            define: |generator| {
                generator.subschema_for::<$of>();
            },
            definition: || <$of>::schema_name().into_owned(),
        }),*]
    };
}

static KNOWN: &[Known] = known![
    apps::ControllerRevision,
    apps::DaemonSet,
    apps::Deployment,
    apps::ReplicaSet,
    apps::StatefulSet,
    authentication::SelfSubjectReview,
    authentication::TokenRequest,
    authentication::TokenReview,
    authorization::LocalSubjectAccessReview,
    authorization::SelfSubjectAccessReview,
    authorization::SelfSubjectRulesReview,
    authorization::SubjectAccessReview,
    autoscaling::Scale,
    batch::CronJob,
    batch::Job,
    coordination::Lease,
    core::Binding,
    core::ComponentStatus,
    core::ConfigMap,
    core::Endpoints,
    core::Event,
    core::Namespace,
    core::Node,
    core::PersistentVolume,
    core::PersistentVolumeClaim,
    core::Pod,
    core::ReplicationController,
    core::Secret,
    core::Service,
    core::ServiceAccount,
    discovery::EndpointSlice,
    events::Event,
    networking::Ingress,
    networking::IngressClass,
    networking::NetworkPolicy,
    policy::Eviction,
    policy::PodDisruptionBudget,
];

/// Where definitions are in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of version 3.
    Components,
    /// Of version 2.
    Definitions,
}

/// The name of a kind's definition: `io.k8s.api.core.v1.Pod`. None for what is no type, such as `PodExecOptions`.
pub fn definition(group: &str, version: &str, kind: &str) -> Option<String> {
    find(group, version, kind).map(|known| (known.definition)())
}

fn find(group: &str, version: &str, kind: &str) -> Option<&'static Known> {
    KNOWN
        .iter()
        .find(|it| it.group == group && it.version == version && it.kind == kind)
}

/// The definitions that the document of a group needs.
pub fn of(group: &str, resources: &[Resource]) -> Map<String, Value> {
    let mut kinds = Vec::new();
    for resource in resources {
        kinds.extend(
            find(group, "v1", resource.kind).map(|known| (known, resource.verbs.contains(&"list"))),
        );
        for sub in resource.subresources {
            if let (group, version, kind) = resource.below(*sub)
                && !group.is_empty()
            {
                kinds.extend(find(group, version, kind).map(|known| (known, false)));
            }
        }
    }
    define(&kinds, Place::Components)
}

/// The definitions of all kinds.
pub fn all(place: Place) -> Map<String, Value> {
    let kinds: Vec<_> = KNOWN.iter().map(|known| (known, false)).collect();
    define(&kinds, place)
}

/// Definitions of kinds, some with their lists, and of all that they are made of.
fn define(kinds: &[(&Known, bool)], place: Place) -> Map<String, Value> {
    let path = match place {
        Place::Components => "/components/schemas",
        Place::Definitions => "/definitions",
    };
    let mut generator = SchemaSettings::openapi3()
        .with(|settings| settings.definitions_path = path.into())
        .into_generator();
    for (known, _) in kinds {
        (known.define)(&mut generator);
    }
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::Patch>();
    generator.subschema_for::<meta::ListMeta>();
    let mut definitions = generator.take_definitions(true);
    for (name, value) in &mut definitions {
        if let Some(of) = in_table(name) {
            annotate(value, of);
        }
    }
    for (known, listed) in kinds {
        let name = (known.definition)();
        if let Some(value) = definitions.get_mut(&name) {
            value["x-kubernetes-group-version-kind"] = known.marks("");
        }
        if *listed {
            definitions.insert(format!("{name}List"), known.list(&name, path));
        }
    }
    definitions
}

impl Known {
    fn marks(&self, suffix: &str) -> Value {
        let kind = format!("{}{suffix}", self.kind);
        json!([{"group": self.group, "version": self.version, "kind": kind}])
    }

    fn list(&self, name: &str, path: &str) -> Value {
        json!({
            "description": format!("A list of {}.", self.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "items": {"type": "array", "items": {"$ref": format!("#{path}/{name}")}},
                "metadata": {"allOf": [{"$ref": format!("#{path}/{LIST_META}")}]},
            },
            "x-kubernetes-group-version-kind": self.marks("List"),
        })
    }
}

/// The type of a definition: `io.k8s.api.core.v1.Pod` is `core/v1.Pod`.
fn in_table(definition: &str) -> Option<&'static Type> {
    let name = definition
        .strip_prefix("io.k8s.api.")
        .or_else(|| definition.strip_prefix("io.k8s.apimachinery.pkg.apis."))?;
    schema::named(&name.replacen('.', "/", 1))
}

/// Adds to a definition what the table knows.
fn annotate(definition: &mut Value, of: &Type) {
    if of.atomic {
        definition["x-kubernetes-map-type"] = json!("atomic");
    }
    if let Some(required) = definition["required"].as_array_mut() {
        // k8s-openapi also names fields that have a meaningful zero value.
        required.retain(|name| {
            name.as_str()
                .and_then(|name| of.field(name))
                .is_some_and(|field| !field.omit_empty)
        });
    }
    let empty = definition["required"]
        .as_array()
        .is_none_or(|required| required.is_empty());
    if let (true, Some(map)) = (empty, definition.as_object_mut()) {
        map.remove("required");
    }
    let Some(properties) = definition
        .get_mut("properties")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    for (name, property) in properties {
        let Some(field) = of.field(name) else {
            continue;
        };
        let mut strategy = Vec::new();
        if let Some(key) = field.strategy.merge {
            strategy.push("merge");
            if let Some(key) = key {
                property["x-kubernetes-patch-merge-key"] = json!(key);
            }
        }
        if field.strategy.retain_keys {
            strategy.push("retainKeys");
        }
        if !strategy.is_empty() {
            property["x-kubernetes-patch-strategy"] = json!(strategy.join(","));
        }
        match (&field.shape, &field.list_type) {
            (Shape::List(_), ListType::Set) => property["x-kubernetes-list-type"] = json!("set"),
            (Shape::List(_), ListType::Map(keys)) => {
                property["x-kubernetes-list-type"] = json!("map");
                property["x-kubernetes-list-map-keys"] = json!(keys);
            }
            (Shape::List(_), ListType::Atomic) => {
                property["x-kubernetes-list-type"] = json!("atomic");
            }
            _ if field.atomic_map => property["x-kubernetes-map-type"] = json!("atomic"),
            _ => {}
        }
    }
}
