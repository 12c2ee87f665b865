//! Rounds of create, scale and delete on one cluster: afterwards each node has what it had before, to the last file,
//! and no process of ours has grown in the second half. `WEFT_SOAK_ROUNDS` says how many rounds; 200 are the full form.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::time::{Duration, Instant};
use tests::up::Up;
use tests::{census, eventually, requirement};

const WAIT: Duration = Duration::from_secs(120);
/// In an ordinary run of the tests.
const ROUNDS: usize = 8;
/// Rounds after which a node has all that is made once.
const WARM: usize = 3;
/// What a process may still grow by, in bytes: caches that are not full after few rounds.
const ROOM: u64 = 8 << 20;

/// Two containers, volumes of every kind that leaves something on a node, a hostPort, and a probe.
fn deployment(round: usize) -> String {
    format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: c{round}}}
data: {{key: "{round}"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: d{round}}}
spec:
  replicas: 3
  selector: {{matchLabels: {{round: r{round}}}}}
  template:
    metadata: {{labels: {{round: r{round}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes:
        - {{name: fast, emptyDir: {{medium: Memory}}}}
        - {{name: scratch, emptyDir: {{}}}}
        - {{name: config, configMap: {{name: c{round}}}}}
      containers:
        - name: a
          image: host
          command: [sh, -c, "echo round {round}; mkdir /tmp/d; cat /mnt/c/key >/tmp/d/index.html; exec busybox httpd -f -p 8080 -h /tmp/d"]
          readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
          volumeMounts: [{{name: fast, mountPath: /mnt/a}}, {{name: scratch, mountPath: /mnt/b}}, {{name: config, mountPath: /mnt/c}}]
        - {{name: b, image: host, command: [sleep, "60000"], lifecycle: {{preStop: {{exec: {{command: ["true"]}}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: s{round}}}
spec:
  type: NodePort
  selector: {{round: r{round}}}
  ports: [{{port: 80, targetPort: 8080}}]
"#
    )
}

/// Bytes and open files of a process that are its own.
fn size(pid: i32) -> Result<(u64, usize)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .context("read the size of a process")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss_Anon:"))
        .context("no Pss_Anon")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok((
        kilobytes << 10,
        fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
    ))
}

fn one_round(up: &Up, round: usize) -> Result<()> {
    up.apply(&deployment(round))?;
    up.kubectl(&format!(
        "rollout status deployment/d{round} --timeout=120s"
    ))
    .with_context(|| up.state())?;
    up.kubectl(&format!(
        "scale deployment/d{round} --replicas={}",
        1 + round % 6
    ))?;
    if round.is_multiple_of(2) {
        up.kubectl(&format!(
            "rollout status deployment/d{round} --timeout=120s"
        ))
        .with_context(|| up.state())?;
    }
    up.kubectl(&format!(
        "delete deployment/d{round} service/s{round} configmap/c{round} --wait=false"
    ))?;
    Ok(())
}

fn no_pods(up: &Up) -> Result<()> {
    eventually("all Pods are gone", WAIT, || {
        let left = up.kubectl("get pods,replicasets,endpointslices -l round -o name")?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}

#[test]
fn rounds_leave_nothing_behind() -> Result<()> {
    if !requirement::is_root()
        || !requirement::has_programs(&["busybox", "ip"])
        || !requirement::has_kubectl(20)
    {
        return Ok(());
    }
    let rounds = match std::env::var("WEFT_SOAK_ROUNDS") {
        Ok(text) => text
            .parse()
            .context("WEFT_SOAK_ROUNDS is a number of rounds")?,
        Err(_) => ROUNDS,
    };
    let up = Up::start(&["--nodes", "2"])?;
    for round in 0..WARM {
        one_round(&up, round)?;
    }
    no_pods(&up)?;
    let parts = ["server", "n1", "n2"];
    let pids: Vec<_> = parts
        .iter()
        .map(|part| up.pid(part))
        .collect::<Result<_>>()?;
    // What is kept for ever is made by the first Pods: the bridge, rules, folders.
    let mut before = census::of(up.name())?;
    eventually("the nodes have come to rest", WAIT, || {
        std::thread::sleep(Duration::from_millis(500));
        let last = std::mem::replace(&mut before, census::of(up.name())?);
        tests::snapshot::ensure_same("what the cluster has", &last, &before)
    })?;
    ensure!(
        !before.iter().any(|line| line.contains("VETH")),
        "a veth is left: {before:#?}"
    );

    let since = Instant::now();
    let mut sizes = Vec::new();
    for round in WARM..WARM + rounds {
        // By then caches have the size that they may have, or most of it.
        if round == WARM + rounds / 2 {
            sizes = pids.iter().map(|pid| size(*pid)).collect::<Result<_>>()?;
        }
        one_round(&up, round)?;
    }
    no_pods(&up)?;
    census::ensure_as_before(up.name(), &before, WAIT)?;
    println!("{rounds} rounds in {:.1} s", since.elapsed().as_secs_f32());
    for ((part, pid), (bytes, files)) in parts.iter().zip(&pids).zip(sizes) {
        ensure!(up.pid(part)? == *pid, "{part} was started again");
        let (bytes_now, files_now) = size(*pid)?;
        println!(
            "{part}: {} → {} KB, {files} → {files_now} open files",
            bytes >> 10,
            bytes_now >> 10
        );
        ensure!(
            bytes_now < bytes + ROOM,
            "{part} has grown from {bytes} to {bytes_now} bytes"
        );
        ensure!(
            files_now <= files + 8,
            "{part} had {files} open files, and has {files_now}"
        );
    }
    let name = up.name().to_owned();
    up.weft(&["down"])?;
    census::ensure_nothing(&name, WAIT)
}
