//! The life of clusters by `weft up`: side by side, twice, interrupted, killed, taken away from any state without a
//! trace; every backend, proxy mode and store.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tests::up::Up;
use tests::{census, eventually, process, requirement, subject};

/// This may be a loaded machine.
const WAIT: Duration = Duration::from_secs(90);
/// `nobody`
const USER: u32 = 65_534;

fn ready() -> bool {
    requirement::is_root()
        && requirement::has_programs(&["busybox", "ip"])
        && requirement::has_kubectl(20)
}

fn weft(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(subject::program("weft")?);
    command.args(arguments).stdin(Stdio::null());
    Ok(command)
}

/// What a command that must fail says.
fn complaint(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it succeeded: {said}");
    Ok(said)
}

fn ensure_says(said: &str, wanted: &str) -> Result<()> {
    ensure!(said.contains(wanted), "no {wanted:?} in {said:?}");
    Ok(())
}

fn status(up: &Up) -> Result<(bool, String)> {
    let Output { status, stdout, .. } = weft(&["status", "--name", up.name()])?.output()?;
    Ok((
        status.success(),
        String::from_utf8_lossy(&stdout).into_owned(),
    ))
}

/// A name that no other test uses.
fn fresh(what: &str) -> Result<String> {
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(format!(
        "{what}{}-{}",
        std::process::id(),
        random.get(..4).unwrap_or("x")
    ))
}

#[test]
fn two_clusters_stand_side_by_side_and_leave_nothing() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let host = census::of_host()?;
    let (a, b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| Up::start(&["--nodes", "2"]));
        let b = scope.spawn(|| Up::start(&["--nodes", "1"]));
        (a.join(), b.join())
    });
    let (Ok(a), Ok(b)) = (a, b) else {
        bail!("a thread panicked")
    };
    let (mut a, b) = (a?, b?);
    ensure!(a.kubectl("get nodes -o name")?.lines().count() == 2);
    ensure!(b.kubectl("get nodes -o name")?.lines().count() == 1);
    a.kubectl("create configmap mine --from-literal=of=a")?;
    ensure!(
        b.kubectl("get configmap mine").is_err(),
        "one cluster has what the other was given"
    );

    // Up again changes nothing; with other options it is refused.
    let parts = ["server", "n1", "n2"];
    let pids = |up: &Up| {
        parts
            .iter()
            .map(|part| up.pid(part))
            .collect::<Result<Vec<_>>>()
    };
    let before = pids(&a)?;
    a.raise(&[])?;
    a.raise(&["--nodes", "2"])?;
    ensure!(pids(&a)? == before, "weft up has started again what ran");
    let said = complaint(&mut weft(&["up", "--name", a.name(), "--nodes", "4"])?)?;
    ensure_says(&said, "is there with other options")?;
    ensure_says(
        &complaint(&mut weft(&["down", "--name", a.name(), "n7"])?)?,
        "has no node n7: its nodes are n1, n2",
    )?;
    ensure_says(
        &complaint(&mut weft(&["down", "--name", "../../etc"])?)?,
        "a name has 1 to 24 of",
    )?;

    // Status tells what is wrong, and how to mend it.
    let (well, text) = status(&a)?;
    ensure!(well, "{text}");
    for part in [
        "server   process",
        "n2       process",
        "n1     True",
        "0 Pods, 0 not ready",
        "export KUBECONFIG=",
    ] {
        ensure_says(&text, part)?;
    }
    a.kill("n2")?;
    eventually("n2's process is gone", WAIT, || {
        let (well, text) = status(&a)?;
        ensure!(!well, "all is well?");
        ensure_says(&text, "n2       not running: weft up starts it")
    })?;
    a.kill("server")?;
    let mut port = None;
    eventually("the server is gone", WAIT, || {
        let (well, text) = status(&a)?;
        ensure!(!well, "all is well?");
        ensure_says(&text, "the API server does not answer")?;
        ensure_says(&text, "server   not running: weft up starts it")?;
        port = Some(TcpListener::bind(("127.0.0.1", port_of(&a)?))?);
        Ok(())
    })?;
    // Somebody else has taken its port.
    let said = complaint(&mut weft(&["up", "--name", a.name()])?)?;
    ensure_says(&said, "Address already in use")?;
    ensure_says(&said, &format!("listen on 127.0.0.1:{}", port_of(&a)?))?;
    drop(port);
    a.raise(&[])?;
    ensure!(status(&a)?.0, "{}", status(&a)?.1);

    // All is killed at once, with Pods that run; and taken away.
    a.kubectl("create deployment idle --image=host --replicas=4 -- sleep 80001")?;
    a.wait_for("deployment/idle", "condition=Available", WAIT)?;
    for one in census::processes(a.name(), None)? {
        use nix::sys::signal::{Signal, kill};
        // One that has ended with another before it is no failure.
        let _ = kill(nix::unistd::Pid::from_raw(one.pid), Signal::SIGKILL);
    }
    ensure_says(&a.weft(&["down"])?, "is gone")?;
    census::ensure_nothing(a.name(), WAIT)?;
    ensure_says(&a.weft(&["down"])?, "there is no cluster")?;
    ensure_says(
        &complaint(&mut weft(&["status", "--name", a.name()])?)?,
        "makes it",
    )?;
    // The other has not noticed.
    ensure!(status(&b)?.0, "{}", status(&b)?.1);
    // With Pods that run, of which one does not want to end.
    b.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: deaf}
spec:
  terminationGracePeriodSeconds: 600
  volumes: [{name: fast, emptyDir: {medium: Memory}}]
  containers:
    - {name: deaf, image: host, command: [sh, -c, "trap '' TERM; sleep 80002 & wait; sleep 80002"], volumeMounts: [{name: fast, mountPath: /mnt}]}
"#,
    )?;
    b.wait_for("pod/deaf", "condition=Ready", WAIT)?;
    b.weft(&["down"])?;
    census::ensure_nothing(b.name(), WAIT)?;
    eventually("the host's links are as before", WAIT, || {
        let now = census::of_host()?;
        ensure!(now == host, "{host:?} became {now:?}");
        Ok(())
    })
}

fn port_of(up: &Up) -> Result<u16> {
    let text = fs::read(up.folder().join("cluster.json"))?;
    let cluster: serde_json::Value = serde_json::from_slice(&text)?;
    let port = cluster["port"]
        .as_u64()
        .context("no port in cluster.json")?;
    Ok(port.try_into()?)
}

#[test]
fn a_cluster_that_is_half_made_goes_without_a_trace() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    use nix::sys::signal::{Signal, killpg};
    let name = fresh("h")?;
    // Interrupted as Ctrl-C does it, and killed, sooner and later.
    let attempts = [
        (20, Signal::SIGINT),
        (60, Signal::SIGKILL),
        (150, Signal::SIGINT),
        (300, Signal::SIGKILL),
        (700, Signal::SIGINT),
    ];
    for (after, signal) in attempts {
        let mut command = weft(&["up", "--name", &name, "--nodes", "2"])?;
        let mut child = command
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(after));
        // It may have been quicker.
        let _ = killpg(nix::unistd::Pid::from_raw(child.id().try_into()?), signal);
        child.wait()?;
        process::run(&mut weft(&["down", "--name", &name])?)?;
        census::ensure_nothing(&name, WAIT)
            .with_context(|| format!("{signal} after {after} ms"))?;
    }
    // What was interrupted is completed by the next; two at once are one after the other.
    let mut command = weft(&["up", "--name", &name, "--nodes", "2"])?;
    let mut child = command
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_millis(200));
    let _ = killpg(
        nix::unistd::Pid::from_raw(child.id().try_into()?),
        Signal::SIGKILL,
    );
    child.wait()?;
    let twice = || {
        weft(&["up", "--quiet", "--name", &name, "--nodes", "2"])?
            .stdout(Stdio::null())
            .spawn()
            .map_err(Into::into)
    };
    let both: Result<Vec<_>> = [twice(), twice()].into_iter().collect();
    let mut ends = Vec::new();
    for mut one in both? {
        ends.push(one.wait()?);
    }
    // Owned from here on, so that it goes in any case.
    let up = Up::start_named(&name, &[])?;
    ensure!(ends.iter().all(|end| end.success()), "{ends:?}");
    let running = census::processes(&name, None)?;
    let mains: Vec<_> = running
        .iter()
        .filter(|one| one.command.contains("--detached"))
        .collect();
    ensure!(mains.len() == 3, "one server and two nodes, not {mains:#?}");

    // What was written down is damaged.
    fs::write(up.folder().join("cluster.json"), "{")?;
    ensure_says(
        &complaint(&mut weft(&["up", "--name", &name])?)?,
        &format!("weft down --name {name}"),
    )?;
    up.weft(&["down"])?;
    census::ensure_nothing(&name, WAIT)
}

#[test]
fn who_typed_sudo_uses_the_cluster_as_himself() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    // The program is where only root looks, on some machines.
    let place = tempfile::Builder::new().prefix("weft-user-").tempdir()?;
    fs::set_permissions(
        place.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )?;
    let own = place.path().join("weft");
    fs::copy(subject::program("weft")?, &own)?;
    let as_user = |program: &std::path::Path| {
        let mut command = Command::new(program);
        command
            .uid(USER)
            .gid(USER)
            .env("HOME", place.path())
            .current_dir("/")
            .stdin(Stdio::null());
        command
    };
    for (words, wanted) in [
        (&["up"][..], "needs root: sudo weft up"),
        (&["down"], "needs root: sudo weft down"),
    ] {
        ensure_says(&complaint(as_user(&own).args(words))?, wanted)?;
    }

    let name = fresh("s")?;
    let mut command = weft(&["up", "--quiet", "--name", &name, "--nodes", "1"])?;
    let path = process::run(
        command
            .env("SUDO_UID", USER.to_string())
            .env("SUDO_GID", USER.to_string()),
    );
    let up = Up::start_named(&name, &[])?;
    let path = std::path::PathBuf::from(path?.trim());
    // Up once more, by root himself, has made it root's; sudo again makes it the user's.
    ensure!(fs::metadata(&path)?.uid() == 0);
    process::run(
        weft(&["up", "--quiet", "--name", &name])?
            .env("SUDO_UID", USER.to_string())
            .env("SUDO_GID", USER.to_string()),
    )?;
    let meta = fs::metadata(&path)?;
    ensure!(
        (meta.uid(), meta.mode() & 0o777) == (USER, 0o600),
        "{:o} of {}",
        meta.mode(),
        meta.uid()
    );
    let kubectl = requirement::find_in_path("kubectl").context("kubectl")?;
    let nodes = process::run(
        as_user(&kubectl)
            .args(["get", "nodes", "-o", "name"])
            .env("KUBECONFIG", &path),
    )?;
    ensure!(nodes.trim() == "node/n1", "{nodes}");
    let text = process::run(as_user(&own).args(["status", "--name", &name]))?;
    ensure_says(&text, "n1     True")?;
    // Nothing else in there is his.
    for secret in [
        "server/admin.kubeconfig",
        "server/pki/ca.key",
        "server/node-token",
        "nodes/n1/node.kubeconfig",
    ] {
        let secret = up.folder().join(secret);
        ensure!(secret.exists(), "no {}", secret.display());
        ensure_says(
            &complaint(as_user("/bin/cat".as_ref()).arg(&secret))?,
            "Permission denied",
        )?;
    }
    for folder in [
        up.folder(),
        up.folder().join("server"),
        up.folder().join("nodes"),
    ] {
        ensure_says(
            &complaint(as_user("/bin/ls".as_ref()).arg(&folder))?,
            "Permission denied",
        )?;
    }
    Ok(())
}

/// A server on each of two nodes, a Service before them, and a Pod that asks.
const TRAFFIC: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: httpd
          image: host
          command: [sh, -c, "echo $NODE >/tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp"]
          env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// Pod to Pod over both nodes, and the Service from a Pod and from the nodes.
fn traffic(up: &Up) -> Result<()> {
    up.apply(TRAFFIC)?;
    up.kubectl("rollout status daemonset/web --timeout=90s")
        .with_context(|| up.state())?;
    let path =
        r#"jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP}{"\n"}{end}"#;
    let text = process::run(&mut up.command(&["get", "pods", "-l", "app=web", "-o", path]))?;
    let pods: Vec<Vec<_>> = text.lines().map(|line| line.split(' ').collect()).collect();
    ensure!(pods.len() == 2, "{text}");
    let service = up.field("service/web", "{.spec.clusterIP}")?;
    let port = up.field("service/web", "{.spec.ports[0].nodePort}")?;
    let get = |url: &str| format!("timeout 3 busybox wget -q -O - {url}");
    for from in &pods {
        for to in &pods {
            let line = format!(
                "exec {} -- {}",
                from[0],
                get(&format!("http://{}:8080/", to[2]))
            );
            eventually(&line, WAIT, || {
                let answer = up.kubectl(&line)?;
                ensure!(answer.trim() == to[1], "{answer}");
                Ok(())
            })?;
        }
        eventually("the Service answers a Pod", WAIT, || {
            up.kubectl(&format!(
                "exec {} -- {}",
                from[0],
                get(&format!("http://{service}/"))
            ))
        })?;
    }
    for number in [1, 2] {
        for url in [
            format!("http://{service}/"),
            format!("http://192.168.66.1{number}:{port}/"),
        ] {
            eventually(&format!("n{number} gets {url}"), WAIT, || {
                up.node(number).sh(&get(&url))
            })?;
        }
    }
    Ok(())
}

#[test]
fn udp_and_iptables() -> Result<()> {
    if !ready() || !requirement::has_programs(&["iptables-restore"]) {
        return Ok(());
    }
    let up = Up::start(&[
        "--nodes",
        "2",
        "--backend",
        "udp",
        "--proxy-mode",
        "iptables",
    ])?;
    traffic(&up)?;
    let rules = up.node(1).sh("iptables-save -t nat")?;
    ensure_says(&rules, "KUBE-SERVICES")
}

#[test]
fn host_gw_and_userspace() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let up = Up::start(&[
        "--nodes",
        "2",
        "--backend",
        "host-gw",
        "--proxy-mode",
        "userspace",
    ])?;
    traffic(&up)?;
    let routes = up.node(1).sh("ip route show")?;
    ensure_says(&routes, "10.244.1.0/24 via 192.168.66.12 dev eth0")
        .or_else(|_| ensure_says(&routes, "10.244.0.0/24 via 192.168.66.12 dev eth0"))
}

#[test]
fn a_real_etcd_keeps_the_objects() -> Result<()> {
    if !ready() || !requirement::has_programs(&["etcd"]) {
        return Ok(());
    }
    let mut up = Up::start(&["--nodes", "2", "--store", "etcd"])?;
    traffic(&up)?;
    let (well, text) = status(&up)?;
    ensure!(well, "{text}");
    ensure_says(&text, "etcd     process")?;
    // Server and store are killed; all is there again.
    let before = [
        census::of_pods(up.name(), "n1")?,
        census::of_pods(up.name(), "n2")?,
    ];
    up.kill("etcd")?;
    up.kill("server")?;
    eventually("both are gone", WAIT, || {
        let (_, text) = status(&up)?;
        ensure_says(&text, "etcd     not running: weft up starts it")?;
        ensure_says(&text, "server   not running: weft up starts it")
    })?;
    up.raise(&[])?;
    up.kubectl("set env daemonset/web AGAIN=1")?;
    traffic(&up)?;
    let after = [
        census::of_pods(up.name(), "n1")?,
        census::of_pods(up.name(), "n2")?,
    ];
    ensure!(before != after, "the DaemonSet was not rolled out");
    // The store alone: the server finds it again by itself.
    up.kill("etcd")?;
    eventually("it is gone", WAIT, || {
        ensure_says(&status(&up)?.1, "etcd     not running")
    })?;
    up.raise(&[])?;
    up.kubectl("delete daemonset/web")?;
    eventually("the Pods are gone", WAIT, || {
        let left = up.kubectl("get pods -o name")?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    let name = up.name().to_owned();
    up.weft(&["down"])?;
    census::ensure_nothing(&name, WAIT)
}
