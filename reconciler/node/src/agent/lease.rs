//! The node's Lease: what tells that the node lives. Also counts outages of the API server, seen from here.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::watch;

use super::{Context, cause};

const NAMESPACE: &str = "kube-node-lease";

fn owner(node: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

/// Microseconds, as the API keeps them.
fn now() -> MicroTime {
    let now = Timestamp::now();
    MicroTime(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
}

fn lease(node: &str, uid: &str, seconds: i32) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![owner(node, uid)]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(now()),
            ..LeaseSpec::default()
        }),
    }
}

/// Renews the Lease from the time the Node is registered. `outages` is raised when the server answers again.
pub async fn keep(
    context: Arc<Context>,
    mut uid: watch::Receiver<Option<String>>,
    outages: watch::Sender<u64>,
) {
    let node = &context.config.node_name;
    let seconds = i32::try_from(context.config.lease_duration.as_secs()).unwrap_or(i32::MAX);
    let interval = context.config.renew_interval;
    let api: Api<Lease> = Api::namespaced(context.client.clone(), NAMESPACE);
    let mut owned: Option<String> = None;
    let mut failures = 0_u32;
    loop {
        let Ok(Some(present)) = uid.wait_for(Option::is_some).await.map(|uid| uid.clone()) else {
            return;
        };
        // An answer that takes longer than this is none: the connection is given up.
        let limit = interval.clamp(Duration::from_secs(1), Duration::from_secs(10));
        let renewal = renew(
            &api,
            node,
            &present,
            seconds,
            owned.as_deref() != Some(&present),
        );
        let renewed = match tokio::time::timeout(limit, renewal).await {
            Ok(renewed) => renewed,
            Err(_) => Err(kube::Error::Service("no answer".into())),
        };
        let wait = match renewed {
            Ok(()) => {
                owned = Some(present);
                if failures > 0 {
                    tracing::info!("the API server answers again");
                    outages.send_modify(|count| *count += 1);
                }
                failures = 0;
                interval
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!("renew lease of node {node}: {}", cause(&error));
                }
                failures = failures.saturating_add(1);
                owned = None;
                (interval / 4).clamp(Duration::from_millis(100), Duration::from_secs(2))
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = uid.changed() => if changed.is_err() { return },
        }
    }
}

async fn renew(
    api: &Api<Lease>,
    node: &str,
    uid: &str,
    seconds: i32,
    whole: bool,
) -> kube::Result<()> {
    let patch = if whole {
        json!({
            "metadata": {"ownerReferences": [owner(node, uid)]},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": seconds, "renewTime": now()},
        })
    } else {
        json!({"spec": {"renewTime": now()}})
    };
    match api
        .patch(node, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => api
            .create(&PostParams::default(), &lease(node, uid, seconds))
            .await
            .map(drop),
        patched => patched.map(drop),
    }
}
