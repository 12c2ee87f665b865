//! Two namespaces of a test's own: one plays the host, the other the container.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The namespaces, removed when the test ends, however it ends.
pub struct Bed {
    host: String,
    container: String,
}

/// What came of a call.
pub struct Done {
    pub succeeded: bool,
    pub stdout: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Bed {
    /// Makes them, or says loudly why not.
    pub fn new_or_skip() -> Option<Self> {
        let test = std::thread::current();
        if !Path::new("/proc/self/ns/net").exists() || !is_root() {
            eprintln!("SKIPPED {}: needs root", test.name().unwrap_or("test"));
            return None;
        }
        let tag = format!(
            "wc{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let bed = Self {
            host: format!("{tag}h"),
            container: format!("{tag}c"),
        };
        for name in [&bed.host, &bed.container] {
            ip(&["netns", "add", name]);
        }
        Some(bed)
    }

    /// Path of the container's namespace.
    pub fn netns(&self) -> String {
        format!("/run/netns/{}", self.container)
    }

    /// Output of `ip` inside the container.
    pub fn in_container(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", &self.container];
        all.extend(arguments);
        ip(&all)
    }

    /// Runs a plugin in the host's namespace: that file, or `weft-cni PLUGIN`.
    pub fn run(&self, plugin: Plugin<'_>, verb: &str, netns: &str, config: &Value) -> Done {
        self.run_in_path(plugin, verb, netns, "/no/such/path", config)
    }

    /// The same with a CNI_PATH.
    pub fn run_in_path(
        &self,
        plugin: Plugin<'_>,
        verb: &str,
        netns: &str,
        path: &str,
        config: &Value,
    ) -> Done {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host]);
        match plugin {
            Plugin::Ours(name) => command.args([env!("CARGO_BIN_EXE_weft-cni"), name]),
            Plugin::File(path) => command.arg(path),
        };
        let mut child = command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start ip netns exec");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(config.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        Done {
            succeeded: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
        }
    }
}

/// Whose plugin.
#[derive(Clone, Copy)]
pub enum Plugin<'a> {
    Ours(&'a str),
    File(&'a Path),
}

impl Done {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {:?}", self.stdout))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for name in [&self.host, &self.container] {
            // One that was never made is not there to remove.
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

/// The reference plugin's file, or none with a loud word about it.
pub fn reference_or_skip(plugin: &str) -> Option<PathBuf> {
    let dir = std::env::var("WEFT_REFERENCE_CNI").unwrap_or_else(|_| "/usr/lib/cni".to_owned());
    let file = Path::new(&dir).join(plugin);
    if file.exists() {
        return Some(file);
    }
    let test = std::thread::current();
    eprintln!(
        "SKIPPED {}: no reference plugin at {} (apt-get install containernetworking-plugins)",
        test.name().unwrap_or("test"),
        file.display()
    );
    None
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("run ip");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
