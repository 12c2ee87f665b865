//! `weft server` and `weft node` as on hosts of their own: the README's commands, and a node whose parts are separate
//! programs.

use anyhow::{Context, Result, ensure};
use node::runtime::process as runtime;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tests::cluster::kube_flannel_conflist;
use tests::process::{self, Process};
use tests::topology::{Underlay, node_addresses};
use tests::{Namespace, Run, eventually, requirement, subject};

/// This may be a loaded machine.
const WAIT: Duration = Duration::from_secs(90);

/// The README's command of this role, with an address of ours and its token's file.
fn readme(role: &str, token: &Path) -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let (_, section) = readme
        .split_once("\n### A cluster of hosts\n")
        .context("README.md has no section on a cluster of hosts")?;
    let start = format!("weft {role} ");
    let line = section.lines().find(|line| line.starts_with(&start));
    let line = line.with_context(|| format!("no command {start}in the README"))?;
    let line = line
        .replace("192.0.2.10", &node_addresses(1).0.to_string())
        .replace("/etc/weft/token", &token.display().to_string());
    Ok(line.split_whitespace().skip(1).map(str::to_owned).collect())
}

/// A host's folder; what runs there when the test fails is taken away with it.
struct Host {
    namespace: Namespace,
    data: PathBuf,
}

impl Host {
    fn places(&self) -> Vec<String> {
        let place = |flag: &str, name: &str| format!("--{flag}={}", self.data.join(name).display());
        vec![
            format!("--data={}", self.data.display()),
            place("cni-conf-dir", "net.d"),
            place("cni-bin-dir", "bin"),
        ]
    }

    fn spawn(&self, name: &str, program: &str, arguments: &[String]) -> Result<Process> {
        let mut command = Command::new(subject::program(program)?);
        command.args(arguments).env("NODE_NAME", "h2");
        self.namespace
            .spawn(name, &mut command, &self.data.join(format!("{name}.log")))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let cgroup = self
            .data
            .display()
            .to_string()
            .trim_matches('/')
            .replace('/', "-");
        let config = runtime::Config {
            cgroup: format!("weft/{cgroup}"),
            logs: self.data.join("logs"),
            ..runtime::Config::new(self.data.join("runtime"))
        };
        let built = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let ended = built.map(|built| built.block_on(runtime::Process::destroy_all(config)));
        if let Ok(Err(error)) = ended {
            eprintln!("take away what runs in {}: {error}", self.data.display());
        }
    }
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: httpd
          image: host
          command: [/bin/sh, -c, 'hostname >/tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp']
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

#[test]
fn hosts_join_a_server_and_parts_may_be_programs_of_their_own() -> Result<()> {
    let programs = ["kubectl", "busybox", "timeout"];
    if !requirement::is_root() || !requirement::has_programs(&programs) {
        return Ok(());
    }
    let run = Run::new()?;
    let underlay = Underlay::new(&run)?;
    let host = |number: u8| -> Result<Host> {
        let namespace = underlay.join(&run, number)?;
        Ok(Host {
            namespace,
            data: run.subfolder(&format!("h{number}"))?,
        })
    };
    let (one, two) = (host(1)?, host(2)?);
    let server = run.subfolder("server")?;
    let token = server.join("node-token");

    let mut arguments = readme("server", &token)?;
    arguments.push(format!("--data={}", server.display()));
    let mut serving = one.spawn("server", "weft", &arguments)?;
    eventually("the server writes its token", WAIT, || {
        serving.ensure_alive()?;
        ensure!(token.exists());
        Ok(())
    })?;
    let mut arguments = readme("node", &token)?;
    arguments.extend(one.places());
    arguments.push("--name=h1".to_owned());
    let node_one = one.spawn("node", "weft", &arguments)?;

    // The other has a network and a proxy of its own, and the operator's conflist.
    let mut arguments = readme("node", &token)?;
    arguments.extend(two.places());
    arguments.extend(["--name=h2", "--no-flanneld", "--no-proxy"].map(str::to_owned));
    let node_two = two.spawn("node", "weft", &arguments)?;
    let kubeconfig = two.data.join("node.kubeconfig");
    eventually("h2 joins", WAIT, || {
        ensure!(kubeconfig.exists());
        Ok(())
    })?;
    let network = two.data.join("net-conf.json");
    let subnet = two.data.join("subnet.env");
    std::fs::write(
        &network,
        r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#,
    )?;
    let flanneld = two.spawn(
        "flanneld",
        "flanneld-rs",
        &[
            "--kube-subnet-mgr".to_owned(),
            format!("--kubeconfig-file={}", kubeconfig.display()),
            format!("--net-config-path={}", network.display()),
            format!("--subnet-file={}", subnet.display()),
        ],
    )?;
    let proxy = two.spawn(
        "proxy",
        "weft-proxy",
        &[
            format!("--kubeconfig={}", kubeconfig.display()),
            "--hostname-override=h2".to_owned(),
            "--detect-local-mode=NodeCIDR".to_owned(),
        ],
    )?;
    std::fs::create_dir_all(two.data.join("net.d"))?;
    let list = kube_flannel_conflist(&subnet, &two.data.join("cni"));
    std::fs::write(two.data.join("net.d/10-flannel.conflist"), list.to_string())?;

    let admin = server.join("admin.kubeconfig");
    let kubectl = |words: &[&str], input: &str| -> Result<String> {
        one.namespace.run(|| {
            let mut command = Command::new("kubectl");
            command
                .args(["--kubeconfig"])
                .arg(&admin)
                .arg("--cache-dir")
                .arg(run.folder().join("cache"))
                .args(words);
            process::run_with_input(&mut command, input)
        })
    };
    eventually("both hosts are nodes", WAIT, || {
        kubectl(
            &[
                "wait",
                "--for=condition=Ready",
                "--timeout=2s",
                "node/h1",
                "node/h2",
            ],
            "",
        )
        .map(drop)
    })?;
    kubectl(&["apply", "-f", "-"], WEB)?;
    kubectl(
        &["rollout", "status", "deployment/web", "--timeout=90s"],
        "",
    )?;
    let path = "jsonpath={range .items[*]}{.spec.nodeName} {.status.podIP}{\"\\n\"}{end}";
    let pods = kubectl(&["get", "pods", "-o", path], "")?;
    ensure!(
        pods.contains("h1 10.244.") && pods.contains("h2 10.244."),
        "{pods}"
    );
    let service = kubectl(
        &["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"],
        "",
    )?;
    // Each Pod from the other host, and the Service from both: by the part and by the program.
    for (node, ip) in pods.lines().filter_map(|line| line.split_once(' ')) {
        let (other, port) = if node == "h1" {
            (&two, ":8080")
        } else {
            (&one, ":8080")
        };
        for url in [format!("http://{ip}{port}/"), format!("http://{service}/")] {
            eventually("an answer", WAIT, || {
                let words = ["3", "busybox", "wget", "-q", "-O", "-", &url];
                let name = other.namespace.exec("timeout", &words)?;
                ensure!(name.starts_with("web-"), "{url}: {name}");
                Ok(())
            })?;
        }
    }
    ensure!(kubectl(&["exec", "deployment/web", "--", "hostname"], "")?.starts_with("web-"));

    kubectl(&["delete", "deployment", "web", "--wait=true"], "")?;
    eventually("the Pods have gone", WAIT, || {
        let left = kubectl(&["get", "pods", "-o", "name"], "")?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })?;
    for mut each in [node_one, node_two, flanneld, proxy, serving] {
        each.signal(nix::sys::signal::Signal::SIGTERM)?;
        let status = each.wait(Duration::from_secs(30))?;
        ensure!(status.success(), "{status}: {}", each.log_tail());
    }
    Ok(())
}
