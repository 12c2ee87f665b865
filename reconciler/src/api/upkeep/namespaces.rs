//! Namespaces that are being deleted: what is in them goes first, then they do.
//!
//! Everything in a namespace is deleted as a client would delete it, so Pods get their grace and finalizers are
//! respected; until nothing is left the namespace stays, and its conditions say what is missing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::api::changes::Start;
use crate::api::kinds::{self, KINDS, Kind, Subresource, Verbs};
use crate::api::rest::delete::{self, Options};
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
    let mut left = Vec::new();
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
                Ok(delete::Deleted::Held(_)) => held += 1,
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        if held > 0 {
            left.push(format!(
                "{} has {held} resource instances",
                kind.qualified()
            ));
        }
    }
    let write = super::write();
    let change = |old: &Value| {
        Ok(if left.is_empty() {
            let_go(old)
        } else {
            explain(old, &left)
        })
    };
    let part = if left.is_empty() {
        Subresource::Finalize
    } else {
        Subresource::Status
    };
    match write::change(api, kind, None, name, Part::Below(part), &write, change).await {
        Ok(_) => Ok(left.is_empty()),
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

/// The condition that `kubectl describe` shows.
fn explain(old: &Value, left: &[String]) -> Value {
    let message = format!("Some resources are remaining: {}", left.join(", "));
    let mut new = old.clone();
    let status = object::object(&mut new, "status");
    let had = status
        .get("conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let same = |condition: &Value| {
        condition["type"] == "NamespaceContentRemaining" && condition["message"] == *message
    };
    if had.iter().any(same) {
        return new;
    }
    let mut conditions: Vec<_> = had
        .into_iter()
        .filter(|condition| condition["type"] != "NamespaceContentRemaining")
        .collect();
    conditions.push(json!({
        "type": "NamespaceContentRemaining", "status": "True", "reason": "SomeResourcesRemain",
        "message": message, "lastTransitionTime": write::now(),
    }));
    status.insert("conditions".into(), json!(conditions));
    new
}
