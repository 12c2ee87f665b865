//! What stands in the columns: a row per kind.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::object::{at, deleting, number, text};
use super::{age, event, network, node, pod, storage, workload};

/// How one cell, or a few in a row, are made.
enum Cell {
    /// The string at a path.
    Text(&'static [&'static str]),
    /// The string at a path, or this if it is absent or empty.
    Or(&'static [&'static str], &'static str),
    /// The integer at a path, or 0.
    Int(&'static [&'static str]),
    /// How many entries the objects or lists at these paths have.
    Count(&'static [&'static [&'static str]]),
    /// How long ago a time is, or this if there is none.
    Since(&'static [&'static str], &'static str),
    /// Of the object.
    Made(fn(&Value) -> String),
    /// Several.
    Several(fn(&Value, Timestamp, &mut Vec<Value>)),
}

use Cell::{Count, Int, Made, Or, Several, Since, Text};

/// Printed where there is nothing.
pub(super) const NONE: &str = "<none>";
/// Printed where nothing was chosen.
pub(super) const UNSET: &str = "<unset>";
/// Printed where nobody knows.
pub(super) const UNKNOWN: &str = "<unknown>";

const NAME: Cell = Text(&["metadata", "name"]);
const AGE: Cell = Since(&["metadata", "creationTimestamp"], UNKNOWN);
const PHASE: Cell = Text(&["status", "phase"]);
const VOLUME_PHASE: Cell = Made(|object| match deleting(object) {
    true => "Terminating".to_owned(),
    false => text(object, &["status", "phase"]).to_owned(),
});
const CONTAINERS: Cell = Several(|object, _, out| {
    workload::containers(at(object, &["spec", "template", "spec"]), out);
});
const SELECTOR: Cell = Made(|object| workload::label_selector(at(object, &["spec", "selector"])));
const PAIRS: Cell = Made(|object| workload::pairs(at(object, &["spec", "selector"])));
const READY: Cell = Made(|object| {
    let ready = number(object, &["status", "readyReplicas"]).unwrap_or(0);
    let wanted = number(object, &["spec", "replicas"]).unwrap_or(0);
    format!("{ready}/{wanted}")
});
const WANTED: Cell = Int(&["spec", "replicas"]);
const THERE: Cell = Int(&["status", "replicas"]);
const ATTRIBUTES_CLASS: Cell = Or(&["spec", "volumeAttributesClassName"], UNSET);
const VOLUME_MODE: Cell = Or(&["spec", "volumeMode"], UNSET);

/// The cells of a kind in the order of its columns (`columns.json`); none for a kind without columns of its own.
fn row(kind: &Kind) -> &'static [Cell] {
    match (kind.group, kind.plural) {
        ("", "componentstatuses") => &[NAME, Several(node::component)],
        ("", "configmaps") => &[NAME, Count(&[&["data"], &["binaryData"]]), AGE],
        ("", "endpoints") => &[NAME, Made(network::endpoints), AGE],
        (_, "events") => &[Several(event::cells), NAME],
        ("", "namespaces") => &[NAME, PHASE, AGE],
        ("", "nodes") => &[
            NAME,
            Made(node::status),
            Made(node::roles),
            AGE,
            Text(&["status", "nodeInfo", "kubeletVersion"]),
            Made(|node| node::address(node, "InternalIP")),
            Made(|node| node::address(node, "ExternalIP")),
            Or(&["status", "nodeInfo", "osImage"], UNKNOWN),
            Made(node::kernel),
            Or(&["status", "nodeInfo", "containerRuntimeVersion"], UNKNOWN),
        ],
        ("", "persistentvolumeclaims") => &[
            NAME,
            VOLUME_PHASE,
            Text(&["spec", "volumeName"]),
            Several(storage::bound),
            Made(storage::class),
            ATTRIBUTES_CLASS,
            AGE,
            VOLUME_MODE,
        ],
        ("", "persistentvolumes") => &[
            NAME,
            Made(|volume| storage::size(at(volume, &["spec", "capacity"]))),
            Made(|volume| storage::modes(at(volume, &["spec", "accessModes"]))),
            Text(&["spec", "persistentVolumeReclaimPolicy"]),
            VOLUME_PHASE,
            Made(storage::claim),
            Made(storage::class),
            ATTRIBUTES_CLASS,
            Text(&["status", "reason"]),
            AGE,
            VOLUME_MODE,
        ],
        ("", "pods") => &[
            NAME,
            Several(pod::summary),
            AGE,
            Made(pod::address),
            Or(&["spec", "nodeName"], NONE),
            Or(&["status", "nominatedNodeName"], NONE),
            Made(pod::gates),
        ],
        ("", "replicationcontrollers") => &[
            NAME,
            WANTED,
            THERE,
            Int(&["status", "readyReplicas"]),
            AGE,
            CONTAINERS,
            PAIRS,
        ],
        ("", "secrets") => &[NAME, Text(&["type"]), Count(&[&["data"]]), AGE],
        ("", "serviceaccounts") => &[NAME, AGE],
        ("", "services") => &[
            NAME,
            Text(&["spec", "type"]),
            Made(network::cluster_ip),
            Made(network::external_ip),
            Made(network::service_ports),
            AGE,
            PAIRS,
        ],
        ("apps", "controllerrevisions") => {
            &[NAME, Made(workload::controller), Int(&["revision"]), AGE]
        }
        ("apps", "daemonsets") => &[
            NAME,
            Int(&["status", "desiredNumberScheduled"]),
            Int(&["status", "currentNumberScheduled"]),
            Int(&["status", "numberReady"]),
            Int(&["status", "updatedNumberScheduled"]),
            Int(&["status", "numberAvailable"]),
            Made(|set| workload::pairs(at(set, &["spec", "template", "spec", "nodeSelector"]))),
            AGE,
            CONTAINERS,
            SELECTOR,
        ],
        ("apps", "deployments") => &[
            NAME,
            READY,
            Int(&["status", "updatedReplicas"]),
            Int(&["status", "availableReplicas"]),
            AGE,
            CONTAINERS,
            SELECTOR,
        ],
        ("apps", "replicasets") => &[
            NAME,
            WANTED,
            THERE,
            Int(&["status", "readyReplicas"]),
            AGE,
            CONTAINERS,
            SELECTOR,
        ],
        ("apps", "statefulsets") => &[NAME, READY, AGE, CONTAINERS],
        ("autoscaling", "scales") => &[NAME, WANTED, THERE, AGE],
        ("batch", "cronjobs") => &[
            NAME,
            Text(&["spec", "schedule"]),
            Or(&["spec", "timeZone"], NONE),
            Made(workload::suspended),
            Count(&[&["status", "active"]]),
            Since(&["status", "lastScheduleTime"], NONE),
            AGE,
            Several(|job, _, out| {
                let template = ["spec", "jobTemplate", "spec", "template", "spec"];
                workload::containers(at(job, &template), out);
            }),
            Made(|job| {
                workload::label_selector(at(job, &["spec", "jobTemplate", "spec", "selector"]))
            }),
        ],
        ("batch", "jobs") => &[
            NAME,
            Made(workload::job_status),
            Made(workload::completions),
            Several(workload::duration),
            AGE,
            CONTAINERS,
            SELECTOR,
        ],
        ("coordination.k8s.io", "leases") => &[NAME, Text(&["spec", "holderIdentity"]), AGE],
        ("discovery.k8s.io", "endpointslices") => &[
            NAME,
            Text(&["addressType"]),
            Made(network::slice_ports),
            Made(network::slice_endpoints),
            AGE,
        ],
        ("networking.k8s.io", "ingressclasses") => &[
            NAME,
            Text(&["spec", "controller"]),
            Made(network::parameters),
            AGE,
        ],
        ("networking.k8s.io", "ingresses") => &[
            NAME,
            Or(&["spec", "ingressClassName"], NONE),
            Made(network::hosts),
            Made(network::ingress_addresses),
            Made(network::ingress_ports),
            AGE,
        ],
        ("networking.k8s.io", "networkpolicies") => &[
            NAME,
            Made(|policy| workload::label_selector(at(policy, &["spec", "podSelector"]))),
            AGE,
        ],
        ("policy", "poddisruptionbudgets") => &[
            NAME,
            Made(|budget| workload::number_or_percent(at(budget, &["spec", "minAvailable"]))),
            Made(|budget| workload::number_or_percent(at(budget, &["spec", "maxUnavailable"]))),
            Int(&["status", "disruptionsAllowed"]),
            AGE,
        ],
        _ => &[NAME, Text(&["metadata", "creationTimestamp"])],
    }
}

/// An object's cells, in the order of [`super::columns`]. Ages are as of `now`.
pub fn cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    let mut out = Vec::with_capacity(12);
    for cell in row(kind) {
        out.push(match cell {
            Text(path) => text(object, path).into(),
            Or(path, otherwise) => match text(object, path) {
                "" => json!(otherwise),
                found => found.into(),
            },
            Int(path) => number(object, path).unwrap_or(0).into(),
            Count(paths) => paths
                .iter()
                .map(|path| count(at(object, path)))
                .sum::<usize>()
                .into(),
            Since(path, otherwise) => match at(object, path) {
                None | Some(Value::Null) => json!(otherwise),
                field => age::since(field, now).into(),
            },
            Made(make) => make(object).into(),
            Several(make) => {
                make(object, now, &mut out);
                continue;
            }
        });
    }
    out
}

fn count(field: Option<&Value>) -> usize {
    match field {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}
