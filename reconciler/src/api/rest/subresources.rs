//! scale, binding and eviction.

use serde_json::{Value, json};

use super::Call;
use super::answer::{self, Look, Reply};
use super::delete::{self, Options};
use super::update;
use super::write::{self, Part, Write};
use crate::api::kinds::{self, Kind};
use crate::api::select::labels;
use crate::api::status::{Cause, Status};
use crate::api::{Api, body, conform, object, patch, quantity, schema, tables};
use crate::store::Range;

/// The Scale of a workload (autoscaling/v1).
pub fn scale_of(kind: &Kind, value: &Value) -> Value {
    let mut metadata = json!({});
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(found) = object::at(value, &["metadata", key]) {
            metadata[key] = found.clone();
        }
    }
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": {},
        "status": {"replicas": object::number(value, &["status", "replicas"]).unwrap_or(0)},
    });
    // Zero is left out, as in every answer of the reference.
    if let Some(replicas) =
        object::number(value, &["spec", "replicas"]).filter(|replicas| *replicas != 0)
    {
        scale["spec"]["replicas"] = json!(replicas);
    }
    let selector = object::at(value, &["spec", "selector"]);
    let text = if kind.kind == "ReplicationController" {
        tables::pairs(selector)
    } else {
        tables::label_selector(selector)
    };
    if !text.is_empty() && !text.starts_with('<') {
        scale["status"]["selector"] = json!(text);
    }
    scale
}

/// get, update and patch of a Scale.
pub async fn scale(api: &Api, call: &Call<'_>, look: Look) -> Result<Reply, Status> {
    let kind = call.target.kind;
    let (namespace, name) = (call.target.namespace.as_deref(), call.name());
    let workload = match call.method {
        "GET" => {
            let key = kind.key(namespace, name);
            let entry = api
                .store
                .get(&key)
                .await?
                .ok_or_else(|| Status::not_found(kind, name))?;
            object::decode(&entry.value, entry.revision)
                .map_err(|error| answer::unreadable(&key, &error))?
        }
        "PUT" => {
            let write = Write::of(call, "UpdateOptions")?;
            let sent = read_scale(call)?;
            update::change(api, kind, namespace, name, Part::Main, &write, |old| {
                scaled(old, &sent)
            })
            .await?
        }
        "PATCH" => {
            let write = Write::of(call, "PatchOptions")?;
            let media = call.header("content-type").unwrap_or_default();
            let media = media.split(';').next().unwrap_or_default().trim();
            let format = patch::Format::of(media).ok_or_else(|| {
                Status::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
            })?;
            let of = schema::named("autoscaling/v1.Scale").ok_or_else(Status::unknown_resource)?;
            let make = |old: &Value| {
                let mut patched =
                    patch::apply(format, &scale_of(kind, old), &call.body, &tables::SCALE)?;
                conform::conform(&mut patched, of, quantity::canonical)
                    .map_err(|error| body::validation::patch_refused(&patched, &error))?;
                scaled(old, &patched)
            };
            update::change(api, kind, namespace, name, Part::Main, &write, make).await?
        }
        _ => return Err(Status::method_not_allowed()),
    };
    Ok(answer::of_object(
        200,
        &tables::SCALE,
        scale_of(kind, &workload),
        look,
    ))
}

fn read_scale(call: &Call<'_>) -> Result<Value, Status> {
    let target =
        body::Target::named("autoscaling", "v1", "Scale").ok_or_else(Status::unknown_resource)?;
    Ok(call.read(&target)?.value)
}

/// A workload with the number of replicas that a Scale has.
fn scaled(old: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = object::number(scale, &["spec", "replicas"]).unwrap_or(0);
    if replicas < 0 {
        let cause = Cause::invalid(
            "spec.replicas",
            &json!(replicas),
            "must be greater than or equal to 0",
        );
        return Err(Status::invalid(
            "autoscaling",
            "Scale",
            object::name(old),
            &[cause],
        ));
    }
    let mut new = old.clone();
    object::object(&mut new, "spec").insert("replicas".into(), json!(replicas));
    let revision = object::text(scale, &["metadata", "resourceVersion"]);
    object::object(&mut new, "metadata").insert("resourceVersion".into(), json!(revision));
    Ok(new)
}

fn pods() -> Result<&'static Kind, Status> {
    kinds::find("", "v1", "pods").ok_or_else(Status::unknown_resource)
}

/// Binds a Pod to a node: `POST pods/P/binding`, or `POST bindings` with the Pod's name in the body.
pub async fn bind(api: &Api, call: &Call<'_>) -> Result<Reply, Status> {
    let write = Write::of(call, "CreateOptions")?;
    let target = body::Target::named("", "v1", "Binding").ok_or_else(Status::unknown_resource)?;
    let binding = call.read(&target)?.value;
    let (kind, said) = (pods()?, object::name(&binding));
    let name = call.target.name.as_deref().unwrap_or(said);
    if !said.is_empty() && said != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({name})"
        )));
    }
    let node = object::text(&binding, &["target", "name"]);
    let what = object::text(&binding, &["target", "kind"]);
    if node.is_empty() {
        return Err(Status::invalid(
            "",
            "Binding",
            name,
            &[Cause::required("target.name", "")],
        ));
    }
    if !["", "Node"].contains(&what) {
        let cause = Cause::not_supported("target.kind", &json!(what), &["Node", "<empty>"]);
        return Err(Status::invalid("", "Binding", name, &[cause]));
    }
    let make = |old: &Value| {
        let at = object::text(old, &["spec", "nodeName"]);
        if !at.is_empty() {
            return Err(Status::conflict(
                kind,
                name,
                &format!("pod {name} is already assigned to node {at:?}"),
            ));
        }
        if object::deleting(old) {
            return Err(Status::conflict(
                kind,
                name,
                &format!("pod {name} is being deleted, cannot be assigned to a host"),
            ));
        }
        let mut new = old.clone();
        object::object(&mut new, "spec").insert("nodeName".into(), json!(node));
        let status = object::object(&mut new, "status");
        let mut conditions = status
            .get("conditions")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(delete::condition("PodScheduled", "True"));
        status.insert("conditions".into(), json!(conditions));
        Ok(new)
    };
    update::change(
        api,
        kind,
        call.target.namespace.as_deref(),
        name,
        Part::Chosen("binding"),
        &write,
        make,
    )
    .await?;
    Ok(done())
}

/// 201, and nothing to show.
fn done() -> Reply {
    Status::new(201, "", "").into()
}

/// Deletes a Pod unless that would leave too few of its kind.
pub async fn evict(api: &Api, call: &Call<'_>) -> Result<Reply, Status> {
    let target =
        body::Target::named("policy", "v1", "Eviction").ok_or_else(Status::unknown_resource)?;
    let eviction = call.read(&target)?.value;
    let (kind, name) = (pods()?, call.name());
    let said = object::name(&eviction);
    if !said.is_empty() && said != name {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Eviction object: {name} {said}"
        )));
    }
    let none = json!({});
    let mut options = Options::read(eviction.get("deleteOptions").unwrap_or(&none), call.query)?;
    if call.query.dry_run("CreateOptions")? {
        options = options.dry();
    }
    let namespace = call.target.namespace.as_deref();
    let key = kind.key(namespace, name);
    let entry = api
        .store
        .get(&key)
        .await?
        .ok_or_else(|| Status::not_found(kind, name))?;
    let pod = object::decode(&entry.value, entry.revision)
        .map_err(|error| answer::unreadable(&key, &error))?;
    let over =
        ["Pending", "Succeeded", "Failed"].contains(&object::text(&pod, &["status", "phase"]));
    if !over && !object::deleting(&pod) {
        spend(api, namespace, name, &pod, options.is_dry()).await?;
    }
    delete::remove(api, kind, namespace, name, &options).await?;
    Ok(done())
}

/// Takes one Pod from the budget that covers it.
async fn spend(
    api: &Api,
    namespace: Option<&str>,
    name: &str,
    pod: &Value,
    dry_run: bool,
) -> Result<(), Status> {
    let Some(kind) = kinds::find("policy", "v1", "poddisruptionbudgets") else {
        return Ok(());
    };
    let range = Range {
        prefix: kind.prefix(namespace),
        ..Range::default()
    };
    let mut budgets = Vec::new();
    for entry in api.store.list(range).await?.entries {
        if let Ok(budget) = object::decode(&entry.value, entry.revision)
            && labels::selects(
                object::at(&budget, &["spec", "selector"]),
                object::at(pod, &["metadata", "labels"]),
            )
        {
            budgets.push(budget);
        }
    }
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [one] => object::name(one).to_owned(),
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let write = Write {
        dry_run,
        manager: "weft-apiserver".into(),
        mode: body::validation::Mode::Ignore,
    };
    let make = |old: &Value| {
        let number = |key: &str| object::number(old, &["status", key]).unwrap_or(0);
        let behind = number("observedGeneration")
            < object::number(old, &["metadata", "generation"]).unwrap_or(0);
        if behind || number("disruptionsAllowed") < 1 {
            let message = if behind {
                "The disruption budget is still being processed by the server.".to_owned()
            } else {
                format!(
                    "The disruption budget {budget} needs {} healthy pods and has {} currently",
                    number("desiredHealthy"),
                    number("currentHealthy")
                )
            };
            let mut status = Status::new(
                429,
                "TooManyRequests",
                "Cannot evict pod as it would violate the pod's disruption budget.",
            );
            status.details =
                Some(json!({"causes": [{"reason": "DisruptionBudget", "message": message}]}));
            return Err(status);
        }
        let mut new = old.clone();
        let left = number("disruptionsAllowed") - 1;
        let status = object::object(&mut new, "status");
        status.insert("disruptionsAllowed".into(), json!(left));
        let mut status = Value::Object(std::mem::take(status));
        object::object(&mut status, "disruptedPods").insert(name.to_owned(), json!(write::now()));
        new["status"] = status;
        Ok(new)
    };
    update::change(
        api,
        kind,
        namespace,
        &budget,
        Part::Chosen("status"),
        &write,
        make,
    )
    .await?;
    Ok(())
}
