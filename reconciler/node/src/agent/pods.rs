//! The Pods of this node: a worker for each that the API names, and for each that only the runtime has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::wake::Wake;
use super::watching::{self, Outages};
use super::worker::{Input, Worker};
use super::{Context, spec, volumes};
use crate::runtime::{self, PodRef};

/// For what workers are doing when the agent ends.
const CLOSING: Duration = Duration::from_secs(5);

/// All workers.
pub struct Pods {
    context: Arc<Context>,
    network: Arc<Notify>,
    outages: Outages,
    handles: BTreeMap<String, Handle>,
    tasks: JoinSet<String>,
    /// Pods of a list that is not complete yet.
    fresh: Option<Vec<Pod>>,
    /// The API has told all Pods, and what only the runtime has is not looked at yet.
    look_for_strays: bool,
}

struct Handle {
    input: watch::Sender<Input>,
    wake: Arc<Wake>,
    done: bool,
}

impl Pods {
    /// None yet. `network` is rung when the runtime's readiness may have changed.
    pub fn new(context: Arc<Context>, network: Arc<Notify>, outages: Outages) -> Self {
        Self {
            context,
            network,
            outages,
            handles: BTreeMap::new(),
            tasks: JoinSet::new(),
            fresh: None,
            look_for_strays: false,
        }
    }

    /// Follows API and runtime.
    pub async fn run(&mut self) {
        let api: Api<Pod> = Api::all(self.context.client.clone());
        let fields = format!("spec.nodeName={}", self.context.config.node_name);
        let config = watcher::Config::default().fields(&fields);
        let (tell, mut told) = mpsc::unbounded_channel();
        let watch = watching::forever("pods", api, config, self.outages.clone(), move |event| {
            // The receiver lives as long as this.
            let _ = tell.send(event);
        });
        let mut watch = std::pin::pin!(watch);
        let mut events = self.context.runtime.events();
        let mut listening = true;
        loop {
            let retry = self.look_for_strays;
            tokio::select! {
                () = &mut watch => return,
                Some(event) = told.recv() => self.changed(event).await,
                event = events.recv(), if listening => match event {
                    Some(event) => self.happened(&event),
                    None => listening = false,
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(uid) => self.ended(&uid),
                    Err(error) => tracing::error!("a pod's worker failed: {error}"),
                },
                () = tokio::time::sleep(Duration::from_secs(1)), if retry => self.adopt_strays().await,
            }
        }
    }

    /// Waits a little for what workers are doing. The context says that they are to end.
    pub async fn close(&mut self) {
        for handle in self.handles.values() {
            handle.wake.ring();
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSING, all).await.is_err() {
            tracing::warn!(
                "{} pods were still at work when the agent ended",
                self.tasks.len()
            );
        }
    }

    async fn changed(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.fresh = Some(Vec::new()),
            Event::InitApply(pod) => self.fresh.get_or_insert_default().push(pod),
            Event::InitDone => {
                let fresh = self.fresh.take().unwrap_or_default();
                let uids: BTreeSet<String> = fresh
                    .iter()
                    .filter_map(|pod| pod.metadata.uid.clone())
                    .collect();
                for (uid, handle) in &self.handles {
                    if !uids.contains(uid) {
                        handle.input.send_modify(|input| input.gone = true);
                    }
                }
                self.handles
                    .retain(|uid, handle| uids.contains(uid) || !handle.done);
                for pod in fresh {
                    self.apply(pod);
                }
                self.look_for_strays = true;
                self.adopt_strays().await;
            }
            Event::Apply(pod) => self.apply(pod),
            Event::Delete(pod) => {
                let Some(uid) = pod.metadata.uid.clone() else {
                    return;
                };
                let Some(handle) = self.handles.get(&uid) else {
                    return;
                };
                if handle.done {
                    self.handles.remove(&uid);
                    return;
                }
                handle.input.send_replace(Input {
                    pod: Some(Arc::new(pod)),
                    gone: true,
                });
            }
        }
    }

    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let reference = spec::reference(&pod);
        let input = Input {
            pod: Some(Arc::new(pod)),
            gone: false,
        };
        match self.handles.get(&uid) {
            Some(handle) => {
                handle.input.send_replace(input);
            }
            None => self.begin(reference, input),
        }
    }

    fn begin(&mut self, pod: PodRef, input: Input) {
        let uid = pod.uid.clone();
        let (sender, receiver) = watch::channel(input);
        let wake = Arc::new(Wake::default());
        let worker = match Worker::new(self.context.clone(), pod, receiver, wake.clone()) {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!("pod {uid}: {error}");
                return;
            }
        };
        self.tasks.spawn({
            let uid = uid.clone();
            async move {
                worker.run().await;
                uid
            }
        });
        let handle = Handle {
            input: sender,
            wake,
            done: false,
        };
        self.handles.insert(uid, handle);
    }

    fn ended(&mut self, uid: &str) {
        let Some(handle) = self.handles.get_mut(uid) else {
            return;
        };
        handle.done = true;
        if handle.input.borrow().gone {
            self.handles.remove(uid);
        }
    }

    /// Stops what the API does not name any more.
    async fn adopt_strays(&mut self) {
        let runtime = self.context.runtime.clone();
        let (sandboxes, containers) = match (runtime.sandboxes().await, runtime.containers().await)
        {
            (Ok(sandboxes), Ok(containers)) => (sandboxes, containers),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!("list what runs: {error}");
                return;
            }
        };
        self.look_for_strays = false;
        let mut found: BTreeMap<String, PodRef> = sandboxes
            .into_iter()
            .map(|sandbox| sandbox.config.pod)
            .chain(containers.into_iter().map(|container| container.pod))
            .map(|pod| (pod.uid.clone(), pod))
            .collect();
        for uid in volumes::present(&self.context.config.data) {
            let pod = PodRef {
                uid: uid.clone(),
                ..PodRef::default()
            };
            found.entry(uid).or_insert(pod);
        }
        for (uid, pod) in found {
            if self.handles.contains_key(&uid) {
                continue;
            }
            tracing::info!(
                "pod {}/{} ({uid}) is no more in the API: it is stopped",
                pod.namespace,
                pod.name
            );
            self.begin(
                pod,
                Input {
                    pod: None,
                    gone: true,
                },
            );
        }
    }

    fn happened(&self, event: &runtime::Event) {
        match event {
            runtime::Event::Container(pod) | runtime::Event::Sandbox(pod) => {
                if let Some(handle) = self.handles.get(&pod.uid) {
                    handle.wake.ring();
                }
            }
            runtime::Event::Ready => {
                self.network.notify_one();
                for handle in self.handles.values() {
                    handle.wake.ring_to_retry();
                }
            }
        }
    }
}
