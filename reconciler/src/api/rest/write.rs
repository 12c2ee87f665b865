//! create, update and patch: one way for all kinds, from a body to what is stored.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Call;
use super::answer::{self, Look, Reply};
use crate::api::body::text::Parsed;
use crate::api::body::validation::{self, Mode};
use crate::api::body::{self, Decoded};
use crate::api::conform::conform;
use crate::api::defaults::{self, Admission};
use crate::api::kinds::{self, Kind, Subresource};
use crate::api::object::{self, deleting};
use crate::api::patch;
use crate::api::status::{Cause, Status};
use crate::api::{Api, fields, quantity, schema, upkeep, validate, view};
use crate::store;

/// How often a write is tried again when others come in between.
const TRIES: usize = 20;
/// Characters of generated names: none that make words, or look alike.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// How a write is to be done.
#[derive(Clone, Debug)]
pub struct Write {
    /// Nothing is stored.
    pub dry_run: bool,
    /// Who the fields belong to that are changed; empty when the new state says so itself (server-side apply).
    pub manager: String,
    /// What is done about unknown fields.
    pub mode: Mode,
}

impl Write {
    /// Of a request; `options` is the type that messages name (`CreateOptions`).
    ///
    /// # Errors
    /// 422 for bad options.
    pub fn of(call: &Call<'_>, options: &str) -> Result<Self, Status> {
        let manager = call.query.text("fieldManager");
        if manager.len() > 128 {
            let cause = Cause::too_long("fieldManager", 128);
            return Err(Status::invalid("meta.k8s.io", options, "", &[cause]));
        }
        let agent = fields::of_user_agent(call.header("user-agent").unwrap_or("unknown"));
        Ok(Self {
            dry_run: call.query.dry_run(options)?,
            manager: if manager.is_empty() {
                agent
            } else {
                manager.to_owned()
            },
            mode: Mode::of(call.query.get("fieldValidation"), options)?,
        })
    }
}

/// The part of an object that an update writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is not below it.
    Main,
    /// What that path is for.
    Below(Subresource),
    /// What has been put into a copy of the old object by somebody who knows what may change; the name stands in
    /// `managedFields`.
    Chosen(&'static str),
}

impl Part {
    fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Below(subresource) => subresource.name(),
            Self::Chosen(name) => name,
        }
    }

    /// Whether it says what has become of an object, and not what it is to be: no new generation.
    fn is_news(self) -> bool {
        ["status", "binding"].contains(&self.subresource())
    }
}

/// create of an object that came as a body.
pub async fn create(api: &Api, call: &Call<'_>, look: Look) -> Result<Reply, Status> {
    let kind = call.target.kind;
    if kind.namespaced() && call.target.namespace.is_none() {
        return Err(Status::method_not_allowed());
    }
    let write = Write::of(call, "CreateOptions")?;
    let expected = body::Target::of(kind);
    let Decoded {
        mut value,
        findings,
    } = body::read(
        call.header("content-type"),
        &call.body,
        &expected,
        quantity::canonical,
    )?;
    let warnings = write.mode.judge(&expected, findings)?;
    view::store(kind, &mut value);
    let made = insert(
        api,
        view::stored(kind),
        call.target.namespace.as_deref(),
        value,
        &write,
    )
    .await?;
    furnish(api, kind, &made, &write).await?;
    let mut reply = answer::of_object(201, kind, made, look);
    answer::warn(&mut reply, &warnings);
    Ok(reply)
}

/// Gives a new namespace what each one begins with.
async fn furnish(api: &Api, kind: &Kind, made: &Value, write: &Write) -> Result<(), Status> {
    if kind.plural == "namespaces" && !write.dry_run {
        upkeep::furnish(api, object::name(made)).await?;
    }
    Ok(())
}

/// Puts a new object into the store; what was stored, with its revision.
///
/// # Errors
/// Whatever is wrong with it, as the client is to be told.
pub async fn insert(
    api: &Api,
    kind: &'static Kind,
    namespace: Option<&str>,
    mut value: Value,
    write: &Write,
) -> Result<Value, Status> {
    let generated = identify(kind, namespace, &mut value)?;
    if let Some(namespace) = namespace.filter(|_| kind.namespaced()) {
        open(api, kind, namespace, object::name(&value)).await?;
    }
    for attempt in 0.. {
        if let Some(prefix) = &generated {
            name(&mut value, prefix);
        }
        let made = insert_once(api, kind, namespace, value.clone(), write).await;
        match made {
            // The random part was taken.
            Err(Insert::Exists) if generated.is_some() && attempt < 8 => {}
            Err(Insert::Exists) => return Err(Status::already_exists(kind, object::name(&value))),
            Err(Insert::Unknown(status) | Insert::Other(status)) => return Err(status),
            Ok(made) => return Ok(made),
        }
    }
    Err(Status::internal("no free name"))
}

enum Insert {
    Exists,
    /// It may have been stored.
    Unknown(Status),
    Other(Status),
}

impl From<Status> for Insert {
    fn from(status: Status) -> Self {
        Self::Other(status)
    }
}

/// Checks the namespace, and writes the metadata that a new object gets. Gives the prefix of a name that is to be
/// generated.
fn identify(
    kind: &Kind,
    namespace: Option<&str>,
    value: &mut Value,
) -> Result<Option<String>, Status> {
    let said = object::namespace(value).unwrap_or_default();
    if !said.is_empty() && said != namespace.unwrap_or_default() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let metadata = object::object(value, "metadata");
    if metadata
        .get("resourceVersion")
        .and_then(Value::as_str)
        .is_some_and(|text| !text.is_empty())
    {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    for key in [
        "resourceVersion",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        metadata.remove(key);
    }
    match namespace {
        Some(namespace) if kind.namespaced() => {
            metadata.insert("namespace".into(), json!(namespace))
        }
        _ => metadata.remove("namespace"),
    };
    let text = |key: &str| {
        metadata
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let generated = text("name")
        .is_empty()
        .then(|| text("generateName"))
        .filter(|prefix| !prefix.is_empty());
    metadata.insert("uid".into(), json!(uid()));
    metadata.insert("creationTimestamp".into(), json!(now()));
    if kind.generation {
        metadata.insert("generation".into(), json!(1));
    }
    Ok(generated)
}

fn name(value: &mut Value, prefix: &str) {
    // 63 characters, of which 5 are drawn.
    let mut name: String = prefix.chars().take(58).collect();
    name += &suffix();
    object::object(value, "metadata").insert("name".into(), json!(name));
}

/// Five random letters.
fn suffix() -> String {
    (0..5)
        .map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())]))
        .collect()
}

/// A random UUID (RFC 9562, version 4).
pub fn uid() -> String {
    let bits = fastrand::u128(..) & !(0xf000 << 64 | 0xc000 << 48) | 0x4000 << 64 | 0x8000 << 48;
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// The time to the second.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Fails unless new objects may be made in a namespace.
async fn open(api: &Api, kind: &Kind, namespace: &str, name: &str) -> Result<(), Status> {
    let Some(namespaces) = kinds::find("", "v1", "namespaces") else {
        return Ok(());
    };
    let entry = api.store.get(&namespaces.key(None, namespace)).await?;
    let entry = entry.ok_or_else(|| Status::not_found(namespaces, namespace))?;
    let value = object::decode(&entry.value, entry.revision)
        .map_err(|error| answer::unreadable(&entry.key, &error))?;
    if !deleting(&value) {
        return Ok(());
    }
    let message = format!(
        "{} {name:?} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
        kind.qualified()
    );
    let cause = Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    };
    Err(Status::forbidden(Some(kind), name, message).with_causes(&[cause]))
}

async fn insert_once(
    api: &Api,
    kind: &'static Kind,
    namespace: Option<&str>,
    mut value: Value,
    write: &Write,
) -> Result<Value, Insert> {
    defaults::apply(kind, &mut value);
    // What the server adds from here on is nobody's.
    own(None, &mut value, "", write, kind);
    admit(api, kind, namespace, &mut value).await?;
    defaults::prepare_create(kind, &mut value);
    let key = kind.key(namespace, object::name(&value));
    // A name that cannot be a key is refused here and not by the store.
    let mut causes = api.services.families(kind, &mut value, None);
    causes.extend(validate::create(kind, &value));
    if !causes.is_empty() {
        return Err(Status::invalid(kind.group, kind.kind, object::name(&value), &causes).into());
    }
    let claims = api.services.claim(kind, &mut value, None).await?;
    let stored = store(api, kind, &key, &mut value, write).await;
    match stored {
        Ok(true) => api.services.keep(claims).await,
        // What was claimed for nothing is found by the next look at all claims.
        Err(Insert::Unknown(_)) => drop(claims),
        Ok(false) | Err(_) => api.services.undo(claims).await,
    }
    stored?;
    Ok(value)
}

/// Whether it was stored; it was not in a dry run.
async fn store(
    api: &Api,
    kind: &Kind,
    key: &str,
    value: &mut Value,
    write: &Write,
) -> Result<bool, Insert> {
    conform(value, schema::of(kind), quantity::canonical).map_err(|error| {
        Status::bad_request(format!("{} {:?}: {error}", kind.kind, object::name(value)))
    })?;
    if write.dry_run {
        return match api.store.get(key).await.map_err(Status::from)? {
            Some(_) => Err(Insert::Exists),
            None => Ok(false),
        };
    }
    match api.store.create(key, object::encode(kind, value)).await {
        Ok(revision) => {
            set_revision(value, revision);
            Ok(true)
        }
        Err(store::Error::Exists(_)) => Err(Insert::Exists),
        Err(error) if is_unknown(&error) => Err(Insert::Unknown(error.into())),
        Err(error) => Err(Status::from(error).into()),
    }
}

/// Whether a write that failed so may have taken effect.
fn is_unknown(error: &store::Error) -> bool {
    matches!(error, store::Error::Away(_) | store::Error::Broken(_))
}

/// Records whose the fields are that were changed.
fn own(old: Option<&Value>, new: &mut Value, subresource: &str, write: &Write, kind: &Kind) {
    if write.manager.is_empty() {
        return;
    }
    let writer = fields::Writer {
        manager: &write.manager,
        subresource,
        now: &now(),
    };
    fields::update(old, new, &writer, kind);
}

fn set_revision(value: &mut Value, revision: store::Revision) {
    object::object(value, "metadata").insert("resourceVersion".into(), json!(revision.to_string()));
}

/// What is looked up before an object is admitted.
async fn admit(
    api: &Api,
    kind: &Kind,
    namespace: Option<&str>,
    value: &mut Value,
) -> Result<(), Status> {
    let mut account = None;
    if kind.group.is_empty() && kind.kind == "Pod" && !defaults::is_mirror(value) {
        let name = defaults::service_account(value).to_owned();
        let accounts = kinds::find("", "v1", "serviceaccounts");
        let key = accounts
            .map(|accounts| accounts.key(namespace, &name))
            .unwrap_or_default();
        let Some(entry) = api.store.get(&key).await? else {
            let (namespace, pod) = (namespace.unwrap_or_default(), object::name(value));
            let message = format!(
                "pods {pod:?} is forbidden: error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            );
            return Err(Status::forbidden(Some(kind), pod, message));
        };
        account = object::decode(&entry.value, entry.revision).ok();
    }
    let suffix = suffix();
    let context = Admission {
        suffix: &suffix,
        account: account.as_ref(),
    };
    defaults::admit(kind, value, &context)
        .map_err(|message| Status::forbidden(Some(kind), object::name(value), message))
}

/// update of an object by a body, whole or only its status.
pub async fn update(api: &Api, call: &Call<'_>, part: Part, look: Look) -> Result<Reply, Status> {
    let kind = call.target.kind;
    let write = Write::of(call, "UpdateOptions")?;
    let expected = body::Target::of(kind);
    let Decoded {
        mut value,
        findings,
    } = body::read(
        call.header("content-type"),
        &call.body,
        &expected,
        quantity::canonical,
    )?;
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
        let entry = api
            .store
            .get(&key)
            .await?
            .ok_or_else(|| Status::not_found(kind, name))?;
        let old = object::decode(&entry.value, entry.revision)
            .map_err(|error| answer::unreadable(&key, &error))?;
        let new = make(&old)?;
        expected(kind, &key, &old, &new)?;
        let tied = !object::text(&new, &["metadata", "resourceVersion"]).is_empty();
        match replace(api, kind, &key, &entry, &old, new, part, write).await? {
            Some(made) => return Ok(made),
            None if tied => return Err(Status::modified(kind, name)),
            None => {}
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
    let claims = api.services.claim(kind, &mut new, Some(old)).await?;
    if new == *old || write.dry_run {
        api.services.undo(claims).await;
        return Ok(Some(new));
    }
    let written = if deleting(&new) && released(&new) {
        api.store.delete(key, entry.revision).await
    } else {
        api.store
            .update(key, object::encode(kind, &new), entry.revision)
            .await
    };
    match written {
        Ok(revision) => {
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
    let format = patch::Format::of(media).ok_or_else(|| Status {
        details: Some(json!({})),
        ..Status::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    })?;
    let write = Write::of(call, "PatchOptions")?;
    let mut warnings = Vec::new();
    let make = |old: &Value| {
        let shown = view::shown(kind, old);
        let mut patched = patch::apply(format, &shown, &call.body, kind)?;
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
            let made = insert(api, stored, namespace, applied(None)?, &write).await?;
            furnish(api, kind, &made, &write).await?;
            made
        }
        other => other?,
    };
    let mut reply = answer::of_object(code, kind, made, look);
    answer::warn(&mut reply, &warnings);
    Ok(reply)
}
