//! A whole cluster by `weft up`, worked with by kubectl: what the newcomer sees first.

use crate::Arguments;
use crate::screen::Screen;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tests::up::Up;
use tests::{eventually, process, subject};

/// The cluster's name.
const NAME: &str = "demo";
const WAIT: Duration = Duration::from_secs(60);

/// Brings it up, proves it, and takes it away.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut screen = Screen::new();
    let mut failures = 0;
    let nodes = arguments.nodes.to_string();
    let flags = ["--nodes", &nodes, "--backend", &arguments.backend];

    screen.headline(&format!("weft up {}", flags.join(" ")));
    let since = Instant::now();
    let mut up = Up::start_named(NAME, &flags)?;
    screen.done(&format!("{} nodes are ready", arguments.nodes), since);
    show(&screen, &up, "get nodes -o wide")?;

    screen.headline("kubectl apply -f examples/");
    let since = Instant::now();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let applied = process::run(up.command(&["apply", "-f"]).arg(&examples))?;
    screen.command("", "kubectl apply -f examples/", &applied);
    for what in ["deployment/web", "statefulset/db", "daemonset/agent"] {
        let status = ["rollout", "status", what, "--timeout=60s"];
        process::run(&mut up.command(&status)).with_context(|| up.state())?;
    }
    up.wait_for("pod/pair", "condition=Ready", WAIT)?;
    up.wait_for("job/sum", "condition=complete", WAIT)?;
    screen.done("all Pods are ready, the Job has ended", since);
    show(&screen, &up, "get pods -o wide")?;
    show(&screen, &up, "logs job/sum")?;
    show(&screen, &up, "logs pair -c asks")?;

    screen.headline("Pod × Pod, over all nodes");
    failures += reachability(&screen, &up)?;
    screen.headline("A Service, from every node and from a Pod");
    failures += service(&screen, &up, arguments.nodes)?;
    screen.headline("A rollout under load");
    failures += rollout(&screen, &up)?;
    if arguments.nodes > 1 {
        screen.headline("A node fails");
        failures += node_fails(&screen, &mut up, arguments.nodes)?;
    }

    screen.headline("Status");
    screen.command("", &format!("weft status --name {NAME}"), &status(&up)?);
    if arguments.keep {
        screen.headline("The cluster stays until Ctrl-C (or SIGTERM to this process)");
        screen.line("In another terminal, as root:");
        screen.line(&format!("export KUBECONFIG={}", up.kubeconfig().display()));
        screen.line("kubectl get pods -o wide; kubectl exec -it db-0 -- sh; kubectl scale deployment web --replicas=6");
        screen.line(&format!("ip netns exec weft-{NAME}-n1 bash    # node n1"));
        screen.line(&format!("files and logs: {}", up.folder().display()));
        loop {
            std::thread::park();
        }
    }
    screen.headline("Clean up");
    let since = Instant::now();
    drop(up);
    screen.done("nothing is left", since);
    screen.line(
        "A cluster of your own: sudo target/debug/weft up; then kubectl, weft status, weft down",
    );
    ensure!(failures == 0, "{failures} of the checks above failed");
    Ok(())
}

/// Takes the cluster away when the demo is interrupted.
pub fn clean_up() -> Result<()> {
    let weft = subject::program("weft")?;
    process::run(Command::new(weft).args(["down", "--name", NAME])).map(drop)
}

fn show(screen: &Screen, up: &Up, line: &str) -> Result<()> {
    screen.command("", &format!("kubectl {line}"), &up.kubectl(line)?);
    Ok(())
}

/// Troubles are no failure here: they are shown.
fn status(up: &Up) -> Result<String> {
    let weft = subject::program("weft")?;
    let output = Command::new(weft)
        .args(["status", "--name", up.name()])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Pods that serve HTTP: name and address.
fn servers(up: &Up) -> Result<Vec<(String, String)>> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{\"\\n\"}{end}";
    let words = [
        "get",
        "pods",
        "-l",
        "app in (web,db)",
        "--field-selector=status.phase=Running",
        "-o",
        path,
    ];
    let text = process::run(&mut up.command(&words))?;
    let pairs = text.lines().filter_map(|line| line.trim().split_once(' '));
    Ok(pairs
        .map(|(name, ip)| (name.to_owned(), ip.to_owned()))
        .collect())
}

fn reachability(screen: &Screen, up: &Up) -> Result<usize> {
    let pods = servers(up)?;
    let mut head = vec!["from \\ to".to_owned()];
    head.extend(pods.iter().map(|(_, ip)| ip.clone()));
    let mut rows = vec![head];
    let mut failures = 0;
    for (name, _) in &pods {
        let mut script = String::new();
        for (other, ip) in &pods {
            let page = if other.starts_with("db") {
                "journal"
            } else {
                ""
            };
            script += &format!(
                "timeout 3 busybox wget -q -O /dev/null http://{ip}:8080/{page} && echo yes || echo NO; "
            );
        }
        let text = process::run(&mut up.command(&["exec", name, "--", "sh", "-c", &script]))?;
        let answers: Vec<_> = text.lines().map(str::to_owned).collect();
        failures += answers.iter().filter(|answer| *answer != "yes").count();
        let mut row = vec![name.clone()];
        row.extend(answers);
        rows.push(row);
    }
    screen.table(&rows);
    Ok(failures)
}

fn service(screen: &Screen, up: &Up, nodes: u8) -> Result<usize> {
    let ip = up.field("service/web", "{.spec.clusterIP}")?;
    let mut failures = 0;
    let mut check = |place: &str, url: &str, answer: Result<String>| match answer {
        Ok(text) => screen.holds(&format!("{place}: {url} → {}", text.trim())),
        Err(error) => {
            failures += 1;
            screen.fails(&format!("{place}: {url}: {error:#}"));
        }
    };
    let cluster = format!("http://{ip}/");
    for number in 1..=nodes {
        let node = up.node(number);
        let own = format!("http://192.168.66.{}:30080/", 10 + number);
        for url in [&cluster, &own] {
            let answer = node.exec("timeout", &["3", "busybox", "wget", "-q", "-O", "-", url]);
            check(&format!("node n{number}"), url, answer);
        }
    }
    let inside = |url: &str| {
        let words = [
            "exec", "pair", "-c", "asks", "--", "timeout", "3", "busybox", "wget", "-q", "-O", "-",
        ];
        process::run(up.command(&words).arg(url))
    };
    // By its name too, and a Pod of the StatefulSet by its own.
    for url in [
        cluster.as_str(),
        "http://web/",
        "http://db-0.db:8080/journal",
    ] {
        check("Pod pair", url, inside(url));
    }
    Ok(failures)
}

/// Asks the Service again and again, from node n1, until it is told to stop; counts the answers.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<String, usize>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(up: &Up, ip: &str) -> Self {
        let (stop, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(BTreeMap::new())),
        );
        let threads = (0..2).map(|_| {
            let (node, url) = (up.node(1), format!("http://{ip}/"));
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer =
                        node.exec("timeout", &["3", "busybox", "wget", "-q", "-O", "-", &url]);
                    let key = match &answer {
                        Ok(text) => text.split(':').next().unwrap_or_default().trim().to_owned(),
                        Err(error) => format!("error: {error:#}"),
                    };
                    *seen
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(key)
                        .or_default() += 1;
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            seen,
        }
    }

    fn end(self) -> BTreeMap<String, usize> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A thread that panicked has counted what it saw.
            let _ = thread.join();
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

fn rollout(screen: &Screen, up: &Up) -> Result<usize> {
    let ip = up.field("service/web", "{.spec.clusterIP}")?;
    let load = Load::start(up, &ip);
    std::thread::sleep(Duration::from_millis(500));
    let since = Instant::now();
    show(screen, up, "set env deployment/web VERSION=2")?;
    show(screen, up, "rollout status deployment/web --timeout=60s")?;
    screen.done("rolled out", since);
    std::thread::sleep(Duration::from_millis(500));
    let seen = load.end();
    let failures: usize = seen
        .iter()
        .filter(|(key, _)| key.starts_with("error"))
        .map(|(_, count)| count)
        .sum();
    let total: usize = seen.values().sum();
    for (key, count) in &seen {
        screen.line(&format!("{count:>6} × {key}"));
    }
    if failures == 0 {
        screen.holds(&format!("{total} requests, none lost"));
    } else {
        screen.fails(&format!("{total} requests, {failures} lost"));
    }
    show(screen, up, "rollout history deployment/web")?;
    Ok(failures)
}

fn node_fails(screen: &Screen, up: &mut Up, nodes: u8) -> Result<usize> {
    let node = format!("n{nodes}");
    let since = Instant::now();
    up.weft(&["down", &node])?;
    screen.done(
        &format!("weft down --name {NAME} {node}: its power has failed"),
        since,
    );
    let selector = format!("--field-selector=spec.nodeName={node}");
    let waited = eventually("its Pods run elsewhere", Duration::from_secs(60), || {
        let left = process::run(
            &mut up.command(&["get", "pods", "-l", "app=web", &selector, "-o", "name"]),
        )?;
        let ready = up.field("deployment/web", "{.status.readyReplicas}")?;
        let living = |name: &&str| {
            !up.field(name, "{.metadata.deletionTimestamp}")
                .is_ok_and(|at| !at.is_empty())
        };
        ensure!(left.lines().filter(living).count() == 0, "{left}");
        ensure!(ready == "3", "{ready} are ready");
        Ok(())
    });
    let mut failures = 0;
    match waited {
        Ok(()) => screen.done("its Pods of deployment web run elsewhere", since),
        Err(error) => {
            failures += 1;
            screen.fails(&format!("{error:#}"));
        }
    }
    show(screen, up, "get nodes")?;
    show(screen, up, "get pods -l app=web -o wide")?;
    let since = Instant::now();
    up.raise(&[])?;
    screen.done(&format!("weft up: {node} is back"), since);
    Ok(failures)
}
