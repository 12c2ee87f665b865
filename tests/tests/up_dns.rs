//! Names in a cluster by `weft up`: what Pods find by `dig` and by glibc's resolver, and that they find it in faults.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;
use tests::up::Up;
use tests::{eventually, requirement};

const WAIT: Duration = Duration::from_secs(90);
/// The node-local address, and Service kube-dns.
const LOCAL: &str = "169.254.20.10";
const SERVICE: &str = "10.96.0.10";

const WORLD: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: db
          image: host
          command: [sh, -c, "mkdir /tmp/d; hostname >/tmp/d/index.html; exec busybox httpd -f -p 8080 -h /tmp/d"]
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: db}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: v1
kind: Pod
metadata: {name: asks, labels: {app: asks}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{name: asks, image: host, command: [sleep, "60000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: host-asks}
spec:
  nodeName: n1
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  terminationGracePeriodSeconds: 1
  containers: [{name: asks, image: host, command: [sleep, "60000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: own-asks}
spec:
  nodeName: n1
  dnsPolicy: None
  dnsConfig:
    nameservers: [10.96.0.10]
    searches: [default.svc.cluster.local]
    options: [{name: ndots, value: "1"}]
  terminationGracePeriodSeconds: 1
  containers: [{name: asks, image: host, command: [sleep, "60000"]}]
"#;

/// What a command in a Pod prints.
fn inside(up: &Up, pod: &str, words: &[&str]) -> Result<String> {
    let mut command = up.command(&["exec", pod, "--"]);
    tests::process::run(command.args(words)).map(|text| text.trim().to_owned())
}

/// `dig +short` in a Pod: its lines, sorted.
fn dig(up: &Up, pod: &str, words: &str) -> Result<Vec<String>> {
    let words: Vec<_> = ["dig", "+short", "+time=2", "+tries=3"]
        .into_iter()
        .chain(words.split_whitespace())
        .collect();
    let text = inside(up, pod, &words)?;
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// What glibc finds: the first address of a name.
fn resolved(up: &Up, pod: &str, name: &str) -> Result<String> {
    let text = inside(up, pod, &["getent", "ahostsv4", name])?;
    let word = text.split_whitespace().next().context("no address")?;
    Ok(word.to_owned())
}

/// The specification's records, as a Pod sees them.
fn records(up: &Up) -> Result<()> {
    let web = [up.field("service/web", "{.spec.clusterIP}")?];
    let ip = |pod: &str| up.field(&format!("pod/{pod}"), "{.status.podIP}");
    let (first, second) = (ip("db-0")?, [ip("db-1")?]);
    let mut both = vec![first.clone(), second[0].clone()];
    both.sort();
    for server in [LOCAL, SERVICE] {
        let ask = |what: &str| dig(up, "asks", &format!("@{server} {what}"));
        for flags in ["", "+tcp"] {
            ensure!(ask(&format!("{flags} web.default.svc.cluster.local A"))? == web);
            ensure!(ask(&format!("{flags} db.default.svc.cluster.local A"))? == both);
            ensure!(ask(&format!("{flags} db-1.db.default.svc.cluster.local A"))? == second);
        }
        ensure!(ask("web.default.svc.cluster.local AAAA")?.is_empty());
        let reverse = ask(&format!("-x {}", web[0]))?;
        ensure!(reverse == ["web.default.svc.cluster.local."], "{reverse:?}");
        let reverse = ask(&format!("-x {first}"))?;
        ensure!(
            reverse.contains(&"db-0.db.default.svc.cluster.local.".to_owned()),
            "{reverse:?}"
        );
        let ports = ask("_http._tcp.db.default.svc.cluster.local SRV")?;
        let wanted = [
            "0 50 8080 db-0.db.default.svc.cluster.local.",
            "0 50 8080 db-1.db.default.svc.cluster.local.",
        ];
        ensure!(ports == wanted, "{ports:?}");
        let external = ask("elsewhere.default.svc.cluster.local A")?;
        ensure!(
            external == [web[0].as_str(), "web.default.svc.cluster.local."],
            "{external:?}"
        );
        ensure!(ask("dns-version.cluster.local TXT")? == ["\"1.1.0\""]);
        ensure!(ask("kube-dns.kube-system.svc.cluster.local A")? == [SERVICE]);
    }
    let text = inside(
        up,
        "asks",
        &[
            "dig",
            &format!("@{LOCAL}"),
            "nobody.default.svc.cluster.local",
        ],
    )?;
    ensure!(
        text.contains("status: NXDOMAIN") && text.contains("SOA"),
        "{text}"
    );
    Ok(())
}

/// As programs ask: by short names, in one connection's time.
fn resolver(up: &Up) -> Result<()> {
    let web = up.field("service/web", "{.spec.clusterIP}")?;
    let text = inside(up, "asks", &["cat", "/etc/resolv.conf"])?;
    for line in [
        "nameserver 169.254.20.10",
        "nameserver 10.96.0.10",
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "options ndots:5",
    ] {
        ensure!(
            text.lines().any(|found| found.starts_with(line)),
            "{line:?} is not in\n{text}"
        );
    }
    for (pod, name) in [
        ("asks", "web"),
        ("asks", "web.default"),
        ("asks", "web.default.svc.cluster.local"),
        ("asks", "elsewhere"),
        ("host-asks", "web.default"),
        ("own-asks", "web"),
    ] {
        let found = resolved(up, pod, name).with_context(|| format!("{name} in {pod}"))?;
        ensure!(found == web, "{pod} finds {name} at {found}, not {web}");
    }
    for number in 0..2 {
        let url = format!("http://db-{number}.db:8080/");
        let text = inside(
            up,
            "asks",
            &["timeout", "5", "busybox", "wget", "-q", "-O", "-", &url],
        )?;
        ensure!(text == format!("db-{number}"), "{url} answers {text}");
    }
    // Both families at once from one port, again and again: no answer is lost, which would cost five seconds.
    let line = "for i in $(seq 100); do getent ahosts web >/dev/null || exit 1; done; echo all";
    ensure!(inside(up, "asks", &["timeout", "20", "sh", "-c", line])? == "all");
    Ok(())
}

/// Nothing of the node-local address is in the connection table.
fn untracked(up: &Up) -> Result<()> {
    let table = up.node(1).sh("conntrack -L -p udp --dport 53")?;
    ensure!(!table.contains(LOCAL), "queries are tracked:\n{table}");
    Ok(())
}

/// The log of queries names the Pod, after the signal that switches it on.
fn log(up: &Up) -> Result<()> {
    let pid = Pid::from_raw(up.pid("n1")?);
    kill(pid, Signal::SIGUSR1)?;
    let file = up.folder().join("nodes/n1/node.log");
    eventually("the query is in the log", WAIT, || {
        dig(
            up,
            "asks",
            &format!("@{LOCAL} logged.default.svc.cluster.local"),
        )?;
        let text = std::fs::read_to_string(&file)?;
        let line = text
            .lines()
            .find(|line| line.contains("logged.default.svc.cluster.local"));
        let line = line.context("no line")?;
        ensure!(
            line.contains("default/asks") && line.contains("NXDOMAIN"),
            "{line}"
        );
        Ok(())
    })?;
    kill(pid, Signal::SIGUSR1)?;
    Ok(())
}

/// The API server is away: names are found, also by a server that starts meanwhile. The node's own server is away:
/// the Service finds another.
fn faults(up: &mut Up) -> Result<()> {
    let web = up.field("service/web", "{.spec.clusterIP}")?;
    // kubectl exec needs the API server, so the node asks here.
    let node = up.node(1);
    let ask = |server: &str| -> Result<String> {
        let at = format!("@{server}");
        let answer = node.exec(
            "dig",
            &[
                "+short",
                "+time=1",
                "+tries=1",
                &at,
                "web.default.svc.cluster.local",
            ],
        )?;
        Ok(answer.trim().to_owned())
    };
    up.kill("server")?;
    ensure!(ask(LOCAL)? == web);
    up.kill("n1")?;
    eventually("Service kube-dns answers from the other node", WAIT, || {
        let found = ask(SERVICE)?;
        ensure!(found == web, "{found:?}");
        Ok(())
    })?;
    up.raise(&[])?;
    eventually("the node's own server answers again", WAIT, || {
        let found = ask(LOCAL)?;
        ensure!(found == web, "{found:?}");
        Ok(())
    })
}

#[test]
fn pods_find_each_other_by_name() -> Result<()> {
    if !requirement::is_root()
        || !requirement::has_programs(&["busybox", "ip", "dig", "conntrack"])
        || !requirement::has_kubectl(20)
    {
        return Ok(());
    }
    let mut up = Up::start(&["--nodes", "2"])?;
    up.apply(WORLD)?;
    up.kubectl("rollout status statefulset/db --timeout=90s")?;
    for pod in ["asks", "host-asks", "own-asks"] {
        up.wait_for(&format!("pod/{pod}"), "condition=Ready", WAIT)?;
    }
    eventually("the last Pod has its name", WAIT, || {
        let found = dig(&up, "asks", "db.default.svc.cluster.local A")?;
        ensure!(found.len() == 2, "{found:?}");
        Ok(())
    })?;
    records(&up)?;
    resolver(&up)?;
    untracked(&up)?;
    log(&up)?;
    faults(&mut up)
}
