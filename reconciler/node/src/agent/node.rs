//! This node in the API: registered, its state told when it changes and now and then, registered again if deleted.
//!
//! Labels, taints, annotations, `podCIDR` and conditions that others wrote stay as they are.

mod machine;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};

pub use self::machine::{Machine, Pressure, observe, pressure};
use super::events::Kind;
use super::watching::{self, Outages};
use super::{Config, Context, cause, spec, within};

/// What kubelets of this version say.
const VERSION: &str = concat!("v1.36.0-weft.", env!("CARGO_PKG_VERSION"));

/// What decides the status.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Of the agent.
    pub config: &'a Config,
    /// What does not change.
    pub machine: &'a Machine,
    /// What does.
    pub pressure: Pressure,
    /// Name and version of the runtime.
    pub runtime: (&'a str, &'a str),
    /// Why Pods get no network.
    pub unready: Option<&'a str>,
    /// As the API has it.
    pub known: Option<&'a Node>,
    /// The present.
    pub now: Timestamp,
}

/// The Node as it is registered, without a status.
pub fn registration(config: &Config) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

fn labels(config: &Config) -> BTreeMap<String, String> {
    let arch = machine::architecture();
    let mut labels = BTreeMap::from([
        ("beta.kubernetes.io/arch".to_owned(), arch.to_owned()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), arch.to_owned()),
        (
            "kubernetes.io/hostname".to_owned(),
            config.node_name.clone(),
        ),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
    ]);
    labels.extend(config.labels.clone());
    labels
}

/// Labels of ours that the Node lacks, as a patch.
pub fn missing_labels(config: &Config, known: &Node) -> Option<Value> {
    let have = known.metadata.labels.as_ref();
    let missing: BTreeMap<_, _> = labels(config)
        .into_iter()
        .filter(|(key, value)| have.and_then(|have| have.get(key)) != Some(value))
        .collect();
    (!missing.is_empty()).then(|| json!({"metadata": {"labels": missing}}))
}

/// The status; all conditions of others are left out.
pub fn status(view: &View<'_>) -> NodeStatus {
    let Machine {
        cpus,
        memory,
        storage,
        ..
    } = *view.machine;
    let reserved = view.config.reserved;
    let amounts = |cpu: u64, memory: u64| {
        BTreeMap::from([
            ("cpu".to_owned(), cpu_text(cpu)),
            (
                "memory".to_owned(),
                Quantity(format!("{}Ki", memory / 1024)),
            ),
            (
                "ephemeral-storage".to_owned(),
                Quantity(format!("{}Ki", storage / 1024)),
            ),
            (
                "pods".to_owned(),
                Quantity(view.config.max_pods.to_string()),
            ),
        ])
    };
    let mut addresses: Vec<NodeAddress> = view
        .config
        .node_ips
        .iter()
        .map(|ip| address("InternalIP", ip))
        .collect();
    addresses.push(NodeAddress {
        type_: "Hostname".to_owned(),
        address: view.config.node_name.clone(),
    });
    NodeStatus {
        capacity: Some(amounts(cpus * 1000, memory)),
        allocatable: Some(amounts(
            (cpus * 1000).saturating_sub(reserved.cpu),
            memory.saturating_sub(reserved.memory),
        )),
        addresses: Some(addresses),
        conditions: Some(conditions(view)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(view.config.port),
            }),
        }),
        node_info: Some(NodeSystemInfo {
            container_runtime_version: format!("{}://{}", view.runtime.0, view.runtime.1),
            kubelet_version: VERSION.to_owned(),
            ..view.machine.info.clone()
        }),
        ..NodeStatus::default()
    }
}

fn address(kind: &str, ip: &IpAddr) -> NodeAddress {
    NodeAddress {
        type_: kind.to_owned(),
        address: ip.to_string(),
    }
}

fn cpu_text(thousandths: u64) -> Quantity {
    Quantity(if thousandths.is_multiple_of(1000) {
        (thousandths / 1000).to_string()
    } else {
        format!("{thousandths}m")
    })
}

fn conditions(view: &View<'_>) -> Vec<NodeCondition> {
    let Pressure { memory, disk, pids } = view.pressure;
    let pick = |bad: bool, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if bad { yes } else { no };
        (bad, reason, message.to_owned())
    };
    let told = [
        (
            "MemoryPressure",
            pick(
                memory,
                (
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                ),
                (
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                ),
            ),
        ),
        (
            "DiskPressure",
            pick(
                disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ),
        ),
        (
            "PIDPressure",
            pick(
                pids,
                (
                    "KubeletHasInsufficientPID",
                    "kubelet has insufficient PID available",
                ),
                (
                    "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available",
                ),
            ),
        ),
        (
            "Ready",
            match view.unready {
                None => (
                    true,
                    "KubeletReady",
                    "kubelet is posting ready status".to_owned(),
                ),
                Some(why) => (
                    false,
                    "KubeletNotReady",
                    format!(
                        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{why}"
                    ),
                ),
            },
        ),
    ];
    told.into_iter()
        .map(|(kind, (holds, reason, message))| {
            let truth = if holds { "True" } else { "False" };
            let since = known_conditions(view.known)
                .iter()
                .find(|known| known.type_ == kind && known.status == truth)
                .and_then(|known| known.last_transition_time.clone());
            NodeCondition {
                type_: kind.to_owned(),
                status: truth.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_heartbeat_time: Some(spec::time(view.now)),
                last_transition_time: Some(since.unwrap_or_else(|| spec::time(view.now))),
            }
        })
        .collect()
}

fn known_conditions(known: Option<&Node>) -> &[NodeCondition] {
    known
        .and_then(|node| node.status.as_ref())
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

/// Whether the API has this status but for heartbeats.
pub fn is_told(known: &Node, wanted: &NodeStatus) -> bool {
    let Some(have) = &known.status else {
        return false;
    };
    let conditions = wanted.conditions.iter().flatten().all(|wanted| {
        known_conditions(Some(known)).iter().any(|known| {
            NodeCondition {
                last_heartbeat_time: wanted.last_heartbeat_time.clone(),
                ..known.clone()
            } == *wanted
        })
    });
    conditions
        && have.capacity == wanted.capacity
        && have.allocatable == wanted.allocatable
        && have.addresses == wanted.addresses
        && have.daemon_endpoints == wanted.daemon_endpoints
        && have.node_info == wanted.node_info
}

/// The patch that tells it: conditions of others stay, addresses are replaced.
fn patch(status: &NodeStatus) -> serde_json::Result<Value> {
    let mut status = serde_json::to_value(status)?;
    if let Some(addresses) = status["addresses"].as_array_mut() {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    Ok(json!({ "status": status }))
}

/// Keeps the Node. `changed` is rung when the network's readiness may have changed; `uid` is told the Node's.
pub async fn keep(
    context: Arc<Context>,
    machine: Machine,
    changed: Arc<Notify>,
    outages: Outages,
    uid: watch::Sender<Option<String>>,
) {
    let name = context.config.node_name.clone();
    let api: Api<Node> = Api::all(context.client.clone());
    let (tell, mut told) = mpsc::unbounded_channel();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut listed = None;
    let watch = watching::forever("own node", api.clone(), config, outages, move |event| {
        let known = match event {
            Event::Init => {
                listed = None;
                return;
            }
            Event::InitApply(node) => {
                listed = Some(node);
                return;
            }
            Event::InitDone => listed.take(),
            Event::Apply(node) => Some(node),
            Event::Delete(_) => None,
        };
        // The receiver lives as long as this.
        let _ = tell.send(known);
    });
    let mut watch = std::pin::pin!(watch);
    let mut known: Option<Option<Node>> = None;
    let mut last: Option<(bool, tokio::time::Instant)> = None;
    let mut pause = std::time::Duration::from_millis(200);
    loop {
        let wait = match known.as_ref().map(|known| (known, last)) {
            None => None,
            Some((known, told)) => {
                let due = told.map(|(_, at)| at + context.config.status_interval);
                let is_due = due.is_none_or(|due| due <= tokio::time::Instant::now());
                match tell_once(&context, &api, &machine, known.as_ref(), is_due).await {
                    Ok((node, ready, sent)) => {
                        pause = std::time::Duration::from_millis(200);
                        uid.send_if_modified(|uid| {
                            let changed = *uid != node.metadata.uid;
                            uid.clone_from(&node.metadata.uid);
                            changed
                        });
                        if ready && told.is_none_or(|(was, _)| !was) {
                            context.recorder.node(
                                &name,
                                Kind::Normal,
                                "NodeReady",
                                format!("Node {name} status is now: NodeReady"),
                            );
                        } else if !ready && told.is_some_and(|(was, _)| was) {
                            context.recorder.node(
                                &name,
                                Kind::Normal,
                                "NodeNotReady",
                                format!("Node {name} status is now: NodeNotReady"),
                            );
                        }
                        let now = tokio::time::Instant::now();
                        let at = if sent {
                            now
                        } else {
                            told.map_or(now, |(_, at)| at)
                        };
                        last = Some((ready, at));
                        Some(at + context.config.status_interval)
                    }
                    Err(error) => {
                        tracing::warn!("tell the state of node {name}: {}", cause(&error));
                        let at = tokio::time::Instant::now() + pause;
                        pause = (pause * 2).min(std::time::Duration::from_secs(5));
                        Some(at)
                    }
                }
            }
        };
        let sleep = async {
            match wait {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut watch => return,
            node = told.recv() => {
                known = node;
                // Only the newest counts.
                while let Ok(node) = told.try_recv() {
                    known = Some(node);
                }
            }
            () = changed.notified() => {}
            () = sleep => {}
        }
    }
}

/// Registers the Node if it is not there, and tells its status if that has changed or is due.
async fn tell_once(
    context: &Context,
    api: &Api<Node>,
    machine: &Machine,
    known: Option<&Node>,
    is_due: bool,
) -> kube::Result<(Node, bool, bool)> {
    let name = &context.config.node_name;
    let mut node = match known {
        Some(node) => node.clone(),
        None => match within(api.create(&PostParams::default(), &registration(&context.config)))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 409 => within(api.get(name)).await?,
            created => {
                let node = created?;
                tracing::info!("node {name} is registered");
                node
            }
        },
    };
    if let Some(patch) = missing_labels(&context.config, &node) {
        node = within(api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).await?;
    }
    let unready = context.runtime.network_unready().await;
    let wanted = status(&View {
        config: &context.config,
        machine,
        pressure: pressure(&context.config.data),
        runtime: context.runtime.name(),
        unready: unready.as_deref(),
        known: Some(&node),
        now: Timestamp::now(),
    });
    let is_new = !is_told(&node, &wanted);
    if is_new || is_due {
        let patch = patch(&wanted).map_err(kube::Error::SerdeError)?;
        node = within(api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)))
            .await?;
    }
    Ok((node, unready.is_none(), is_new || is_due))
}
