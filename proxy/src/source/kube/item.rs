//! An object as the server sends it, reduced while it is decoded. Whatever it is, decoding succeeds:
//! one bad object must not lose a list.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::model::{Kind, ObjectName};
use crate::objects::{self, Reduced, Unusable};

/// A kind of object on the wire.
pub(super) trait Wire: Resource<DynamicType = ()> + Send + Sync + 'static {
    /// What is kept of it.
    type News: Clone + Debug + Send + Sync;
    /// A server may do without.
    const OPTIONAL: bool = false;
    fn reduce(value: Value) -> Self::News;
}

impl Wire for Service {
    type News = Result<Reduced, Unusable>;
    fn reduce(value: Value) -> Self::News {
        objects::parse(Kind::Services, value)
    }
}

impl Wire for EndpointSlice {
    type News = Result<Reduced, Unusable>;
    fn reduce(value: Value) -> Self::News {
        objects::parse(Kind::Slices, value)
    }
}

impl Wire for Node {
    type News = Result<Reduced, Unusable>;
    fn reduce(value: Value) -> Self::News {
        objects::parse(Kind::Node, value)
    }
}

impl Wire for ServiceCIDR {
    /// Networks, and texts that are none.
    type News = (Vec<IpNet>, Vec<String>);
    const OPTIONAL: bool = true;
    fn reduce(value: Value) -> Self::News {
        let texts = value.pointer("/spec/cidrs").and_then(Value::as_array);
        let mut news = (Vec::new(), Vec::new());
        for text in texts.into_iter().flatten() {
            match objects::parse_net(text.as_str().unwrap_or_default()) {
                Ok(net) => news.0.push(net),
                Err(cause) => news.1.push(format!("spec.cidrs: {cause}")),
            }
        }
        news
    }
}

/// A reduced object with what the watch itself needs to know of it.
pub(super) struct Item<K: Wire> {
    /// Its resource version alone.
    metadata: ObjectMeta,
    /// Namespace (`default` if it has none) and name.
    pub(super) name: Option<ObjectName>,
    pub(super) news: K::News,
    kind: PhantomData<fn() -> K>,
}

impl<K: Wire> Clone for Item<K> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            name: self.name.clone(),
            news: self.news.clone(),
            kind: PhantomData,
        }
    }
}

impl<K: Wire> Debug for Item<K> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.news.fmt(out)
    }
}

impl<'de, K: Wire> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let version = value.pointer("/metadata/resourceVersion");
        let version = version.and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            metadata: ObjectMeta {
                resource_version: version,
                ..ObjectMeta::default()
            },
            name: objects::name_of(&value),
            news: K::reduce(value),
            kind: PhantomData,
        })
    }
}

impl<K: Wire> Resource for Item<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
