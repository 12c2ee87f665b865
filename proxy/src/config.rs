//! What the operator asked for, in two stages: as written (flags, KubeProxyConfiguration file), and
//! [`Checked`], which needs no more checking.
//!
//! A file given with `--config` takes the place of the flags that it has keys for, as in kube-proxy;
//! `--hostname-override`, `--master`, `-v` and our own flags count beside it.

mod check;
mod duration;
mod file;
mod flags;
mod given;
mod listen;
mod render;
mod site;
mod values;
mod verb;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use check::{Checked, Conntrack, DetectLocal, Source};
pub use duration::{parse_duration, show_duration};
pub use listen::Listen;
pub use site::{Surroundings, primary_address, site};
pub use values::{IptablesVariant, ModeName, NodePortAddress};
pub use verb::{Trace, TraceFrom, TraceTo, Verb};

/// Why a command line or a file is refused. Each names the flag or key, the value and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line does not parse; clap's text, with the usage.
    #[error("{0}")]
    Flags(String),
    /// The file cannot be read.
    #[error("read {} (--config): {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file is no KubeProxyConfiguration.
    #[error("{} (--config): {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A key has a value that cannot be.
    #[error("{} (--config): {key}: {cause}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key with those above it: `iptables.syncPeriod`.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Values that do not go together, or one that is out of bounds.
    #[error("{0}")]
    Check(String),
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// Print this and end well: help, or the version.
    Print(String),
    /// Do something.
    Do(Box<Checked>, Verb),
}

/// Parses and checks a command line, whose first item is the program's own name. `hostname` is the
/// machine's, for when no name is given; `read` gets the file of `--config`.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    hostname: &str,
    read: impl FnOnce(&Path) -> io::Result<Vec<u8>>,
) -> Result<Parsed, Error> {
    let written = match flags::parse(args)? {
        flags::Outcome::Print(text) => return Ok(Parsed::Print(text)),
        flags::Outcome::Written(written) => *written,
    };
    let file = match written
        .flags
        .config
        .as_deref()
        .filter(|path| !is_empty(path))
    {
        None => None,
        Some(path) => {
            let bytes = read(path).map_err(|cause| Error::Read {
                path: path.to_owned(),
                cause,
            })?;
            Some(file::parse(path, &bytes)?)
        }
    };
    let verb = written.verb();
    let checked = check::check(written, file, hostname)?;
    Ok(Parsed::Do(Box::new(checked), verb))
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

#[cfg(test)]
mod tests;
