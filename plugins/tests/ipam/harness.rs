//! Runs a plugin as a process, ours or the reference's.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where Debian's containernetworking-plugins are; another set can be chosen.
const REFERENCE_DIR: &str = "/usr/lib/cni";

/// The file of a reference plugin, or none with a loud word about it.
pub fn reference_or_skip(plugin: &str) -> Option<PathBuf> {
    let dir = std::env::var("WEFT_REFERENCE_CNI").unwrap_or_else(|_| REFERENCE_DIR.to_owned());
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

/// Whose plugin.
#[derive(Clone, Copy)]
pub enum Which<'a> {
    /// `weft-cni PLUGIN`.
    Ours,
    /// That file.
    Reference(&'a Path),
}

/// One call, as a runtime would make it.
pub struct Call {
    plugin: String,
    variables: Vec<(&'static str, String)>,
}

/// What came of it.
pub struct Done {
    pub succeeded: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Call {
    pub fn new(plugin: &str, verb: &str, id: &str) -> Self {
        let variables = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", "/no/such/netns"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/no/such/path"),
        ];
        Self {
            plugin: plugin.to_owned(),
            variables: variables
                .map(|(name, value)| (name, value.to_owned()))
                .into(),
        }
    }

    pub fn args(self, args: &str) -> Self {
        self.with("CNI_ARGS", args)
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(n, _)| *n != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    pub fn run(&self, which: Which<'_>, config: &Value) -> Done {
        match which {
            Which::Ours => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_weft-cni"));
                command.arg(&self.plugin);
                self.run_command(command, config.to_string().as_bytes())
            }
            Which::Reference(file) => self.run_file(file, config),
        }
    }

    pub fn run_file(&self, file: &Path, config: &Value) -> Done {
        self.run_command(Command::new(file), config.to_string().as_bytes())
    }

    pub fn run_command(&self, mut command: Command, stdin: &[u8]) -> Done {
        command
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        let mut child = command.spawn().expect("start the plugin");
        // A plugin that refuses its environment ends before it has read this.
        match child.stdin.take().unwrap().write_all(stdin) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
            written => written.unwrap(),
        }
        let output = child.wait_with_output().unwrap();
        Done {
            succeeded: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    /// The result as a value without what differs between versions of the reference: an empty `dns`
    /// (left out from library 1.2 on). Of an error only that it is one: codes and texts are ours.
    pub fn comparable(&self) -> Value {
        if !self.succeeded {
            assert!(
                self.json()["code"].is_u64(),
                "no error JSON: {}",
                self.stdout
            );
            return "error".into();
        }
        let mut value = match self.stdout.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap(),
        };
        if let Some(object) = value.as_object_mut()
            && object.get("dns") == Some(&Value::Object(Default::default()))
        {
            object.remove("dns");
        }
        value
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e} in {:?}, stderr {:?}", self.stdout, self.stderr))
    }
}
