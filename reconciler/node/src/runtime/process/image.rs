//! Images from this machine: `host`, folders, tar files and OCI layouts; unpacked once, by what they hold.
//!
//! An image `NAME` is looked for in the images folder as `NAME` (an OCI layout, or a root used in place), `NAME.tar` and
//! `NAME.tar.gz` (an OCI or docker archive, or the tar of a root); where a name has `/` and `:` these may also be
//! written `_`, and `:latest` may be left out. If the file has changed since it was unpacked, it is unpacked anew. The
//! cache has `HEX/{rootfs,image.json}`, HEX being the SHA-256 of the manifest or of the tar, and `index.json`: names.

mod manifest;
mod name;
mod source;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::{failed, lock, record};
use crate::runtime::{Error, Image};

/// The image that is the node's own file system.
const HOST: &str = "host";
const FOLDER: &str = "folder:";
const SHA256: &str = "sha256:";

/// An image that is ready, and what it says of its program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unpacked {
    /// Its root; none is the node's own.
    #[serde(skip)]
    pub(super) root: Option<PathBuf>,
    pub(super) entrypoint: Vec<String>,
    pub(super) arguments: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) working_dir: String,
    pub(super) user: String,
}

/// What a name led to, and how its source looked then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    id: String,
    source: PathBuf,
    stamp: (u64, u64, i64, i64),
    bytes: u64,
}

/// The images of this node.
pub(super) struct Images {
    source: PathBuf,
    cache: PathBuf,
    folders: bool,
    /// One image is unpacked at a time.
    turn: Mutex<()>,
}

impl Images {
    pub(super) fn new(source: &Path, cache: &Path, folders: bool) -> Self {
        Self {
            source: source.to_owned(),
            cache: cache.to_owned(),
            folders,
            turn: Mutex::new(()),
        }
    }

    /// Looks an image up, and unpacks it if need be. `again` does not trust the time of its file.
    pub(super) fn ensure(&self, name: &str, again: bool) -> Result<Image, Error> {
        if name == HOST {
            return Ok(Image { id: HOST.into() });
        }
        if name.starts_with('/') {
            return self.ensure_folder(name);
        }
        let places = name::places(&self.source, name).map_err(Error::InvalidImageName)?;
        let Some(place) = places.iter().find(|place| place.exists()) else {
            let looked: Vec<_> = places
                .iter()
                .map(|place| place.display().to_string())
                .collect();
            return Err(Error::NoImage(format!(
                "image {name:?} is not on this node: there is none of {}",
                looked.join(", ")
            )));
        };
        if place.is_dir() && !place.join("oci-layout").exists() {
            return Ok(Image {
                id: format!("{FOLDER}{}", place.display()),
            });
        }
        let what = || format!("unpack image {name:?} from {}", place.display());
        let _turn = lock(&self.turn);
        let mut index = self.index()?;
        let stamp = stamp(place).map_err(failed(what()))?;
        if let Some(entry) = index.get(name)
            && !again
            && entry.source == *place
            && entry.stamp == stamp
            && self.folder(&entry.id).is_some_and(|folder| folder.exists())
        {
            return Ok(Image {
                id: entry.id.clone(),
            });
        }
        record::make_folder(&self.cache).map_err(failed(what()))?;
        let (id, bytes) = source::unpack(place, name, &self.cache)
            .map_err(|error| Error::Failed(format!("{}: {error:#}", what())))?;
        let entry = Entry {
            id: id.clone(),
            source: place.clone(),
            stamp,
            bytes,
        };
        index.insert(name.to_owned(), entry);
        record::write(&self.cache.join("index.json"), &index).map_err(failed(what()))?;
        Ok(Image { id })
    }

    fn ensure_folder(&self, path: &str) -> Result<Image, Error> {
        if !self.folders {
            return Err(Error::InvalidImageName(format!(
                "image {path:?}: this node allows no folders as images"
            )));
        }
        match fs::canonicalize(path) {
            Ok(folder) if folder.is_dir() => Ok(Image {
                id: format!("{FOLDER}{}", folder.display()),
            }),
            Ok(_) => Err(Error::InvalidImageName(format!(
                "image {path:?} is no folder"
            ))),
            Err(_) => Err(Error::NoImage(format!(
                "image {path:?}: there is no such folder on this node"
            ))),
        }
    }

    /// The names of the images that are here, and their bytes.
    pub(super) fn list(&self) -> Result<Vec<(Vec<String>, u64)>, Error> {
        let mut by_id: BTreeMap<String, (Vec<String>, u64)> = BTreeMap::new();
        by_id.insert(HOST.into(), (vec![HOST.into()], 0));
        for (name, entry) in self.index()? {
            let known = by_id
                .entry(entry.id)
                .or_insert_with(|| (Vec::new(), entry.bytes));
            known.0.push(name);
        }
        Ok(by_id.into_values().collect())
    }

    /// An image that [`Self::ensure`] has answered.
    pub(super) fn open(&self, image: &Image) -> Result<Unpacked, Error> {
        if image.id == HOST {
            return Ok(Unpacked::default());
        }
        if let Some(path) = image.id.strip_prefix(FOLDER) {
            return Ok(Unpacked {
                root: Some(path.into()),
                ..Unpacked::default()
            });
        }
        let gone = || Error::NoImage(format!("image {} is no longer on this node", image.id));
        let folder = self.folder(&image.id).ok_or_else(gone)?;
        let unpacked: Option<Unpacked> = record::read(&folder.join("image.json"))
            .map_err(failed(format!("open image {}", image.id)))?;
        let unpacked = unpacked.ok_or_else(gone)?;
        Ok(Unpacked {
            root: Some(folder.join("rootfs")),
            ..unpacked
        })
    }

    /// Removes what no name and none of these ids leads to.
    pub(super) fn keep(&self, ids: &BTreeSet<String>) -> Result<(), Error> {
        let index = self.index()?;
        let named = index.values().map(|entry| &entry.id);
        let kept: BTreeSet<_> = named.chain(ids).filter_map(|id| self.folder(id)).collect();
        let entries = match fs::read_dir(&self.cache) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed(format!("list {}", self.cache.display())))?,
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && !kept.contains(&path) {
                fs::remove_dir_all(&path).map_err(failed(format!("remove {}", path.display())))?;
            }
        }
        Ok(())
    }

    fn index(&self) -> Result<BTreeMap<String, Entry>, Error> {
        let index = record::read(&self.cache.join("index.json"))
            .map_err(failed("read the index of images"))?;
        Ok(index.unwrap_or_default())
    }

    fn folder(&self, id: &str) -> Option<PathBuf> {
        let hex = id.strip_prefix(SHA256)?;
        name::is_hex(hex).then(|| self.cache.join(hex))
    }
}

/// Changes when the source does: inode, size, time. Of a layout, those of its index.
fn stamp(place: &Path) -> io::Result<(u64, u64, i64, i64)> {
    let place = if place.is_dir() {
        place.join("index.json")
    } else {
        place.to_owned()
    };
    let meta = fs::metadata(place)?;
    Ok((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}
