//! The seam between this crate and its users: which objects count, and what they are reduced to.

use std::fmt::{Debug, Display};

use serde_json::Value;

use crate::Events;
use crate::kube::Server;

/// What an object has come to.
pub type Outcome<C> = Result<Reduced<<C as Consumer>::Event>, Unusable<<C as Consumer>::Key>>;

/// A program's view of the objects. Reducing is a matter of the type alone, because it happens in the middle of
/// decoding; a value of it knows what this one program wants.
pub trait Consumer: Clone + Send + Sync + 'static {
    /// A kind of object.
    type Kind: Copy + Send + Sync + 'static;
    /// Which object. Prints as in `Service shop/a`; a folder tells its objects in this order.
    type Key: Clone + Debug + Display + Ord + Send + Sync + 'static;
    /// News of an object or of a list. A folder keeps copies to compare with, so they should be cheap to clone.
    type Event: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// Keeps one copy of each text that a folder says; `()` where that is not worth it.
    type Interner: Default + Send + 'static;

    /// Whose log it is, with an article: `a proxy`.
    const NAME: &'static str;

    /// Which kind counts under this name; without an `api_version` (as in typed lists) by name alone.
    fn kind_of(kind: &str, api_version: Option<&str>) -> Option<Self::Kind>;

    /// Reads an object.
    fn reduce(kind: Self::Kind, value: Value) -> Outcome<Self>;

    /// Which object a value is, if its names are names.
    fn key_in(kind: Self::Kind, value: &Value) -> Option<Self::Key>;

    /// Which object an event is about; `None` where it is about a list.
    fn key_of(event: &Self::Event) -> Option<Self::Key>;

    /// The event that says that an object is no more.
    fn gone(key: Self::Key) -> Self::Event;

    /// The event that says that a list of the kind begins.
    fn restarted(kind: Self::Kind) -> Self::Event;

    /// The event that says that the list of the kind is whole.
    fn listed(kind: Self::Kind) -> Self::Event;

    /// Replaces texts of an event by the copies that are kept.
    fn intern(_: &mut Self::Interner, _: &mut Self::Event) {}

    /// The node that an object is about or runs on, where that decides whether it is wanted.
    fn node_of(_: Self::Kind, _: &Value) -> Option<String> {
        None
    }

    /// The kinds that are wanted.
    fn kinds(&self) -> Vec<Self::Kind>;

    /// Whether an object of a folder is wanted, by its kind and what [`Consumer::node_of`] says; an API server is asked
    /// for the right ones in the first place.
    fn wants(&self, kind: Self::Kind, node: Option<&str>) -> bool;

    /// Watches at an API server what is wanted, until nobody listens: one [`Server::watch`] for each kind.
    fn watch(
        &self,
        server: &Server,
        events: &Events<Self::Event>,
    ) -> impl Future<Output = ()> + Send;
}

/// An object reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced<E> {
    /// What it is: an object, or (of a kind that does not count) its absence.
    pub event: E,
    /// What was left out, by object and field; for the log.
    pub complaints: Vec<String>,
}

/// Why an object is of no use at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Unusable<K> {
    /// Which it is, if that much can be read.
    pub object: Option<K>,
    /// One sentence with kind, name and cause.
    pub text: String,
}
