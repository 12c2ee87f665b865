//! Objects from a Kubernetes API server, each kind listed and watched.
//!
//! While the server is away, or lists anew, nothing that was said is taken back. Objects are reduced while they are
//! decoded, one by one: of a page of large ones only what matters is ever in memory.

mod item;
#[cfg(test)]
mod tests;
mod translate;
mod trouble;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures_util::{FutureExt, StreamExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Config, Resource};
use tokio::time::{Instant, sleep};

use crate::{Consumer, Events};
use trouble::Trouble;

pub use item::Item;
pub use translate::{Objects, Received, Translate, Watched};

/// The server sends a bookmark every minute: a connection that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(150);
/// How long to leave a server alone that has none of an optional kind, or does not let us see them.
const WITHOUT: Duration = Duration::from_secs(600);
/// Events in a batch.
const BATCH: usize = 500;

/// An API server, and who reads its objects.
#[derive(Clone)]
pub struct Kube<C> {
    server: Server,
    consumer: C,
}

impl<C: Consumer> Kube<C> {
    /// As [`Server::new`]; the server is not asked yet.
    pub async fn new(
        kubeconfig: Option<&Path>,
        master: Option<&str>,
        consumer: C,
    ) -> anyhow::Result<Self> {
        let server = Server::new(kubeconfig, master).await?;
        Ok(Self { server, consumer })
    }

    /// The server's URL, for the log.
    pub fn server(&self) -> &str {
        &self.server.url
    }

    /// Sends news of the server until nobody listens.
    pub async fn run(self, events: Events<C::Event>) {
        tokio::select! {
            () = self.consumer.watch(&self.server, &events) => {}
            () = events.closed() => {}
        }
    }
}

/// An API server and how to get there.
#[derive(Clone)]
pub struct Server {
    client: Client,
    url: String,
}

impl Server {
    /// Reads the settings; the server is not asked yet. With `kubeconfig` its current context
    /// counts; without, the account of the Pod that this runs in; `master` (a URL) replaces the
    /// server of either, and alone it stands for a server that asks for no account.
    pub async fn new(kubeconfig: Option<&Path>, master: Option<&str>) -> anyhow::Result<Self> {
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
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config);
        let client = client.with_context(|| format!("prepare a client of {url}"))?;
        Ok(Self { client, url })
    }

    /// Watches one kind until nobody listens.
    pub async fn watch<T: Translate>(&self, config: watcher::Config, events: &Events<T::Event>) {
        let api: Api<Item<T>> = Api::all(self.client.clone());
        let mut translate = T::default();
        let what = format!("watch {} at {}", T::Object::plural(&()), self.url);
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
                if T::OPTIONAL && trouble::is_absent(&error) {
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
