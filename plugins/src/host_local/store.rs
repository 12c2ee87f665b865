//! The folder of a network: a file for each address given out, a lock, and the last address of each
//! range set.
//!
//! | file | content |
//! |---|---|
//! | `10.1.0.7`, `fd00::7` | `<container ID>\r\n<interface>`; older versions wrote the ID alone |
//! | `last_reserved_ip.<set>` | the address given out last |
//! | `lock` | nothing; held by flock(2) for the whole of a verb |

use crate::cni::{Error, Result};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Who an address belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The container.
    pub container_id: String,
    /// Its interface; not in files of old versions.
    pub ifname: Option<String>,
}

impl Holder {
    /// Reads a file's content; nothing in it means nobody.
    pub fn parse(content: &[u8]) -> Option<Self> {
        if content.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(content);
        let text = text.trim();
        Some(match text.split_once("\r\n") {
            Some((id, ifname)) => Self {
                container_id: id.to_owned(),
                ifname: Some(ifname.to_owned()),
            },
            None => Self {
                container_id: text.to_owned(),
                ifname: None,
            },
        })
    }

    /// The content of its file.
    pub fn render(&self) -> String {
        match &self.ifname {
            Some(ifname) => format!("{}\r\n{ifname}", self.container_id),
            None => self.container_id.clone(),
        }
    }
}

/// An address that has a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The address.
    pub ip: IpAddr,
    /// Its holder; none if a crash left the file empty.
    pub holder: Option<Holder>,
}

/// A network's folder, locked until dropped.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens and locks a folder, made if it is not there.
    pub fn open(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::io(format!("create directory {}", directory.display()), e))?;
        Self::lock(directory)
    }

    /// Opens and locks a folder if it is there.
    pub fn open_existing(directory: &Path) -> Result<Option<Self>> {
        match directory.try_exists() {
            Ok(true) => Self::lock(directory).map(Some),
            Ok(false) => Ok(None),
            Err(e) => Err(Error::io(format!("look for {}", directory.display()), e)),
        }
    }

    fn lock(directory: &Path) -> Result<Self> {
        let path = directory.join("lock");
        let open = || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o750)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        Ok(Self {
            directory: directory.to_owned(),
            _lock: open()
                .map_err(|e: std::io::Error| Error::io(format!("lock {}", path.display()), e))?,
        })
    }

    /// Every address that has a file, in one pass over the folder.
    pub fn observe(&self) -> Result<Vec<Reservation>> {
        let failed = |e| Error::io(format!("read directory {}", self.directory.display()), e);
        let mut reservations = Vec::new();
        // IDs and interface names are short; a longer file is none of ours, but it is taken.
        let mut content = [0; 1024];
        let mut path = self.directory.join("_");
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(ip) = address_of(&name) else {
                continue;
            };
            path.set_file_name(&name);
            // One read is enough: on a regular file it is short only at the end.
            match File::open(&path).and_then(|mut file| file.read(&mut content)) {
                Ok(length) => reservations.push(Reservation {
                    ip,
                    holder: Holder::parse(&content[..length]),
                }),
                // An operator may remove a file by hand, without the lock.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(format!("read {}", path.display()), e)),
            }
        }
        reservations.sort_by_key(|r| r.ip);
        Ok(reservations)
    }

    /// The address given out last of a range set; none if there is no such file, or no address in it.
    pub fn last_reserved(&self, set: usize) -> Result<Option<IpAddr>> {
        let path = self.last_file(set);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse::<IpAddr>().ok()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(None),
            Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
        }
    }

    /// Gives an address to a holder. A file that is there must be one that a crash left empty.
    pub fn reserve(&self, ip: IpAddr, holder: &Holder, set: usize) -> Result<()> {
        let path = self.file(ip);
        let failed = |e| Error::io(format!("reserve {ip}: write {}", path.display()), e);
        let create = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path)
        };
        let mut file = match create() {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && is_empty(&path) => {
                std::fs::remove_file(&path).map_err(failed)?;
                create()
            }
            created => created,
        }
        .map_err(failed)?;
        let last = self.last_file(set);
        file.write_all(holder.render().as_bytes())
            .map_err(failed)
            .and_then(|()| {
                std::fs::write(&last, ip.to_string())
                    .map_err(|e| Error::io(format!("write {}", last.display()), e))
            })
            .map_err(|e| match self.release(ip) {
                Ok(()) => e,
                Err(undo) => e.and_also(&undo.msg),
            })
    }

    /// Takes an address back; it may be free already.
    pub fn release(&self, ip: IpAddr) -> Result<()> {
        let path = self.file(ip);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(
                format!("release {ip}: remove {}", path.display()),
                e,
            )),
            _ => Ok(()),
        }
    }

    /// Takes addresses back, going on past errors, and gives all of them.
    pub fn release_all(&self, ips: Vec<IpAddr>) -> Result<()> {
        let failures: Vec<String> = ips
            .into_iter()
            .filter_map(|ip| self.release(ip).err())
            .map(|e| e.msg)
            .collect();
        if failures.is_empty() {
            return Ok(());
        }
        Err(Error::new(crate::cni::code::IO, failures.join("; ")))
    }

    fn file(&self, ip: IpAddr) -> PathBuf {
        self.directory.join(ip.to_string())
    }

    fn last_file(&self, set: usize) -> PathBuf {
        self.directory.join(format!("last_reserved_ip.{set}"))
    }
}

fn address_of(name: &OsStr) -> Option<IpAddr> {
    let name = name.to_str()?;
    // Another way to write the same address is no file of ours.
    name.parse()
        .ok()
        .filter(|ip: &IpAddr| ip.to_string() == name)
}

fn is_empty(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.len() == 0)
}

#[cfg(test)]
mod tests;
