//! From flannel's configuration and the node's lease to the delegate's configuration; pure.

use super::subnet_env::SubnetEnv;
use crate::cni::{Call, Error, Result, Route, json};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// flannel's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where flanneld writes the node's lease.
    pub subnet_file: PathBuf,
    /// Where the delegate's configurations are kept.
    pub data_dir: PathBuf,
    delegate: Map<String, Value>,
    ipam: Map<String, Value>,
    routes: Vec<Route>,
    runtime_config: Option<Value>,
    cni_version: Option<Value>,
}

/// A plugin to call and the configuration to call it with.
#[derive(Debug, Clone, PartialEq)]
pub struct Delegate {
    /// Its name.
    pub plugin: String,
    /// Its configuration, an object.
    pub config: Value,
}

impl Config {
    /// Reads and checks the configuration.
    pub fn load(call: &Call) -> Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Written {
            subnet_file: String,
            data_dir: String,
            delegate: Map<String, Value>,
            ipam: Map<String, Value>,
            runtime_config: Option<Map<String, Value>>,
        }
        let written: Written = call.read()?;
        let or = |text: String, default: &str| match text.as_str() {
            "" => PathBuf::from(default),
            _ => PathBuf::from(text),
        };
        let delegate = written.delegate;
        if delegate.get("type").is_some_and(|kind| !kind.is_string()) {
            return Err(Error::config(
                "'delegate' dictionary, if present, must have (string) 'type' field",
            ));
        }
        for key in ["name", "ipam"] {
            if delegate.contains_key(key) {
                return Err(Error::config(format!(
                    "'delegate' dictionary must not have '{key}' field, it'll be set by flannel"
                )));
            }
        }
        let routes = match written.ipam.get("routes") {
            None | Some(Value::Null) => Vec::new(),
            Some(routes) => {
                json::from_value::<Routes>(&Value::Object(Map::from_iter([(
                    "routes".to_owned(),
                    routes.clone(),
                )])))
                .map_err(|e| Error::config(format!("failed to parse ipam.routes: {e}")))?
                .routes
            }
        };
        Ok(Self {
            subnet_file: or(written.subnet_file, "/run/flannel/subnet.env"),
            data_dir: or(written.data_dir, "/var/lib/cni/flannel"),
            delegate,
            ipam: written.ipam,
            routes,
            runtime_config: written.runtime_config.map(Value::Object),
            cni_version: json::member(call.config(), "cniVersion")
                .filter(|version| *version != "")
                .cloned(),
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Routes {
    routes: Vec<Route>,
}

/// What the delegate is called with: what the operator wrote wins, but for `ranges`, `name` and
/// `runtimeConfig`.
pub fn plan(config: &Config, env: &SubnetEnv, network: &str) -> Result<Delegate> {
    let mut delegate = config.delegate.clone();
    let mut default = |key: &str, value: Value| {
        delegate.entry(key).or_insert(value);
    };
    default("type", "bridge".into());
    default("ipMasq", (!env.ip_masq).into());
    default("mtu", env.mtu.into());
    if delegate["type"] == "bridge" {
        delegate.entry("isGateway").or_insert(true.into());
    }
    let plugin = match &delegate["type"] {
        Value::String(plugin) => plugin.clone(),
        _ => return Err(Error::config("'delegate' type is not a string")),
    };
    delegate.insert("name".to_owned(), network.into());
    if let Some(runtime_config) = &config.runtime_config {
        delegate.insert("runtimeConfig".to_owned(), runtime_config.clone());
    }
    if let Some(version) = &config.cni_version {
        delegate.insert("cniVersion".to_owned(), version.clone());
    }
    delegate.insert("ipam".to_owned(), ipam(config, env)?);
    Ok(Delegate {
        plugin,
        config: Value::Object(delegate),
    })
}

fn ipam(config: &Config, env: &SubnetEnv) -> Result<Value> {
    let mut ipam = config.ipam.clone();
    ipam.entry("type").or_insert("host-local".into());
    let ranges: Vec<Value> = env
        .subnets
        .iter()
        .map(|subnet| serde_json::json!([{"subnet": subnet}]))
        .collect();
    ipam.insert("ranges".to_owned(), ranges.into());
    let mut routes = config.routes.clone();
    routes.extend(env.networks.iter().map(|net| Route::new(*net)));
    let routes = serde_json::to_value(routes)
        .map_err(|e| Error::generic(format!("write ipam.routes: {e}")))?;
    ipam.insert("routes".to_owned(), routes);
    Ok(Value::Object(ipam))
}

#[cfg(test)]
mod tests;
