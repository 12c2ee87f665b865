//! An object as the server sends it, reduced while it is decoded. Whatever it is, decoding succeeds:
//! one bad object must not lose a list.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::translate::Translate;

/// A reduced object with what the watch itself needs to know of it.
pub struct Item<T: Translate> {
    /// Its resource version alone.
    metadata: ObjectMeta,
    /// What is kept of it.
    pub news: T::News,
    kind: PhantomData<fn() -> T>,
}

impl<T: Translate> Clone for Item<T> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            news: self.news.clone(),
            kind: PhantomData,
        }
    }
}

impl<T: Translate> Debug for Item<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.news.fmt(out)
    }
}

impl<'de, T: Translate> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let version = value.pointer("/metadata/resourceVersion");
        let version = version.and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            metadata: ObjectMeta {
                resource_version: version,
                ..ObjectMeta::default()
            },
            news: T::reduce(value),
            kind: PhantomData,
        })
    }
}

impl<T: Translate> Resource for Item<T> {
    type DynamicType = ();
    type Scope = <T::Object as Resource>::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        T::Object::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        T::Object::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        T::Object::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        T::Object::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
