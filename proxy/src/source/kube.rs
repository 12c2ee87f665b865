//! Objects from a Kubernetes API server: Services, EndpointSlices, the own Node and, where the
//! server has them, ServiceCIDRs, each listed and watched.
//!
//! While the server is away, or lists anew, nothing that was said is taken back; see
//! [`crate::model::Event`]. Objects are reduced while they are decoded, one by one: of a page of
//! large slices only what matters is ever in memory.

mod item;
#[cfg(test)]
mod tests;
mod translate;
mod trouble;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Config};
use tokio::time::{Instant, sleep};

use super::Events;
use crate::model::Kind;
use item::{Item, Wire};
use translate::{Cidrs, Objects, Translate};
use trouble::Trouble;

/// The server sends a bookmark every minute: a connection that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(150);
/// How long to leave a server alone that has no ServiceCIDRs, or does not let us see them.
const WITHOUT: Duration = Duration::from_secs(600);
/// Objects in a page of a list.
const PAGE: u32 = 500;
/// Events in a batch.
const BATCH: usize = 500;

/// An API server and how to get there.
#[derive(Clone)]
pub struct Kube {
    client: Client,
    server: String,
    node: Arc<str>,
}

impl Kube {
    /// Reads the settings; the server is not asked yet. With `kubeconfig` its current context
    /// counts; without, the account of the Pod that this runs in; `master` (a URL) replaces the
    /// server of either, and alone it stands for a server that asks for no account. `node` is the
    /// own node's name.
    pub async fn new(
        kubeconfig: Option<&Path>,
        master: Option<&str>,
        node: Arc<str>,
    ) -> anyhow::Result<Self> {
        let master = master.filter(|url| !url.is_empty());
        let mut config = match (kubeconfig, master) {
            (Some(path), _) => {
                let shown = path.display();
                let file = Kubeconfig::read_from(path);
                let file = file.with_context(|| format!("read kubeconfig {shown}"))?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(file, &options).await;
                config.with_context(|| format!("use kubeconfig {shown}"))?
            }
            (None, Some(_)) => Config::new(Default::default()),
            (None, None) => Config::incluster().context(
                "find the API server's address and account in the Pod; outside of a Pod give --kubeconfig",
            )?,
        };
        if let Some(url) = master {
            let read = url.parse();
            config.cluster_url = read.with_context(|| format!("read --master {url:?}"))?;
        }
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config);
        let client = client.with_context(|| format!("prepare a client of {server}"))?;
        Ok(Self {
            client,
            server,
            node,
        })
    }

    /// The server's URL, for the log.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// A client of the same server, for other uses (events, say).
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Sends news of the server until nobody listens.
    pub async fn run(self, events: Events) {
        let config = watcher::Config::default().page_size(PAGE);
        let services = config
            .clone()
            .fields("spec.clusterIP!=None")
            .labels("!service.kubernetes.io/service-proxy-name");
        let slices = config.clone().labels("!service.kubernetes.io/headless");
        let node = config
            .clone()
            .fields(&format!("metadata.name={}", self.node));
        let all = async {
            tokio::join!(
                self.watch::<Service>(services, Objects::new(Kind::Services), &events),
                self.watch::<EndpointSlice>(slices, Objects::new(Kind::Slices), &events),
                self.watch::<Node>(node, Objects::new(Kind::Node), &events),
                self.watch::<ServiceCIDR>(config, Cidrs::default(), &events),
            )
        };
        tokio::select! {
            _ = all => {}
            () = events.closed() => {}
        }
    }

    /// Watches one kind until nobody listens.
    async fn watch<K: Wire>(
        &self,
        config: watcher::Config,
        mut translate: impl Translate<K>,
        events: &Events,
    ) {
        let api: Api<Item<K>> = Api::all(self.client.clone());
        let what = format!("watch {} at {}", K::plural(&()), self.server);
        let mut trouble = Trouble::new(what);
        loop {
            // Begins with a list.
            let mut stream = Box::pin(watcher(api.clone(), config.clone()));
            while let Some(first) = stream.next().await {
                let mut batch = Vec::new();
                let mut failure = None;
                let mut next = Some(first);
                while let Some(step) = next.take() {
                    match step {
                        Ok(event) => {
                            // A list that begins has not succeeded.
                            if !matches!(event, watcher::Event::Init) {
                                trouble.is_over();
                            }
                            batch.extend(translate.translate(event));
                        }
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    }
                    if batch.len() < BATCH {
                        // What is there already; the stream keeps its place if nothing is.
                        next = stream.next().now_or_never().flatten();
                    }
                }
                if !batch.is_empty() && events.send(batch).await.is_err() {
                    return;
                }
                let Some(error) = failure else {
                    continue;
                };
                if K::OPTIONAL && trouble::is_absent(&error) {
                    trouble.is_absent(&error);
                    sleep(WITHOUT).await;
                    break;
                }
                sleep(trouble.begins(&error, Instant::now())).await;
                if trouble::is_expired(&error) {
                    break;
                }
            }
        }
    }
}
