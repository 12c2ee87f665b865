//! A whole cluster as users have it: `weft up`, worked with by real `kubectl`.

use crate::namespace::Namespace;
use crate::{process, subject};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A cluster made by `weft up`. It is taken away when this is dropped, and also when this process dies.
pub struct Up {
    name: String,
    weft: PathBuf,
    kubeconfig: PathBuf,
    /// Waits in a process group of its own until this process ends, and takes the cluster away.
    janitor: Child,
}

/// Run by `sh`; `$1` is the program, `$2` the cluster. Its standard input closes when the process is gone.
const JANITOR: &str = r#"
cat >/dev/null
"$1" down --name "$2" || "$1" down --name "$2"
"#;

impl Up {
    /// Brings a cluster up, with these further flags of `weft up`; its name is its own.
    pub fn start(flags: &[&str]) -> Result<Self> {
        let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let name = format!("t{}-{}", std::process::id(), random.get(..6).unwrap_or("x"));
        Self::start_named(&name, flags)
    }

    /// The same with a name.
    pub fn start_named(name: &str, flags: &[&str]) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let weft = subject::program("weft")?;
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&weft)
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the janitor")?;
        let mut up = Self {
            name: name.to_owned(),
            weft,
            kubeconfig: PathBuf::new(),
            janitor,
        };
        up.raise(flags)?;
        Ok(up)
    }

    /// `weft up` once more: starts what does not run.
    pub fn raise(&mut self, flags: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.weft);
        command
            .args(["up", "--quiet", "--name", &self.name])
            .args(flags);
        let path = process::run(&mut command)?;
        self.kubeconfig = PathBuf::from(path.trim());
        Ok(())
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the program `weft` is.
    pub fn program(&self) -> &Path {
        &self.weft
    }

    /// The program `weft`.
    pub fn weft(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.weft);
        let (verb, rest) = arguments.split_first().context("weft wants a verb")?;
        process::run(command.arg(verb).args(["--name", &self.name]).args(rest))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The cluster's files: `nodes/n1/node.log`, `server/server.log`, `cluster.json`.
    pub fn folder(&self) -> PathBuf {
        Path::new("/var/lib/weft/clusters").join(&self.name)
    }

    /// The number of a part's process as it was started last: `server`, `etcd`, `n1`.
    pub fn pid(&self, part: &str) -> Result<i32> {
        let text =
            std::fs::read(self.folder().join("cluster.json")).context("read cluster.json")?;
        let cluster: serde_json::Value =
            serde_json::from_slice(&text).context("read cluster.json")?;
        let process = match part
            .strip_prefix('n')
            .and_then(|number| number.parse::<u64>().ok())
        {
            Some(number) => {
                let nodes = cluster["nodes"]
                    .as_array()
                    .context("cluster.json has no nodes")?;
                let node = nodes.iter().find(|node| node["number"] == number);
                &node.with_context(|| format!("there is no node {part}"))?["process"]
            }
            None => &cluster[part],
        };
        let pid = process["pid"]
            .as_i64()
            .with_context(|| format!("{part} has no process"))?;
        Ok(pid.try_into()?)
    }

    /// Kills a part's process with SIGKILL.
    pub fn kill(&self, part: &str) -> Result<()> {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(self.pid(part)?);
        kill(pid, Signal::SIGKILL).with_context(|| format!("kill {part}"))
    }

    /// A command of kubectl, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        // Its own cache: discovery of another cluster at the same port is another.
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.folder().join("kubectl-cache"))
            .args(arguments)
            .env_remove("KUBECONFIG");
        command
    }

    /// Runs kubectl to its end; its words parted by blanks.
    pub fn kubectl(&self, line: &str) -> Result<String> {
        let words: Vec<_> = line.split_whitespace().collect();
        process::run(&mut self.command(&words))
    }

    /// Runs kubectl with a manifest on its standard input.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        process::run_with_input(&mut self.command(&["apply", "-f", "-"]), manifest)
    }

    /// A node's namespace; number 0 is the underlay's, where the API server is.
    pub fn node(&self, number: u8) -> Namespace {
        Namespace::of_name(&match number {
            0 => format!("weft-{}", self.name),
            number => format!("weft-{}-n{number}", self.name),
        })
    }

    /// One field of one object: `field("pod/web-1", "{.status.podIP}")`.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        let path = format!("jsonpath={path}");
        process::run(&mut self.command(&["get", object, "-o", &path]))
    }

    /// Waits until `kubectl wait` is content, or `limit` is over; then the error shows the cluster.
    pub fn wait_for(&self, what: &str, condition: &str, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs().max(1));
        let condition = format!("--for={condition}");
        let mut words: Vec<_> = vec!["wait", &condition, &timeout];
        words.extend(what.split_whitespace());
        let done = process::run(&mut self.command(&words));
        done.map(drop).with_context(|| self.state())
    }

    /// What there is, for the text of an error.
    pub fn state(&self) -> String {
        let show = |line: &str| {
            self.kubectl(line)
                .unwrap_or_else(|error| format!("{error:#}"))
        };
        format!(
            "{}\n{}",
            show(
                "get pods,deployments,replicasets,statefulsets,daemonsets,jobs,services,nodes -A -o wide"
            ),
            show("get events -A --sort-by=.metadata.creationTimestamp")
        )
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        match self.janitor.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("weft down --name {}: {status}", self.name),
            Err(error) => eprintln!("wait for the janitor: {error}"),
        }
    }
}
