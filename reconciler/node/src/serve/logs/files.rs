//! The files of a log: `LOG`, and before it `LOG.1`, `LOG.2`, …, the higher the older.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Read at a time.
const BLOCK: usize = 64 * 1024;

/// A file that is being read.
#[derive(Debug)]
pub struct Part {
    file: File,
    /// Which it is, whatever it is called by now.
    inode: u64,
}

impl Part {
    /// Opens one; `None` if it is not there.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self {
                inode: file.metadata()?.ino(),
                file,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds what comes next to a buffer; whether anything did.
    ///
    /// # Errors
    /// The file system's.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let limit = u64::try_from(BLOCK).map_err(io::Error::other)?;
        Ok((&mut self.file).take(limit).read_to_end(buffer)? > 0)
    }

    /// Goes to the beginning of the last lines; how many there were, at most `lines`. A last line without an end counts.
    fn seek_back(&mut self, lines: u64) -> io::Result<u64> {
        let end = self.file.seek(SeekFrom::End(0))?;
        let mut seen = 0;
        let mut at = end;
        let mut block = vec![0; BLOCK];
        while at > 0 {
            let length = at.min(u64::try_from(BLOCK).map_err(io::Error::other)?);
            at -= length;
            self.file.seek(SeekFrom::Start(at))?;
            let part = block
                .get_mut(..usize::try_from(length).map_err(io::Error::other)?)
                .unwrap_or_default();
            self.file.read_exact(part)?;
            for (place, byte) in part.iter().enumerate().rev() {
                let after = at + u64::try_from(place).map_err(io::Error::other)? + 1;
                // The end of the last line begins none.
                if *byte != b'\n' || after == end {
                    continue;
                }
                seen += 1;
                if seen >= lines {
                    self.file.seek(SeekFrom::Start(after))?;
                    return Ok(seen);
                }
            }
        }
        self.file.rewind()?;
        Ok(if end > 0 { seen + 1 } else { 0 })
    }
}

/// The paths of a log that are there, oldest first.
fn paths(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str()))
    else {
        return Ok(vec![log.to_owned()]);
    };
    let mut parts = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let file = entry?.file_name();
        let rest = file.to_str().and_then(|file| file.strip_prefix(name));
        let age = match rest {
            Some("") => Some(0),
            Some(rest) => rest
                .strip_prefix('.')
                .and_then(|age| age.parse::<u32>().ok())
                .filter(|age| *age > 0),
            None => None,
        };
        parts.extend(age.map(|age| (std::cmp::Reverse(age), folder.join(file))));
    }
    parts.sort();
    Ok(parts.into_iter().map(|(_, path)| path).collect())
}

/// All parts, oldest first, each at its beginning; with `tail`, from the last so many lines on.
///
/// # Errors
/// The file system's.
pub fn open(log: &Path, tail: Option<u64>) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for path in paths(log)? {
        parts.extend(Part::open(&path)?);
    }
    // Two listings of a moment in which files moved on.
    parts.dedup_by_key(|part| part.inode);
    let Some(mut wanted) = tail else {
        return Ok(parts);
    };
    let mut kept = Vec::new();
    while let Some(mut part) = parts.pop() {
        if wanted == 0 && !kept.is_empty() {
            break;
        }
        if wanted == 0 {
            part.file.seek(SeekFrom::End(0))?;
        } else {
            wanted -= part.seek_back(wanted)?;
        }
        kept.push(part);
    }
    kept.reverse();
    Ok(kept)
}

/// The parts that have come after one. If it is gone altogether, all there are.
///
/// # Errors
/// The file system's.
pub fn after(log: &Path, part: &Part) -> io::Result<Vec<Part>> {
    let mut parts = open(log, None)?;
    if let Some(place) = parts.iter().position(|there| there.inode == part.inode) {
        parts.drain(..=place);
    }
    Ok(parts)
}
