//! Events, as `kubectl describe` and `kubectl get events` show them: written behind the controllers' backs, so that
//! an event never makes a controller wait or fail.
//!
//! An event equal to an earlier one (same object, reason, message, type and source) raises the earlier one's count.
//! When more than ten events of an object and reason that differ in their message come within ten minutes, the rest
//! is counted in one that says so, as client-go does. Events that cannot be written within [`ATTEMPTS`] are dropped
//! with a line in the log.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

/// Events that wait to be written; more are dropped.
const WAITING: usize = 4096;
/// How often one event is tried.
const ATTEMPTS: u32 = 6;
/// Events that differ in their message alone before they are counted in one.
const SIMILAR: usize = 10;
/// How long similar events are counted together.
const SIMILAR_FOR: Duration = Duration::from_secs(600);
/// How many earlier events are remembered.
const REMEMBERED: usize = 4096;

/// Takes events. Clones share one writer.
#[derive(Clone)]
pub struct Recorder {
    sender: Sender<News>,
}

/// Whether an event tells of the ordinary or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// `Normal`
    Normal,
    /// `Warning`
    Warning,
}

struct News {
    about: ObjectReference,
    source: &'static str,
    severity: Severity,
    reason: String,
    message: String,
    /// What was being done, of an event in the newer form.
    action: Option<&'static str>,
    at: Timestamp,
}

impl Recorder {
    /// Starts the writer as a task of `tasks`.
    pub fn start(client: Client, tasks: &mut JoinSet<()>) -> Self {
        let (sender, receiver) = channel(WAITING);
        tasks.spawn(write_all(client, receiver));
        Self { sender }
    }

    /// Writes a `Normal` event about `object`; `source` is the component that `kubectl describe` shows as "From".
    pub fn normal<K: Resource<DynamicType = ()>>(
        &self,
        source: &'static str,
        object: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record(
            source,
            object.object_ref(&()),
            Severity::Normal,
            reason,
            message.into(),
        );
    }

    /// Writes a `Warning` event about `object`.
    pub fn warning<K: Resource<DynamicType = ()>>(
        &self,
        source: &'static str,
        object: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record(
            source,
            object.object_ref(&()),
            Severity::Warning,
            reason,
            message.into(),
        );
    }

    /// Writes an event about an object that is only known by reference (a Node of which the uid is its name, say).
    pub fn record(
        &self,
        source: &'static str,
        about: ObjectReference,
        severity: Severity,
        reason: &str,
        message: String,
    ) {
        self.send(News {
            about,
            source,
            severity,
            reason: reason.to_owned(),
            message,
            action: None,
            at: Timestamp::now(),
        });
    }

    /// Writes an event in the newer form, as the scheduler does: it tells what was being done (`Binding`), its time is
    /// exact, and equal ones are a series.
    pub fn action<K: Resource<DynamicType = ()>>(
        &self,
        source: &'static str,
        object: &K,
        severity: Severity,
        (action, reason): (&'static str, &str),
        message: impl Into<String>,
    ) {
        self.send(News {
            about: object.object_ref(&()),
            source,
            severity,
            reason: reason.to_owned(),
            message: message.into(),
            action: Some(action),
            at: Timestamp::now(),
        });
    }

    fn send(&self, news: News) {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let about = format!("{} {}", text(&news.about.kind), text(&news.about.name));
        let reason = news.reason.clone();
        if self.sender.try_send(news).is_err() {
            tracing::warn!("write event {reason} of {about}: too many events wait");
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    name: String,
    source: &'static str,
    reason: String,
    message: String,
    warning: bool,
}

#[derive(Default)]
struct Memory {
    written: HashMap<Key, (String, i32)>,
    similar: HashMap<Key, (BTreeSet<String>, Timestamp)>,
}

impl Memory {
    /// The event's key, its message made general when there have been too many of its like.
    fn key(&mut self, news: &News) -> Key {
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        if self.similar.len() >= REMEMBERED {
            self.similar.clear();
        }
        let group = Key {
            uid: news.about.uid.clone().unwrap_or_default(),
            name: news.about.name.clone().unwrap_or_default(),
            source: news.source,
            reason: news.reason.clone(),
            message: String::new(),
            warning: news.severity == Severity::Warning,
        };
        let (messages, last) = self
            .similar
            .entry(group.clone())
            .or_insert_with(|| (BTreeSet::new(), news.at));
        if news.at.duration_since(*last).unsigned_abs() > SIMILAR_FOR {
            messages.clear();
        }
        *last = news.at;
        if messages.len() < SIMILAR || messages.contains(&news.message) {
            messages.insert(news.message.clone());
            return Key {
                message: news.message.clone(),
                ..group
            };
        }
        group
    }
}

async fn write_all(client: Client, mut receiver: Receiver<News>) {
    let mut memory = Memory::default();
    while let Some(news) = receiver.recv().await {
        let key = memory.key(&news);
        let mut pause = Duration::from_millis(100);
        for attempt in 1..=ATTEMPTS {
            match write(&client, &mut memory, &key, &news).await {
                Ok(()) => break,
                // The namespace is being deleted, or the event is refused: trying again changes nothing.
                Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                    tracing::debug!(
                        "write event {} of {}: {}",
                        news.reason,
                        key.name,
                        status.message
                    );
                    break;
                }
                Err(error) if attempt == ATTEMPTS => {
                    tracing::warn!("write event {} of {}: {error}", news.reason, key.name)
                }
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }
}

/// Raises the count of the equal event of before, or makes a new one when there is none (any more).
async fn write(client: &Client, memory: &mut Memory, key: &Key, news: &News) -> kube::Result<()> {
    let namespace = news
        .about
        .namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or("default");
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    let message = if key.message.is_empty() && !news.message.is_empty() {
        format!("(combined from similar events): {}", news.message)
    } else {
        news.message.clone()
    };
    if let Some((name, count)) = memory.written.get_mut(key) {
        let raised = *count + 1;
        let patch = match news.action {
            Some(_) => {
                serde_json::json!({"series": {"count": raised, "lastObservedTime": MicroTime(news.at)}})
            }
            None => {
                serde_json::json!({"count": raised, "message": message, "lastTimestamp": seconds(news.at)})
            }
        };
        match events
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => {
                *count = raised;
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let event = new_event(news, namespace, message);
    let written = events.create(&PostParams::default(), &event).await?;
    memory
        .written
        .insert(key.clone(), (written.metadata.name.unwrap_or_default(), 1));
    Ok(())
}

fn new_event(news: &News, namespace: &str, message: String) -> Event {
    let name = news.about.name.as_deref().unwrap_or_default();
    let event = Event {
        metadata: ObjectMeta {
            // The end tells apart events of one object in one nanosecond of two processes.
            name: Some(format!(
                "{name}.{:x}{:02x}",
                news.at.as_nanosecond(),
                fastrand::u8(..)
            )),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: news.about.clone(),
        reason: Some(news.reason.clone()),
        message: Some(message),
        type_: Some(
            if news.severity == Severity::Warning {
                "Warning"
            } else {
                "Normal"
            }
            .into(),
        ),
        count: Some(1),
        first_timestamp: Some(seconds(news.at)),
        last_timestamp: Some(seconds(news.at)),
        source: Some(EventSource {
            component: Some(news.source.into()),
            host: None,
        }),
        reporting_component: Some(news.source.into()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    };
    let Some(action) = news.action else {
        return event;
    };
    Event {
        action: Some(action.to_owned()),
        event_time: Some(MicroTime(news.at)),
        reporting_instance: Some(news.source.into()),
        source: None,
        count: None,
        first_timestamp: None,
        last_timestamp: None,
        ..event
    }
}

/// Kubernetes writes these times in whole seconds.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(message: &str, at: i64) -> News {
        News {
            about: ObjectReference {
                name: Some("web".into()),
                uid: Some("u".into()),
                ..ObjectReference::default()
            },
            source: "replicaset-controller",
            severity: Severity::Normal,
            reason: "SuccessfulCreate".into(),
            message: message.into(),
            action: None,
            at: Timestamp::from_second(at).unwrap(),
        }
    }

    #[test]
    fn equal_events_are_one_and_the_eleventh_similar_one_is_combined() {
        let mut memory = Memory::default();
        let keys: Vec<Key> = (0..12)
            .map(|n| memory.key(&news(&format!("Created pod: web-{n}"), 100 + n)))
            .collect();
        assert_eq!(keys[9].message, "Created pod: web-9");
        assert_eq!(
            (keys[10].message.as_str(), keys[11].message.as_str()),
            ("", "")
        );
        assert_eq!(
            memory.key(&news("Created pod: web-3", 200)).message,
            "Created pod: web-3",
            "known already"
        );
        assert_eq!(
            memory.key(&news("Created pod: web-30", 900)).message,
            "Created pod: web-30",
            "ten quiet minutes later"
        );
    }

    #[test]
    fn an_event_is_written_as_kubernetes_writes_it() {
        let event = new_event(
            &news("Created pod: web-0", 1_795_000_000),
            "demo",
            "Created pod: web-0".into(),
        );
        let mut value = serde_json::to_value(&event).unwrap();
        let name = value["metadata"]["name"].take();
        assert!(name.as_str().unwrap().starts_with("web.18e9"), "{name}");
        assert_eq!(
            value,
            serde_json::json!({
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"name": null, "namespace": "demo"},
                "involvedObject": {"name": "web", "uid": "u"},
                "reason": "SuccessfulCreate", "message": "Created pod: web-0", "type": "Normal", "count": 1,
                "firstTimestamp": "2026-11-18T11:06:40Z", "lastTimestamp": "2026-11-18T11:06:40Z",
                "source": {"component": "replicaset-controller"},
                "reportingComponent": "replicaset-controller", "reportingInstance": ""
            })
        );
    }

    #[test]
    fn an_action_is_written_as_the_scheduler_writes_it() {
        let mut news = news("Successfully assigned demo/web to n1", 1_795_000_000);
        news.action = Some("Binding");
        news.source = "default-scheduler";
        let event = new_event(&news, "demo", news.message.clone());
        let value = serde_json::to_value(&event).unwrap();
        assert_eq!(value["action"], "Binding");
        assert_eq!(value["eventTime"], "2026-11-18T11:06:40.000000Z");
        assert_eq!(value["reportingComponent"], "default-scheduler");
        for none in ["count", "firstTimestamp", "lastTimestamp", "source"] {
            assert!(value.get(none).is_none(), "{none}");
        }
    }
}
