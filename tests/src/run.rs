//! One test's or demo's run: its identity, its folder, its namespaces, and their end.

use crate::container;
use crate::namespace::Namespace;
use crate::process;
use crate::sweep;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// Owns the namespaces, files and containers' cgroups of one run. All names carry the process id, its start time and a
/// random part, so that runs work side by side and what a dead run left can be told apart.
#[derive(Debug)]
pub struct Run {
    prefix: String,
    folder: TempDir,
    namespaces: Mutex<Vec<Namespace>>,
    /// Waits in a process group of its own until this process ends, however it ends, and cleans up.
    janitor: Child,
}

/// Run by `sh`; `$1` is the prefix of the run's names, `$2` its folder. The pipe on its standard
/// input closes when the run's process is gone.
const JANITOR: &str = r#"
cat >/dev/null
for path in /run/netns/"$1"*; do
    [ -e "$path" ] || continue
    name=${path##*/}
    ip netns pids "$name" | while read -r pid; do kill -9 "$pid"; done
    ip netns delete "$name"
done
rm -rf "$2"
for path in /sys/fs/cgroup/"$1"* /sys/fs/cgroup/*/"$1"*; do
    for again in 1 2 3 4 5 6 7 8 9 10; do
        [ ! -d "$path" ] || find "$path" -depth -type d -exec rmdir {} + || sleep 0.2
    done
done
"#;

impl Run {
    /// Begins a run; clears what dead runs have left.
    pub fn new() -> Result<Self> {
        sweep::sweep()?;
        let prefix = sweep::new_prefix()?;
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .rand_bytes(0)
            .tempdir()?;
        let janitor = {
            use std::os::unix::process::CommandExt as _;
            Command::new("sh")
                .args(["-c", JANITOR, "janitor", &prefix])
                .arg(folder.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .context("start the janitor")?
        };
        Ok(Self {
            prefix,
            folder,
            namespaces: Mutex::new(Vec::new()),
            janitor,
        })
    }

    /// What all names of this run begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The run's folder; it goes with the run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder inside the run's.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Makes a namespace with loopback up.
    pub fn namespace(&self, role: &str) -> Result<Namespace> {
        let name = format!("{}{role}", self.prefix);
        // Noted before it is made: a failure in between is cleaned too.
        let namespace = Namespace::of_name(&name);
        self.namespaces
            .lock()
            .expect("no thread panics with this lock held")
            .push(namespace.clone());
        process::run(Command::new("ip").args(["netns", "add", &name]))?;
        namespace.sh("ip link set lo up")?;
        Ok(namespace)
    }

    /// Removes one namespace before the run's end, with all that runs in it.
    pub fn remove(&self, namespace: &Namespace) -> Result<()> {
        sweep::remove_namespaces(std::slice::from_ref(&namespace.path()))?;
        self.namespaces
            .lock()
            .expect("no thread panics with this lock held")
            .retain(|other| other.name() != namespace.name());
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let namespaces = match self.namespaces.get_mut() {
            Ok(namespaces) => std::mem::take(namespaces),
            Err(poisoned) => std::mem::take(poisoned.into_inner()),
        };
        let paths: Vec<_> = namespaces.iter().map(Namespace::path).collect();
        if let Err(error) = sweep::remove_namespaces(&paths) {
            eprintln!("clean up after the run: {error:#}");
        }
        let is_ours = |name: &str| name.starts_with(&self.prefix);
        if let Err(error) = container::remove_cgroups_where(is_ours) {
            eprintln!("remove the run's cgroups: {error:#}");
        }
        drop(self.janitor.stdin.take());
        if let Err(error) = self.janitor.wait() {
            eprintln!("wait for the janitor: {error}");
        }
    }
}
