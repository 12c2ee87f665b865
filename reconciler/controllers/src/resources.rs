//! Which kinds the server has, asked for by discovery.

use std::collections::BTreeSet;

use kube::core::{DynamicObject, PartialObjectMeta};
use kube::discovery::{ApiResource, Discovery, Scope, verbs};
use kube::{Api, Client};

use crate::trouble::{Tried, Trouble};

/// A kind whose objects can be listed, watched and deleted.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its names.
    pub names: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether all objects of a namespace can be deleted at once.
    pub collection: bool,
}

impl Resource {
    /// The objects of a namespace, or those without one.
    pub fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.names)
        } else {
            Api::all_with(client.clone(), &self.names)
        }
    }

    /// All objects, of each its metadata alone.
    pub fn all(&self, client: &Client) -> Api<PartialObjectMeta<DynamicObject>> {
        Api::all_with(client.clone(), &self.names)
    }
}

/// All such kinds, each once, in the server's preferred version. Events are one kind under two groups; it is the first.
///
/// # Errors
/// The server does not answer.
pub async fn discover(client: &Client) -> Result<Vec<Resource>, Trouble> {
    let discovery = Discovery::new(client.clone()).run().await;
    let discovery = discovery.tried(|| "ask the server for its kinds")?;
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    for group in discovery.groups_alphabetical() {
        for (names, can) in group.recommended_resources() {
            let needed = [verbs::LIST, verbs::WATCH, verbs::DELETE];
            let again = group.name() == "events.k8s.io";
            let usable = needed.iter().all(|verb| can.supports_operation(verb));
            if usable && !again && known.insert((names.group.clone(), names.plural.clone())) {
                found.push(Resource {
                    namespaced: can.scope == Scope::Namespaced,
                    collection: can.supports_operation(verbs::DELETE_COLLECTION),
                    names,
                });
            }
        }
    }
    Ok(found)
}
