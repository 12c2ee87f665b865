//! Namespaces that are being deleted: what is in them goes first, the Pods before all else; then they do.
//!
//! Everything is deleted as a client would delete it, so Pods have their grace and finalizers are respected. Until
//! nothing is left the namespace stays, and its conditions say what is missing. When a Pod is gone it is looked at
//! again at once, for other things after a pause that grows with the time it has taken so far.

pub mod conditions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::cluster::Cluster;
use crate::controller::{self, Again};
use crate::resources::{self, Resource};
use crate::trouble::{Tried, Trouble};
use conditions::Left;

/// Who holds a namespace until it is empty.
const FINALIZER: &str = "kubernetes";
/// The shortest and the longest pause between two looks at what is left.
const PAUSE: (i64, i64) = (50, 2000);
/// Kinds that are emptied together; each is a connection.
const AT_ONCE: usize = 8;

/// Empties namespaces until it is dropped.
pub async fn run(cluster: Cluster) {
    cluster.namespaces.ready().await;
    let kept = cluster.namespaces.clone();
    let pods = controller::related_changes(&cluster.pods, move |change| {
        let gone = change.old.as_ref().filter(|_| change.new.is_none());
        let namespace = gone.and_then(|pod| kept.get("", pod.metadata.namespace.as_deref()?));
        let ending = namespace.filter(|namespace| is_held(namespace));
        ending
            .map(|namespace| ObjectRef::from_obj(namespace.as_ref()))
            .into_iter()
            .collect()
    });
    let requests = stream::select(controller::own_changes(&cluster.namespaces), pods);
    let reconcile = |namespace: Arc<Namespace>| reconcile(cluster.clone(), namespace);
    controller::run("namespaces", &cluster.namespaces, requests, reconcile).await;
}

/// Whether a namespace is being deleted and waits for this controller.
fn is_held(namespace: &Namespace) -> bool {
    let finalizers = namespace
        .spec
        .iter()
        .flat_map(|spec| spec.finalizers.iter().flatten());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.into_iter().any(|name| name == FINALIZER)
}

async fn reconcile(cluster: Cluster, namespace: Arc<Namespace>) -> Result<Again, Trouble> {
    if !is_held(&namespace) {
        return Ok(None);
    }
    let name = namespace.name_any();
    let kinds = resources::discover(&cluster.client).await?;
    let kinds = kinds.into_iter().filter(|kind| kind.namespaced);
    let (pods, others): (Vec<_>, Vec<_>) =
        kinds.partition(|kind| kind.names.group.is_empty() && kind.names.kind == "Pod");
    // What a Pod may still need while it ends stays until it has.
    let mut left = empty(&cluster.client, &name, pods).await?;
    if left.is_nothing() {
        left = empty(&cluster.client, &name, others).await?;
    }
    if left.is_nothing() {
        let_go(&cluster, &namespace).await?;
        return Ok(None);
    }
    explain(&cluster, &namespace, &left).await?;
    let since = namespace.metadata.deletion_timestamp.as_ref();
    let took = since.map_or(0, |since| {
        Timestamp::now().as_millisecond() - since.0.as_millisecond()
    });
    let pause = (took / 10).clamp(PAUSE.0, PAUSE.1);
    Ok(Some(Duration::from_millis(
        u64::try_from(pause).unwrap_or(0),
    )))
}

/// Deletes all objects of these kinds in a namespace; what is left of them.
async fn empty(client: &Client, namespace: &str, kinds: Vec<Resource>) -> Result<Left, Trouble> {
    let emptying = kinds
        .into_iter()
        .map(|kind| empty_of(client, namespace, kind));
    let all = stream::iter(emptying).buffered(AT_ONCE);
    all.try_fold(Left::default(), async |mut all, left| {
        all.add(left);
        Ok(all)
    })
    .await
}

async fn empty_of(client: &Client, namespace: &str, kind: Resource) -> Result<Left, Trouble> {
    let api = kind.api(client, namespace);
    let plural = &kind.names.plural;
    let list = async || {
        let all = api.list_metadata(&ListParams::default()).await;
        all.tried(|| format!("list {plural} of Namespace {namespace}"))
    };
    let there = list().await?;
    if there.items.is_empty() {
        return Ok(Left::default());
    }
    let params = DeleteParams::background();
    if kind.collection {
        let deleted = api.delete_collection(&params, &ListParams::default()).await;
        deleted.tried(|| format!("delete {plural} of Namespace {namespace}"))?;
    } else {
        for object in &there.items {
            match api.delete(&object.name_any(), &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => {
                    other.tried(|| format!("delete {plural} {namespace}/{}", object.name_any()))?;
                }
            }
        }
    }
    let there = list().await?;
    let mut finalizers = BTreeMap::new();
    for finalizer in there.items.iter().flat_map(|object| object.finalizers()) {
        *finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    Ok(Left::of(&kind.names, there.items.len(), finalizers))
}

/// Takes the finalizer away: the namespace is gone.
async fn let_go(cluster: &Cluster, namespace: &Namespace) -> Result<(), Trouble> {
    let name = namespace.name_any();
    let mut empty = namespace.clone();
    let finalizers = empty
        .spec
        .as_mut()
        .and_then(|spec| spec.finalizers.as_mut());
    finalizers
        .into_iter()
        .for_each(|names| names.retain(|name| name != FINALIZER));
    let api = cluster.api_all::<Namespace>();
    match api
        .replace_subresource("finalize", &name, &PostParams::default(), &empty)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).tried(|| format!("finalize Namespace {name}")),
    }
}

/// Writes the conditions that say what is left.
async fn explain(cluster: &Cluster, namespace: &Namespace, left: &Left) -> Result<(), Trouble> {
    let had = namespace
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let had = had.unwrap_or_default();
    let conditions = conditions::of(left, had, Timestamp::now());
    if conditions == had {
        return Ok(());
    }
    let name = namespace.name_any();
    let patch = json!({"metadata": {"uid": namespace.uid()}, "status": {"conditions": conditions}});
    let api = cluster.api_all::<Namespace>();
    match api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).tried(|| format!("say what is left in Namespace {name}")),
    }
}
