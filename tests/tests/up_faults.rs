//! Faults in a cluster of `weft up`: programs killed, a node without power, a cut network, broken CNI plugins, a full
//! disk for logs. Pods that run go on running; what changed meanwhile is carried out; nothing is left behind.

#[path = "up_faults/broken.rs"]
mod broken;
#[path = "up_faults/web.rs"]
mod web;

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tests::census::{self, Member};
use tests::up::Up;
use tests::{eventually, process};
use web::*;

/// This may be a loaded machine.
const WAIT: Duration = Duration::from_secs(90);

#[test]
fn a_server_that_is_killed_disturbs_no_pod() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let mut up = Up::start(&["--nodes", "2"])?;
    start_web(&up, 4)?;
    up.apply(&sleeper("again", 70_001, "Always", "n1"))?;
    up.wait_for("pod/again", "condition=Ready", WAIT)?;
    let ip = up.field("service/web", "{.spec.clusterIP}")?;
    let pods = living(&up, None)?;
    let mut before = [
        census::of_pods(up.name(), "n1")?,
        census::of_pods(up.name(), "n2")?,
    ]
    .concat();

    up.kill("server")?;
    eventually("the server is gone", WAIT, || {
        ensure!(
            up.kubectl("get --raw /version --request-timeout=2s")
                .is_err()
        );
        Ok(())
    })?;
    // What runs goes on: the Service answers, and a container that ends is started again without the server.
    for node in [1, 2] {
        ask_at(&up, node, &ip)?;
    }
    let first = process_of(&up, "n1", "sleep 70001")?;
    kill(&first)?;
    eventually(
        "the container is started again without the server",
        WAIT,
        || {
            let now = process_of(&up, "n1", "sleep 70001")?;
            ensure!(now != first, "it is still the first");
            Ok(())
        },
    )?;
    // Its shim is another's now, too.
    before.retain(|one| {
        one.cgroup != first.cgroup
            && !first.cgroup.as_deref().is_some_and(|path| {
                path.rsplit('/')
                    .next()
                    .is_some_and(|id| one.command.contains(id))
            })
    });

    up.raise(&[])?;
    up.kubectl("scale deployment/web --replicas=6")?;
    rolled_out(&up)?;
    eventually("the restart is told", WAIT, || {
        let count = up.field("pod/again", "{.status.containerStatuses[0].restartCount}")?;
        ensure!(count == "1", "restartCount {count}");
        Ok(())
    })?;
    let after = living(&up, None)?;
    ensure!(
        after.is_superset(&pods) && after.len() == 6,
        "{pods:?} became {after:?}"
    );
    let now = [
        census::of_pods(up.name(), "n1")?,
        census::of_pods(up.name(), "n2")?,
    ]
    .concat();
    ensure_untouched(&before, &now)?;
    // A node never counted as lost while it was the server that was away.
    let events = up.kubectl("get events -A")?;
    ensure!(!events.contains("NodeNotReady"), "{events}");
    ask(&up, 2)?;
    Ok(())
}

#[test]
fn an_agent_that_is_killed_finds_its_pods_again() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let mut up = Up::start(&["--nodes", "2"])?;
    start_web(&up, 4)?;
    up.apply(&sleeper("once", 70_002, "Never", "n1"))?;
    up.apply(&sleeper("again", 70_003, "Always", "n1"))?;
    up.wait_for("pod/once pod/again", "condition=Ready", WAIT)?;
    let web = living(&up, Some("n1"))?;
    let once = process_of(&up, "n1", "sleep 70002")?;
    let again = process_of(&up, "n1", "sleep 70003")?;

    up.kill("n1")?;
    kill(&once)?;
    kill(&again)?;
    // One that is deleted while nobody looks.
    let gone = web.first().context("n1 has a Pod of web")?;
    up.kubectl(&format!("delete pod {gone} --wait=false"))?;
    std::thread::sleep(Duration::from_secs(1));
    let marks = |one: &&Member| !one.command.contains("sleep 7000");
    let before: Vec<_> = census::of_pods(up.name(), "n1")?
        .into_iter()
        .filter(|one| marks(&one))
        .collect();
    up.raise(&[])?;

    eventually("what ended meanwhile is noticed", WAIT, || {
        let phase = up.field("pod/once", "{.status.phase}")?;
        let code = up.field(
            "pod/once",
            "{.status.containerStatuses[0].state.terminated.exitCode}",
        )?;
        ensure!(
            phase == "Failed" && code == "137",
            "{phase}, exit code {code}"
        );
        let count = up.field("pod/again", "{.status.containerStatuses[0].restartCount}")?;
        ensure!(count == "1", "restartCount {count}");
        Ok(())
    })?;
    eventually("what was deleted meanwhile goes", WAIT, || {
        let all = up.kubectl("get pods -o name")?;
        ensure!(!all.contains(gone.as_str()), "{all}");
        Ok(())
    })?;
    rolled_out(&up)?;
    ensure!(living(&up, None)?.len() == 4);
    // All others are the same processes still: those of the Pods that are there.
    let now = census::of_pods(up.name(), "n1")?;
    let path = r#"jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}"#;
    let uids = process::run(&mut up.command(&["get", "pods", "-o", path]))?;
    let kept: Vec<_> = before
        .into_iter()
        .filter(|one| {
            one.cgroup
                .as_deref()
                .and_then(|path| path.split('/').next())
                .is_some_and(|uid| uids.contains(uid))
        })
        .collect();
    ensure!(!kept.is_empty(), "no process of a Pod was seen");
    ensure_untouched(&kept, &now)?;

    // And it works as before.
    let before = census::of(up.name())?;
    up.apply(&sleeper("new", 70_004, "Never", "n1"))?;
    up.wait_for("pod/new", "condition=Ready", WAIT)?;
    up.kubectl("delete pod new")?;
    census::ensure_as_before(up.name(), &before, WAIT)
}

/// Waits until a node is as `kubectl get nodes` shows it.
fn node_is(up: &Up, node: &str, status: &str) -> Result<()> {
    let done = eventually(&format!("node {node} is {status}"), WAIT, || {
        let found = up.field(
            &format!("node/{node}"),
            r#"{.status.conditions[?(@.type=="Ready")].status}"#,
        )?;
        ensure!(found == status, "Ready is {found}");
        Ok(())
    });
    done.with_context(|| up.state())
}

fn taints(up: &Up, node: &str) -> Result<String> {
    up.field(&format!("node/{node}"), "{.spec.taints[*].key}")
}

/// Waits until all of `web` is ready on n1 and n2 has none of it.
fn moved_to_n1(up: &Up, replicas: usize) -> Result<()> {
    let done = eventually("its Pods are replaced", WAIT, || {
        let there = living(up, Some("n2"))?;
        ensure!(there.is_empty(), "on n2: {there:?}");
        let ready = up.field("deployment/web", "{.status.readyReplicas}")?;
        ensure!(ready == replicas.to_string(), "{ready} are ready");
        Ok(())
    });
    done.with_context(|| up.state())
}

/// Waits until n2 takes Pods again and has no strays.
fn back_without_strays(up: &Up, replicas: usize) -> Result<()> {
    node_is(up, "n2", "True")?;
    let done = eventually(
        "n2 has no taints, and no Pods that were replaced",
        WAIT,
        || {
            let left = taints(up, "n2")?;
            ensure!(left.is_empty(), "taints {left}");
            let all = up.kubectl("get pods -l app=web -o name")?;
            ensure!(all.lines().count() == replicas, "{all}");
            let here = living(up, Some("n2"))?.len();
            let running = census::of_pods(up.name(), "n2")?;
            let pauses = running
                .iter()
                .filter(|one| one.command.contains(" pause "))
                .count();
            ensure!(pauses == here, "{here} Pods, but {running:#?}");
            Ok(())
        },
    );
    done.with_context(|| up.state())
}

#[test]
fn pods_of_a_lost_node_are_replaced() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let mut up = Up::start(&["--nodes", "2", "--node-monitor-grace-period", "6"])?;
    let fresh = warm(&up)?;
    start_web(&up, 4)?;
    ensure!(!living(&up, Some("n2"))?.is_empty(), "n2 has no Pod");

    // Its power fails.
    up.weft(&["down", "n2"])?;
    ensure!(
        census::of_pods(up.name(), "n2")?.is_empty(),
        "Pods run without power"
    );
    node_is(&up, "n2", "Unknown")?;
    eventually("it is tainted", WAIT, || {
        let found = taints(&up, "n2")?;
        ensure!(found.contains("node.kubernetes.io/unreachable"), "{found}");
        Ok(())
    })?;
    moved_to_n1(&up, 4)?;
    ask(&up, 1)?;
    up.raise(&[])?;
    back_without_strays(&up, 4)?;

    // Its network is cut; power it has.
    up.kubectl("scale deployment/web --replicas=8")?;
    rolled_out(&up)?;
    let there = living(&up, Some("n2"))?;
    ensure!(!there.is_empty(), "n2 has no Pod");
    let before = census::of_pods(up.name(), "n2")?;
    let underlay = up.node(0);
    underlay.sh("ip link set n2 down")?;
    node_is(&up, "n2", "Unknown")?;
    moved_to_n1(&up, 8)?;
    // Nobody could tell it: all runs on.
    ensure_untouched(&before, &census::of_pods(up.name(), "n2")?)?;
    underlay.sh("ip link set n2 up")?;
    back_without_strays(&up, 8)?;
    // Routes and Services are as good as ever.
    up.kubectl("delete pod -l app=web --wait=false")?;
    rolled_out(&up)?;
    let done = eventually("n2 has Pods again", WAIT, || {
        let all = up.kubectl("get pods -l app=web -o wide")?;
        ensure!(!living(&up, Some("n2"))?.is_empty(), "{all}");
        ensure!(living(&up, None)?.len() == 8, "{all}");
        Ok(())
    });
    done.with_context(|| up.state())?;
    for node in [1, 2] {
        for (_, ip) in addresses(&up)? {
            let url = format!("http://{ip}:8080/");
            eventually(&format!("n{node} reaches {url}"), WAIT, || {
                up.node(node)
                    .exec("timeout", &["3", "busybox", "wget", "-q", "-O", "-", &url])
            })?;
        }
        ask(&up, node)?;
    }
    up.kubectl("delete deployment/web service/web")?;
    census::ensure_as_before(up.name(), &fresh, WAIT)
}
