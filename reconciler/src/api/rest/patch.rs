//! patch, in its four forms.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Call;
use super::answer::{self, Look, Reply};
use super::create::{self, insert};
use super::update::change;
use super::write::{Part, Write, now};
use crate::api::body;
use crate::api::body::text::Parsed;
use crate::api::body::validation;
use crate::api::conform::conform;
use crate::api::object;
use crate::api::status::Status;
use crate::api::{Api, fields, patch as patches, quantity, schema, view};

/// patch, in any of its four forms.
pub async fn patch(
    api: &Arc<Api>,
    call: &Call<'_>,
    part: Part,
    look: Look,
) -> Result<Reply, Status> {
    let kind = call.target.kind;
    let media = call.header("content-type").unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if media == "application/apply-patch+yaml" {
        return apply(api, call, part, look).await;
    }
    let format = patches::Format::of(media).ok_or_else(|| Status {
        details: Some(json!({})),
        ..Status::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    })?;
    let write = Write::of(call, "PatchOptions")?;
    let mut warnings = Vec::new();
    let make = |old: &Value| {
        let shown = view::shown(kind, old);
        let mut patched = patches::apply(format, &shown, &call.body, kind)?;
        let quoted = patched.clone();
        let findings = conform(&mut patched, schema::of(kind), quantity::canonical)
            .map_err(|error| validation::patch_refused(&quoted, &error))?;
        warnings = write.mode.judge_patch(&quoted, findings)?;
        renamed(call, &patched)?;
        view::store(kind, &mut patched);
        Ok(patched)
    };
    let (namespace, name) = (call.target.namespace.as_deref(), call.name());
    let made = change(api, view::stored(kind), namespace, name, part, &write, make).await?;
    let mut reply = answer::of_object(200, kind, made, look);
    answer::warn(&mut reply, &warnings);
    Ok(reply)
}

/// A patch may not make another object of it.
fn renamed(call: &Call<'_>, patched: &Value) -> Result<(), Status> {
    let kind = call.target.kind;
    if object::name(patched) != call.name() {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object::name(patched),
            call.name()
        )));
    }
    if object::text(patched, &["kind"]) != kind.kind
        || object::text(patched, &["apiVersion"]) != kind.api_version()
    {
        return Err(Status::bad_request(format!(
            "a patch may not change apiVersion and kind (they are {} and {})",
            kind.api_version(),
            kind.kind
        )));
    }
    Ok(())
}

/// Server-side apply: makes the object, or merges what is applied into it.
async fn apply(api: &Arc<Api>, call: &Call<'_>, part: Part, look: Look) -> Result<Reply, Status> {
    let kind = call.target.kind;
    let write = Write::of(call, "PatchOptions")?;
    let manager = call.query.text("fieldManager");
    let force = call.query.on("force");
    // Its body is YAML, of which JSON is a part. What is not in it is not applied: so nothing is filled in.
    let Parsed {
        mut value,
        findings,
    } = body::text::yaml(&call.body)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    if !value.is_object() {
        return Err(Status::bad_request("error decoding YAML: it is no object"));
    }
    let warnings = write.mode.judge(&body::Target::of(kind), findings)?;
    if object::name(&value).is_empty() {
        object::object(&mut value, "metadata").insert("name".into(), json!(call.name()));
    }
    renamed(call, &value)?;
    let stored = view::stored(kind);
    let namespace = call.target.namespace.as_deref();
    let applied = |live: Option<&Value>| {
        let live = live.map(|live| view::shown(kind, live));
        let writer = fields::Writer {
            manager,
            subresource: part.subresource(),
            now: &now(),
        };
        let mut new = fields::apply(live.as_deref(), &value, &writer, force, kind)?;
        view::store(kind, &mut new);
        Ok(new)
    };
    let (namespace, name) = (namespace, call.name());
    let write = Write {
        manager: String::new(),
        ..write
    };
    let mut code = 200;
    let made = match change(api, stored, namespace, name, part, &write, |old| {
        applied(Some(old))
    })
    .await
    {
        Err(status)
            if status.code == 404
                && part == Part::Main
                && api.store.get(&stored.key(namespace, name)).await?.is_none() =>
        {
            code = 201;
            match insert(api, stored, namespace, applied(None)?, &write).await {
                Ok(made) => {
                    create::furnish(api, kind, &made, &write).await?;
                    made
                }
                // Another one made it meanwhile: then it is merged.
                Err(status) if status.reason == "AlreadyExists" => {
                    code = 200;
                    let merge = |old: &Value| applied(Some(old));
                    change(api, stored, namespace, name, part, &write, merge).await?
                }
                Err(status) => return Err(status),
            }
        }
        other => other?,
    };
    let mut reply = answer::of_object(code, kind, made, look);
    answer::warn(&mut reply, &warnings);
    Ok(reply)
}
