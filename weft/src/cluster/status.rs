//! `weft status`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use kube::api::ListParams;
use kube::config::Kubeconfig;
use kube::{Api, Client, ResourceExt};

use super::process::Process;
use super::{Cluster, Which};
use crate::server::client;

/// For the API server's answer: one whose store is away would have us wait for minutes.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `weft status` understands.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    which: Which,
}

/// What the API server knows.
struct Observed {
    nodes: Vec<ApiNode>,
    pods: Vec<Pod>,
    leases: Vec<Lease>,
}

/// Shows a cluster at a glance; whether all is well.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let cluster = Cluster::expect(&arguments.which.name)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let observed = runtime.block_on(async {
        let asked = async {
            let config =
                Kubeconfig::read_from(cluster.kubeconfig()).context("read the kubeconfig")?;
            observe(&client(config).await?).await
        };
        let limited = tokio::time::timeout(PATIENCE, asked).await;
        limited.unwrap_or_else(|_| bail!("not within {} s", PATIENCE.as_secs()))
    });
    let now = Timestamp::now();
    let (head, mut well) = processes(&cluster);
    print!("{head}");
    match observed {
        Ok(observed) => {
            let (text, healthy) = render(&cluster, &observed, now);
            well &= healthy;
            print!("{text}");
        }
        Err(error) => {
            println!("the API server does not answer: {error:#}");
            well = false;
        }
    }
    println!("\nexport KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(well)
}

async fn observe(client: &Client) -> anyhow::Result<Observed> {
    let all = ListParams::default();
    let nodes = Api::<ApiNode>::all(client.clone());
    let pods = Api::<Pod>::all(client.clone());
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    let (nodes, pods, leases) =
        tokio::try_join!(nodes.list(&all), pods.list(&all), leases.list(&all))
            .context("list nodes, Pods and leases")?;
    Ok(Observed {
        nodes: nodes.items,
        pods: pods.items,
        leases: leases.items,
    })
}

/// The programs, and what they take.
fn processes(cluster: &Cluster) -> (String, bool) {
    let mut text = String::new();
    let mut well = true;
    let mut total = 0;
    let mut line = |what: &str, process: Option<&Process>| {
        let state = match process {
            Some(process) if process.alive() => {
                let memory = process.memory().unwrap_or_default();
                total += memory;
                format!("process {}, {} MB", process.pid, memory >> 20)
            }
            _ => {
                well = false;
                "not running: weft up starts it".to_owned()
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{what:<8} {state}");
    };
    if cluster.shape.store == "etcd" {
        line("etcd", cluster.etcd.as_ref());
    }
    line("server", cluster.server.as_ref());
    for node in &cluster.nodes {
        line(&node.name(), node.process.as_ref());
    }
    let head = format!(
        "cluster {}: {} nodes, backend {}, proxy {}, store {}; {} MB in all\n",
        cluster.name,
        cluster.nodes.len(),
        cluster.shape.backend,
        cluster.shape.proxy_mode,
        cluster.shape.store,
        total >> 20
    );
    (head + &text, well)
}

fn render(cluster: &Cluster, observed: &Observed, now: Timestamp) -> (String, bool) {
    let mut text = String::new();
    let mut well = observed.nodes.len() == cluster.nodes.len();
    let renewed: BTreeMap<_, _> = observed
        .leases
        .iter()
        .filter_map(|lease| {
            Some((
                lease.name_any(),
                lease.spec.as_ref()?.renew_time.as_ref()?.0,
            ))
        })
        .collect();
    let mut rows = vec![
        [
            "NODE", "READY", "LEASE", "POD-CIDR", "PODS", "RUNNING", "TAINTS",
        ]
        .map(str::to_owned),
    ];
    for node in &observed.nodes {
        let name = node.name_any();
        let ready = node_ready(node);
        well &= ready == "True";
        let on: Vec<_> = observed
            .pods
            .iter()
            .filter(|pod| node_of(pod) == name)
            .collect();
        let running = on.iter().filter(|pod| pod_ready(pod)).count();
        let lease = renewed.get(&name).map_or("none".to_owned(), |renewed| {
            format!("{} s ago", now.duration_since(*renewed).as_secs().max(0))
        });
        let spec = node.spec.clone().unwrap_or_default();
        let taints: Vec<_> = spec
            .taints
            .unwrap_or_default()
            .into_iter()
            .map(|taint| format!("{}:{}", taint.key, taint.effect))
            .collect();
        rows.push([
            name,
            ready,
            lease,
            spec.pod_cidr.unwrap_or_else(|| "none".to_owned()),
            on.len().to_string(),
            running.to_string(),
            taints.join(" "),
        ]);
    }
    text.push('\n');
    text.push_str(&align(&rows));
    let troubled: Vec<_> = observed
        .pods
        .iter()
        .filter_map(|pod| Some((pod, trouble(pod)?)))
        .collect();
    well &= troubled.is_empty();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "\n{} Pods, {} not ready",
        observed.pods.len(),
        troubled.len()
    );
    for (pod, why) in troubled {
        let _ = writeln!(
            text,
            "  {}/{}: {why}",
            pod.namespace().unwrap_or_default(),
            pod.name_any()
        );
    }
    (text, well)
}

fn node_of(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

fn node_ready(node: &ApiNode) -> String {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    ready.map_or("Unknown".to_owned(), |condition| condition.status.clone())
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

fn pod_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why a Pod is not as it should be.
fn trouble(pod: &Pod) -> Option<String> {
    if phase(pod) == "Succeeded" || pod_ready(pod) {
        return None;
    }
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let waiting = containers.into_iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some(
            [waiting.reason.clone(), waiting.message.clone()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(": "),
        )
    });
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let condition = conditions.into_iter().flatten().find_map(|condition| {
        (condition.status == "False")
            .then(|| condition.message.clone())
            .flatten()
    });
    let why = waiting.or(condition).filter(|text| !text.is_empty());
    Some(match why {
        Some(why) => format!("{}: {why}", phase(pod)),
        None => phase(pod).to_owned(),
    })
}

fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let line: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(line.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn trouble_names_the_reason() {
        let waits = pod(
            serde_json::json!({"metadata": {"name": "a"}, "status": {"phase": "Pending", "containerStatuses": [
            {"name": "c", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": "ErrImagePull", "message": "no image x"}}}]}}),
        );
        assert_eq!(
            trouble(&waits).as_deref(),
            Some("Pending: ErrImagePull: no image x")
        );
        let done =
            pod(serde_json::json!({"metadata": {"name": "a"}, "status": {"phase": "Succeeded"}}));
        assert_eq!(trouble(&done), None);
        let lost = pod(serde_json::json!({"metadata": {"name": "a"}}));
        assert_eq!(trouble(&lost).as_deref(), Some("Pending"));
    }
}
