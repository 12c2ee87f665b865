//! Events of this node and its Pods, as `kubectl describe` shows them: what happens again is counted in one object.
//!
//! They are sent one after another, behind what matters more; when the server is away for long, or too many come at
//! once, some are lost and a log line says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use super::spec::{self, Role};
use super::within;

/// Those that wait to be sent.
const QUEUE: usize = 2048;
/// Those that are remembered to be counted.
const REMEMBERED: usize = 512;
const TRIES: u32 = 5;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Takes events. Never waits.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Told>,
}

struct Told {
    subject: ObjectReference,
    kind: Kind,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// A recorder, and what sends its events until it is dropped.
    pub fn new(client: Client, node: Arc<str>) -> (Self, impl Future<Output = ()>) {
        let (queue, told) = mpsc::channel(QUEUE);
        (Self { queue }, send_all(client, node, told))
    }

    /// Of a Pod, or of a container in it.
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: Kind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let field =
            container
                .and_then(|name| spec::container(pod, name))
                .map(|(role, container)| {
                    let list = match role {
                        Role::Regular => "containers",
                        Role::Init | Role::Sidecar => "initContainers",
                    };
                    format!("spec.{list}{{{}}}", container.name)
                });
        self.tell(
            ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                resource_version: pod.metadata.resource_version.clone(),
                field_path: field,
            },
            kind,
            reason,
            message.into(),
        );
    }

    /// Of this node.
    pub fn node(&self, name: &str, kind: Kind, reason: &'static str, message: impl Into<String>) {
        self.tell(
            ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(name.to_owned()),
                uid: Some(name.to_owned()),
                ..ObjectReference::default()
            },
            kind,
            reason,
            message.into(),
        );
    }

    fn tell(&self, subject: ObjectReference, kind: Kind, reason: &'static str, message: String) {
        let told = Told {
            subject,
            kind,
            reason,
            message,
            at: Timestamp::now(),
        };
        if let Err(error) = self.queue.try_send(told) {
            let (mpsc::error::TrySendError::Full(told) | mpsc::error::TrySendError::Closed(told)) =
                error;
            tracing::warn!(
                "event {} is lost, too many wait: {}",
                told.reason,
                told.message
            );
        }
    }
}

/// What is the same when it happens again.
type Key = (
    Option<String>,
    Option<String>,
    Option<String>,
    &'static str,
    String,
);

#[derive(Default)]
struct Sent {
    known: BTreeMap<Key, (String, i32)>,
    order: VecDeque<Key>,
}

async fn send_all(client: Client, node: Arc<str>, mut queue: mpsc::Receiver<Told>) {
    let mut sent = Sent::default();
    while let Some(told) = queue.recv().await {
        let mut pause = Duration::from_millis(500);
        for attempt in 1..=TRIES {
            match send(&client, &node, &told, &mut sent).await {
                Ok(()) => break,
                // The namespace is going, or the object is not acceptable: again would not help.
                Err(kube::Error::Api(status))
                    if (400..500).contains(&status.code) && status.code != 429 =>
                {
                    tracing::debug!("event {} is not taken: {}", told.reason, status.message);
                    break;
                }
                Err(error) if attempt == TRIES => {
                    tracing::warn!(
                        "event {} is lost: {}",
                        told.reason,
                        super::watching::chain(&error)
                    );
                }
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }
}

async fn send(client: &Client, node: &str, told: &Told, sent: &mut Sent) -> kube::Result<()> {
    let subject = &told.subject;
    let namespace = subject.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let key: Key = (
        subject.uid.clone(),
        subject.name.clone(),
        subject.field_path.clone(),
        told.reason,
        told.message.clone(),
    );
    let at = spec::time(told.at);
    if let Some((name, count)) = sent.known.get_mut(&key) {
        let patch = json!({"count": *count + 1, "lastTimestamp": at});
        match within(api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).await {
            Ok(_) => {
                *count += 1;
                return Ok(());
            }
            // It has expired: a new one is made.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let about = subject.name.as_deref().unwrap_or("node");
    let suffix = format!("{:x}", told.at.as_nanosecond());
    let name = format!(
        "{}.{suffix}",
        about
            .get(..about.len().min(250 - suffix.len()))
            .unwrap_or("event")
    );
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: subject.clone(),
        type_: Some(match told.kind {
            Kind::Normal => "Normal".to_owned(),
            Kind::Warning => "Warning".to_owned(),
        }),
        reason: Some(told.reason.to_owned()),
        message: Some(told.message.chars().take(1024).collect()),
        source: Some(EventSource {
            component: Some("kubelet".to_owned()),
            host: Some(node.to_owned()),
        }),
        first_timestamp: Some(at.clone()),
        last_timestamp: Some(at),
        count: Some(1),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    };
    within(api.create(&PostParams::default(), &event)).await?;
    if sent.known.insert(key.clone(), (name, 1)).is_none() {
        sent.order.push_back(key);
    }
    while sent.order.len() > REMEMBERED {
        if let Some(old) = sent.order.pop_front() {
            sent.known.remove(&old);
        }
    }
    Ok(())
}
