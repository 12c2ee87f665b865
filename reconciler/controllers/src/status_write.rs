//! Writing an object's status when it differs.

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::kept::{Kept, Kind};
use crate::trouble::{Tried, Trouble};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

/// Writes `new` over `old` unless they say the [`same`], and waits
/// until it has come back. What `new` does not have stays.
///
/// # Errors
/// The server refuses it. An object that is gone is no error.
pub async fn write<K, S>(
    cluster: &Cluster,
    kept: &Kept<K>,
    object: &K,
    old: &Option<S>,
    new: &S,
) -> Result<(), Trouble>
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
    S: Serialize,
{
    if same(old, new) {
        return Ok(());
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let patch = json!({"metadata": {"uid": object.uid()}, "status": new});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let api = cluster.api::<K>(&namespace);
    match api.patch_status(&name, &params, &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        answer => {
            let kind = K::kind(&());
            let written =
                answer.tried(|| format!("write the status of {kind} {namespace}/{name}"))?;
            kept.seen(&written).await;
        }
    }
    Ok(())
}

/// Whether two statuses say the same: an absent field is 0, false or empty.
pub fn same(old: &impl Serialize, new: &impl Serialize) -> bool {
    bare(&json!(old)) == bare(&json!(new))
}

/// Without what is zero.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(key, value)| (key.clone(), bare(value)));
            let kept = kept.filter(|(_, value)| !is_zero(value));
            Value::Object(kept.collect())
        }
        other if is_zero(other) => Value::Null,
        other => other.clone(),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
