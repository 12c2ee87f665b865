//! Network configuration lists: which of a folder is taken, what it says, what each plugin is given of it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::attachment::is_plain;
use super::cache::Entry;

/// A version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u8, u8, u8);

impl Version {
    /// From here on there is CHECK, and DEL is given the result.
    pub const CHECK: Self = Self(0, 4, 0);
    /// From here on there is GC.
    pub const GC: Self = Self(1, 1, 0);
    /// From here on there is STATUS.
    pub const STATUS: Self = Self(1, 1, 0);
    /// Those we can speak.
    const KNOWN: [Self; 7] = [
        Self(0, 1, 0),
        Self(0, 2, 0),
        Self(0, 3, 0),
        Self(0, 3, 1),
        Self(0, 4, 0),
        Self(1, 0, 0),
        Self(1, 1, 0),
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::KNOWN
            .into_iter()
            .find(|version| version.to_string() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// Its name.
    pub name: String,
    /// The version that is spoken with its plugins.
    pub version: Version,
    /// CHECK is not wanted.
    pub disable_check: bool,
    /// GC is not wanted.
    pub disable_gc: bool,
    /// In order of ADD.
    pub plugins: Vec<Plugin>,
    /// The whole, for the cache.
    pub json: Value,
}

/// One plugin of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// `type`: the program's name.
    pub kind: String,
    /// Its configuration as written.
    pub config: Map<String, Value>,
}

impl List {
    /// Reads a list. `folder` is where `NAME/*.conf` with further plugins is looked for.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(json: Value, folder: Option<&Path>) -> Result<Self, String> {
        let Value::Object(mut object) = json else {
            return Err("it is no object".to_owned());
        };
        let name = match object.get("name").and_then(Value::as_str) {
            Some(name) if is_plain(name) => name.to_owned(),
            Some(name) => return Err(format!("its name {name:?} is not one CNI allows")),
            None => return Err("it has no name".to_owned()),
        };
        let version = version(&object)?;
        let mut plugins = match object.get("plugins") {
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(_) => return Err("its \"plugins\" are no list".to_owned()),
            None => Vec::new(),
        };
        if let Some(folder) = folder
            && !flag(&object, "loadOnlyInlinedPlugins")?
        {
            plugins.extend(further_plugins(&folder.join(&name))?);
        }
        if plugins.is_empty() {
            return Err("it has no plugins".to_owned());
        }
        // From here on the list stands for itself, wherever it is kept.
        object.insert("plugins".to_owned(), Value::Array(plugins.clone()));
        object.insert("loadOnlyInlinedPlugins".to_owned(), Value::Bool(true));
        Ok(Self {
            name,
            version,
            disable_check: flag(&object, "disableCheck")?,
            disable_gc: flag(&object, "disableGC")?,
            plugins: plugins.into_iter().map(plugin).collect::<Result<_, _>>()?,
            json: Value::Object(object),
        })
    }

    /// Reads a configuration of one plugin as a list of it.
    fn parse_single(json: Value) -> Result<Self, String> {
        let list = json!({
            "name": json.get("name"),
            "cniVersion": json.get("cniVersion").cloned().unwrap_or_else(|| "".into()),
            "plugins": [json],
        });
        Self::parse(list, None)
    }

    /// What a plugin is given on standard input.
    pub fn config(
        &self,
        plugin: &Plugin,
        capabilities: Option<&Map<String, Value>>,
        previous: Option<&Value>,
    ) -> Value {
        let mut config = plugin.config.clone();
        config.insert("name".to_owned(), json!(self.name));
        config.insert("cniVersion".to_owned(), json!(self.version.to_string()));
        config.remove("cniVersions");
        let declared = plugin.config.get("capabilities").and_then(Value::as_object);
        if let (Some(declared), Some(offered)) = (declared, capabilities) {
            let given: Map<_, _> = offered
                .iter()
                .filter(|(name, _)| declared.get(*name) == Some(&Value::Bool(true)))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            if !given.is_empty() {
                config.insert("runtimeConfig".to_owned(), Value::Object(given));
            }
        }
        if let Some(previous) = previous {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(config)
    }

    /// What a plugin is given for GC.
    pub fn gc_config(&self, plugin: &Plugin, valid: &[Entry]) -> Value {
        let mut config = self.config(plugin, None, None);
        let valid: Value = valid
            .iter()
            .map(|entry| json!({"containerID": entry.container_id, "ifname": entry.if_name}))
            .collect();
        // The second is the name it had before 1.1.0 was released; plugins read either.
        for name in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            config[name] = valid.clone();
        }
        config
    }
}

/// The lexically first valid configuration of a folder. What is invalid is passed over with a line in the log.
///
/// # Errors
/// There is none.
pub fn choose(folder: &Path) -> Result<List, String> {
    let none = || format!("no CNI configuration in {}", folder.display());
    let mut files: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                let kind = path.extension().and_then(|kind| kind.to_str());
                matches!(kind, Some("conflist" | "conf" | "json"))
            })
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(none()),
        Err(error) => return Err(format!("read {}: {error}", folder.display())),
    };
    files.sort();
    let mut bad = Vec::new();
    for path in files {
        match read(&path, folder) {
            Ok(list) => return Ok(list),
            Err(error) => {
                tracing::warn!(
                    "CNI configuration {} is passed over: {error}",
                    path.display()
                );
                bad.push(format!("{}: {error}", path.display()));
            }
        }
    }
    match bad.is_empty() {
        true => Err(none()),
        false => Err(format!("no valid {}: {}", &none()[3..], bad.join("; "))),
    }
}

fn read(path: &Path, folder: &Path) -> Result<List, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let json: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("conflist") => List::parse(json, Some(folder)),
        // As libcni: a list that somebody has called .conf is meant as one.
        _ if json.get("plugins").is_some() => List::parse(json, Some(folder)),
        _ => List::parse_single(json),
    }
}

fn further_plugins(folder: &Path) -> Result<Vec<Value>, String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|kind| kind == "conf"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| {
            let text = fs::read(path).map_err(|error| error.to_string())?;
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
        })
        .collect()
}

fn plugin(json: Value) -> Result<Plugin, String> {
    let Value::Object(config) = json else {
        return Err("one of its plugins is no object".to_owned());
    };
    match config.get("type").and_then(Value::as_str) {
        // A name, never a path: it is looked for in the plugins' folders only.
        Some(kind) if is_plain(kind) => Ok(Plugin {
            kind: kind.to_owned(),
            config,
        }),
        Some(kind) => Err(format!("{kind:?} is no name of a plugin")),
        None => Err("one of its plugins has no \"type\"".to_owned()),
    }
}

/// The highest of `cniVersion` and `cniVersions` that we can speak; nothing said is 0.1.0.
fn version(object: &Map<String, Value>) -> Result<Version, String> {
    let mut said: Vec<&str> = Vec::new();
    match object.get("cniVersion") {
        None | Some(Value::Null) => {}
        Some(Value::String(version)) => said.push(version),
        Some(other) => return Err(format!("its cniVersion {other} is no text")),
    }
    match object.get("cniVersions") {
        None | Some(Value::Null) => {}
        Some(Value::Array(versions)) => said.extend(versions.iter().filter_map(Value::as_str)),
        Some(other) => return Err(format!("its cniVersions {other} are no list")),
    }
    said.retain(|version| !version.is_empty());
    if said.is_empty() {
        return Ok(Version::KNOWN[0]);
    }
    said.iter()
        .filter_map(|version| Version::parse(version))
        .max()
        .ok_or_else(|| {
            format!(
                "its cniVersion {} is none of 0.1.0 to 1.1.0",
                said.join(", ")
            )
        })
}

/// A flag; libcni takes it as text as well.
fn flag(object: &Map<String, Value>, name: &str) -> Result<bool, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(format!("its {name} {other} is neither true nor false")),
    }
}
