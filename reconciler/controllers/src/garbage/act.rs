//! A look at one object: what the graph and the server say of it and its owners, and the writes that follow.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::decide::{Action, Dependent, Owner, decide};
use super::graph::{Deleting, FOREGROUND, Graph, ORPHAN, Object, Uid, deleting};
use super::lock;
use crate::resources::Resource;
use crate::trouble::{Tried, Trouble};

/// How many absent owners are remembered.
const REMEMBERED: usize = 4096;

/// All that a look needs.
pub struct Garbage {
    /// For the server.
    pub client: Client,
    /// Those that are watched.
    pub kinds: Vec<Resource>,
    /// All objects.
    pub graph: Mutex<Graph>,
    /// Owners that the server has said not to be there: a uid never comes back.
    pub absent: Mutex<Absent>,
}

/// The uids of absent owners, the oldest first.
#[derive(Debug, Default)]
pub struct Absent {
    order: VecDeque<Uid>,
    known: HashSet<Uid>,
}

impl Absent {
    fn insert(&mut self, uid: &str) {
        let uid = Uid::from(uid);
        if self.known.insert(Arc::clone(&uid)) {
            self.order.push_back(uid);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Garbage {
    /// Looks at an object and does what is to be done; further objects to look at.
    ///
    /// # Errors
    /// The server does not answer, or the object has changed meanwhile.
    pub async fn look(&self, uid: &Uid) -> Result<Vec<Uid>, Trouble> {
        let object = lock(&self.graph).get(uid).cloned();
        let Some(object) = object.filter(|object| !self.is_settled(object)) else {
            return Ok(Vec::new());
        };
        let Some(metadata) = self.read(&object, uid).await? else {
            // The watch will tell.
            return Ok(Vec::new());
        };
        let mut owners = Vec::new();
        // What is being deleted is not deleted for its owners.
        if metadata.deletion_timestamp.is_none() {
            for owner in metadata.owner_references.iter().flatten() {
                owners.push(self.owner(&object, owner).await?);
            }
        }
        let (uids, dependents): (Vec<Uid>, Vec<Dependent>) = {
            let graph = lock(&self.graph);
            let all = graph.dependents(uid).map(|(own, dependent)| {
                let blocks = dependent
                    .owners
                    .iter()
                    .any(|(owner, blocks)| owner == uid && *blocks);
                let deleting = dependent.deleting;
                (Arc::clone(own), Dependent { blocks, deleting })
            });
            all.unzip()
        };
        match decide(&metadata, &owners, &dependents) {
            Action::Nothing => {}
            Action::Descend => {
                let going = uids.into_iter().zip(dependents);
                let staying = going.filter(|(_, dependent)| dependent.deleting.is_none());
                return Ok(staying.map(|(uid, _)| uid).collect());
            }
            Action::Delete(how) => self.delete(&object, &metadata, how).await?,
            Action::UnblockAndDelete => {
                let mut owners = metadata.owner_references.clone().unwrap_or_default();
                for owner in &mut owners {
                    owner.block_owner_deletion = Some(false);
                }
                let unblocked = self.own(&object, &metadata, &owners).await?;
                self.delete(&object, &unblocked, Deleting::Foreground)
                    .await?;
            }
            Action::Disown(lost) => {
                self.disown(&object, &metadata, &lost).await?;
            }
            Action::Orphan => {
                for dependent in uids {
                    self.orphan(uid, &dependent).await?;
                }
                self.release(&object, &metadata, ORPHAN).await?;
            }
            Action::Release => self.release(&object, &metadata, FOREGROUND).await?,
        }
        Ok(Vec::new())
    }

    /// Whether nothing is to be done about an object by what is known of it and its owners, as for nearly all.
    fn is_settled(&self, object: &Object) -> bool {
        match object.deleting {
            Some(Deleting::Background) => return true,
            Some(_) => return false,
            None => {}
        }
        let graph = lock(&self.graph);
        object.owners.iter().all(|(owner, _)| {
            graph.get(owner).is_some_and(|owner| {
                owner.deleting != Some(Deleting::Foreground) && reaches(owner, object)
            })
        })
    }

    /// What the server says of an object; none if it is gone.
    async fn read(&self, object: &Object, uid: &str) -> Result<Option<ObjectMeta>, Trouble> {
        let Some(kind) = self.kinds.get(object.kind) else {
            return Ok(None);
        };
        let api = kind.api(&self.client, &object.namespace);
        let read = api.get_metadata_opt(&object.name).await;
        let read = read.tried(|| self.operation("read", object))?;
        Ok(read
            .map(|read| read.metadata)
            .filter(|metadata| metadata.uid.as_deref() == Some(uid)))
    }

    /// What is known of an owner of an object.
    async fn owner(&self, object: &Object, owner: &OwnerReference) -> Result<Owner, Trouble> {
        if let Some(known) = lock(&self.graph).get(&owner.uid) {
            // An owner in another namespace is none.
            return Ok(match known.deleting {
                _ if !reaches(known, object) && object.namespace.is_empty() => Owner::Unknown,
                _ if !reaches(known, object) => Owner::Absent,
                Some(Deleting::Foreground) => Owner::Waiting,
                _ => Owner::Present,
            });
        }
        if lock(&self.absent).known.contains(owner.uid.as_str()) {
            return Ok(Owner::Absent);
        }
        let group = owner
            .api_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group);
        let mut kinds = self.kinds.iter();
        let kind = kinds.find(|kind| kind.names.group == group && kind.names.kind == owner.kind);
        let Some(kind) = kind.filter(|kind| !kind.namespaced || !object.namespace.is_empty())
        else {
            return Ok(Owner::Unknown);
        };
        let api = kind.api(&self.client, &object.namespace);
        let read = api.get_metadata_opt(&owner.name).await;
        let read =
            read.tried(|| format!("read {} {}/{}", owner.kind, object.namespace, owner.name))?;
        Ok(
            match read.filter(|read| read.uid().as_ref() == Some(&owner.uid)) {
                None => {
                    lock(&self.absent).insert(&owner.uid);
                    Owner::Absent
                }
                Some(read) if deleting(&read.metadata) == Some(Deleting::Foreground) => {
                    Owner::Waiting
                }
                Some(_) => Owner::Present,
            },
        )
    }

    async fn delete(
        &self,
        object: &Object,
        metadata: &ObjectMeta,
        how: Deleting,
    ) -> Result<(), Trouble> {
        let Some(kind) = self.kinds.get(object.kind) else {
            return Ok(());
        };
        let params = DeleteParams {
            propagation_policy: Some(match how {
                Deleting::Background => PropagationPolicy::Background,
                Deleting::Foreground => PropagationPolicy::Foreground,
                Deleting::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions {
                uid: metadata.uid.clone(),
                resource_version: metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let api = kind.api(&self.client, &object.namespace);
        let deleted = api.delete(&object.name, &params).await;
        tracing::debug!("{}: {}", self.operation("delete", object), deleted.is_ok());
        gone_is_well(deleted.map(|_| ())).tried(|| self.operation("delete", object))
    }

    /// Takes a dependent away from its owner, whatever else happens to it.
    async fn orphan(&self, owner: &Uid, dependent: &Uid) -> Result<(), Trouble> {
        let object = lock(&self.graph).get(dependent).cloned();
        let Some(object) = object else { return Ok(()) };
        let Some(metadata) = self.read(&object, dependent).await? else {
            return Ok(());
        };
        let mut owners = metadata.owner_references.iter().flatten();
        if owners.any(|one| *one.uid == **owner) {
            self.disown(&object, &metadata, &[owner.to_string()])
                .await?;
        }
        Ok(())
    }

    async fn disown(
        &self,
        object: &Object,
        metadata: &ObjectMeta,
        lost: &[String],
    ) -> Result<ObjectMeta, Trouble> {
        let mut owners = metadata.owner_references.clone().unwrap_or_default();
        owners.retain(|owner| !lost.contains(&owner.uid));
        self.own(object, metadata, &owners).await
    }

    /// Writes all owners of an object; the metadata that it has then.
    async fn own(
        &self,
        object: &Object,
        metadata: &ObjectMeta,
        owners: &[OwnerReference],
    ) -> Result<ObjectMeta, Trouble> {
        self.patch(object, metadata, "ownerReferences", json!(owners))
            .await
    }

    async fn release(
        &self,
        object: &Object,
        metadata: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), Trouble> {
        let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|name| name != finalizer);
        self.patch(object, metadata, "finalizers", json!(finalizers))
            .await?;
        Ok(())
    }

    /// Writes a list of the metadata, of the object as it was read.
    async fn patch(
        &self,
        object: &Object,
        metadata: &ObjectMeta,
        field: &str,
        list: serde_json::Value,
    ) -> Result<ObjectMeta, Trouble> {
        let Some(kind) = self.kinds.get(object.kind) else {
            return Ok(metadata.clone());
        };
        let patch = json!({"metadata": {
            "uid": metadata.uid, "resourceVersion": metadata.resource_version, field: list,
        }});
        let api = kind.api(&self.client, &object.namespace);
        let patched = api
            .patch(&object.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            Ok(patched) => Ok(patched.metadata),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(metadata.clone()),
            Err(error) => Err(error).tried(|| self.operation(&format!("write {field} of"), object)),
        }
    }

    fn operation(&self, verb: &str, object: &Object) -> String {
        let kind = self
            .kinds
            .get(object.kind)
            .map_or("object", |kind| &kind.names.kind);
        if object.namespace.is_empty() {
            format!("{verb} {kind} {}", object.name)
        } else {
            format!("{verb} {kind} {}/{}", object.namespace, object.name)
        }
    }
}

/// Whether an object can own another by where they are: it has no namespace, or the same.
fn reaches(owner: &Object, object: &Object) -> bool {
    owner.namespace.is_empty() || owner.namespace == object.namespace
}

fn gone_is_well(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
