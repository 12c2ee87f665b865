//! delete and deletecollection: at once, or by marking the object until those who hold it let go.
//!
//! Source: <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>, and the recorded answers.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Call;
use super::answer::{self, Look, Reply};
use super::read::load;
use super::update::released;
use super::write::now;
use crate::api::kinds::Kind;
use crate::api::request::Query;
use crate::api::select::Selector;
use crate::api::status::{Cause, Status};
use crate::api::{Api, body, object, view};
use crate::store::{self, Entry, Range};

/// Namespaces without which the cluster does not work.
const KEPT: [&str; 3] = ["default", "kube-public", "kube-system"];
/// Objects that are looked at together.
const PAGE: usize = 500;
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// How to delete (meta/v1 DeleteOptions).
#[derive(Clone, Debug, Default)]
pub struct Options {
    grace: Option<i64>,
    /// What happens to what the object owns: `Background`, `Foreground`, `Orphan`.
    propagation: Option<String>,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
}

impl Options {
    /// From the body of a request, or else its query.
    ///
    /// # Errors
    /// 400 and 422.
    pub fn of(call: &Call<'_>) -> Result<Self, Status> {
        let body = body::delete_options(call.header("content-type"), &call.body)?;
        Self::read(&body, call.query)
    }

    /// From an object and a query.
    ///
    /// # Errors
    /// 422 for a bad policy.
    pub fn read(body: &Value, query: &Query) -> Result<Self, Status> {
        let text = |path: &[&str]| {
            Some(object::text(body, path).to_owned()).filter(|text| !text.is_empty())
        };
        let grace = match object::number(body, &["gracePeriodSeconds"]) {
            Some(seconds) => Some(seconds),
            None => query.number("gracePeriodSeconds")?,
        };
        if grace.is_some_and(|seconds| seconds < 0) {
            let cause = Cause::invalid(
                "gracePeriodSeconds",
                &json!(grace),
                "must be greater than or equal to 0",
            );
            return Err(Status::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause],
            ));
        }
        let orphan = match object::at(body, &["orphanDependents"]).and_then(Value::as_bool) {
            Some(orphan) => Some(orphan),
            None => query
                .get("orphanDependents")
                .map(|_| query.on("orphanDependents")),
        };
        let propagation = text(&["propagationPolicy"])
            .or_else(|| query.get("propagationPolicy").map(str::to_owned));
        let supported = ["Foreground", "Background", "Orphan", "nil"];
        if let Some(policy) = &propagation
            && !supported[..3].contains(&policy.as_str())
        {
            let cause = Cause::not_supported("propagationPolicy", &json!(policy), &supported);
            return Err(Status::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause],
            ));
        }
        let dry = object::list(body, &["dryRun"]);
        if dry.iter().any(|value| value != "All") {
            let cause = Cause::not_supported("dryRun", &json!(dry), &["All"]);
            return Err(Status::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause],
            ));
        }
        Ok(Self {
            grace,
            propagation: propagation.or_else(|| {
                let policy = if orphan? { "Orphan" } else { "Background" };
                Some(policy.to_owned())
            }),
            uid: text(&["preconditions", "uid"]),
            revision: text(&["preconditions", "resourceVersion"]),
            dry_run: !dry.is_empty() || query.dry_run("DeleteOptions")?,
        })
    }

    /// What the object owns is left to itself.
    pub fn background() -> Self {
        Self {
            propagation: Some("Background".to_owned()),
            ..Self::default()
        }
    }

    /// Nothing is deleted.
    pub fn dry(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Whether nothing is to be deleted.
    pub fn is_dry(&self) -> bool {
        self.dry_run
    }
}

/// What became of an object.
pub enum Deleted {
    /// It is gone; what it was.
    Gone(Value),
    /// It is marked.
    Held(Value),
}

/// One object.
pub async fn delete(api: &Api, call: &Call<'_>, look: Look) -> Result<Reply, Status> {
    let options = Options::of(call)?;
    let kind = call.target.kind;
    let deleted = remove(
        api,
        view::stored(kind),
        call.target.namespace.as_deref(),
        call.name(),
        &options,
    )
    .await?;
    // A table is for those who look, not for those who delete.
    let look = Look {
        form: look.form.of_one_object(),
        ..look
    };
    Ok(match deleted {
        Deleted::Held(value) => answer::of_object(200, kind, value, look),
        Deleted::Gone(value) if ["Pod", "Service", "ServiceAccount"].contains(&kind.kind) => {
            answer::of_object(200, kind, value, look)
        }
        Deleted::Gone(value) => {
            let mut details = json!({"name": object::name(&value), "kind": kind.plural, "uid": object::uid(&value)});
            if !kind.group.is_empty() {
                details["group"] = json!(kind.group);
            }
            let mut status = Status::new(200, "", "");
            status.details = Some(details);
            status.into()
        }
    })
}

/// Objects that a selector selects, one after another.
pub async fn collection(api: &Api, call: &Call<'_>) -> Result<Reply, Status> {
    let options = Options::of(call)?;
    let kind = call.target.kind;
    if kind.namespaced() && call.target.namespace.is_none() {
        return Err(Status::method_not_allowed());
    }
    let selector = Selector::parse(
        kind,
        call.query.text("labelSelector"),
        call.query.text("fieldSelector"),
    )?;
    let stored = view::stored(kind);
    let namespace = call.target.namespace.as_deref();
    let mut range = Range {
        prefix: kind.prefix(namespace),
        limit: Some(PAGE),
        ..Range::default()
    };
    let mut items = Vec::new();
    loop {
        let page = api.store.list(range.clone()).await?;
        for entry in &page.entries {
            let name = entry.key.rsplit('/').next().unwrap_or_default();
            if !selector.matches_bytes(&entry.value) {
                continue;
            }
            match remove(api, stored, namespace, name, &options).await {
                Ok(Deleted::Gone(mut value) | Deleted::Held(mut value)) => {
                    view::show(kind, &mut value);
                    // As text it needs a third.
                    items.push(value.to_string());
                }
                // Somebody else was quicker.
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        range.after = page.entries.last().map(|entry| entry.key.clone());
        if page.remaining == 0 || range.after.is_none() {
            return Ok(answer::of_texts(kind, page.revision, &items));
        }
    }
}

/// Deletes an object, or marks it.
///
/// # Errors
/// 404, 409 for a precondition, 403 for a namespace that is kept.
pub async fn remove(
    api: &Api,
    kind: &'static Kind,
    namespace: Option<&str>,
    name: &str,
    options: &Options,
) -> Result<Deleted, Status> {
    let key = kind.key(namespace, name);
    loop {
        let (entry, old) = load(api, kind, namespace, name).await?;
        precondition(kind, name, &old, options)?;
        if is(kind, "Namespace") && KEPT.contains(&name) {
            let message =
                format!("namespaces {name:?} is forbidden: this namespace may not be deleted");
            return Err(Status::forbidden(Some(kind), name, message));
        }
        let new = marked(kind, &old, options);
        match write(api, kind, &key, &entry, &old, new, options).await {
            Err(store::Error::Changed { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(deleted) => return Ok(deleted),
        }
    }
}

fn is(kind: &Kind, name: &str) -> bool {
    kind.group.is_empty() && kind.kind == name
}

fn precondition(kind: &Kind, name: &str, old: &Value, options: &Options) -> Result<(), Status> {
    let refuse = |what: &str, wanted: &str, is: &str, end: &str| {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). The object might have been {end}",
            kind.kind
        );
        let mut status = Status::new(409, "Conflict", message);
        status.details = Some(json!({"name": name, "kind": kind.kind}));
        Err(status)
    };
    if let Some(uid) = &options.uid
        && uid != object::uid(old)
    {
        return refuse("UID", uid, object::uid(old), "deleted and then recreated");
    }
    let is = object::text(old, &["metadata", "resourceVersion"]);
    if let Some(revision) = &options.revision
        && revision != is
    {
        return refuse("ResourceVersion", revision, is, "modified");
    }
    Ok(())
}

/// The object as it is when somebody has asked to delete it.
fn marked(kind: &Kind, old: &Value, options: &Options) -> Value {
    let mut new = old.clone();
    let first = !object::deleting(old);
    let grace = grace(kind, old, options);
    let had = object::number(old, &["metadata", "deletionGracePeriodSeconds"]);
    let namespace = is(kind, "Namespace");
    let metadata = object::object(&mut new, "metadata");
    // Asked again, it may only become shorter.
    if first || had.is_some_and(|had| grace < had) {
        let end = Timestamp::now() + SignedDuration::from_secs(grace);
        metadata.insert(
            "deletionTimestamp".into(),
            json!(end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        );
        if !namespace {
            metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
        }
    }
    if first && kind.generation {
        let generation = metadata
            .get("generation")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        metadata.insert("generation".into(), json!(generation + 1));
    }
    if let Some(policy) = &options.propagation {
        let mut names: Vec<Value> = metadata
            .get("finalizers")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let wanted = match policy.as_str() {
            "Foreground" => Some(FOREGROUND),
            "Orphan" => Some(ORPHAN),
            _ => None,
        };
        names.retain(|name| {
            ![FOREGROUND, ORPHAN].contains(&name.as_str().unwrap_or_default())
                || name.as_str() == wanted
        });
        if let Some(wanted) = wanted.filter(|wanted| !names.iter().any(|name| name == wanted)) {
            names.push(json!(wanted));
        }
        if names.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".into(), json!(names));
        }
    }
    if namespace {
        object::object(&mut new, "status").insert("phase".into(), json!("Terminating"));
    }
    new
}

/// Seconds that a Pod has to end. What no node knows yet, or what has ended, needs none.
fn grace(kind: &Kind, old: &Value, options: &Options) -> i64 {
    if !is(kind, "Pod") {
        return 0;
    }
    let phase = object::text(old, &["status", "phase"]);
    if object::text(old, &["spec", "nodeName"]).is_empty()
        || ["Succeeded", "Failed"].contains(&phase)
    {
        return 0;
    }
    let stated = object::number(old, &["spec", "terminationGracePeriodSeconds"]);
    // A year is longer than anybody waits, and not out of a timestamp's range.
    options.grace.or(stated).unwrap_or(30).clamp(0, 365 * 86400)
}

async fn write(
    api: &Api,
    kind: &'static Kind,
    key: &str,
    entry: &Entry,
    old: &Value,
    new: Value,
    options: &Options,
) -> Result<Deleted, store::Error> {
    let gone = released(&new);
    if options.dry_run {
        return Ok(if gone {
            Deleted::Gone(new)
        } else {
            Deleted::Held(new)
        });
    }
    if gone {
        let revision = api.store.delete(key, entry.revision).await?;
        api.services.freed(kind, old).await;
        let mut last = if is(kind, "Pod") { new } else { old.clone() };
        object::object(&mut last, "metadata")
            .insert("resourceVersion".into(), json!(revision.to_string()));
        return Ok(Deleted::Gone(last));
    }
    if new == *old {
        return Ok(Deleted::Held(new));
    }
    let mut new = new;
    let revision = api
        .store
        .update(key, object::encode(kind, &new), entry.revision)
        .await?;
    object::object(&mut new, "metadata")
        .insert("resourceVersion".into(), json!(revision.to_string()));
    Ok(Deleted::Held(new))
}

/// The time now, as a condition has it.
pub fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": now()})
}
