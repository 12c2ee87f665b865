//! A runtime of its own for each test, and short words for what tests do with it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node::runtime::process::{Config, Process};
use node::runtime::{
    ContainerConfig, ContainerState, ContainerStatus, Error, Event, Image, PodRef, Runtime,
    SandboxConfig,
};
use tokio::sync::mpsc;

use crate::leaks;

enum Folder {
    Own(tempfile::TempDir),
    Other(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Other(path) => path,
        }
    }
}

/// A runtime below a folder that goes with it.
pub struct Bed {
    folder: Folder,
    change: Box<dyn Fn(&mut Config)>,
    pub runtime: Option<Process>,
    pub events: mpsc::Receiver<Event>,
    attempts: AtomicU32,
}

/// Whether the test may run: it needs root.
pub fn may_run() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("WEFT_REQUIRE_ROOT").is_none_or(|value| value != "1"),
        "this test needs root and WEFT_REQUIRE_ROOT=1 forbids to skip it"
    );
    let line = format!(
        "SKIPPED: {}: needs root\n",
        std::thread::current().name().unwrap_or("a test")
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    false
}

impl Bed {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With another configuration.
    pub async fn with(change: impl Fn(&mut Config) + 'static) -> Self {
        Self::make(Folder::Own(tempfile::tempdir().unwrap()), Box::new(change)).await
    }

    /// Below a folder that is another process's.
    pub async fn at(folder: &Path) -> Self {
        Self::make(Folder::Other(folder.into()), Box::new(|_| {})).await
    }

    async fn make(folder: Folder, change: Box<dyn Fn(&mut Config)>) -> Self {
        let mut own = config(folder.path());
        change(&mut own);
        let runtime = Process::open(own).await.unwrap();
        let events = runtime.events();
        Self {
            folder,
            change,
            runtime: Some(runtime),
            events,
            attempts: AtomicU32::new(0),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self) -> Config {
        let mut own = config(self.path());
        (self.change)(&mut own);
        own
    }

    pub fn runtime(&self) -> &Process {
        self.runtime.as_ref().unwrap()
    }

    /// A sandbox of a Pod of its own.
    pub async fn sandbox(&self, change: impl FnOnce(&mut SandboxConfig)) -> String {
        let mut config = SandboxConfig {
            pod: PodRef {
                namespace: "default".into(),
                name: "pod".into(),
                uid: format!("uid-{:x}", fastrand::u64(..)),
            },
            hostname: "pod".into(),
            resolv_conf: "nameserver 10.96.0.10\n".into(),
            hosts: "127.0.0.1\tlocalhost\n".into(),
            ..SandboxConfig::default()
        };
        change(&mut config);
        let status = self.runtime().run_sandbox(&config).await.unwrap();
        assert!(status.ready);
        status.id
    }

    /// Starts a shell script in a container.
    pub async fn start(
        &self,
        sandbox: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> Result<String, Error> {
        let mut config = shell(script);
        config.attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        change(&mut config);
        let id = self.runtime().create_container(sandbox, &config).await?;
        self.runtime().start_container(&id).await.map(|()| id)
    }

    /// Runs a shell script in a container of a sandbox to its end.
    pub async fn run(&self, sandbox: &str, script: &str) -> (i32, String) {
        let id = self.start(sandbox, script, |_| {}).await.unwrap();
        let status = self.end_of(&id).await;
        (status.exit_code.unwrap(), text(&status.log))
    }

    pub async fn end_of(&self, id: &str) -> ContainerStatus {
        wait(async || {
            let status = self.runtime().container(id).await.unwrap();
            (!matches!(
                status.state,
                ContainerState::Running | ContainerState::Created
            ))
            .then_some(status)
        })
        .await
    }

    /// Lets go of the runtime as the end of an agent does: without a word to what runs.
    pub async fn restart(&mut self) {
        drop(self.runtime.take());
        // The tasks that watch hold the runtime until they learn of nothing more; a real agent's end stops them.
        let config = self.config();
        let runtime = wait(async || Process::open(config.clone()).await.ok()).await;
        self.events = runtime.events();
        self.runtime = Some(runtime);
    }

    /// Removes everything, and looks that nothing is left.
    pub async fn end(mut self) {
        let config = self.config();
        let runtime = self.runtime.take().unwrap();
        for sandbox in runtime.sandboxes().await.unwrap() {
            runtime.remove_sandbox(&sandbox.id).await.unwrap();
        }
        assert!(runtime.containers().await.unwrap().is_empty());
        drop(runtime);
        wait(async || Process::destroy_all(config.clone()).await.ok()).await;
        // What was killed takes a moment to be gone.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut left = leaks::of(self.path(), &config.cgroup);
        while !left.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            left = leaks::of(self.path(), &config.cgroup);
        }
        assert_eq!(left, [""; 0]);
        // Those of tests beside this one come and go.
        wait(async || (leaks::open_namespaces() == 0).then_some(())).await;
        let left: Vec<_> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(!left.iter().any(|name| name == "runtime"), "{left:?}");
    }
}

impl Drop for Bed {
    /// A test that failed leaves nothing behind either.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in leaks::of(self.path(), &self.config().cgroup) {
                if let Some((id, _)) = line
                    .strip_prefix("process ")
                    .and_then(|rest| rest.split_once(':'))
                {
                    let _ = kill(Pid::from_raw(id.parse().unwrap()), Signal::SIGKILL);
                }
            }
        }
    }
}

fn config(folder: &Path) -> Config {
    let name = folder.file_name().unwrap().to_str().unwrap();
    Config {
        images: folder.join("images"),
        logs: folder.join("logs"),
        stage: vec![env!("CARGO_BIN_EXE_weft-stage").into()],
        cgroup: format!("weft-test/{}", name.trim_start_matches('.')),
        folders: true,
        log_max_size: 20_000,
        log_max_files: 3,
        ..Config::new(folder.join("runtime"))
    }
}

pub fn shell(script: &str) -> ContainerConfig {
    ContainerConfig {
        name: "c".into(),
        image: Image { id: "host".into() },
        image_name: "host".into(),
        command: ["/bin/sh", "-c", script].map(String::from).into(),
        termination_message_path: "/dev/termination-log".into(),
        ..ContainerConfig::default()
    }
}

/// The text of a log, without times: `stdout F text`.
pub fn text(log: &PathBuf) -> String {
    let log = fs::read_to_string(log).unwrap();
    log.lines()
        .map(|line| format!("{}\n", line.split_once(' ').unwrap().1))
        .collect()
}

/// Waits for what comes soon.
pub async fn wait<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come within 5 s");
}
