//! create: from a body, or from the server itself, to a new object in the store.

use serde_json::{Value, json};

use super::Call;
use super::answer::{self, Look, Reply};
use super::write::{Write, is_unknown, now, own, set_revision, too_large};
use crate::api::body::{self, Decoded};
use crate::api::conform::conform;
use crate::api::defaults::{self, Admission};
use crate::api::kinds::{self, Kind};
use crate::api::object::{self, deleting};
use crate::api::status::{Cause, Status};
use crate::api::{Api, quantity, schema, upkeep, validate, view};
use crate::store;

/// Characters of generated names: none that make words, or look alike.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

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
    } = call.read(&expected)?;
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
pub(super) async fn furnish(
    api: &Api,
    kind: &Kind,
    made: &Value,
    write: &Write,
) -> Result<(), Status> {
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
    let claims = api
        .services
        .claim(kind, &mut value, None, write.dry_run)
        .await?;
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
    let bytes = object::encode(kind, value);
    if let Some(status) = too_large(&bytes) {
        return Err(status.into());
    }
    match api.store.create(key, bytes).await {
        Ok(revision) => {
            set_revision(value, revision);
            stay(api, kind, key, value, revision).await?;
            Ok(true)
        }
        Err(store::Error::Exists(_)) => Err(Insert::Exists),
        Err(error) if is_unknown(&error) => Err(Insert::Unknown(error.into())),
        Err(error) => Err(Status::from(error).into()),
    }
}

/// Takes a new object back if its namespace went while it was made: nobody would remove it. A namespace that is still
/// being emptied takes it along.
async fn stay(
    api: &Api,
    kind: &Kind,
    key: &str,
    value: &Value,
    revision: store::Revision,
) -> Result<(), Status> {
    let (Some(namespace), Some(namespaces)) = (
        object::namespace(value),
        kinds::find("", "v1", "namespaces"),
    ) else {
        return Ok(());
    };
    let there = api.store.get(&namespaces.key(None, namespace)).await;
    // What is there is answered; only a namespace that is known to be gone takes it back.
    if !matches!(there, Ok(None)) {
        return Ok(());
    }
    match api.store.delete(key, revision).await {
        Ok(_) => {
            api.services.freed(kind, value).await;
            Err(Status::not_found(namespaces, namespace))
        }
        Err(_) => Ok(()),
    }
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
