//! ComponentStatuses, made up when asked for: the store, and those that say by a Lease that they are at work.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::object::{at, text};
use crate::api::{Api, kinds, object};

/// Components and the Leases in kube-system that they hold. A server without them is alone and has only its store.
const HOLDERS: [(&str, &str); 2] = [
    ("scheduler", "kube-scheduler"),
    ("controller-manager", "kube-controller-manager"),
];

/// All components.
pub async fn all(api: &Api) -> Vec<Value> {
    let mut all = Vec::new();
    for (name, lease) in HOLDERS {
        if let Some(lease) = read(api, lease).await {
            all.push(component(name, &health(&lease, Timestamp::now())));
        }
    }
    let store = api.store.revision().await;
    let store = store.map(drop).map_err(|error| error.to_string());
    all.push(component("etcd-0", &store));
    all
}

/// A Lease, if there is one that can be read: what is wrong with the store is told by the store's own line.
async fn read(api: &Api, name: &str) -> Option<Value> {
    let kind = kinds::find("coordination.k8s.io", "v1", "leases")?;
    let entry = api.store.get(&kind.key(Some("kube-system"), name)).await;
    let entry = entry.ok()??;
    object::decode(&entry.value, entry.revision).ok()
}

/// Whether a Lease is held.
fn health(lease: &Value, now: Timestamp) -> Result<(), String> {
    let renewed = text(lease, &["spec", "renewTime"]);
    let holds = at(lease, &["spec", "leaseDurationSeconds"]).and_then(Value::as_u64);
    let time: Timestamp = renewed
        .parse()
        .map_err(|_| "its Lease has never been renewed".to_owned())?;
    let age = Duration::try_from(now.duration_since(time)).unwrap_or_default();
    if age > Duration::from_secs(holds.unwrap_or(0)) {
        return Err(format!("its Lease was last renewed at {renewed}"));
    }
    Ok(())
}

fn component(name: &str, health: &Result<(), String>) -> Value {
    let condition = match health {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(error) => json!({"type": "Healthy", "status": "False", "message": error}),
    };
    json!({
        "apiVersion": "v1", "kind": "ComponentStatus",
        "metadata": {"name": name}, "conditions": [condition]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_not_renewed_is_a_component_that_is_gone() {
        let now: Timestamp = "2026-11-26T10:00:40Z".parse().unwrap();
        let held =
            |renewed: &str| json!({"spec": {"renewTime": renewed, "leaseDurationSeconds": 40}});
        assert_eq!(health(&held("2026-11-26T10:00:00.000000Z"), now), Ok(()));
        let error = health(&held("2026-11-26T09:59:59.000000Z"), now).unwrap_err();
        assert_eq!(
            error,
            "its Lease was last renewed at 2026-11-26T09:59:59.000000Z"
        );
        assert!(health(&json!({}), now).is_err());
        let shown = component("scheduler", &Err(error));
        assert_eq!(shown["conditions"][0]["status"], "False");
    }
}
