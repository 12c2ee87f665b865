//! update: a new state over an old one, with compare-and-swap; of the whole object or of what a subresource writes.

use serde_json::{Value, json};

use super::Call;
use super::answer::{self, Look, Reply};
use super::read::load;
use super::write::{Part, Write, is_unknown, own, set_revision, too_large};
use crate::api::body::validation;
use crate::api::body::{self, Decoded};
use crate::api::conform::conform;
use crate::api::kinds::Kind;
use crate::api::object::{self, deleting};
use crate::api::status::{Cause, Status};
use crate::api::{Api, defaults, quantity, schema, validate, view};
use crate::store;

/// How often a write is tried again when others come in between.
const TRIES: usize = 20;

/// update of an object by a body, whole or only its status.
pub async fn update(api: &Api, call: &Call<'_>, part: Part, look: Look) -> Result<Reply, Status> {
    let kind = call.target.kind;
    let write = Write::of(call, "UpdateOptions")?;
    let expected = body::Target::of(kind);
    let Decoded {
        mut value,
        findings,
    } = call.read(&expected)?;
    let warnings = write.mode.judge(&expected, findings)?;
    let (name, namespace) = (call.name(), call.target.namespace.as_deref());
    let said = object::name(&value);
    if said.is_empty() {
        object::object(&mut value, "metadata").insert("name".into(), json!(name));
    } else if said != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({name})"
        )));
    }
    let said = object::namespace(&value).unwrap_or_default();
    if !said.is_empty() && Some(said) != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    view::store(kind, &mut value);
    let made = change(
        api,
        view::stored(kind),
        namespace,
        name,
        part,
        &write,
        |_| Ok(value.clone()),
    )
    .await?;
    let mut reply = answer::of_object(200, kind, made, look);
    answer::warn(&mut reply, &warnings);
    Ok(reply)
}

/// Changes an object: `make` gives what it is to become from what it is, and is asked again when another write came in
/// between (unless it names the revision that it expects).
///
/// # Errors
/// 404, 409, 422, and those of `make`.
pub async fn change(
    api: &Api,
    kind: &'static Kind,
    namespace: Option<&str>,
    name: &str,
    part: Part,
    write: &Write,
    mut make: impl FnMut(&Value) -> Result<Value, Status>,
) -> Result<Value, Status> {
    let key = kind.key(namespace, name);
    for _ in 0..TRIES {
        let (entry, old) = load(api, kind, namespace, name).await?;
        let new = make(&old)?;
        expected(kind, &key, &old, &new)?;
        // Where another write came first, the next look tells one who named a revision that it is gone.
        if let Some(made) = replace(api, kind, &key, &entry, &old, new, part, write).await? {
            return Ok(made);
        }
    }
    Err(Status::modified(kind, name))
}

/// Fails if a new object was made from another revision, or is another object.
fn expected(kind: &Kind, key: &str, old: &Value, new: &Value) -> Result<(), Status> {
    let name = object::name(old);
    let revision = object::text(new, &["metadata", "resourceVersion"]);
    if !revision.is_empty() && revision != object::text(old, &["metadata", "resourceVersion"]) {
        if revision.parse::<u64>().is_err() {
            let cause = Cause::invalid(
                "metadata.resourceVersion",
                &json!(revision),
                "must be an unsigned integer",
            );
            return Err(Status::invalid(kind.group, kind.kind, name, &[cause]));
        }
        return Err(Status::modified(kind, name));
    }
    let (said, is) = (object::uid(new), object::uid(old));
    if !said.is_empty() && said != is {
        return Err(Status::conflict(
            kind,
            name,
            &format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {said}, UID in object meta: {is}"
            ),
        ));
    }
    Ok(())
}

/// What no client changes.
const FIXED: [&str; 8] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// Writes a new state over an old one; none if another write came first.
#[allow(
    clippy::too_many_arguments,
    reason = "the old state comes as bytes and as a value, to be read once"
)]
async fn replace(
    api: &Api,
    kind: &'static Kind,
    key: &str,
    entry: &store::Entry,
    old: &Value,
    mut new: Value,
    part: Part,
    write: &Write,
) -> Result<Option<Value>, Status> {
    let before = object::at(old, &["metadata"]);
    let metadata = object::object(&mut new, "metadata");
    for field in FIXED {
        match before.and_then(|before| before.get(field)) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    metadata.insert("resourceVersion".into(), json!(entry.revision.to_string()));
    defaults::apply(kind, &mut new);
    match part {
        Part::Main => defaults::prepare_update(kind, &mut new, old),
        Part::Below(subresource) => defaults::prepare_subresource(kind, subresource, &mut new, old),
        Part::Chosen(_) => {}
    }
    let name = object::name(old).to_owned();
    let causes = match part {
        Part::Main => {
            let mut causes = api.services.families(kind, &mut new, Some(old));
            causes.extend(validate::update(kind, &new, old));
            causes
        }
        Part::Below(subresource) => validate::subresource(kind, subresource, &new, old),
        Part::Chosen(_) => Vec::new(),
    };
    if !causes.is_empty() {
        return Err(Status::invalid(kind.group, kind.kind, &name, &causes));
    }
    conform(&mut new, schema::of(kind), quantity::canonical)
        .map_err(|error| validation::patch_refused(&new, &error))?;
    if kind.generation && !part.is_news() && defaults::spec_changed(kind, old, &new) {
        let generation = object::number(old, &["metadata", "generation"]).unwrap_or(0);
        object::object(&mut new, "metadata").insert("generation".into(), json!(generation + 1));
    }
    own(Some(old), &mut new, part.subresource(), write, kind);
    let claims = api
        .services
        .claim(kind, &mut new, Some(old), write.dry_run)
        .await?;
    if new == *old || write.dry_run {
        api.services.undo(claims).await;
        return Ok(Some(new));
    }
    let gone = deleting(&new) && released(&new);
    let bytes = object::encode(kind, &new);
    if let Some(status) = too_large(&bytes).filter(|_| !gone) {
        api.services.undo(claims).await;
        return Err(status);
    }
    let written = if gone {
        api.store.delete(key, entry.revision).await
    } else {
        api.store.update(key, bytes, entry.revision).await
    };
    match written {
        Ok(revision) => {
            if gone {
                api.services.freed(kind, &new).await;
            }
            api.services.keep(claims).await;
            set_revision(&mut new, revision);
            Ok(Some(new))
        }
        Err(error) if is_unknown(&error) => {
            // What was claimed for nothing is found by the next look at all claims.
            drop(claims);
            Err(error.into())
        }
        Err(error) => {
            api.services.undo(claims).await;
            match error {
                store::Error::Changed { .. } => Ok(None),
                error => Err(error.into()),
            }
        }
    }
}

/// Whether nothing holds an object that is being deleted.
pub fn released(value: &Value) -> bool {
    let grace = object::number(value, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
    grace == 0
        && object::list(value, &["metadata", "finalizers"]).is_empty()
        && object::list(value, &["spec", "finalizers"]).is_empty()
}
