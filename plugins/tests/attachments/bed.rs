//! Namespaces that play a host, its containers and the world outside; removed with the value.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use kernel::Netns;
use serde_json::Value;

/// Where Debian puts the reference plugins.
pub const REFERENCE: &str = "/usr/lib/cni";

/// Hides nft, iptables and whatever else is in /usr/sbin.
pub const NO_PROGRAMS: &str = "mount -t tmpfs none /usr/sbin &&";
/// Hides iptables.
pub const NO_IPTABLES: &str = "mount --bind /dev/null /usr/sbin/xtables-nft-multi && \
    mount --bind /dev/null /usr/sbin/xtables-legacy-multi &&";

/// Whose plugins to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Ours,
    Reference,
}

/// A host with its containers, and a folder for the plugins' files.
pub struct Bed {
    pub host: Space,
    pub folder: tempfile::TempDir,
}

/// A namespace; it goes with the value.
pub struct Space {
    pub name: String,
    pub netns: Netns,
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Err(error) = Netns::delete(&self.name) {
            // A test may have removed it itself.
            eprintln!("{error}");
        }
    }
}

impl Space {
    pub fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wpt-{}-{number}-{role}", std::process::id());
        let netns = Netns::create(&name).unwrap();
        let space = Self { name, netns };
        space.must("ip link set lo up");
        space
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs a command inside; words are split at spaces.
    pub fn run(&self, command: &str) -> Output {
        let mut words = vec!["netns", "exec", &self.name];
        words.extend(command.split_ascii_whitespace());
        Command::new("ip").args(words).output().unwrap()
    }

    /// The same, which must succeed; its output.
    pub fn must(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, command: &str) -> Value {
        let text = self.must(command);
        serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).unwrap()
    }

    /// Waits until duplicate address detection is over on every link.
    pub fn settle(&self) {
        for _ in 0..200 {
            if self.must("ip -6 addr show tentative").is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("{}", self.must("ip -6 addr show tentative"));
    }

    pub fn pings(&self, address: &str) -> bool {
        self.run(&format!("ping -c1 -W1 {address}"))
            .status
            .success()
    }

    /// Runs a closure inside, on a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work).unwrap()
    }
}

/// One call's container, interface and further CNI variables.
#[derive(Clone, Debug)]
pub struct Args {
    pub id: String,
    pub netns: String,
    pub ifname: String,
    pub more: Vec<(String, String)>,
    /// A shell command that hides programs from the plugin.
    pub hide: &'static str,
}

impl Args {
    pub fn of(id: &str, container: &Space) -> Self {
        Self {
            id: id.into(),
            netns: container.path(),
            ifname: "eth0".into(),
            more: Vec::new(),
            hide: "",
        }
    }

    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.more.push((key.into(), value.into()));
        self
    }
}

impl Bed {
    /// A host, or nothing where there is no root: then the test has to return.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skipped("needs root");
            return None;
        }
        sweep();
        Some(Self {
            host: Space::new("host"),
            folder: tempfile::tempdir().unwrap(),
        })
    }

    /// The same, where the reference plugins are installed.
    pub fn with_reference() -> Option<Self> {
        if !Path::new(REFERENCE).join("bridge").exists() {
            skipped("needs the reference plugins (apt-get install containernetworking-plugins)");
            return None;
        }
        Self::new()
    }

    pub fn container(&self) -> Space {
        Space::new("pod")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("ipam")
    }

    /// A host-local configuration that keeps its files in this bed's folder.
    pub fn host_local(&self, subnets: &[&str], more: Value) -> Value {
        let ranges: Vec<_> = subnets
            .iter()
            .map(|subnet| serde_json::json!([{ "subnet": subnet }]))
            .collect();
        let mut ipam = serde_json::json!({
            "type": "host-local", "dataDir": self.data(), "ranges": ranges});
        merge(&mut ipam, more);
        ipam
    }

    /// Calls a plugin as a runtime does: Ok with what it printed, or Err with the error it printed.
    pub fn call(
        &self,
        whose: Whose,
        verb: &str,
        plugin: &str,
        args: &Args,
        config: &Value,
    ) -> Result<Value, Value> {
        let folder = match whose {
            Whose::Ours => ours().to_owned(),
            Whose::Reference => PathBuf::from(REFERENCE),
        };
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.host.name])
            // `ip netns exec` makes a mount namespace, so this is for the plugin alone.
            .args(["sh", "-c", &format!("{} exec \"$0\"", args.hide)])
            .arg(folder.join(plugin))
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &args.id)
            .env("CNI_NETNS", &args.netns)
            .env("CNI_IFNAME", &args.ifname)
            .env("CNI_PATH", &folder)
            .envs(args.more.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let text = config.to_string();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked"), "{plugin} {verb}: {stderr}");
        let printed = match stdout.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}")),
        };
        if output.status.success() {
            Ok(printed)
        } else {
            Err(printed)
        }
    }

    /// An ADD of ours that is killed after a time; whether it was done by then.
    pub fn add_killed_after(
        &self,
        microseconds: u64,
        plugin: &str,
        args: &Args,
        config: &Value,
    ) -> bool {
        // Without `ip netns exec` between, so that the process killed is the plugin.
        let mut child = self.host.inside(|| {
            Command::new(ours().join(plugin))
                .env("CNI_COMMAND", "ADD")
                .env("CNI_CONTAINERID", &args.id)
                .env("CNI_NETNS", &args.netns)
                .env("CNI_IFNAME", &args.ifname)
                .env("CNI_PATH", ours())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        });
        let text = config.to_string();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(microseconds));
        child.kill().unwrap();
        child.wait().unwrap().success()
    }

    /// A call of ours that must succeed.
    pub fn ours(&self, verb: &str, plugin: &str, args: &Args, config: &Value) -> Value {
        self.call(Whose::Ours, verb, plugin, args, config)
            .unwrap_or_else(|error| panic!("{plugin} {verb}: {error}"))
    }

    /// A call of ours that must fail; the message with its details.
    pub fn refused(&self, verb: &str, plugin: &str, args: &Args, config: &Value) -> String {
        match self.call(Whose::Ours, verb, plugin, args, config) {
            Ok(result) => panic!("{plugin} {verb} succeeded: {result}"),
            Err(error) => format!("{} {}", error["msg"], error["details"]),
        }
    }

    /// The namespace of the world outside, joined to the host: 192.0.2.1 and 2001:db8::1 are the
    /// host's addresses there, .2 and ::2 the world's.
    pub fn world(&self) -> Space {
        let world = Space::new("world");
        self.host.must(&format!(
            "ip link add out type veth peer name in netns {}",
            world.name
        ));
        for (space, link, end) in [(&self.host, "out", 1), (&world, "in", 2)] {
            space.must(&format!("ip addr add 192.0.2.{end}/24 dev {link}"));
            space.must(&format!("ip addr add 2001:db8::{end}/64 dev {link} nodad"));
            space.must(&format!("ip link set {link} up"));
        }
        world
    }

    /// Everything an ADD may leave on the host: links, addresses, rules, files.
    pub fn footprint(&self) -> String {
        let mut text = self.host.must("ip -o link");
        // Random names and changing flags do not matter, only which links there are.
        text = text
            .lines()
            .filter_map(|line| line.split(':').nth(1))
            .collect::<Vec<_>>()
            .join("\n");
        for command in [
            "ip -o addr show scope global",
            "iptables-save -t nat",
            "ip6tables-save -t nat",
        ] {
            text += &self
                .host
                .must(command)
                .lines()
                .filter(|line| !line.starts_with(['#', ':']) || line.starts_with(":CNI"))
                // Duplicate address detection ends when it ends.
                .map(|line| format!("{}\n", line.replace(" tentative", "")))
                .collect::<String>();
        }
        // Table and base chain of the spoof check are shared and stay, as the reference has it.
        text += &self.host.must("nft list ruleset bridge").replace(
            "table bridge nat {\n\tchain PREROUTING {\n\t\ttype filter hook prerouting priority dstnat; policy accept;\n\t}\n}\n",
            "",
        );
        text += &self.host.must("nft list ruleset inet");
        text += &leases(&self.data());
        text
    }
}

/// Says that the running test is skipped, past the test harness, which keeps what passing tests print.
pub fn skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED: {}: {reason}\n", thread.name().unwrap_or("test"));
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    let required = std::env::var("WEFT_REQUIRE_ROOT").is_ok_and(|value| value == "1");
    assert!(!(required && reason == "needs root"), "{reason}");
}

/// The addresses that host-local has given out. (An empty file is what a process leaves that is killed
/// just then; the address counts as free.)
pub fn leases(data: &Path) -> String {
    let mut names = Vec::new();
    for network in fs::read_dir(data).into_iter().flatten() {
        for file in fs::read_dir(network.unwrap().path()).into_iter().flatten() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            let is_address =
                name.starts_with(|c: char| c.is_ascii_digit()) || name.starts_with("fd");
            if is_address && file.metadata().unwrap().len() > 0 {
                names.push(name);
            }
        }
    }
    names.sort();
    names.join("\n")
}

/// Puts the members of `more` into `value`.
pub fn merge(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

/// The folder with our plugins, installed once.
pub fn ours() -> &'static Path {
    static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().to_owned();
            let done = Command::new(env!("CARGO_BIN_EXE_weft-cni"))
                .arg("install")
                .arg(&path)
                .output()
                .unwrap();
            assert!(done.status.success(), "{done:?}");
            (folder, path)
        })
        .1
}

/// Removes namespaces of earlier runs that ended before they could.
fn sweep() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let process = name
                .strip_prefix("wpt-")
                .and_then(|rest| rest.split('-').next());
            if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
                // Another run's sweep may be quicker.
                let _ = Netns::delete(&name);
            }
        }
    });
}
