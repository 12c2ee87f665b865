//! A real runtime: containerd on one node, calling the plugins as it does on any host.
//!
//! `ctr run --cni` has its paths built in (/opt/cni/bin, /etc/cni/net.d, /var/lib/cni), so each
//! containerd gets a mount namespace with folders of the run in these places.

use crate::cluster::{Node, kube_flannel_conflist};
use crate::namespace::Namespace;
use crate::process::{self, Process};
use crate::wait::eventually;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Run by `sh` in a new mount namespace: `$1` our folder, `$2` the plugins.
const MOUNTS: &str = r#"
set -e
mount --make-rprivate /
cp -a /etc "$1/etc"
mkdir -p "$1/etc/cni/net.d" "$1/opt/cni/bin" "$1/var-lib"
cp "$1/10-flannel.conflist" "$1/etc/cni/net.d/"
mount --bind "$1/etc" /etc
mount --bind "$1/opt" /opt
mount --bind "$2" /opt/cni/bin
mount --bind "$1/var-lib" /var/lib
mount -t tmpfs weft-test /run
exec containerd --config "$1/config.toml" --root "$1/root" --state "$1/state" --address "$1/sock"
"#;

/// containerd, running in a node's namespace.
#[derive(Debug)]
pub struct Containerd {
    folder: PathBuf,
    node: Namespace,
    process: Process,
}

impl Containerd {
    /// Starts it with the node's plugins and conflist; its files go to `folder`.
    pub fn start(node: &Node, folder: &Path) -> Result<Self> {
        let files = node.flanneld.subnet_file();
        let files = files.parent().context("the folder of subnet.env")?;
        let list = kube_flannel_conflist(&node.flanneld.subnet_file(), files);
        fs::write(folder.join("10-flannel.conflist"), list.to_string())?;
        // Only what `ctr` needs; the Kubernetes part would ask for more of the machine.
        fs::write(
            folder.join("config.toml"),
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )?;
        rootfs(&folder.join("rootfs"))?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", MOUNTS, "containerd"])
            .arg(folder)
            .arg(&node.runtime.plugins);
        let log = folder.join("containerd.log");
        let process = node.namespace.spawn("containerd", &mut command, &log)?;
        let mut containerd = Self {
            folder: folder.to_owned(),
            node: node.namespace.clone(),
            process,
        };
        eventually("containerd answers", Duration::from_secs(20), || {
            containerd.process.ensure_alive()?;
            containerd.ctr(&["version"]).map(drop)
        })?;
        Ok(containerd)
    }

    /// Runs `ctr` beside it.
    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        self.node.run(|| process::run(self.command().args(args)))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--mount")
            .arg("--target")
            .arg(self.process.id().to_string())
            .args(["ctr", "--address"])
            .arg(self.folder.join("sock"));
        command
    }

    fn run_args(&self, name: &str, words: &[&str]) -> Vec<String> {
        let root = self.folder.join("rootfs").display().to_string();
        // No cgroup: the machine's own are not ours to change.
        let mut args: Vec<_> = ["run", "--rm", "--cni", "--cgroup=", "--rootfs", &root, name]
            .map(str::to_owned)
            .to_vec();
        args.extend(words.iter().map(|word| (*word).to_owned()));
        args
    }

    /// Runs a container to its end and returns what it printed.
    pub fn run(&self, name: &str, words: &[&str]) -> Result<String> {
        let args = self.run_args(name, words);
        self.ctr(&args.iter().map(String::as_str).collect::<Vec<_>>())
            .with_context(|| format!("containerd's log ends:\n{}", self.process.log_tail()))
    }

    /// Runs a container in the background; [`Containerd::stop`] ends it.
    pub fn spawn(&self, name: &str, words: &[&str]) -> Result<Process> {
        let log = self.folder.join(format!("{name}.log"));
        let mut command = self.command();
        command.args(self.run_args(name, words));
        self.node.spawn(name, &mut command, &log)
    }

    /// Kills a container; the `ctr run` that started it then detaches it from the network.
    pub fn stop(&self, name: &str, run: &mut Process) -> Result<()> {
        self.ctr(&["task", "kill", "--signal", "SIGKILL", name])?;
        run.wait(Duration::from_secs(20)).map(drop)
    }
}

/// A root file system that holds only busybox.
fn rootfs(folder: &Path) -> Result<()> {
    for name in ["bin", "proc", "sys", "dev", "www", "etc", "tmp", "run"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"];
    let busybox = busybox.iter().find(|path| Path::new(path).exists());
    let busybox = busybox.context("no busybox (Debian's busybox-static)")?;
    fs::copy(busybox, folder.join("bin/busybox"))?;
    fs::write(folder.join("www/index.html"), "hello from a container\n")?;
    Ok(())
}
