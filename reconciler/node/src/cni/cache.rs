//! Attachments on disk, in the form of libcni's cache.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::attachment::{Attachment, is_plain};
use super::list::List;

const KIND: &str = "cniCacheV1";

/// One attachment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    kind: String,
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// The list, in base64.
    config: String,
    /// `CNI_IFNAME`
    pub if_name: String,
    /// The list's name.
    pub network_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(default)]
    cni_args: Vec<(String, String)>,
    #[serde(default)]
    capability_args: Map<String, Value>,
    /// Of the last plugin's ADD; absent while it runs, and after one that did not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

impl Entry {
    /// An attachment that is about to be made.
    pub fn new(list: &List, attachment: &Attachment) -> Self {
        Self {
            kind: KIND.to_owned(),
            container_id: attachment.container_id.clone(),
            config: STANDARD.encode(list.json.to_string()),
            if_name: attachment.ifname.clone(),
            network_name: list.name.clone(),
            netns: attachment.netns.to_string_lossy().into_owned(),
            cni_args: attachment.args.clone(),
            capability_args: attachment.capabilities.clone(),
            result: None,
        }
    }

    /// The list it was made by.
    ///
    /// # Errors
    /// The file has been tampered with.
    pub fn list(&self) -> Result<List, String> {
        let wrong = |error: &dyn std::fmt::Display| {
            format!(
                "the cached configuration of network {:?} for container {}: {error}",
                self.network_name, self.container_id
            )
        };
        let text = STANDARD
            .decode(&self.config)
            .map_err(|error| wrong(&error))?;
        let json = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
        List::parse(json, None).map_err(|error| wrong(&error))
    }

    /// Who it is.
    pub fn attachment(&self) -> Attachment {
        Attachment {
            container_id: self.container_id.clone(),
            netns: PathBuf::from(&self.netns),
            ifname: self.if_name.clone(),
            args: self.cni_args.clone(),
            capabilities: self.capability_args.clone(),
        }
    }

    fn file_name(&self) -> String {
        format!(
            "{}-{}-{}",
            self.network_name, self.container_id, self.if_name
        )
    }

    fn is_sound(&self) -> bool {
        self.kind == KIND
            && [&self.network_name, &self.container_id, &self.if_name]
                .iter()
                .all(|name| is_plain(name))
    }
}

/// The folder of them.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// `DIR/results`
    pub fn new(dir: &Path) -> Self {
        Self {
            folder: dir.join("results"),
        }
    }

    /// Writes one, whole or not at all.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, entry: &Entry) -> Result<(), String> {
        let path = self.folder.join(entry.file_name());
        // No attachment's name begins with a dot.
        let draft = self.folder.join(format!(".{}", entry.file_name()));
        let write = || -> io::Result<()> {
            let folder = &self.folder;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(&serde_json::to_vec(entry)?)?;
            fs::rename(&draft, &path)
        };
        write().map_err(|error| {
            let left = match fs::remove_file(&draft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    format!("; remove {}: {error}", draft.display())
                }
                _ => String::new(),
            };
            format!("write {}: {error}{left}", path.display())
        })
    }

    /// Forgets one.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove(&self, entry: &Entry) -> Result<(), String> {
        let path = self.folder.join(entry.file_name());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("remove {}: {error}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Those of a container's interface, in every network.
    ///
    /// # Errors
    /// The file system's; a file does not parse.
    pub fn of(&self, container_id: &str, ifname: &str) -> Result<Vec<Entry>, String> {
        let end = format!("-{container_id}-{ifname}");
        let mut entries = self.read(|name| name.ends_with(&end))?;
        entries.retain(|entry| entry.container_id == container_id && entry.if_name == ifname);
        Ok(entries)
    }

    /// All of them.
    ///
    /// # Errors
    /// The file system's; a file does not parse.
    pub fn all(&self) -> Result<Vec<Entry>, String> {
        self.read(|_| true)
    }

    fn read(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Entry>, String> {
        let failed = |error: io::Error| format!("read {}: {error}", self.folder.display());
        let listing = match fs::read_dir(&self.folder) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut entries = Vec::new();
        for file in listing {
            let file = file.map_err(failed)?;
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with('.') || !wanted(name) {
                continue;
            }
            let path = file.path();
            let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = match fs::read(&path) {
                Ok(text) => text,
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(wrong(&error)),
            };
            let entry: Entry = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
            if !entry.is_sound() || entry.file_name() != name {
                return Err(wrong(&"it is not what its name says"));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}
