//! Faults in a cluster of `weft up`: programs killed, a node without power, a cut network, broken CNI plugins, a full
//! disk for logs. Pods that run go on running; what changed meanwhile is carried out; nothing is left behind.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;
use tests::census::{self, Member};
use tests::up::Up;
use tests::{eventually, process, requirement};

/// This may be a loaded machine.
const WAIT: Duration = Duration::from_secs(90);

/// A web server's Pods, which leave a lost node after a second; each says its name.
fn web(replicas: u8) -> String {
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

fn ready() -> bool {
    requirement::is_root()
        && requirement::has_programs(&["busybox", "ip"])
        && requirement::has_kubectl(20)
}

/// Starts `web` and waits until all of it is ready.
fn start_web(up: &Up, replicas: u8) -> Result<()> {
    up.apply(&web(replicas))?;
    rolled_out(up)
}

fn rolled_out(up: &Up) -> Result<()> {
    let done = up.kubectl("rollout status deployment/web --timeout=90s");
    done.map(drop).with_context(|| up.state())
}

/// What the cluster has at rest, after its first Pods: they make what stays (the bridge, rules, folders).
fn warm(up: &Up) -> Result<Vec<String>> {
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
fn ask(up: &Up, node: u8) -> Result<String> {
    let ip = up.field("service/web", "{.spec.clusterIP}")?;
    ask_at(up, node, &ip)
}

fn ask_at(up: &Up, node: u8, ip: &str) -> Result<String> {
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
fn living(up: &Up, node: Option<&str>) -> Result<BTreeSet<String>> {
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
fn ensure_untouched(before: &[Member], now: &[Member]) -> Result<()> {
    let missing: Vec<_> = before.iter().filter(|one| !now.contains(one)).collect();
    ensure!(
        missing.is_empty(),
        "these ended or are others now: {missing:#?}"
    );
    Ok(())
}

/// The first process of a Pod's container, by a word of its command line.
fn process_of(up: &Up, node: &str, word: &str) -> Result<Member> {
    let all = census::of_pods(up.name(), node)?;
    let found = all.into_iter().find(|one| {
        one.cgroup.as_deref().is_some_and(|path| path.contains('/')) && one.command.contains(word)
    });
    found.with_context(|| format!("no process {word} in a container on {node}"))
}

fn kill(member: &Member) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    kill(nix::unistd::Pid::from_raw(member.pid), Signal::SIGKILL)
        .with_context(|| format!("kill {member:?}"))
}

/// A Pod on node n1 that sleeps for a time that tells it apart.
fn sleeper(name: &str, seconds: u32, policy: &str, node: &str) -> String {
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

/// Names and addresses of the Pods of `web`.
fn addresses(up: &Up) -> Result<Vec<(String, String)>> {
    let path = r#"jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}"#;
    let text = process::run(&mut up.command(&["get", "pods", "-l", "app=web", "-o", path]))?;
    let pairs = text.lines().filter_map(|line| line.trim().split_once(' '));
    Ok(pairs
        .map(|(name, ip)| (name.to_owned(), ip.to_owned()))
        .collect())
}

/// A script in a CNI plugin's place, on one node; [`Broken::mend`] puts the plugin back.
struct Broken {
    path: std::path::PathBuf,
    target: std::path::PathBuf,
}

impl Broken {
    fn plugin(up: &Up, node: &str, plugin: &str, script: &str) -> Result<Self> {
        let path = up
            .folder()
            .join("nodes")
            .join(node)
            .join("cni/bin")
            .join(plugin);
        let target =
            fs::read_link(&path).with_context(|| format!("read the link {}", path.display()))?;
        let aside = path.with_extension("script");
        fs::write(&aside, script)?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
        fs::rename(&aside, &path)?;
        Ok(Self { path, target })
    }

    fn mend(self) -> Result<()> {
        fs::remove_file(&self.path)?;
        symlink(&self.target, &self.path).with_context(|| format!("link {}", self.path.display()))
    }
}

fn events_of(up: &Up, pod: &str) -> Result<String> {
    let words = [
        "get",
        "events",
        "--field-selector",
        &format!("involvedObject.name={pod}"),
        "-o",
        r#"jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}"#,
    ];
    process::run(&mut up.command(&words))
}

/// Waits for an event of a Pod with both texts in one line.
fn event(up: &Up, pod: &str, reason: &str, text: &str) -> Result<()> {
    let done = eventually(
        &format!("event {reason} with {text:?} of {pod}"),
        WAIT,
        || {
            let events = events_of(up, pod)?;
            ensure!(
                events
                    .lines()
                    .any(|line| line.starts_with(reason) && line.contains(text)),
                "{events}"
            );
            Ok(())
        },
    );
    done.with_context(|| up.state())
}

#[test]
fn broken_plugins_and_full_disks_are_told_and_survived() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let up = Up::start(&["--nodes", "2"])?;
    let fresh = warm(&up)?;

    // On n2 the last plugin of the chain hangs: half is done by then, and is to be undone.
    let hangs = Broken::plugin(
        &up,
        "n2",
        "portmap",
        "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\nsleep 90000\n",
    )?;
    up.apply(&sleeper("hangs", 70_005, "Never", "n2"))?;

    // On n1 the first fails, by the rules.
    let fails = "#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"the moon is full\"}'\nexit 1\n";
    let fails = Broken::plugin(&up, "n1", "flannel", fails)?;
    up.apply(&sleeper("fails", 70_006, "Never", "n1"))?;
    event(&up, "fails", "FailedCreatePodSandBox", "the moon is full")?;
    ensure!(
        census::of_pods(up.name(), "n1")?
            .iter()
            .all(|one| !one.command.contains("sleep 70006"))
    );
    fails.mend()?;
    up.wait_for("pod/fails", "condition=Ready", WAIT)?;

    // And the last, with no word of sense.
    let babbles = Broken::plugin(
        &up,
        "n1",
        "portmap",
        "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\necho nonsense\nexit 3\n",
    )?;
    up.apply(&sleeper("babbles", 70_007, "Never", "n1"))?;
    event(&up, "babbles", "FailedCreatePodSandBox", "nonsense")?;
    // What the first plugins had made is undone: one Pod has a network there, not two.
    eventually("the bridge has one port", WAIT, || {
        let ports = up.node(1).sh("ip -o link show master cni0")?;
        ensure!(ports.lines().count() == 1, "{ports}");
        let leases = fs::read_dir(up.folder().join("nodes/n1/cni/networks/cbr0"))?.flatten();
        let leases: Vec<_> = leases
            .map(|lease| lease.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("10."))
            .collect();
        ensure!(leases.len() == 1, "{leases:?}");
        Ok(())
    })?;
    babbles.mend()?;
    up.wait_for("pod/babbles", "condition=Ready", WAIT)?;

    full_disk(&up)?;

    event(&up, "hangs", "FailedCreatePodSandBox", "no answer within")?;
    hangs.mend()?;
    up.wait_for("pod/hangs", "condition=Ready", WAIT)?;
    eventually("no plugin hangs any more", WAIT, || {
        let all = census::processes(up.name(), Some("n2"))?;
        let left: Vec<_> = all
            .iter()
            .filter(|one| one.command.contains("90000") || one.command.contains("portmap"))
            .collect();
        ensure!(left.is_empty(), "{left:#?}");
        Ok(())
    })?;

    // A Pod whose network cannot be made can be deleted all the same.
    let hangs = Broken::plugin(&up, "n1", "flannel", "#!/bin/sh\nexit 1\n")?;
    up.apply(&sleeper("never", 70_008, "Never", "n1"))?;
    event(&up, "never", "FailedCreatePodSandBox", "flannel")?;
    up.kubectl("delete pod never --wait=false")?;
    hangs.mend()?;
    up.kubectl("delete pod fails babbles hangs --wait=false")?;
    eventually("all Pods are gone", WAIT, || {
        let left = up.kubectl("get pods -o name")?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    census::ensure_as_before(up.name(), &fresh, WAIT)
}

/// The disk of n1's logs is full: a container that talks goes on, and when there is room again its log says what it
/// has lost.
fn full_disk(up: &Up) -> Result<()> {
    let logs = up.folder().join("nodes/n1/logs");
    let logs = logs.to_str().context("a path")?;
    let mount = |options: &str| {
        process::run(std::process::Command::new("mount").args([
            "-t",
            "tmpfs",
            "-o",
            options,
            "weft-test",
            logs,
        ]))
    };
    // One page: whatever is written fills it.
    mount("size=4k")?;
    let done = (|| {
        up.apply(
            r#"
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: host
      command: [sh, -c, "i=0; while true; do i=$((i+1)); echo $i >/tmp/count; echo line $i of many that fill a disk; [ $i -lt 3000 ] || sleep 0.2; done"]
"#,
        )?;
        let count =
            || -> Result<u64> { Ok(up.kubectl("exec talks -- cat /tmp/count")?.trim().parse()?) };
        eventually("it has filled the disk and goes on", WAIT, || {
            let (first, full) = (
                count()?,
                process::run(std::process::Command::new("df").args(["--output=avail", logs]))?,
            );
            ensure!(
                first > 3000 && full.lines().last().is_some_and(|line| line.trim() == "0"),
                "line {first}; {full}"
            );
            std::thread::sleep(Duration::from_millis(500));
            ensure!(count()? > first, "it stands at line {first}");
            Ok(())
        })?;
        process::run(std::process::Command::new("mount").args(["-o", "remount,size=16m", logs]))?;
        eventually("its log goes on, and says what was lost", WAIT, || {
            let log = up.kubectl("logs talks --tail=2000")?;
            ensure!(
                log.contains("lines were lost here"),
                "{} lines",
                log.lines().count()
            );
            Ok(())
        })?;
        let restarts = up.field("pod/talks", "{.status.containerStatuses[0].restartCount}")?;
        ensure!(restarts == "0", "{restarts} restarts");
        up.kubectl("delete pod talks")?;
        Ok(())
    })();
    process::run(std::process::Command::new("umount").args(["-l", logs]))?;
    done
}
