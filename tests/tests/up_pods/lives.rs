//! How Pods end, wait and come again: restart policies, init containers, probes, bad input, what is killed.

use super::pods::{LIMIT, can_run, event, hold, inside, prints};
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};
use tests::eventually;
use tests::up::Up;

const STATE: &str = "/status/containerStatuses/0/state";

#[test]
fn pods_live_and_end() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let up = Up::start(&["--nodes", "1"])?;
    up.apply(include_str!("../data/up_pods/lives.yaml"))?;
    ended(&up)?;
    restarted(&up)?;
    initialized(&up)?;
    refused(&up)?;
    probed(&up)?;
    missing_objects_come(&up)?;
    killed(&up)?;
    graceful(&up)?;
    broken_network_heals(&up)
}

fn ended(up: &Up) -> Result<()> {
    let exit = "/status/containerStatuses/0/state/terminated";
    let code = format!("{exit}/exitCode");
    let reason = format!("{exit}/reason");
    hold(
        up,
        &[
            ("never-ok", "/status/phase", "Succeeded"),
            ("never-ok", &reason, "Completed"),
            ("never-ok", "/status/podIP", "~10.244."),
            ("never-ok", "/status/containerStatuses/0/restartCount", "0"),
            ("never-bad", "/status/phase", "Failed"),
            ("never-bad", &code, "7"),
            ("never-bad", &reason, "Error"),
            ("never-bad", &format!("{exit}/message"), "~last words"),
            ("never-bad", "/status/podIP", "~10.244."),
            ("half", "/status/phase", "Running"),
            ("half", &reason, "Completed"),
            ("half", "/status/containerStatuses/1/ready", "true"),
            ("signalled", "/status/phase", "Failed"),
            ("signalled", &code, "137"),
            ("second-try", "/status/phase", "Succeeded"),
            (
                "second-try",
                "/status/containerStatuses/0/restartCount",
                "1",
            ),
            (
                "second-try",
                "/status/containerStatuses/0/lastState/terminated/exitCode",
                "3",
            ),
            ("second-try", "/status/podIP", "~10.244."),
            ("too-long", "/status/phase", "Failed"),
            ("too-long", "/status/reason", "DeadlineExceeded"),
            ("too-long", &code, "137"),
            ("sidecar", "/status/phase", "Succeeded"),
            ("hungry", "/status/phase", "Failed"),
            ("hungry", "/status/podIP", "~10.244."),
        ],
    )?;
    if std::fs::read_to_string("/proc/self/mountinfo")?.contains("memory") {
        hold(
            up,
            &[("hungry", &reason, "OOMKilled"), ("hungry", &code, "137")],
        )?;
    }
    let table = up.kubectl("get pods never-ok never-bad too-long -o wide --no-headers")?;
    for (line, status) in table.lines().zip(["Completed", "Error", ""]) {
        ensure!(line.contains(status), "{line}");
        ensure!(
            status.is_empty() || line.contains("10.244."),
            "no address: {line}"
        );
    }
    Ok(())
}

fn restarted(up: &Up) -> Result<()> {
    let waiting = format!("{STATE}/waiting/reason");
    let message = format!("{STATE}/waiting/message");
    hold(
        up,
        &[
            ("crashes", "/status/phase", "Running"),
            ("crashes", &waiting, "CrashLoopBackOff"),
            ("crashes", &message, "~back-off "),
            ("crashes", "/status/containerStatuses/0/restartCount", ">0"),
            (
                "crashes",
                "/status/containerStatuses/0/lastState/terminated/exitCode",
                "3",
            ),
            ("again", &waiting, "CrashLoopBackOff"),
            (
                "again",
                "/status/containerStatuses/0/lastState/terminated/reason",
                "Completed",
            ),
        ],
    )?;
    event(
        up,
        "crashes",
        "BackOff",
        "Back-off restarting failed container main in pod crashes_default(",
    )?;
    let line = up.kubectl("get pod crashes --no-headers")?;
    ensure!(line.contains("CrashLoopBackOff"), "{line}");
    ensure!(line.contains(" ago)"), "RESTARTS tells no time: {line}");
    Ok(())
}

fn initialized(up: &Up) -> Result<()> {
    hold(
        up,
        &[
            ("inits", "/status/phase", "Running"),
            (
                "inits",
                "/status/initContainerStatuses/1/state/terminated/reason",
                "Completed",
            ),
            ("init-bad", "/status/phase", "Failed"),
            (
                "init-bad",
                "/status/initContainerStatuses/0/state/terminated/exitCode",
                "1",
            ),
            ("init-loops", "/status/phase", "Pending"),
            (
                "init-loops",
                "/status/initContainerStatuses/0/restartCount",
                ">0",
            ),
            (
                "init-loops",
                "/status/initContainerStatuses/0/state/waiting/reason",
                "CrashLoopBackOff",
            ),
            (
                "init-loops",
                &format!("{STATE}/waiting/reason"),
                "PodInitializing",
            ),
        ],
    )?;
    let order = up.kubectl("logs inits")?;
    ensure!(order == "one\ntwo\n", "{order:?}");
    let table = up.kubectl("get pods init-bad init-loops --no-headers")?;
    ensure!(
        table.contains("Init:Error") && table.contains("Init:CrashLoopBackOff"),
        "{table}"
    );
    Ok(())
}

fn refused(up: &Up) -> Result<()> {
    let waiting = format!("{STATE}/waiting/reason");
    hold(
        up,
        &[
            ("no-image", "/status/phase", "Pending"),
            ("no-image", &waiting, "ImagePullBackOff"),
            ("no-folder", &waiting, "InvalidImageName"),
            ("no-command", &waiting, "CrashLoopBackOff"),
            (
                "no-command",
                "/status/containerStatuses/0/lastState/terminated/reason",
                "StartError",
            ),
            ("no-program", "/status/phase", "Failed"),
            (
                "no-program",
                &format!("{STATE}/terminated/reason"),
                "StartError",
            ),
            (
                "no-program",
                &format!("{STATE}/terminated/message"),
                "~executable file not found in $PATH",
            ),
            ("no-object", &waiting, "CreateContainerConfigError"),
            (
                "no-object",
                &format!("{STATE}/waiting/message"),
                "configmap \"late\" not found",
            ),
            ("no-volume", &waiting, "ContainerCreating"),
        ],
    )?;
    event(
        up,
        "no-image",
        "Failed",
        "Failed to pull image \"example.org/no/such:1\"",
    )?;
    event(up, "no-image", "Failed", "Error: ImagePullBackOff")?;
    event(
        up,
        "no-image",
        "BackOff",
        "Back-off pulling image \"example.org/no/such:1\"",
    )?;
    event(up, "no-folder", "InspectFailed", "/no/such/folder")?;
    event(up, "no-command", "Failed", "/no/such/program")?;
    event(up, "no-object", "Failed", "configmap \"late\" not found")?;
    event(up, "no-volume", "FailedMount", "secret \"late\" not found")
}

fn missing_objects_come(up: &Up) -> Result<()> {
    up.kubectl("create configmap late --from-literal=x=1")?;
    up.kubectl("create secret generic late --from-literal=x=1")?;
    up.wait_for("pod/no-object pod/no-volume", "condition=Ready", LIMIT)
}

fn probed(up: &Up) -> Result<()> {
    let ready = "/status/containerStatuses/0/ready";
    hold(
        up,
        &[
            // In the order of the specification: http, exec.
            ("probed", "/status/containerStatuses/1/started", "true"),
            ("probed", "/status/containerStatuses/1/ready", "true"),
            ("probed", ready, "false"),
            ("probed", "/status/containerStatuses/0/restartCount", "0"),
            ("never-ready", "/status/phase", "Running"),
            ("never-ready", ready, "false"),
            (
                "never-ready",
                "/status/containerStatuses/0/restartCount",
                "0",
            ),
            ("dead", "/status/containerStatuses/0/restartCount", ">0"),
            ("never-up", "/status/containerStatuses/0/restartCount", ">0"),
            ("never-up", "/status/containerStatuses/0/ready", "false"),
        ],
    )?;
    event(
        up,
        "probed",
        "Unhealthy",
        "Readiness probe failed: HTTP probe failed with statuscode: 404",
    )?;
    event(up, "never-ready", "Unhealthy", "Readiness probe failed: ")?;
    event(up, "dead", "Unhealthy", "Liveness probe failed: ")?;
    event(
        up,
        "dead",
        "Killing",
        "Container main failed liveness probe, will be restarted",
    )?;
    event(
        up,
        "never-up",
        "Killing",
        "Container main failed startup probe, will be restarted",
    )?;
    inside(up, "probed", "exec", "echo >/shared/ready")?;
    hold(up, &[("probed", ready, "true")])?;
    inside(up, "probed", "exec", "rm /shared/ready")?;
    hold(up, &[("probed", ready, "false")])
}

/// A container, then the pause process, of a Pod with two containers.
fn killed(up: &Up) -> Result<()> {
    up.apply(TWINS)?;
    up.wait_for("pod/twins", "condition=Ready", LIMIT)?;
    let id = |place: usize| {
        up.field(
            "pod/twins",
            &format!("{{.status.containerStatuses[{place}].containerID}}"),
        )
    };
    let (first, second) = (id(0)?, id(1)?);
    kill(up, "sleep 4242")?;
    hold(
        up,
        &[
            ("twins", "/status/containerStatuses/0/restartCount", "1"),
            ("twins", "/status/containerStatuses/0/ready", "true"),
            (
                "twins",
                "/status/containerStatuses/0/lastState/terminated/exitCode",
                "137",
            ),
            ("twins", "/status/containerStatuses/1/restartCount", "0"),
        ],
    )?;
    ensure!(id(1)? == second, "the neighbour was disturbed");
    ensure!(id(0)? != first, "the container is the old one");
    let before = up.field("pod/twins", "{.status.podIP}")?;
    let sandbox = pause_of(up, "twins")?;
    kill(up, &format!("weft pause {sandbox}"))?;
    hold(
        up,
        &[
            ("twins", "/status/containerStatuses/0/restartCount", "2"),
            ("twins", "/status/containerStatuses/1/restartCount", "1"),
            ("twins", "/status/containerStatuses/0/ready", "true"),
            ("twins", "/status/containerStatuses/1/ready", "true"),
            ("twins", "/status/phase", "Running"),
        ],
    )?;
    event(
        up,
        "twins",
        "SandboxChanged",
        "Pod sandbox changed, it will be killed and re-created.",
    )?;
    let after = up.field("pod/twins", "{.status.podIP}")?;
    ensure!(
        before != after,
        "the address of a network that is gone: {after}"
    );
    prints(up, "twins", "one", "grep -c twins /etc/hosts", "1")
}

const TWINS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: twins}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - {name: one, image: host, command: [sleep, "4242"]}
    - {name: two, image: host, command: [sleep, "4343"]}
"#;

/// Kills the one process of this cluster with this command line.
fn kill(up: &Up, line: &str) -> Result<()> {
    let own = up.name().to_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let (Ok(words), Ok(cgroup)) = (
            std::fs::read(path.join("cmdline")),
            std::fs::read_to_string(path.join("cgroup")),
        ) else {
            continue;
        };
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.trim() == line && (cgroup.contains(&own) || line.contains(&own)) {
            found.extend(
                path.file_name()
                    .and_then(|name| name.to_str()?.parse::<i32>().ok()),
            );
        }
    }
    let [pid] = found[..] else {
        anyhow::bail!("{line:?} is run by {found:?}");
    };
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .with_context(|| format!("kill {line:?}"))
}

/// The folder of a Pod's sandbox, which its pause process names.
fn pause_of(up: &Up, pod: &str) -> Result<String> {
    let sandboxes = up.folder().join("nodes/n1/runtime/sandboxes");
    for entry in std::fs::read_dir(sandboxes)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(path.join("config.json")).unwrap_or_default();
        if text.contains(&format!("\"name\":\"{pod}\"")) {
            return Ok(path.display().to_string());
        }
    }
    anyhow::bail!("there is no sandbox of {pod}")
}

/// SIGTERM after the hook, SIGKILL not before the grace period is over.
fn graceful(up: &Up) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let manifest = GRACEFUL.replace("HOSTPATH", &folder.path().display().to_string());
    up.apply(&manifest)?;
    up.wait_for("pod/polite pod/deaf", "condition=Ready", LIMIT)?;
    let since = Instant::now();
    up.kubectl("delete pod polite deaf")?;
    let took = since.elapsed();
    let said = std::fs::read_to_string(folder.path().join("said"))?;
    ensure!(said == "hook\nterm\n", "{said:?}");
    ensure!(
        took >= Duration::from_secs(3),
        "deaf had 3 s, and was gone after {took:?}"
    );
    eventually("no Pod is left", LIMIT, || {
        let left = up.kubectl("get pods polite deaf --ignore-not-found")?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

const GRACEFUL: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: polite}
spec:
  volumes: [{name: out, hostPath: {path: HOSTPATH}}]
  containers:
    - name: main
      image: host
      command: [sh, -c, "trap 'echo term >>/out/said; exit 0' TERM; while :; do sleep 0.1; done"]
      volumeMounts: [{name: out, mountPath: /out}]
      lifecycle: {preStop: {exec: {command: [sh, -c, "echo hook >>/out/said"]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: deaf}
spec:
  terminationGracePeriodSeconds: 3
  containers:
    - {name: main, image: host, command: [sh, -c, "trap '' TERM; while :; do sleep 0.1; done"]}
"#;

fn broken_network_heals(up: &Up) -> Result<()> {
    let list = up.folder().join("nodes/n1/cni/net.d/10-flannel.conflist");
    let good = std::fs::read_to_string(&list)?;
    // Straight to the node: the scheduler rightly gives none to a node without a network.
    std::fs::write(&list, good.replace("\"portmap\"", "\"no-such-plugin\""))?;
    up.apply(&ON_NODE.replace("NAME", "waits"))?;
    event(up, "waits", "NetworkNotReady", "no-such-plugin")?;
    hold(
        up,
        &[
            ("waits", "/status/phase", "Pending"),
            ("half", "/status/phase", "Running"),
        ],
    )?;
    std::fs::write(&list, "{ this is no JSON")?;
    up.apply(&ON_NODE.replace("NAME", "waits-too"))?;
    event(up, "waits-too", "NetworkNotReady", "network is not ready")?;
    std::fs::write(&list, good)?;
    up.wait_for("pod/waits pod/waits-too", "condition=Ready", LIMIT)?;
    up.wait_for("node/n1", "condition=Ready", LIMIT)
}

const ON_NODE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 0
  containers:
    - {name: main, image: host, command: [sleep, "3600"]}
"#;
