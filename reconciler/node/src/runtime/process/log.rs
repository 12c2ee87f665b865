//! A container's log: lines of the form `2006-01-02T15:04:05.999999999Z stdout F text`, rotated by size.
//!
//! `P` marks a piece of a line that goes on in the next record; a line is cut at 16 KiB. The oldest of `LOG`,
//! `LOG.1`, `LOG.2` … goes when there would be one too many. A disk that is full (or broken) loses lines, and nothing
//! else: they are counted, and one record tells of them when writing works again. See the Kubernetes CRI logging format.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// The longest text of one record.
const LINE_MAX: usize = 16 * 1024;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Stdout,
    Stderr,
}

impl From {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A log that is written to.
pub(super) struct Log {
    path: PathBuf,
    /// `None` after a rotation that failed.
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_files: u32,
    /// Begun lines of stdout and stderr.
    begun: [Vec<u8>; 2],
    records: Vec<u8>,
    dropped: u64,
    cause: String,
}

impl Log {
    /// Opens a log, to be continued if it is there. At least one file is kept.
    pub(super) fn open(path: &Path, max_size: u64, max_files: u32) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append_to(path)?;
        Ok(Self {
            size: file.metadata()?.len(),
            path: path.to_owned(),
            file: Some(file),
            max_size,
            max_files: max_files.max(1),
            begun: [Vec::new(), Vec::new()],
            records: Vec::new(),
            dropped: 0,
            cause: String::new(),
        })
    }

    /// Takes output as it came, at `now`.
    pub(super) fn append(&mut self, from: From, bytes: &[u8], now: Timestamp) {
        let mut begun = std::mem::take(&mut self.begun[from as usize]);
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let mut text = text;
            while begun.len() + text.len() > LINE_MAX {
                let (fits, rest) = text.split_at(LINE_MAX - begun.len());
                begun.extend(fits);
                text = rest;
                self.record(from, 'P', &begun, now);
                begun.clear();
            }
            begun.extend(text);
            if ends {
                self.record(from, 'F', &begun, now);
                begun.clear();
            }
        }
        self.begun[from as usize] = begun;
        self.flush(now);
    }

    /// Writes what was begun: no more comes.
    pub(super) fn finish(&mut self, now: Timestamp) {
        for from in [From::Stdout, From::Stderr] {
            let begun = std::mem::take(&mut self.begun[from as usize]);
            if !begun.is_empty() {
                self.record(from, 'F', &begun, now);
            }
        }
        self.flush(now);
    }

    fn record(&mut self, from: From, tag: char, text: &[u8], now: Timestamp) {
        let written = self.records.len() as u64;
        if self.size + written > 0 && self.size + written + text.len() as u64 + 48 > self.max_size {
            self.flush(now);
            self.rotate();
        }
        // Into memory: it cannot fail.
        let _ = write!(self.records, "{now:.9} {} {tag} ", from.name());
        self.records.extend(text);
        self.records.push(b'\n');
    }

    fn flush(&mut self, now: Timestamp) {
        let records = std::mem::take(&mut self.records);
        if !records.is_empty() {
            let result = self.write(&records, now);
            if let Err(error) = result {
                self.dropped += records.iter().filter(|&&byte| byte == b'\n').count() as u64;
                self.cause = error.to_string();
            }
        }
        self.records = records;
        self.records.clear();
    }

    fn write(&mut self, records: &[u8], now: Timestamp) -> io::Result<()> {
        let note = if self.dropped > 0 {
            format!(
                "{now:.9} stderr F weft: {} lines were lost here: {}\n",
                self.dropped, self.cause
            )
        } else {
            String::new()
        };
        if self.file.is_none() {
            self.file = Some(append_to(&self.path)?);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let size = self.size;
        let result = file
            .write_all(note.as_bytes())
            .and_then(|()| file.write_all(records));
        if let Err(error) = result {
            // No half record: what comes next begins on a line of its own. If that fails too, the first cause tells more.
            let _ = file.set_len(size);
            return Err(error);
        }
        self.size += (note.len() + records.len()) as u64;
        self.dropped = 0;
        Ok(())
    }

    fn rotate(&mut self) {
        self.file = None;
        for number in (0..self.max_files - 1).rev() {
            // What is not there yet need not move.
            let _ = fs::rename(self.numbered(number), self.numbered(number + 1));
        }
        if self.max_files == 1 {
            let _ = fs::remove_file(&self.path);
        }
        // If moving failed the file goes on as it is: lines matter more than its size.
        self.size = fs::metadata(&self.path).map_or(0, |meta| meta.len());
    }

    fn numbered(&self, number: u32) -> PathBuf {
        rotated(&self.path, number)
    }
}

/// The name of a log's file that was rotated `number` times.
pub(super) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests;
