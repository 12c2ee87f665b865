//! A web server in a cluster: its Pods, who answers, what runs of it.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use tests::census::{self, Member};
use tests::up::Up;
use tests::{eventually, process, requirement};

use crate::WAIT;

/// A web server's Pods, which leave a lost node after a second; each says its name.
pub fn web(replicas: u8) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
        - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}
        - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}
      containers:
        - name: httpd
          image: host
          command: [sh, -c, "hostname >/tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp"]
          readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
"#
    )
}

pub fn ready() -> bool {
    requirement::is_root()
        && requirement::has_programs(&["busybox", "ip"])
        && requirement::has_kubectl(20)
}

/// Starts `web` and waits until all of it is ready.
pub fn start_web(up: &Up, replicas: u8) -> Result<()> {
    up.apply(&web(replicas))?;
    rolled_out(up)
}

pub fn rolled_out(up: &Up) -> Result<()> {
    let done = up.kubectl("rollout status deployment/web --timeout=90s");
    done.map(drop).with_context(|| up.state())
}

/// What the cluster has at rest, after its first Pods: they make what stays (the bridge, rules, folders).
pub fn warm(up: &Up) -> Result<Vec<String>> {
    for node in ["n1", "n2"] {
        up.apply(&sleeper(&format!("warm-{node}"), 70_000, "Never", node))?;
    }
    up.wait_for("pod/warm-n1 pod/warm-n2", "condition=Ready", WAIT)?;
    up.kubectl("delete pod warm-n1 warm-n2")?;
    let mut last = Vec::new();
    eventually("the nodes have come to rest", WAIT, || {
        let now = census::of(up.name())?;
        let veths = now.iter().filter(|line| line.contains("VETH")).count();
        let before = std::mem::replace(&mut last, now);
        ensure!(
            before == last && veths == 0,
            "{veths} veths, {} lines, then {}",
            before.len(),
            last.len()
        );
        Ok(())
    })?;
    Ok(last)
}

/// One answer of the Service, asked from a node.
pub fn ask(up: &Up, node: u8) -> Result<String> {
    let ip = up.field("service/web", "{.spec.clusterIP}")?;
    ask_at(up, node, &ip)
}

pub fn ask_at(up: &Up, node: u8, ip: &str) -> Result<String> {
    up.node(node).exec(
        "timeout",
        &[
            "3",
            "busybox",
            "wget",
            "-q",
            "-O",
            "-",
            &format!("http://{ip}/"),
        ],
    )
}

/// Names of the Pods of `web` that are not being deleted, of a node or all.
pub fn living(up: &Up, node: Option<&str>) -> Result<BTreeSet<String>> {
    let path = r#"jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.metadata.deletionTimestamp}{"\n"}{end}"#;
    let text = process::run(&mut up.command(&["get", "pods", "-l", "app=web", "-o", path]))?;
    let rows = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let kept = rows.filter(|row| row.get(2).is_none_or(|at| at.is_empty()));
    let kept = kept.filter(|row| node.is_none_or(|node| row.get(1) == Some(&node)));
    Ok(kept
        .filter_map(|row| row.first().map(|name| (*name).to_owned()))
        .collect())
}

/// All that ran before runs still, untouched.
pub fn ensure_untouched(before: &[Member], now: &[Member]) -> Result<()> {
    let missing: Vec<_> = before.iter().filter(|one| !now.contains(one)).collect();
    ensure!(
        missing.is_empty(),
        "these ended or are others now: {missing:#?}"
    );
    Ok(())
}

/// The first process of a Pod's container, by a word of its command line.
pub fn process_of(up: &Up, node: &str, word: &str) -> Result<Member> {
    let all = census::of_pods(up.name(), node)?;
    let found = all.into_iter().find(|one| {
        one.cgroup.as_deref().is_some_and(|path| path.contains('/')) && one.command.contains(word)
    });
    found.with_context(|| format!("no process {word} in a container on {node}"))
}

pub fn kill(member: &Member) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    kill(nix::unistd::Pid::from_raw(member.pid), Signal::SIGKILL)
        .with_context(|| format!("kill {member:?}"))
}

/// A Pod on node n1 that sleeps for a time that tells it apart.
pub fn sleeper(name: &str, seconds: u32, policy: &str, node: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  restartPolicy: {policy}
  terminationGracePeriodSeconds: 1
  containers:
    - {{name: main, image: host, command: [sleep, "{seconds}"]}}
"#
    )
}

/// Names and addresses of the Pods of `web`.
pub fn addresses(up: &Up) -> Result<Vec<(String, String)>> {
    let path = r#"jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}"#;
    let text = process::run(&mut up.command(&["get", "pods", "-l", "app=web", "-o", path]))?;
    let pairs = text.lines().filter_map(|line| line.trim().split_once(' '));
    Ok(pairs
        .map(|(name, ip)| (name.to_owned(), ip.to_owned()))
        .collect())
}
