//! Steps of a watch as the consumer's events.

use std::fmt::Debug;
use std::marker::PhantomData;

use kube::Resource;
use kube::runtime::watcher;
use serde_json::Value;

use super::item::Item;
use crate::{Consumer, Outcome, Said};

/// Translates the steps of the watch of one kind.
pub trait Translate: Default + Send + Sized + 'static {
    /// The kind, as the server has it.
    type Object: Resource<DynamicType = ()> + 'static;
    /// What is kept of an object.
    type News: Clone + Debug + Send + Sync + 'static;
    /// What it is translated to.
    type Event: Send + 'static;
    /// A server may do without the kind.
    const OPTIONAL: bool = false;

    /// Takes what matters from an object as it came, whatever it is.
    fn reduce(value: Value) -> Self::News;

    /// What a step says, if anything; complaints go to the log.
    fn translate(&mut self, step: watcher::Event<Item<Self>>) -> Option<Self::Event>;
}

/// A Kubernetes type as a kind of the consumer's.
pub trait Watched<C: Consumer>: Resource<DynamicType = ()> + 'static {
    /// The kind.
    const KIND: C::Kind;
}

/// Objects of a kind, each by itself: reduced as the consumer does it.
pub struct Objects<C, K> {
    said: Said,
    of: PhantomData<fn() -> (C, K)>,
}

impl<C, K> Default for Objects<C, K> {
    fn default() -> Self {
        Self {
            said: Said::default(),
            of: PhantomData,
        }
    }
}

impl<C: Consumer, K> Objects<C, K> {
    fn complain(&mut self, key: Option<&C::Key>, lines: Vec<String>) {
        let subject = key.map_or_else(|| "nameless".to_owned(), ToString::to_string);
        for line in self.said.news(&subject, lines) {
            tracing::warn!("{line}");
        }
    }
}

/// An object that a server sent.
pub struct Received<C: Consumer> {
    /// Which it is, if it says so.
    key: Option<C::Key>,
    outcome: Outcome<C>,
}

impl<C: Consumer> Clone for Received<C> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            outcome: self.outcome.clone(),
        }
    }
}

impl<C: Consumer> Debug for Received<C> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.outcome.fmt(out)
    }
}

impl<C: Consumer, K: Watched<C>> Translate for Objects<C, K> {
    type Object = K;
    type News = Received<C>;
    type Event = C::Event;

    fn reduce(value: Value) -> Received<C> {
        Received {
            key: C::key_in(K::KIND, &value),
            outcome: C::reduce(K::KIND, value),
        }
    }

    fn translate(&mut self, step: watcher::Event<Item<Self>>) -> Option<C::Event> {
        match step {
            watcher::Event::Init => Some(C::restarted(K::KIND)),
            watcher::Event::InitDone => Some(C::listed(K::KIND)),
            watcher::Event::Apply(item) | watcher::Event::InitApply(item) => {
                let Received { key, outcome } = item.news;
                match outcome {
                    Ok(reduced) => {
                        self.complain(key.as_ref(), reduced.complaints);
                        Some(reduced.event)
                    }
                    Err(unusable) => {
                        self.complain(key.as_ref(), vec![unusable.to_string()]);
                        None
                    }
                }
            }
            watcher::Event::Delete(item) => {
                let key = item.news.key?;
                self.complain(Some(&key), Vec::new());
                Some(C::gone(key))
            }
        }
    }
}
