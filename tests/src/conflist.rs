//! A container runtime's side of CNI: carries out a conflist as the spec's section 3 says.

use crate::namespace::Namespace;
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A network configuration list.
#[derive(Clone, Debug)]
pub struct Conflist {
    name: String,
    cni_version: String,
    plugins: Vec<Map<String, Value>>,
}

impl Conflist {
    /// Takes the list's JSON.
    pub fn parse(list: &Value) -> Result<Self> {
        let text = |key: &str| {
            let value = list[key].as_str().map(str::to_owned);
            value.with_context(|| format!("conflist without {key:?}: {list}"))
        };
        let plugins = list["plugins"]
            .as_array()
            .context("conflist without plugins")?;
        let plugins = plugins.iter().map(|plugin| {
            let plugin = plugin.as_object().cloned();
            plugin.context("a plugin of the conflist is no object")
        });
        Ok(Self {
            name: text("name")?,
            cni_version: text("cniVersion")?,
            plugins: plugins.collect::<Result<_>>()?,
        })
    }

    /// Its cniVersion as numbers, for comparisons.
    fn version(&self) -> Vec<u32> {
        let parts = self.cni_version.split('.');
        parts.filter_map(|part| part.parse().ok()).collect()
    }
}

/// One container's interface in one network, and the result it got.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// Capability arguments, for example `portMappings`.
    pub capabilities: Map<String, Value>,
    /// The last plugin's result, kept between ADD and DEL as a runtime does.
    pub result: Option<Value>,
}

impl Attachment {
    /// Interface `eth0` of the container `container_id`, whose namespace is `netns`.
    pub fn new(container_id: &str, netns: &Path) -> Self {
        Self {
            container_id: container_id.to_owned(),
            netns: netns.to_owned(),
            ifname: "eth0".to_owned(),
            args: String::new(),
            capabilities: Map::new(),
            result: None,
        }
    }
}

/// A plugin's own error answer.
#[derive(Debug)]
pub struct PluginError {
    /// Plugin and verb, for example `bridge ADD`.
    pub call: String,
    /// The spec's error code, if the answer was one of the spec's form.
    pub code: Option<u64>,
    /// `msg` and `details`, or the raw output.
    pub message: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.message)?;
        match self.code {
            Some(code) => write!(f, " (code {code})")?,
            None => write!(f, " (not an error of the spec's form)")?,
        }
        if !self.stderr.trim().is_empty() {
            write!(f, "; stderr: {}", self.stderr.trim())?;
        }
        Ok(())
    }
}

impl std::error::Error for PluginError {}

/// Runs plugins of one folder in one node's namespace.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The node.
    pub node: Namespace,
    /// `CNI_PATH`.
    pub plugins: PathBuf,
    spent: Arc<AtomicU64>,
}

impl Runtime {
    /// Calls the plugins of the folder `plugins` in the namespace `node`.
    pub fn new(node: &Namespace, plugins: PathBuf) -> Self {
        Self {
            node: node.clone(),
            plugins,
            spent: Arc::default(),
        }
    }

    /// The time spent in plugins since the last call of this: from each start to each end.
    pub fn take_spent(&self) -> Duration {
        Duration::from_nanos(self.spent.swap(0, Ordering::Relaxed))
    }

    /// ADD down the list; the result is returned and kept in the attachment.
    pub fn add(&self, list: &Conflist, attachment: &mut Attachment) -> Result<Value> {
        let mut previous = None;
        for plugin in &list.plugins {
            let config = self.config(list, plugin, attachment, previous.as_ref());
            let output = self.call("ADD", &config, Some(attachment))?;
            let result = serde_json::from_str(&output)
                .with_context(|| format!("the result of {} ADD: {output:?}", config["type"]))?;
            previous = Some(result);
        }
        let result = previous.context("a conflist without plugins")?;
        attachment.result = Some(result.clone());
        Ok(result)
    }

    /// DEL in reverse order; from 0.4.0 on with the kept result.
    pub fn del(&self, list: &Conflist, attachment: &Attachment) -> Result<()> {
        let previous = attachment.result.as_ref();
        let previous = previous.filter(|_| list.version() >= vec![0, 4, 0]);
        for plugin in list.plugins.iter().rev() {
            let config = self.config(list, plugin, attachment, previous);
            self.call("DEL", &config, Some(attachment))?;
        }
        Ok(())
    }

    /// CHECK down the list with the kept result.
    pub fn check(&self, list: &Conflist, attachment: &Attachment) -> Result<()> {
        ensure!(list.version() >= vec![0, 4, 0], "CHECK came with 0.4.0");
        for plugin in &list.plugins {
            let config = self.config(list, plugin, attachment, attachment.result.as_ref());
            self.call("CHECK", &config, Some(attachment))?;
        }
        Ok(())
    }

    /// STATUS of each plugin.
    pub fn status(&self, list: &Conflist) -> Result<()> {
        for plugin in &list.plugins {
            let config = base(list, plugin);
            self.call("STATUS", &config, None)?;
        }
        Ok(())
    }

    /// GC of everything but `valid`.
    pub fn gc(&self, list: &Conflist, valid: &[&Attachment]) -> Result<()> {
        let valid: Vec<_> = valid
            .iter()
            .map(|one| json!({"containerID": one.container_id, "ifname": one.ifname}))
            .collect();
        for plugin in &list.plugins {
            let mut config = base(list, plugin);
            config["cni.dev/valid-attachments"] = json!(valid);
            // The name that the spec had before 1.1.0 was released; libcni still writes both.
            config["cni.dev/attachments"] = json!(valid);
            self.call("GC", &config, None)?;
        }
        Ok(())
    }

    fn config(
        &self,
        list: &Conflist,
        plugin: &Map<String, Value>,
        attachment: &Attachment,
        previous: Option<&Value>,
    ) -> Value {
        let mut config = base(list, plugin);
        let offered = plugin.get("capabilities").and_then(Value::as_object);
        let wanted: Map<_, _> = attachment
            .capabilities
            .iter()
            .filter(|(name, _)| {
                offered.is_some_and(|offered| offered.get(*name) == Some(&Value::Bool(true)))
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !wanted.is_empty() {
            config["runtimeConfig"] = Value::Object(wanted);
        }
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        config
    }

    /// Calls one plugin with a ready configuration; returns what it printed.
    pub fn call(
        &self,
        verb: &str,
        config: &Value,
        attachment: Option<&Attachment>,
    ) -> Result<String> {
        let plugin = config["type"].as_str().context("a plugin without type")?;
        let mut command = Command::new(self.plugins.join(plugin));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", &self.plugins);
        if let Some(attachment) = attachment {
            command
                .env("CNI_CONTAINERID", &attachment.container_id)
                .env("CNI_NETNS", &attachment.netns)
                .env("CNI_IFNAME", &attachment.ifname)
                .env("CNI_ARGS", &attachment.args);
        }
        let input = config.to_string();
        let output = self.node.run(|| {
            let started = Instant::now();
            let output = process::output_with_input(&mut command, &input);
            let spent = u64::try_from(started.elapsed().as_nanos())?;
            self.spent.fetch_add(spent, Ordering::Relaxed);
            output
        })?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        let answer: Value = serde_json::from_str(&stdout).unwrap_or(Value::Null);
        let part = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        let message = match (part("msg"), part("details")) {
            (msg, _) if msg.is_empty() => stdout.trim().to_owned(),
            (msg, details) if details.is_empty() => msg,
            (msg, details) => format!("{msg}; {details}"),
        };
        bail!(PluginError {
            call: format!("{plugin} {verb}"),
            code: answer["code"].as_u64(),
            message,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

fn base(list: &Conflist, plugin: &Map<String, Value>) -> Value {
    let mut config = plugin.clone();
    config.insert("name".to_owned(), json!(list.name));
    config.insert("cniVersion".to_owned(), json!(list.cni_version));
    Value::Object(config)
}
