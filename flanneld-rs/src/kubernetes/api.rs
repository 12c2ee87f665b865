//! The calls: Nodes listed in pages, watched, our own one read and patched. Each answer is waited for
//! 10 s at most.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

use super::{Node, NodeName, Settings, connect};
use crate::lease::store::Error;
use crate::metrics::Metrics;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Nodes in a page of a list: what is in memory at once, and a whole Node has several kilobytes.
const PAGE: u32 = 100;

/// Which Nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Our own.
    Own,
}

/// The API server's Nodes.
pub struct Nodes {
    settings: Settings,
    metrics: Arc<Metrics>,
    api: Api<Node>,
    server: String,
    own: String,
}

impl Nodes {
    /// Reads the settings and, where our Node is that of a Pod, asks for its name.
    pub async fn connect(settings: &Settings, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let (client, server) = connect::client(settings).await?;
        let own = match &settings.node {
            NodeName::Name(name) => name.clone(),
            NodeName::OfPod { namespace, name } => {
                let kind = GroupVersionKind::gvk("", "v1", "Pod");
                let kind = ApiResource::from_gvk(&kind);
                let pods = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind);
                let what = format!("get Pod {namespace}/{name} for its Node's name");
                let pod = timed(&metrics, &what, pods.get(name)).await?;
                let node = pod.data.pointer("/spec/nodeName").and_then(Value::as_str);
                let node = node.filter(|node| !node.is_empty());
                node.ok_or_else(|| anyhow::anyhow!("{what}: it has none"))?
                    .to_owned()
            }
        };
        Ok(Self {
            settings: settings.clone(),
            metrics,
            api: Api::all(client),
            server,
            own,
        })
    }

    /// Opens new connections from now on, with what the files say now: the ones in use may hang on an
    /// address that is gone, or come with a certificate that has expired.
    pub async fn reconnect(&mut self) {
        match connect::client(&self.settings).await {
            Ok((client, server)) => (self.api, self.server) = (Api::all(client), server),
            Err(error) => tracing::debug!("{error:#}; going on with what was read before"),
        }
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Our own Node's name.
    pub fn own_name(&self) -> &str {
        &self.own
    }

    /// Our own Node, and the server's revision.
    pub async fn own(&self) -> Result<(Option<Node>, String), Error> {
        let mut own = None;
        let revision = self.list(Scope::Own, |node| own = Some(node)).await?;
        Ok((own, revision))
    }

    /// Hands out every Node, and returns the revision to watch from.
    pub async fn list(&self, scope: Scope, mut each: impl FnMut(Node)) -> Result<String, Error> {
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector = self.selector(scope);
        loop {
            let page = timed(&self.metrics, "list Nodes", self.api.list(&params)).await?;
            let revision = page.metadata.resource_version;
            page.items.into_iter().for_each(&mut each);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(revision.unwrap_or_default()),
            }
        }
    }

    /// Follows every change after a revision.
    pub async fn watch(&self, scope: Scope, revision: &str) -> Result<Watch, Error> {
        let params = WatchParams {
            field_selector: self.selector(scope),
            bookmarks: true,
            ..WatchParams::default()
        };
        let opened = self.api.watch(&params, revision);
        let stream = timed(&self.metrics, "watch Nodes", opened).await?;
        Ok(Watch(Box::pin(stream)))
    }

    /// Patches our own Node's status, strategic merge; returns it as it then is.
    pub async fn patch_own(&self, patch: &Value) -> Result<Node, Error> {
        let params = PatchParams {
            field_manager: Some("flanneld".to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Strategic(patch);
        let what = format!("patch the status of Node {}", self.own);
        let sent = self.api.patch_status(&self.own, &params, &patch);
        timed(&self.metrics, &what, sent).await
    }

    fn selector(&self, scope: Scope) -> Option<String> {
        (scope == Scope::Own).then(|| format!("metadata.name={}", self.own))
    }
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A Node that is new or another than before.
    Set(Box<Node>),
    /// A Node that is gone, as it was last.
    Gone(Box<Node>),
    /// Nothing, up to this revision.
    Nothing(String),
}

/// A stream of changes.
pub struct Watch(Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Node>>> + Send>>);

impl Watch {
    /// Waits for the next change; `None` when the server has ended the watch, which it does every few
    /// minutes. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Change>, Error> {
        let told = match self.0.next().await {
            None => return Ok(None),
            Some(Ok(event)) => event,
            Some(Err(error)) => return Err(read_error("watch Nodes", &error)),
        };
        Ok(Some(match told {
            WatchEvent::Added(node) | WatchEvent::Modified(node) => Change::Set(Box::new(node)),
            WatchEvent::Deleted(node) => Change::Gone(Box::new(node)),
            WatchEvent::Bookmark(bookmark) => Change::Nothing(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => {
                return Err(read_error("watch Nodes", &kube::Error::Api(status)));
            }
        }))
    }
}

async fn timed<T>(
    metrics: &Metrics,
    what: &str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    let started = Instant::now();
    let result = match tokio::time::timeout(TIMEOUT, call).await {
        Ok(result) => result.map_err(|error| read_error(what, &error)),
        Err(_) => {
            let limit = TIMEOUT.as_secs();
            Err(Error::Unavailable(format!(
                "{what}: no answer in {limit} s"
            )))
        }
    };
    metrics.store_call(started.elapsed(), result.is_ok());
    result
}

/// What a failure means: 410 that we must list anew; any other refusal will be repeated as long as it is
/// asked the same; the rest may be over in a moment.
fn read_error(what: &str, error: &kube::Error) -> Error {
    let kube::Error::Api(status) = error else {
        return Error::Unavailable(format!("{what}: {}", chain(error)));
    };
    let text = format!("{what}: {}", status.message);
    match status.code {
        410 => Error::Compacted(text),
        429 | 500.. => Error::Unavailable(text),
        _ => Error::Refused(text),
    }
}

/// Each sentence of the chain that the ones before have not quoted.
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
