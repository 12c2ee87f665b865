//! Watches that never end: after an error they begin again, soon and without flooding; after an outage they are made
//! anew, since a connection cut in between may look alive for minutes.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(3);
/// At most so often does a log line say that the server is away.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Counts outages that have ended; whoever watches begins anew with each.
pub type Outages = watch::Receiver<u64>;

/// Hands every event of a watch to `take`. Ends only when it is dropped.
pub async fn forever<K>(
    what: &str,
    api: Api<K>,
    config: watcher::Config,
    mut outages: Outages,
    mut take: impl FnMut(Event<K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut pause = SHORTEST;
    let mut said: Option<Instant> = None;
    loop {
        let stream = watcher::watcher(api.clone(), config.clone());
        let mut stream = std::pin::pin!(stream);
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                changed = outages.changed() => match changed {
                    Ok(()) => break,
                    // Nobody counts any more.
                    Err(_) => stream.next().await,
                },
            };
            match event {
                Some(Ok(event)) => {
                    pause = SHORTEST;
                    take(event);
                }
                Some(Err(error)) => {
                    if said.is_none_or(|at| at.elapsed() > SAY_EVERY) {
                        tracing::warn!("watch {what}: {}", chain(&error));
                        said = Some(Instant::now());
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST);
                }
                None => break,
            }
        }
    }
}

/// An error with its causes, each once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
