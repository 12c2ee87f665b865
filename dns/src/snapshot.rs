//! The zone's objects on disk, so that a server that starts while the API is away answers at once.
//!
//! The file has one JSON value on each line: what it is and from when, the objects, then their number and the SHA-256
//! of all before. Whatever does not fit that is refused as a whole: half a zone would deny names that exist. It is
//! ours, so that unknown keys are refused too, and readable by its owner alone, for it names all that runs in the
//! cluster.

mod lines;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::model::Event;
use crate::zone::Zone;
use lines::{Footer, Header, Line};

/// What a snapshot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// News for an empty zone.
    pub events: Vec<Event>,
    /// How old they are.
    pub age: Duration,
}

/// Why there is no snapshot, or none of use. The zone is then known once the API has told it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be written.
    #[error("write snapshot {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It is there, but cannot be read.
    #[error("read snapshot {}", path.display())]
    Read {
        /// Where from.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It is not one, or not a whole one.
    #[error("snapshot {} is ignored: line {line}: {cause}", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        cause: String,
    },
    /// It is older than wanted.
    #[error("snapshot {} is ignored: it is {} s old, and {} s are allowed", path.display(), age.as_secs(), most.as_secs())]
    Old {
        /// Where it is.
        path: PathBuf,
        /// Its age.
        age: Duration,
        /// The age that is allowed.
        most: Duration,
    },
    /// It is from a time to come, so that its age is unknown.
    #[error("snapshot {} is ignored: it was written {} s from now; was the clock set back?", path.display(), ahead.as_secs())]
    Future {
        /// Where it is.
        path: PathBuf,
        /// How far off.
        ahead: Duration,
    },
}

/// The bytes of a snapshot of the zone as it is `now`. Quick, unlike [`store`], for which the zone need not be locked.
pub fn render(zone: &Zone, now: SystemTime) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let taken = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    push(&mut out, &Header::new(taken))?;
    let mut objects = 0;
    for event in zone.told() {
        if let Some(line) = Line::of(&event) {
            push(&mut out, &line)?;
            objects += 1;
        }
    }
    let sha256 = hex(Sha256::digest(&out).as_slice());
    push(&mut out, &Line::End(Footer { objects, sha256 }))?;
    Ok(out)
}

fn push(out: &mut Vec<u8>, line: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.push(b'\n');
    Ok(())
}

/// Puts the bytes of a snapshot in the place of the last one: whole, or not at all. Waits for the disk.
pub fn store(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let error = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    fs::create_dir_all(folder.unwrap_or(Path::new("."))).map_err(error)?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let written = write_fresh(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    written.map_err(|source| {
        // What is left of it would only be in the way.
        let _ = fs::remove_file(&fresh);
        error(source)
    })
}

fn write_fresh(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut file = BufWriter::new(file);
    file.write_all(bytes)?;
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}

/// Writes a snapshot of the zone: [`render`], then [`store`].
pub fn write(zone: &Zone, path: &Path, now: SystemTime) -> Result<(), Error> {
    let bytes = render(zone, now).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })?;
    store(path, &bytes)
}

/// Reads a snapshot; `None` if there is no file.
pub fn read(path: &Path, now: SystemTime, most: Duration) -> Result<Option<Snapshot>, Error> {
    let error = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(error(cause)),
    };
    let mut reading = Reading {
        path,
        file: BufReader::new(file),
        hash: Sha256::new(),
        text: Vec::new(),
        line: 0,
    };
    let header: Header = reading.next()?;
    header.check().map_err(|cause| reading.damaged(cause))?;
    let taken = UNIX_EPOCH.checked_add(Duration::from_secs(header.taken));
    let taken = taken.ok_or_else(|| reading.damaged("its time is past all time"))?;
    let age = match now.duration_since(taken) {
        Ok(age) if age > most => {
            return Err(Error::Old {
                path: path.to_owned(),
                age,
                most,
            });
        }
        Ok(age) => age,
        // Clocks of two starts may differ a little.
        Err(ahead) if ahead.duration() < Duration::from_secs(60) => Duration::ZERO,
        Err(ahead) => {
            return Err(Error::Future {
                path: path.to_owned(),
                ahead: ahead.duration(),
            });
        }
    };
    let events = reading.objects()?;
    Ok(Some(Snapshot { events, age }))
}

/// A snapshot being read line by line.
struct Reading<'a> {
    path: &'a Path,
    file: BufReader<File>,
    /// Of all lines but the current one.
    hash: Sha256,
    /// The current line, with its end.
    text: Vec<u8>,
    line: usize,
}

impl Reading<'_> {
    /// The next line as what has to be there.
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.hash.update(&self.text);
        self.text.clear();
        self.line += 1;
        let read = self.file.read_until(b'\n', &mut self.text);
        read.map_err(|source| Error::Read {
            path: self.path.to_owned(),
            source,
        })?;
        if self.text.last() != Some(&b'\n') {
            return Err(self.damaged("the file ends in the middle"));
        }
        serde_json::from_slice(&self.text).map_err(|error| self.damaged(error))
    }

    /// All objects, if the footer vouches for them.
    fn objects(&mut self) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        loop {
            let footer = match self.next::<Line<'_>>()?.event() {
                Ok(event) => {
                    events.push(event);
                    continue;
                }
                Err(footer) => footer,
            };
            if footer.objects != events.len() as u64 {
                let (wanted, read) = (footer.objects, events.len());
                return Err(
                    self.damaged(format_args!("{wanted} lines should precede it, not {read}"))
                );
            }
            if footer.sha256 != hex(self.hash.clone().finalize().as_slice()) {
                return Err(self.damaged("the lines before it are not those that were written"));
            }
            let mut rest = [0];
            match io::Read::read(&mut self.file, &mut rest) {
                Ok(0) => return Ok(events),
                Ok(_) => {
                    self.line += 1;
                    return Err(self.damaged("more follows after the end"));
                }
                Err(source) => {
                    return Err(Error::Read {
                        path: self.path.to_owned(),
                        source,
                    });
                }
            }
        }
    }

    fn damaged(&self, cause: impl ToString) -> Error {
        Error::Damaged {
            path: self.path.to_owned(),
            line: self.line,
            cause: cause.to_string(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
