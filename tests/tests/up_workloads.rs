//! The controllers and the scheduler as users see them: sessions of kubectl on a cluster by `weft up`, kept as text in
//! `data/up`, and what must hold at every moment of a rollout.

#[path = "up_workloads/watch.rs"]
mod watch;

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use tests::up::Up;
use tests::{requirement, transcript};
use watch::{Moment, Watch};

/// The words of the sessions are those of kubectl 1.32; commands that they need came with 1.30 at the latest.
const RECENT: u32 = 30;
/// How long a command may take, in seconds: the machine may be loaded.
const LIMIT: &str = "150";

fn is_possible() -> bool {
    let programs = ["bash", "timeout", "diff", "busybox"];
    requirement::is_root()
        && requirement::has_kubectl(RECENT)
        && requirement::has_programs(&programs)
}

/// One cluster after the other: two that start at once may want the same port of loopback.
fn start() -> Result<Up> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Up::start(&[])
}

/// Plays a session in a namespace, in an empty folder.
fn session(up: &Up, name: &str, namespace: &str) -> Result<()> {
    let work = tempfile::tempdir()?;
    let kubeconfig = work.path().join("kubeconfig");
    std::fs::copy(up.kubeconfig(), &kubeconfig).context("copy the kubeconfig")?;
    let shell = || {
        let mut shell = Command::new("timeout");
        shell
            .args(["--kill-after=1", LIMIT])
            .current_dir(work.path())
            .env("KUBECONFIG", &kubeconfig)
            .env("HOME", work.path())
            .env("TMPDIR", work.path())
            .env("TZ", "UTC")
            .env("SPACE", namespace)
            .env("WEFT", up.program())
            .env("CLUSTER", up.name())
            .env(
                "EXAMPLES",
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples"),
            );
        shell
    };
    if namespace != "default" {
        up.kubectl(&format!("create namespace {namespace}"))?;
        let mut command = shell();
        command.args([
            "kubectl",
            "config",
            "set-context",
            "--current",
            "--namespace",
            namespace,
        ]);
        tests::process::run(&mut command)?;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/up");
    let done = transcript::run(&folder.join(format!("{name}.txt")), shell);
    done.with_context(|| format!("session {name}\n{}", up.state()))
}

#[test]
fn course() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let up = start()?;
    session(&up, "course", "default")
}

#[test]
fn workloads() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let up = start()?;
    // Side by side: they mostly wait. Those that change nodes come after, one by one.
    let together = [
        "deployments",
        "replica_sets",
        "stateful_sets",
        "jobs",
        "endpoints",
        "namespaces",
    ];
    let namespace = |name: &str| name.replace('_', "-");
    let mut wrong = Vec::new();
    let up = &up;
    std::thread::scope(|scope| {
        let play = |name| scope.spawn(move || session(up, name, &namespace(name)));
        let mut parts: Vec<_> = together.map(|name| (name, play(name))).into();
        parts.push(("rolling", scope.spawn(move || rolling(up))));
        parts.push(("recreate", scope.spawn(move || recreate(up))));
        for (name, part) in parts {
            match part.join() {
                Ok(done) => wrong.extend(done.err().map(|error| format!("{name}: {error:#}"))),
                Err(_) => wrong.push(format!("{name}: a panic")),
            }
        }
    });
    for name in ["scheduling", "daemon_sets"] {
        let done = session(up, name, &namespace(name));
        wrong.extend(done.err().map(|error| format!("{name}: {error:#}")));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: roll}
spec:
  replicas: 4
  progressDeadlineSeconds: 600
  selector: {matchLabels: {app: roll}}
  strategy: STRATEGY
  template:
    metadata: {labels: {app: roll}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: idle
          image: host
          command: [sleep, infinity]
"#;

/// Rolls a Deployment of the strategy and back, and looks at every moment of it.
fn roll(
    up: &Up,
    namespace: &str,
    strategy: &str,
    holds: impl Fn(&Moment) -> Result<()>,
) -> Result<()> {
    up.kubectl(&format!("create namespace {namespace}"))?;
    let kubectl = |line: &str| up.kubectl(&format!("-n {namespace} {line}"));
    let manifest = DEPLOYMENT.replace("STRATEGY", strategy).replace(
        "{name: roll}",
        &format!("{{name: roll, namespace: {namespace}}}"),
    );
    up.apply(&manifest)?;
    let status = "rollout status deployment/roll --timeout=150s";
    kubectl(status).with_context(|| up.state())?;
    let watch = Watch::begin(up, namespace)?;
    for change in [
        "set env deployment/roll VERSION=2",
        "rollout undo deployment/roll",
        "set env deployment/roll VERSION=3",
        "rollout restart deployment/roll",
    ] {
        kubectl(change)?;
        if !change.contains("VERSION=3") {
            kubectl(status).with_context(|| up.state())?;
        }
    }
    let moments = watch.end()?;
    ensure!(
        moments.len() > 20,
        "only {} moments were seen",
        moments.len()
    );
    for (number, moment) in moments.iter().enumerate() {
        holds(moment)
            .with_context(|| format!("moment {number} of {}: {moment:#?}", moments.len()))?;
    }
    kubectl("delete deployment roll").map(drop)
}

/// Never more Pods than the surge allows, never fewer ready ones than may be unavailable, also where a rollout
/// overtakes another.
fn rolling(up: &Up) -> Result<()> {
    roll(
        up,
        "rolling",
        "{rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}",
        |moment| {
            let staying = moment.pods.values().filter(|pod| !pod.leaves).count();
            let ready = moment
                .pods
                .values()
                .filter(|pod| !pod.leaves && pod.ready)
                .count();
            ensure!(staying <= 5, "{staying} Pods, and 5 are allowed");
            ensure!(ready >= 3, "{ready} Pods are ready, and 3 are the fewest");
            Ok(())
        },
    )
}

/// Never Pods of two templates, not even ones that are leaving.
fn recreate(up: &Up) -> Result<()> {
    roll(up, "recreate", "{type: Recreate}", |moment| {
        let mut templates: Vec<_> = moment
            .pods
            .values()
            .filter(|pod| !pod.ended)
            .map(|pod| &pod.template)
            .collect();
        templates.sort();
        templates.dedup();
        ensure!(templates.len() <= 1, "Pods of several templates");
        Ok(())
    })
}
