//! Who is attached where, and what the plugins are told of it.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::runtime::{PodRef, SandboxConfig};

/// A container's interface in a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`: the sandbox's id.
    pub container_id: String,
    /// `CNI_NETNS`: a path of the namespace.
    pub netns: PathBuf,
    /// `CNI_IFNAME`
    pub ifname: String,
    /// `CNI_ARGS` in order, without `IgnoreUnknown`.
    pub args: Vec<(String, String)>,
    /// For `runtimeConfig`: each is given to the plugins that declare it.
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    /// A sandbox's `eth0`: the arguments name its Pod; capabilities are `portMappings`, `bandwidth` (annotations
    /// `kubernetes.io/ingress-bandwidth`, `…/egress-bandwidth`) and `dns`.
    pub fn of(sandbox: &str, netns: impl Into<PathBuf>, config: &SandboxConfig) -> Self {
        Self {
            container_id: sandbox.to_owned(),
            netns: netns.into(),
            ifname: "eth0".to_owned(),
            args: arguments(&config.pod, sandbox),
            capabilities: capabilities(config),
        }
    }

    /// `CNI_ARGS`
    pub fn cni_args(&self) -> String {
        let mut text = "IgnoreUnknown=1".to_owned();
        for (name, value) in &self.args {
            text = format!("{text};{name}={value}");
        }
        text
    }

    /// Whether names are such that they can stand in a file name and in the environment.
    ///
    /// # Errors
    /// Says which is not.
    pub fn check(&self) -> Result<(), String> {
        if !is_plain(&self.container_id) {
            return Err(format!(
                "container id {:?} is not made of letters, digits, '_', '.', '-'",
                self.container_id
            ));
        }
        let name = &self.ifname;
        if !is_plain(name) || name.len() > 15 {
            return Err(format!("{name:?} is no name of an interface"));
        }
        let broken = |text: &str| text.contains([';', '=', '\0']);
        match self
            .args
            .iter()
            .find(|(name, value)| broken(name) || broken(value))
        {
            Some((name, value)) => Err(format!("{name}={value} cannot stand in CNI_ARGS")),
            None => Ok(()),
        }
    }
}

/// What CNI allows as the name of a network and as a container's id.
pub fn is_plain(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
}

fn arguments(pod: &PodRef, sandbox: &str) -> Vec<(String, String)> {
    [
        ("K8S_POD_NAMESPACE", pod.namespace.as_str()),
        ("K8S_POD_NAME", &pod.name),
        ("K8S_POD_INFRA_CONTAINER_ID", sandbox),
        ("K8S_POD_UID", &pod.uid),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn capabilities(config: &SandboxConfig) -> Map<String, Value> {
    let mut all = Map::new();
    if !config.port_mappings.is_empty() {
        let mappings = config.port_mappings.iter().map(|mapping| {
            json!({
                "hostPort": mapping.host_port,
                "containerPort": mapping.container_port,
                "protocol": mapping.protocol.to_lowercase(),
                "hostIP": mapping.host_ip,
            })
        });
        all.insert("portMappings".to_owned(), mappings.collect());
    }
    let mut bandwidth = Map::new();
    for way in ["ingress", "egress"] {
        let annotation = config
            .annotations
            .get(&format!("kubernetes.io/{way}-bandwidth"));
        if let Some(rate) = annotation.and_then(|text| bits(text)) {
            bandwidth.insert(format!("{way}Rate"), json!(rate));
            // The plugin wants one; Kubernetes has no word for it and means "none".
            bandwidth.insert(format!("{way}Burst"), json!(u32::MAX));
        }
    }
    if !bandwidth.is_empty() {
        all.insert("bandwidth".to_owned(), Value::Object(bandwidth));
    }
    if let Some(dns) = dns(&config.resolv_conf) {
        all.insert("dns".to_owned(), dns);
    }
    all
}

/// Bits in a second: `10M`, `1.5G`, `512k`, `1Mi`.
fn bits(quantity: &str) -> Option<u64> {
    let quantity = quantity.trim();
    let digits = quantity
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(digits);
    let unit: f64 = match unit {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let rate = number.parse::<f64>().ok()? * unit;
    // Beyond a petabit nobody means it.
    (1.0..1e15).contains(&rate).then_some(rate as u64)
}

/// The `dns` of a resolv.conf.
fn dns(resolv_conf: &str) -> Option<Value> {
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next()),
            // The last such line is the one that counts.
            Some("search") => searches = words.collect(),
            Some("options") => options.extend(words),
            _ => {}
        }
    }
    let any = !(servers.is_empty() && searches.is_empty() && options.is_empty());
    any.then(|| json!({"servers": servers, "searches": searches, "options": options}))
}
