//! Whom an object belongs to: adoption of orphans whose labels match, release of those that no longer match; and the
//! Pod that a template describes.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::controller::controller_of;
use crate::kept::{Kept, Kind};
use crate::trouble::{Tried, Trouble};

/// What is to be done about an owner's possible objects.
#[derive(Debug)]
pub struct Claim<K> {
    /// Those that are owned and match.
    pub owned: Vec<Arc<K>>,
    /// Orphans that match.
    pub adopt: Vec<Arc<K>>,
    /// Those that are owned and no longer match.
    pub release: Vec<Arc<K>>,
}

/// A selector in the form that can be asked. An empty or missing one selects nothing: no owner may own everything.
///
/// # Errors
/// An operator that does not exist, or one without the values that it needs.
pub fn selector(selector: Option<&LabelSelector>) -> Result<Option<Selector>, Trouble> {
    let Some(selector) = selector else {
        return Ok(None);
    };
    let parsed = Selector::try_from(selector.clone());
    let parsed = parsed.map_err(|error| Trouble::object("read the label selector", error))?;
    Ok((!parsed.selects_all()).then_some(parsed))
}

/// Whether the owner's selector selects an object's labels; false for a selector that cannot be read.
pub fn selects(owner: Option<&LabelSelector>, object: &impl Resource) -> bool {
    matches!(selector(owner), Ok(Some(selector)) if selector.matches(object.labels()))
}

/// Sorts `objects` (those of the owner's namespace, or more) by what the owner is to do about them.
pub fn plan_claim<K: Kind>(
    owner: &ObjectMeta,
    selector: Option<&Selector>,
    objects: Vec<Arc<K>>,
) -> Claim<K> {
    let mut claim = Claim {
        owned: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    let deleting = owner.deletion_timestamp.is_some();
    for object in objects {
        if object.meta().namespace != owner.namespace {
            continue;
        }
        let matches = selector.is_some_and(|selector| selector.matches(object.labels()));
        match controller_of(object.as_ref()) {
            Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => {}
            Some(_) if matches => claim.owned.push(object),
            Some(_) if !deleting => claim.release.push(object),
            Some(_) => {}
            None if matches && !deleting && object.meta().deletion_timestamp.is_none() => {
                claim.adopt.push(object)
            }
            None => {}
        }
    }
    claim
}

/// The objects of kind `K` that `owner` controls, after it has adopted and released what it must. `kept` has caught
/// up with these changes when this returns.
///
/// # Errors
/// The server refuses an adoption or a release. An object that is gone or that another has taken meanwhile is none.
pub async fn claim<O, K>(
    cluster: &Cluster,
    kept: &Kept<K>,
    owner: &O,
    selector: Option<&Selector>,
) -> Result<Vec<Arc<K>>, Trouble>
where
    O: Kind + Resource<Scope = NamespaceResourceScope>,
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let namespace = owner.namespace().unwrap_or_default();
    let Claim {
        mut owned,
        adopt,
        release,
    } = plan_claim(owner.meta(), selector, kept.within(&namespace));
    let api = cluster.api::<K>(&namespace);
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let kind = K::kind(&());
    if !adopt.is_empty() && exists(cluster, owner).await? {
        let reference = reference(owner);
        for orphan in adopt {
            let patch = json!({"metadata": {"uid": orphan.uid(), "ownerReferences": [reference]}});
            match api
                .patch(&orphan.name_any(), &params, &Patch::Strategic(patch))
                .await
            {
                Ok(adopted) => {
                    kept.seen(&adopted).await;
                    owned.push(Arc::new(adopted));
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => Err(error)
                    .tried(|| format!("adopt {kind} {namespace}/{}", orphan.name_any()))?,
            }
        }
    }
    for stray in release {
        let entry = json!({"$patch": "delete", "uid": owner.uid()});
        let patch = json!({"metadata": {"uid": stray.uid(), "ownerReferences": [entry]}});
        match api
            .patch(&stray.name_any(), &params, &Patch::Strategic(patch))
            .await
        {
            Ok(released) => _ = kept.seen(&released).await,
            // Gone, or replaced by another object of its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {}
            Err(error) => {
                Err(error).tried(|| format!("release {kind} {namespace}/{}", stray.name_any()))?
            }
        }
    }
    Ok(owned)
}

/// Whether the owner still is there, as the server knows it: one that has been deleted must not adopt, or the
/// garbage collector would delete what is to be orphaned.
async fn exists<O: Kind + Resource<Scope = NamespaceResourceScope>>(
    cluster: &Cluster,
    owner: &O,
) -> Result<bool, Trouble> {
    let namespace = owner.namespace().unwrap_or_default();
    let now = cluster
        .api::<O>(&namespace)
        .get_opt(&owner.name_any())
        .await;
    let now = now.tried(|| format!("get {} {namespace}/{}", O::kind(&()), owner.name_any()))?;
    Ok(now.is_some_and(|now| now.uid() == owner.uid() && now.meta().deletion_timestamp.is_none()))
}

/// The reference by which `owner` controls an object.
pub fn reference<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The Pod that `template` describes, controlled by `owner`, with a name that the server completes.
pub fn pod_of<O: Resource<DynamicType = ()>>(owner: &O, template: &PodTemplateSpec) -> Pod {
    let wanted = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name_any())),
            namespace: owner.namespace(),
            labels: wanted.labels,
            annotations: wanted.annotations,
            finalizers: wanted.finalizers,
            owner_references: Some(vec![reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests;
