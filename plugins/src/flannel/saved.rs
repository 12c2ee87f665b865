//! The delegate's configuration, kept from ADD to DEL.
//!
//! The reference keeps it as `<dataDir>/<container ID>`, one for each container. So do we for the
//! first interface, with a mark that names it, which the delegate ignores; further interfaces have
//! `<container ID>:<interface>`, a name that no container ID can have. Files are written aside and
//! renamed, so a crash of ours leaves none half-written. They are not synced, which would cost more
//! than the rest of an ADD: after a power failure one may be empty, and DEL then plans anew.

use super::plan::Delegate;
use crate::cni::config::Attachment;
use crate::cni::{Call, Error, Result, json};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The key that names the interface in a container's first file.
const MARK: &str = "weft/ifname";

/// The place of one interface's configuration.
#[derive(Debug)]
pub struct Saved {
    directory: PathBuf,
    container_id: String,
    ifname: String,
}

/// A configuration that is kept.
#[derive(Debug)]
pub struct Found {
    path: PathBuf,
    text: Vec<u8>,
}

/// A configuration just written, over what was there.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
    before: Option<Vec<u8>>,
}

impl Saved {
    /// The place for a call's container and interface.
    pub fn of(directory: &Path, call: &Call) -> Self {
        Self {
            directory: directory.to_owned(),
            container_id: call.container_id.clone(),
            ifname: call.ifname.clone(),
        }
    }

    /// What is kept for this interface; a container's file without a mark is the reference's and
    /// serves any interface that has none of its own.
    pub fn read(&self) -> Result<Option<Found>> {
        if let Some(found) = Found::read(self.further())? {
            return Ok(Some(found));
        }
        Ok(Found::read(self.first())?
            .filter(|found| found.marked().is_none_or(|ifname| ifname == self.ifname)))
    }

    /// Keeps a configuration.
    pub fn write(&self, config: &Value) -> Result<Written> {
        let first = Found::read(self.first())?;
        let is_first = match &first {
            None => true,
            Some(found) => found.marked().as_ref() == Some(&self.ifname),
        };
        let path = if is_first {
            self.first()
        } else {
            self.further()
        };
        let mut config = config.clone();
        if let Some(object) = config.as_object_mut().filter(|_| is_first) {
            object.insert(MARK.to_owned(), self.ifname.clone().into());
        }
        let before = Found::read(path.clone())?.map(|found| found.text);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|e| Error::io(format!("create directory {}", self.directory.display()), e))?;
        replace(&path, json::to_compact(&config).as_bytes())?;
        Ok(Written { path, before })
    }

    fn first(&self) -> PathBuf {
        self.directory.join(&self.container_id)
    }

    fn further(&self) -> PathBuf {
        self.directory
            .join(format!("{}:{}", self.container_id, self.ifname))
    }
}

impl Written {
    /// Puts back what was there before.
    pub fn undo(self) -> Result<()> {
        match self.before {
            Some(text) => replace(&self.path, &text),
            None => remove(&self.path),
        }
    }
}

impl Found {
    fn read(path: PathBuf) -> Result<Option<Self>> {
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(Self { path, text })),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
        }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The delegate and its configuration; none if the text is malformed.
    pub fn delegate(&self) -> Option<Delegate> {
        let mut config = json::value(&self.text).ok()?;
        config.as_object_mut()?.remove(MARK);
        let plugin = json::member(&config, "type")?.as_str()?.to_owned();
        Some(Delegate { plugin, config })
    }

    /// Removes the file.
    pub fn remove(self) -> Result<()> {
        remove(&self.path)
    }

    fn marked(&self) -> Option<String> {
        self.text_member(MARK)
    }

    fn text_member(&self, key: &str) -> Option<String> {
        let config = json::value(&self.text).ok()?;
        Some(config.get(key)?.as_str()?.to_owned())
    }
}

/// Removes what is kept for a network's attachments that are no longer valid.
pub fn remove_stale(directory: &Path, network: &str, valid: &BTreeSet<Attachment>) -> Result<()> {
    let failed = |e| Error::io(format!("read directory {}", directory.display()), e);
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_file = entry.file_type().map_err(failed)?.is_file();
        let Some(name) = entry
            .file_name()
            .to_str()
            .filter(|_| is_file)
            .map(str::to_owned)
        else {
            continue;
        };
        // Another process is writing it now, or a crash has left it: it is no attachment's.
        if name.starts_with(FRESH) {
            continue;
        }
        let Some(found) = Found::read(entry.path())? else {
            continue;
        };
        // Other networks may keep theirs in the same folder.
        if found.text_member("name").as_deref() != Some(network) {
            continue;
        }
        let (container_id, ifname) = match name.split_once(':') {
            Some((id, ifname)) => (id.to_owned(), Some(ifname.to_owned())),
            None => (name, found.marked()),
        };
        let is_valid = valid.iter().any(|attachment| {
            attachment.container_id == container_id
                && ifname
                    .as_ref()
                    .is_none_or(|ifname| *ifname == attachment.ifname)
        });
        if !is_valid {
            found.remove()?;
        }
    }
    Ok(())
}

/// How the name of a file begins that is not complete yet.
const FRESH: &str = ".new.";

fn replace(path: &Path, text: &[u8]) -> Result<()> {
    let fresh = path.with_file_name(format!("{FRESH}{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text)?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|e| {
        let error = Error::io(format!("write {}", path.display()), e);
        match remove(&fresh) {
            Ok(()) => error,
            Err(undo) => error.and_also(&undo.msg),
        }
    })
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
