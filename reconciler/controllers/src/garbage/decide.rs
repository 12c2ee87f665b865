//! What is to be done about one object: a pure function of what it is now, of its owners, and of what it owns.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::graph::{self, Deleting};

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is there.
    Present,
    /// It is there, and waits for its dependents' deletion.
    Waiting,
    /// The server says that there is none of this uid.
    Absent,
    /// It cannot be asked for: its kind is not known, or the server did not answer.
    Unknown,
}

/// What is known of a dependent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// Whether it blocks the owner's deletion.
    pub blocks: bool,
    /// How it is being deleted.
    pub deleting: Option<Deleting>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Delete it; the policy is that of its own finalizers.
    Delete(Deleting),
    /// Say that it blocks nobody's deletion, then delete it in the foreground: owners that own each other in a circle
    /// would wait for each other for ever.
    UnblockAndDelete,
    /// Take the owners of these uids away from it.
    Disown(Vec<String>),
    /// Take it away from all that it owns, then let it go.
    Orphan,
    /// Let it go: nothing blocks its deletion.
    Release,
    /// Look at all that it owns.
    Descend,
}

/// Decides. `owners` are those of `metadata.ownerReferences`, in order.
///
/// Source: <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>
pub fn decide(metadata: &ObjectMeta, owners: &[Owner], dependents: &[Dependent]) -> Action {
    match graph::deleting(metadata) {
        Some(Deleting::Orphan) => return Action::Orphan,
        Some(Deleting::Foreground) if dependents.iter().any(|dependent| dependent.blocks) => {
            return Action::Descend;
        }
        Some(Deleting::Foreground) => return Action::Release,
        Some(Deleting::Background) => return Action::Nothing,
        None => {}
    }
    if owners.is_empty() || owners.contains(&Owner::Unknown) {
        return Action::Nothing;
    }
    if owners.contains(&Owner::Present) {
        let references = metadata.owner_references.iter().flatten();
        let lost: Vec<_> = references
            .zip(owners)
            .filter(|(_, owner)| **owner != Owner::Present)
            .map(|(reference, _)| reference.uid.clone())
            .collect();
        return if lost.is_empty() {
            Action::Nothing
        } else {
            Action::Disown(lost)
        };
    }
    if owners.contains(&Owner::Waiting) && !dependents.is_empty() {
        let circle = dependents
            .iter()
            .any(|dependent| dependent.deleting == Some(Deleting::Foreground));
        return if circle {
            Action::UnblockAndDelete
        } else {
            Action::Delete(Deleting::Foreground)
        };
    }
    let held = |name: &str| {
        metadata
            .finalizers
            .iter()
            .flatten()
            .any(|finalizer| finalizer == name)
    };
    Action::Delete(if held(graph::ORPHAN) {
        Deleting::Orphan
    } else if held(graph::FOREGROUND) {
        Deleting::Foreground
    } else {
        Deleting::Background
    })
}

#[cfg(test)]
mod tests;
