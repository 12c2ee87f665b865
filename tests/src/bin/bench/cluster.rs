//! `cluster`: a whole cluster of three nodes by `weft up`, on this machine's cores.

use crate::lines::Lines;
use crate::outcome::{Outcome, Series};
use ::tests::up::Up;
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const NODES: u8 = 3;
/// Longer than anything should take.
const LIMIT: Duration = Duration::from_secs(90);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Clusters brought up.
    ups: u32,
    /// Single Pods.
    pods: u32,
    /// Pods at once.
    crowd: u32,
    /// Endpoints whose way to the rules is timed.
    endpoints: u32,
    /// How long the idle cluster is watched.
    idle: Duration,
}

const FULL: Scale = Scale {
    ups: 5,
    pods: 30,
    crowd: 100,
    endpoints: 30,
    idle: Duration::from_secs(30),
};

const QUICK: Scale = Scale {
    ups: 2,
    pods: 8,
    crowd: 30,
    endpoints: 6,
    idle: Duration::from_secs(10),
};

/// Measures everything.
pub fn run(quick: bool) -> Result<Outcome> {
    let scale = if quick { QUICK } else { FULL };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut outcome = Outcome::default();
    let nodes = NODES.to_string();
    let flags = ["--nodes", nodes.as_str()];
    let mut ups = Series::new("weft up, three nodes, until all are ready");
    let mut downs = Series::new("weft down");
    let mut up = None;
    for round in 0..scale.ups {
        let begun = Instant::now();
        let one = Up::start(&flags)?;
        ups.push(begun.elapsed());
        if round + 1 == scale.ups {
            up = Some(one);
        } else {
            let begun = Instant::now();
            drop(one);
            downs.push(begun.elapsed());
        }
    }
    let up = up.context("no cluster")?;
    let client = runtime.block_on(client(&up))?;
    // What a start leaves behind has settled.
    std::thread::sleep(Duration::from_secs(5));
    let (memory, cpu) = idle(&up, scale.idle)?;
    let pods = runtime.block_on(single_pods(&client, scale.pods))?;
    let rules = runtime.block_on(rules(&up, &client, scale.endpoints))?;
    let crowd = runtime.block_on(crowd(&client, scale.crowd))?;
    let (memory_after, _) = idle(&up, Duration::from_secs(1))?;

    outcome.promise(
        "weft up with 3 nodes until all are Ready",
        ups.median(),
        5000.0,
        "ms",
    );
    outcome.promise(
        "one Pod, applied to Running with an address, p50",
        pods.median(),
        250.0,
        "ms",
    );
    outcome.promise(
        &format!("{} Pods over 3 nodes until all are Ready", scale.crowd),
        crowd.as_secs_f64() * 1000.0,
        12_000.0 * f64::from(scale.crowd) / 100.0,
        "ms",
    );
    outcome.promise(
        "Pod ready to Service rule on every node, p99",
        rules.at(0.99),
        300.0,
        "ms",
    );
    outcome.promise(
        "the idle cluster, resident in all (PSS)",
        memory,
        150.0,
        "MB",
    );
    outcome.promise("the idle cluster's processors, of one core", cpu, 3.0, "%");
    outcome.remarks.push((
        "resident with Pods gone again (PSS)".into(),
        memory_after,
        "MB",
    ));
    outcome.series = vec![ups, downs, pods, rules];
    Ok(outcome)
}

async fn client(up: &Up) -> Result<Client> {
    let config = Kubeconfig::read_from(up.kubeconfig())?;
    let config =
        kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The cluster's own processes, not the Pods'.
fn processes(up: &Up) -> Result<Vec<i32>> {
    let nodes = (1..=NODES).map(|number| format!("n{number}"));
    let parts = std::iter::once("server".to_owned()).chain(nodes);
    parts.map(|part| up.pid(&part)).collect()
}

/// Megabytes resident in all, and per cent of a core over a while.
fn idle(up: &Up, time: Duration) -> Result<(f64, f64)> {
    let processes = processes(up)?;
    let ticks = || -> Result<u64> { processes.iter().map(|pid| ticks(*pid)).sum() };
    let before = ticks()?;
    std::thread::sleep(time);
    let spent = ticks()? - before;
    let memory: u64 = processes
        .iter()
        .map(|pid| memory(*pid))
        .sum::<Result<u64>>()?;
    let hertz = 100.0; // USER_HZ of every Linux on this architecture (man 5 proc)
    let share = spent as f64 / hertz / time.as_secs_f64() * 100.0;
    Ok((memory as f64 / 1e6, share))
}

fn memory(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn ticks(pid: i32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let field = |at: usize| -> Result<u64> { Ok(fields.get(at).context("a short stat")?.parse()?) };
    Ok(field(11)? + field(12)?)
}

fn pod(name: &str) -> Result<Pod> {
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "host", "command": ["sleep", "3600"]}],
        },
    });
    Ok(serde_json::from_value(pod)?)
}

fn running(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    status.phase.as_deref() == Some("Running") && status.pod_ip.is_some()
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn single_pods(client: &Client, count: u32) -> Result<Series> {
    let api = Api::<Pod>::default_namespaced(client.clone());
    let mut series = Series::new("one Pod, from its creation to Running with an address");
    for number in 0..count {
        let name = format!("one-{number}");
        let watch = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = api.watch(&watch, "0").await?.boxed();
        let begun = Instant::now();
        api.create(&PostParams::default(), &pod(&name)?).await?;
        let done = async {
            while let Some(event) = events.try_next().await? {
                if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
                    && running(&pod)
                {
                    return Ok(());
                }
            }
            anyhow::bail!("the watch has ended")
        };
        tokio::time::timeout(LIMIT, done)
            .await
            .with_context(|| format!("Pod {name} does not run"))??;
        series.push(begun.elapsed());
        api.delete(&name, &DeleteParams::default().grace_period(0))
            .await?;
    }
    none_left(&api).await?;
    Ok(series)
}

async fn none_left(api: &Api<Pod>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !api.list(&ListParams::default()).await?.items.is_empty() {
        ensure!(Instant::now() < end, "Pods do not go");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn deployment(replicas: u32) -> Result<Deployment> {
    let deployment = json!({
        "metadata": {"name": "crowd"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "crowd"}},
            "template": {
                "metadata": {"labels": {"app": "crowd"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "host", "command": ["sleep", "3600"],
                                    "ports": [{"containerPort": 80}]}],
                },
            },
        },
    });
    Ok(serde_json::from_value(deployment)?)
}

async fn scale(api: &Api<Deployment>, replicas: u32) -> Result<()> {
    let patch = json!({"spec": {"replicas": replicas}});
    api.patch_scale("crowd", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// From a Pod that is ready, as a client of the API sees it, to its address in the rules of all nodes.
async fn rules(up: &Up, client: &Client, count: u32) -> Result<Series> {
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    let services = Api::<Service>::default_namespaced(client.clone());
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let service = json!({
        "metadata": {"name": "crowd"},
        "spec": {"selector": {"app": "crowd"}, "ports": [{"port": 80}]},
    });
    deployments
        .create(&PostParams::default(), &deployment(0)?)
        .await?;
    services
        .create(&PostParams::default(), &serde_json::from_value(service)?)
        .await?;
    let mut monitors = Vec::new();
    for number in 1..=NODES {
        monitors.push(Lines::start(&up.node(number), &["nft", "monitor"])?);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut events = pods
        .watch(&WatchParams::default().labels("app=crowd"), "0")
        .await?
        .boxed();
    let mut series = Series::new("from a Pod that is ready to its rule on every node");
    for number in 1..=count {
        scale(&deployments, number).await?;
        let done = async {
            while let Some(event) = events.try_next().await? {
                if let WatchEvent::Modified(pod) = event
                    && ready(&pod)
                    && let Some(ip) = pod.status.and_then(|status| status.pod_ip)
                {
                    return Ok((ip, Instant::now()));
                }
            }
            anyhow::bail!("the watch has ended")
        };
        let (ip, seen) = tokio::time::timeout(LIMIT, done)
            .await
            .context("no Pod becomes ready")??;
        let mut last = seen;
        for monitor in &mut monitors {
            let at = monitor
                .first(&format!(" {ip} "), LIMIT)
                .with_context(|| format!("no rule for {ip}"))?;
            last = last.max(at);
        }
        series.push(last.saturating_duration_since(seen));
        // The watch may tell the same Pod once more.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(monitors);
    services.delete("crowd", &DeleteParams::default()).await?;
    deployments
        .delete("crowd", &DeleteParams::background())
        .await?;
    none_left(&pods).await?;
    Ok(series)
}

/// How long so many Pods of one Deployment take until all are ready.
async fn crowd(client: &Client, count: u32) -> Result<Duration> {
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let watch = WatchParams::default().fields("metadata.name=crowd");
    let mut events = deployments.watch(&watch, "0").await?.boxed();
    let begun = Instant::now();
    deployments
        .create(&PostParams::default(), &deployment(count)?)
        .await?;
    let done = async {
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Added(deployment) | WatchEvent::Modified(deployment) = event
                && let Some(status) = deployment.status
                && status
                    .ready_replicas
                    .is_some_and(|ready| ready >= count as i32)
            {
                return Ok(begun.elapsed());
            }
        }
        anyhow::bail!("the watch has ended")
    };
    let took = tokio::time::timeout(LIMIT * 2, done)
        .await
        .context("they do not all become ready")??;
    let spread: BTreeMap<_, usize> = pods
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .fold(BTreeMap::new(), |mut spread, pod| {
            *spread
                .entry(pod.spec.and_then(|spec| spec.node_name))
                .or_default() += 1;
            spread
        });
    let sizes: BTreeSet<_> = spread.values().collect();
    println!("  Pods on each node: {spread:?}");
    ensure!(
        spread.len() == usize::from(NODES) && sizes.len() <= 3,
        "the Pods are spread badly: {spread:?}"
    );
    deployments
        .delete("crowd", &DeleteParams::background())
        .await?;
    none_left(&pods).await?;
    Ok(took)
}
