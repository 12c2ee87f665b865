//! Namespaces that are being deleted: what is in them goes first, then they do.
//!
//! Everything in a namespace is deleted as a client would delete it, so Pods get their grace and finalizers are
//! respected; until nothing is left the namespace stays, and its conditions say what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::api::changes::Start;
use crate::api::kinds::{self, KINDS, Kind, Subresource, Verbs};
use crate::api::rest::delete::{self, Options};
use crate::api::rest::update;
use crate::api::rest::write::{self, Part};
use crate::api::status::Status;
use crate::api::{Api, object, view};
use crate::store::Range;

/// Who holds a namespace until it is empty.
const FINALIZER: &str = "kubernetes";
/// Between two looks at what is left.
const AGAIN: Duration = Duration::from_secs(1);

/// Empties namespaces for as long as the server runs.
pub async fn run(api: Arc<Api>) {
    let Some(kind) = kinds::find("", "v1", "namespaces") else {
        return;
    };
    loop {
        let told = api.changes.after(kind.plural, api.changes.revision());
        match round(&api, kind).await {
            Ok(false) => wait(told).await,
            Ok(true) => tokio::time::sleep(AGAIN).await,
            Err(status) => {
                tracing::warn!("empty namespaces: {}", status.message);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Until a namespace changes.
async fn wait(told: Start) {
    let Start::Recent(recent, mut channel) = told else {
        return tokio::time::sleep(AGAIN).await;
    };
    if recent.is_empty()
        && let Err(RecvError::Closed) = channel.recv().await
    {
        tokio::time::sleep(AGAIN).await;
    }
}

/// Looks at every namespace once; whether one has to be looked at again.
async fn round(api: &Api, kind: &'static Kind) -> Result<bool, Status> {
    let range = Range {
        prefix: kind.prefix(None),
        ..Range::default()
    };
    let mut again = false;
    for entry in api.store.list(range).await?.entries {
        let Ok(namespace) = object::decode(&entry.value, entry.revision) else {
            continue;
        };
        let held = object::list(&namespace, &["spec", "finalizers"]);
        if object::deleting(&namespace) && held.iter().any(|name| name == FINALIZER) {
            again |= !empty(api, kind, object::name(&namespace)).await?;
        }
    }
    Ok(again)
}

/// Deletes what is in a namespace, and the namespace when nothing is left; whether it is gone.
async fn empty(api: &Api, kind: &'static Kind, name: &str) -> Result<bool, Status> {
    let mut left = Left::default();
    let contents = KINDS
        .iter()
        .filter(|kind| kind.namespaced() && kind.verbs != Verbs::ReadOnly && view::is_plain(kind));
    for kind in contents {
        let range = Range {
            prefix: kind.prefix(Some(name)),
            ..Range::default()
        };
        let mut held = 0;
        for entry in api.store.list(range).await?.entries {
            let own = entry.key.rsplit('/').next().unwrap_or_default();
            match delete::remove(api, kind, Some(name), own, &Options::background()).await {
                Ok(delete::Deleted::Gone(_)) => {}
                Ok(delete::Deleted::Held(object)) => {
                    held += 1;
                    for finalizer in object::list(&object, &["metadata", "finalizers"]) {
                        let name = finalizer.as_str().unwrap_or_default().to_owned();
                        *left.finalizers.entry(name).or_default() += 1;
                    }
                }
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        if held > 0 {
            let (plural, group) = (kind.plural, kind.group);
            left.kinds
                .push(format!("{plural}.{group} has {held} resource instances"));
        }
    }
    let write = super::write();
    let change = |old: &Value| {
        Ok(if left.kinds.is_empty() {
            let_go(old)
        } else {
            explain(old, &left)
        })
    };
    let part = if left.kinds.is_empty() {
        Subresource::Finalize
    } else {
        Subresource::Status
    };
    match update::change(api, kind, None, name, Part::Below(part), &write, change).await {
        Ok(_) => Ok(left.kinds.is_empty()),
        Err(status) if status.code == 404 => Ok(true),
        Err(status) => Err(status),
    }
}

fn let_go(old: &Value) -> Value {
    let mut new = old.clone();
    let mut names = object::list(old, &["spec", "finalizers"]).to_vec();
    names.retain(|name| name != FINALIZER);
    object::object(&mut new, "spec").insert("finalizers".into(), json!(names));
    new
}

/// What is left in a namespace.
#[derive(Debug, Default)]
struct Left {
    /// A sentence for each kind.
    kinds: Vec<String>,
    /// How many objects each finalizer holds.
    finalizers: BTreeMap<String, usize>,
}

/// The conditions that `kubectl describe` shows.
fn explain(old: &Value, left: &Left) -> Value {
    let remaining = format!("Some resources are remaining: {}", left.kinds.join(", "));
    let names = left.finalizers.iter();
    let names: Vec<_> = names
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    let held = format!(
        "Some content in the namespace has finalizers remaining: {}",
        names.join(", ")
    );
    let conditions = [
        (
            "DeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "DeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "DeletionContentFailure",
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "ContentRemaining",
            "True",
            "SomeResourcesRemain",
            &remaining,
        ),
        match names.is_empty() {
            true => (
                "FinalizersRemaining",
                "False",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
            false => ("FinalizersRemaining", "True", "SomeFinalizersRemain", &held),
        },
    ];
    let had = object::list(old, &["status", "conditions"]);
    let conditions = conditions.map(|(kind, status, reason, message)| {
        let kind = format!("Namespace{kind}");
        let before = had.iter().find(|had| had["type"] == *kind);
        let since = before
            .filter(|before| before["status"] == *status)
            .and_then(|before| before.get("lastTransitionTime").cloned());
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or_else(|| write::now().into()),
        })
    });
    let mut new = old.clone();
    object::object(&mut new, "status").insert("conditions".into(), json!(conditions));
    new
}
