//! A mount and a process-id namespace on one node in which the fixed places of container runtimes
//! and plugins (/opt/cni/bin, /etc/cni/net.d, /var/lib/cni, /run) are folders of the run.
//!
//! Its first process is a shell that only waits. When that is killed, which also happens when the
//! program that made the room dies, the kernel ends everything inside: no shim or container is left.

use crate::namespace::Namespace;
use crate::process::{self, Process};
use crate::run::Run;
use crate::wait::eventually;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Run by `sh`; `$1` is the room's folder, `$2` that of the plugins, `$3` what /run/flannel shows.
/// The overlays take what is made in the machine's folders (missing mount points, resolv.conf); their
/// upper layer is on a tmpfs since not every file system can be one.
const FURNISH: &str = r#"
set -e
# Not yet our own /proc: this is the process id outside.
read -r pid rest </proc/self/stat
mount -t proc proc /proc
mkdir "$1/ram"
mount -t tmpfs weft "$1/ram"
for place in /etc /opt /var/lib; do
    mkdir -p "$1/ram/upper$place" "$1/ram/work$place"
    mount -t overlay overlay -o "lowerdir=$place,upperdir=$1/ram/upper$place,workdir=$1/ram/work$place" "$place"
done
mkdir -p /opt/cni/bin /etc/cni/net.d /var/lib/cni "$1/ram/run/flannel"
mount --bind "$2" /opt/cni/bin
mount --bind "$1/net.d" /etc/cni/net.d
mount --bind "$1/cni" /var/lib/cni
mount --bind "$3" "$1/ram/run/flannel"
# The one lock of all iptables programs in this network namespace, inside and outside.
if [ -e /run/xtables.lock ]; then
    : >"$1/ram/run/xtables.lock"
    mount --bind /run/xtables.lock "$1/ram/run/xtables.lock"
fi
echo "$pid" >"$1/pid.new"
mv "$1/pid.new" "$1/pid"
mount --rbind "$1/ram/run" /run
: >/run/ready
# Children whose parents have ended come here: `wait` takes them off.
while :; do sleep 60 & wait $! || :; done
"#;

/// A furnished room.
#[derive(Debug)]
pub struct Room {
    /// `unshare`, which ends after the room's first process.
    keeper: Process,
    /// The room's first process, by its id outside.
    first: Pid,
    folder: PathBuf,
}

impl Room {
    /// Makes a room on `node`, with the plugins of a folder, one conflist, and the node's
    /// `subnet.env` at /run/flannel.
    pub fn new(
        run: &Run,
        node: &Namespace,
        plugins: &Path,
        conflist: &Value,
        subnet_file: &Path,
    ) -> Result<Self> {
        let folder = run.subfolder(&format!("{}.room", node.name()))?;
        for name in ["net.d", "cni"] {
            std::fs::create_dir(folder.join(name))?;
        }
        let list = folder.join("net.d/10-flannel.conflist");
        std::fs::write(&list, conflist.to_string())?;
        let flannel = subnet_file.parent().context("subnet.env is in no folder")?;
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--mount", "--pid", "--fork", "--kill-child=KILL"])
            .args(["sh", "-c", FURNISH, "room"])
            .args([&folder, plugins, flannel]);
        let mut keeper = node.spawn("the room", &mut unshare, &folder.join("room.log"))?;
        let first = eventually("the room is furnished", Duration::from_secs(10), || {
            keeper.ensure_alive()?;
            let pid = std::fs::read_to_string(folder.join("pid"))?;
            let pid: i32 = pid.trim().parse().context("the room's process id")?;
            std::fs::metadata(format!("/proc/{pid}/root/run/ready"))?;
            Ok(Pid::from_raw(pid))
        });
        let first = first.with_context(|| keeper.log_tail())?;
        Ok(Self {
            keeper,
            first,
            folder,
        })
    }

    /// The room's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the plugins see as /var/lib/cni.
    pub fn cni_state(&self) -> PathBuf {
        self.folder.join("cni")
    }

    /// A new folder among the room's files.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// A command line that runs a program in the room.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.first))
            .args(["--mount", "--pid", "--net", "--", program]);
        command
    }

    /// Starts a background process in the room.
    pub fn spawn<I: AsRef<OsStr>>(&self, program: &str, args: &[I], log: &Path) -> Result<Process> {
        Process::spawn(program, self.command(program).args(args), log)
    }

    /// Runs a program in the room to its end; returns its output.
    pub fn exec<I: AsRef<OsStr>>(&self, program: &str, args: &[I]) -> Result<String> {
        process::run(self.command(program).args(args))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // The first process waits for the end of all others, and `unshare` for the first.
        let ended = kill(self.first, Signal::SIGKILL)
            .context("kill the room's first process")
            .and_then(|()| self.keeper.wait(Duration::from_secs(10)));
        if let Err(error) = ended {
            eprintln!("end the room {}: {error:#}", self.folder.display());
        }
    }
}
