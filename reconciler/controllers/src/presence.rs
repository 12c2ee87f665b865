//! Tells that the controllers and the scheduler are at work: the Leases that Kubernetes' own hold, renewed while this
//! process lives. `kubectl get componentstatuses` shows them.
//!
//! Nobody is elected by them: whoever runs this runs it once.

use crate::cluster::{Cluster, FIELD_MANAGER};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams};
use std::time::Duration;

/// The namespace of the Leases.
const NAMESPACE: &str = "kube-system";
const NAMES: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];
/// Between renewals.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a Lease holds, in seconds.
const HOLDS: i32 = 40;

/// Renews both Leases; it does not end.
pub async fn run(cluster: Cluster) {
    let leases = cluster.api::<Lease>(NAMESPACE);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    loop {
        for name in NAMES {
            let lease = lease(name, Timestamp::now());
            if let Err(error) = leases.patch(name, &params, &Patch::Apply(&lease)).await {
                tracing::debug!("renew Lease {NAMESPACE}/{name}: {error}");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn lease(name: &str, now: Timestamp) -> Lease {
    // Written with six digits, as the field's form wants it.
    let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(FIELD_MANAGER.to_owned()),
            lease_duration_seconds: Some(HOLDS),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}
