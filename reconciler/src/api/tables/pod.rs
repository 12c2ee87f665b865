//! Pods: how many containers are ready, what the Pod is doing in one word, how often it was restarted.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::object::{at, deleting, list, number, text};
use super::age;
use super::cells::NONE;

/// What the containers' statuses amount to.
#[derive(Default)]
struct Sum {
    ready: usize,
    /// Saturates: the counts come from outside.
    restarts: i64,
    restarted: Option<Timestamp>,
}

impl Sum {
    fn restart(&mut self, container: &Value) {
        let count = number(container, &["restartCount"]).unwrap_or(0);
        self.restarts = self.restarts.saturating_add(count);
        let ended = at(container, &["lastState", "terminated", "finishedAt"]);
        self.restarted = self.restarted.max(age::time(ended));
    }
}

fn is(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool) == Some(true)
}

/// A state that a container is in: `terminated`, `waiting`, `running`.
fn state<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    at(container, &["state", name]).filter(|state| !state.is_null())
}

/// Why a container ended: the given reason, or its signal or exit code.
fn ending(terminated: &Value) -> String {
    match text(terminated, &["reason"]) {
        "" => match number(terminated, &["signal"]).unwrap_or(0) {
            0 => format!(
                "ExitCode:{}",
                number(terminated, &["exitCode"]).unwrap_or(0)
            ),
            signal => format!("Signal:{signal}"),
        },
        reason => reason.to_owned(),
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list(pod, &["status", "conditions"])
        .iter()
        .find(|condition| text(condition, &["type"]) == kind)
}

fn holds(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| text(condition, &["status"]) == "True")
}

/// An init container that goes on running beside the others.
fn stays(container: &Value) -> bool {
    text(container, &["restartPolicy"]) == "Always"
}

/// Three cells: `1/2`, `Running`, `3 (5m1s ago)`.
pub fn summary(pod: &Value, now: Timestamp, out: &mut Vec<Value>) {
    let containers = list(pod, &["spec", "containers"]);
    let staying = list(pod, &["spec", "initContainers"])
        .iter()
        .filter(|one| stays(one))
        .count();
    let (sum, word) = state_of(pod);
    let restarts = match sum.restarted.filter(|_| sum.restarts != 0) {
        Some(time) => format!(
            "{} ({} ago)",
            sum.restarts,
            age::human(now.duration_since(time))
        ),
        None => sum.restarts.to_string(),
    };
    out.extend([
        format!("{}/{}", sum.ready, containers.len() + staying).into(),
        word.into(),
        restarts.into(),
    ]);
}

fn state_of(pod: &Value) -> (Sum, String) {
    let phase = text(pod, &["status", "phase"]);
    let reason = text(pod, &["status", "reason"]);
    let gated = condition(pod, "PodScheduled")
        .is_some_and(|condition| text(condition, &["reason"]) == "SchedulingGated");
    let given = match reason {
        _ if gated => "SchedulingGated",
        "" => phase,
        reason => reason,
    };
    let (mut sum, beside, initializing) = initialization(pod);
    let mut word = initializing.clone().unwrap_or_else(|| given.to_owned());
    if initializing.is_none() || holds(pod, "Initialized") {
        // Restarts of what is over are no longer of interest.
        sum.restarts = beside.restarts;
        sum.restarted = beside.restarted;
        word = main_containers(pod, &mut sum, word);
    }
    if deleting(pod) {
        if reason == "NodeLost" {
            word = "Unknown".to_owned();
        } else if !["Succeeded", "Failed"].contains(&phase) {
            word = "Terminating".to_owned();
        }
    }
    (sum, word)
}

/// Init containers: their sum, that of those that go on running, and a word if they are not done.
fn initialization(pod: &Value) -> (Sum, Sum, Option<String>) {
    let specs = list(pod, &["spec", "initContainers"]);
    let (mut sum, mut beside) = (Sum::default(), Sum::default());
    for (index, container) in list(pod, &["status", "initContainerStatuses"])
        .iter()
        .enumerate()
    {
        let name = text(container, &["name"]);
        let stays = specs
            .iter()
            .any(|spec| text(spec, &["name"]) == name && stays(spec));
        sum.restart(container);
        if stays {
            beside.restart(container);
        }
        let terminated = state(container, "terminated");
        let waiting = state(container, "waiting").map_or("", |waiting| text(waiting, &["reason"]));
        let word = match terminated {
            Some(ended) if number(ended, &["exitCode"]).unwrap_or(0) == 0 => continue,
            _ if stays && is(container, &["started"]) => {
                sum.ready += usize::from(is(container, &["ready"]));
                continue;
            }
            Some(ended) => ending(ended),
            None if !["", "PodInitializing"].contains(&waiting) => waiting.to_owned(),
            None => format!("{index}/{}", specs.len()),
        };
        return (sum, beside, Some(format!("Init:{word}")));
    }
    (sum, beside, None)
}

/// The other containers: the first one that does not run gives the word.
fn main_containers(pod: &Value, sum: &mut Sum, mut word: String) -> String {
    let mut running = false;
    for container in list(pod, &["status", "containerStatuses"]).iter().rev() {
        sum.restart(container);
        let waiting = state(container, "waiting").map_or("", |waiting| text(waiting, &["reason"]));
        if !waiting.is_empty() {
            word = waiting.to_owned();
        } else if let Some(terminated) = state(container, "terminated") {
            word = ending(terminated);
        } else if is(container, &["ready"]) && state(container, "running").is_some() {
            running = true;
            sum.ready += 1;
        }
    }
    if word == "Completed" && running {
        word = match holds(pod, "Ready") {
            true => "Running",
            false => "NotReady",
        }
        .to_owned();
    }
    word
}

/// The Pod's first address.
pub fn address(pod: &Value) -> String {
    let first = list(pod, &["status", "podIPs"]).first();
    let first = first.map_or_else(|| text(pod, &["status", "podIP"]), |ip| text(ip, &["ip"]));
    match first {
        "" => NONE.to_owned(),
        address => address.to_owned(),
    }
}

/// `1/2`: how many readiness gates are open.
pub fn gates(pod: &Value) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| holds(pod, text(gate, &["conditionType"])));
    format!("{}/{}", open.count(), gates.len())
}

/// A Pod that has ended says so in its row, as clients hide or mark such rows.
pub fn conditions(kind: &Kind, object: &Value) -> Option<Value> {
    if kind.plural != "pods" {
        return None;
    }
    let (reason, message) = match text(object, &["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}
