//! Who owns what: every object of the cluster by uid, as little of it as garbage collection needs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// An object's uid. Shared, since an owner of many is named by each.
pub type Uid = Arc<str>;
/// Held until all that blocks the deletion is deleted.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Held until nothing that it owned names it any more.
pub const ORPHAN: &str = "orphan";

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its kind, as a position among the kinds that are watched.
    pub kind: usize,
    /// Empty for a kind without namespaces.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Whom it belongs to, and whether it blocks the owner's deletion in the foreground.
    pub owners: Box<[(Uid, bool)]>,
    /// How it is being deleted, if it is.
    pub deleting: Option<Deleting>,
}

/// What an object that is being deleted waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleting {
    /// Nothing that concerns its dependents.
    Background,
    /// Its dependents' deletion.
    Foreground,
    /// Its dependents' release.
    Orphan,
}

/// How an object is being deleted.
pub fn deleting(metadata: &ObjectMeta) -> Option<Deleting> {
    metadata.deletion_timestamp.as_ref()?;
    let held = |name: &str| {
        metadata
            .finalizers
            .iter()
            .flatten()
            .any(|finalizer| finalizer == name)
    };
    Some(if held(ORPHAN) {
        Deleting::Orphan
    } else if held(FOREGROUND) {
        Deleting::Foreground
    } else {
        Deleting::Background
    })
}

/// Whether an object blocks its owner's deletion in the foreground.
pub fn blocks(owner: &OwnerReference) -> bool {
    owner.block_owner_deletion == Some(true)
}

impl Object {
    /// Of an object's metadata.
    pub fn new(kind: usize, metadata: &ObjectMeta) -> Self {
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().into();
        let owners = metadata.owner_references.iter().flatten();
        Self {
            kind,
            namespace: text(&metadata.namespace),
            name: text(&metadata.name),
            owners: owners
                .map(|owner| (owner.uid.as_str().into(), blocks(owner)))
                .collect(),
            deleting: deleting(metadata),
        }
    }
}

/// All objects. Those who are named as owners but were not observed are not among them.
#[derive(Debug, Default)]
pub struct Graph {
    objects: HashMap<Uid, Object>,
    dependents: HashMap<Uid, BTreeSet<Uid>>,
}

impl Graph {
    /// The object of this uid.
    pub fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// What names this uid as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = (&Uid, &Object)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid, self.objects.get(uid)?)))
    }

    /// The uids of all objects of a kind.
    pub fn of_kind(&self, kind: usize) -> impl Iterator<Item = &Uid> {
        let objects = self.objects.iter();
        objects
            .filter(move |(_, object)| object.kind == kind)
            .map(|(uid, _)| uid)
    }

    /// Takes in an object that was made or changed; the uids to look at.
    pub fn observe(&mut self, uid: Uid, object: Object) -> Vec<Uid> {
        // An object may be shown by two kinds (the two views of an Event): it is one.
        let before = self.objects.get(&uid);
        if before == Some(&object) {
            return Vec::new();
        }
        let mut look: Vec<Uid> = Vec::new();
        if let Some(before) = before {
            for (owner, _) in before.owners.clone() {
                if let Some(all) = self.dependents.get_mut(&owner) {
                    all.remove(&uid);
                    if all.is_empty() {
                        self.dependents.remove(&owner);
                    }
                }
                // An owner that waits for what it owns.
                look.extend(self.waiting(&owner));
            }
        }
        for (owner, _) in &object.owners {
            let all = self.dependents.entry(Arc::clone(owner)).or_default();
            all.insert(Arc::clone(&uid));
            look.extend(self.waiting(owner));
        }
        if object.deleting == Some(Deleting::Foreground) {
            look.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        look.push(Arc::clone(&uid));
        self.objects.insert(uid, object);
        look
    }

    /// Takes in that an object is gone; the uids to look at.
    pub fn gone(&mut self, uid: &str) -> Vec<Uid> {
        let mut look: Vec<Uid> = self
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let Some(object) = self.objects.remove(uid) else {
            return look;
        };
        for (owner, _) in &object.owners {
            if let Some(all) = self.dependents.get_mut(owner) {
                all.remove(uid);
                if all.is_empty() {
                    self.dependents.remove(owner);
                }
            }
            look.extend(self.waiting(owner));
        }
        look
    }

    fn waiting(&self, owner: &Uid) -> Option<Uid> {
        let object = self.objects.get(owner)?;
        matches!(
            object.deleting,
            Some(Deleting::Foreground | Deleting::Orphan)
        )
        .then(|| Arc::clone(owner))
    }
}
