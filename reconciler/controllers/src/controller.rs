//! How a controller is run: requests for objects, each worked off once however often it is made, one at a time for an
//! object, again after a failure.
//!
//! The queue is kube's `applier` over the shared objects. A request for an object that is gone is dropped, so a
//! controller that cleans up after its objects watches for their deletion itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryFutureExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::applier;
use kube::runtime::controller::{Action, Config, Error};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use crate::kept::{Change, Kept, Kind};
use crate::trouble::Trouble;

/// How many objects one controller works on at a time.
const AT_ONCE: u16 = 16;
/// The pause after a conflict: time for the other's write to arrive.
const AFTER_CONFLICT: Duration = Duration::from_millis(10);
/// The first and the longest pause after other failures.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// When to look at an object again though nothing has changed: never, or after some time.
pub type Again = Option<Duration>;

/// Runs a controller until its requests end, which they do not. `reconcile` brings one object to what is wanted and
/// says when to look again. `name` is for the log.
pub async fn run<K, F, R>(
    name: &'static str,
    kept: &Kept<K>,
    requests: impl Stream<Item = ObjectRef<K>> + Send,
    reconcile: R,
) where
    K: Kind,
    F: Future<Output = Result<Again, Trouble>> + Send,
    R: Fn(Arc<K>) -> F + Send,
{
    // kube's queue waits for the store too, in a way that wakes only one of several: so it must not have to.
    kept.ready().await;
    let failures = Arc::new(Mutex::new(HashMap::<ObjectRef<K>, u32>::new()));
    let lock = |failures: &Mutex<HashMap<ObjectRef<K>, u32>>, key: &ObjectRef<K>, failed: bool| {
        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failed {
            let count = failures.entry(key.clone()).or_default();
            *count += 1;
            *count
        } else {
            failures.remove(key);
            0
        }
    };
    let on_success = |object: Arc<K>, failures: Arc<Mutex<_>>| {
        let key = ObjectRef::from_obj(object.as_ref());
        let done = reconcile(object).map_ok(move |again| {
            lock(&failures, &key, false);
            again.map_or_else(Action::await_change, Action::requeue)
        });
        Box::pin(done)
    };
    let on_failure = |object: Arc<K>, trouble: &Trouble, failures: Arc<Mutex<_>>| {
        if trouble.is_conflict() {
            return Action::requeue(AFTER_CONFLICT);
        }
        if trouble.ends_with_namespace() {
            return Action::await_change();
        }
        let count = lock(&failures, &ObjectRef::from_obj(object.as_ref()), true);
        Action::requeue((PAUSE.0 * 2_u32.saturating_pow(count.min(16) - 1)).min(PAUSE.1))
    };
    let config = Config::default().concurrency(AT_ONCE);
    let requests = requests.map(Ok::<_, std::convert::Infallible>);
    let done = applier(
        on_success,
        on_failure,
        failures.clone(),
        kept.store(),
        requests,
        config,
    );
    let mut done = std::pin::pin!(done);
    while let Some(result) = done.next().await {
        match result {
            Ok(_) => {}
            Err(Error::ReconcilerFailed(trouble, object))
                if trouble.is_conflict() || trouble.ends_with_namespace() =>
            {
                tracing::debug!("{name}: {object}: {trouble}");
            }
            Err(Error::ReconcilerFailed(trouble, object)) => {
                tracing::warn!("{name}: {object}: {trouble}")
            }
            Err(Error::ObjectNotFound(object)) => {
                let gone = |key: &ObjectRef<K>| {
                    key.name == object.name && key.namespace == object.namespace
                };
                failures
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|key, _| !gone(key));
            }
            Err(error) => tracing::warn!("{name}: {error}"),
        }
    }
}

/// A request for each object of the kind that has come or changed.
pub fn own_changes<K: Kind>(kept: &Kept<K>) -> impl Stream<Item = ObjectRef<K>> + Send + use<K> {
    kept.changes().filter_map(async |change| {
        change
            .new
            .map(|object| ObjectRef::from_obj(object.as_ref()))
    })
}

/// Requests that `related` finds for each change of another kind. It is asked after the change is kept.
pub fn related_changes<O: Kind, K: Kind>(
    kept: &Kept<O>,
    related: impl Fn(&Change<O>) -> Vec<ObjectRef<K>> + Send,
) -> impl Stream<Item = ObjectRef<K>> + Send {
    kept.changes()
        .map(move |change| stream::iter(related(&change)))
        .flatten()
}

/// The owner of kind `K` that controls the object, if any.
pub fn owner<K: Kind>(object: &impl Resource) -> Option<ObjectRef<K>> {
    let owner = controller_of(object)?;
    ObjectRef::from_owner_ref(object.meta().namespace.as_deref(), owner, ())
}

/// The reference to the object's controller.
pub fn controller_of(object: &impl Resource) -> Option<&OwnerReference> {
    object
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// Those to look at after a change of an object that they may own: its owners before and after; and of an orphan,
/// those of the namespace whose selector it matches, since one may adopt it.
pub fn owners<O: Kind, K: Kind>(
    change: &Change<O>,
    kept: &Kept<K>,
    selects: impl Fn(&K, &O) -> bool,
) -> Vec<ObjectRef<K>> {
    let mut owners: Vec<ObjectRef<K>> = change
        .states()
        .filter_map(|state| owner(state.as_ref()))
        .collect();
    if owners.len() == 2 && owners[0] == owners[1] {
        owners.pop();
    }
    if let Some(orphan) = change
        .new
        .as_deref()
        .filter(|new| controller_of(*new).is_none())
    {
        let namespace = orphan.meta().namespace.as_deref().unwrap_or_default();
        let may_adopt = kept
            .within(namespace)
            .into_iter()
            .filter(|owner| selects(owner, orphan));
        owners.extend(may_adopt.map(|owner| ObjectRef::from_obj(owner.as_ref())));
    }
    owners
}
