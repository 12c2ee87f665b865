//! What is tested: our plugins and daemon, or the reference's, by environment variable.
//!
//! `WEFT_CNI_SUBJECT`: `ours` (default), `reference` (/usr/lib/cni, Debian's
//! containernetworking-plugins) or a folder of plugins. `WEFT_FLANNELD`: a flanneld binary;
//! default ours. `WEFT_BIN_DIR`: where our programs lie; default beside the running test.

use crate::process;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian puts the reference plugins.
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// Whose plugins are under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `weft-cni`.
    Ours,
    /// The Go plugins, or another folder given by hand.
    Reference,
}

/// The subject that the environment asks for.
pub fn plugins() -> Subject {
    match std::env::var("WEFT_CNI_SUBJECT").as_deref() {
        Err(_) | Ok("" | "ours") => Subject::Ours,
        Ok(_) => Subject::Reference,
    }
}

/// The plugin folder of a subject; ours is filled by `weft-cni install` below `folder`.
pub fn plugin_folder(subject: Subject, folder: &Path) -> Result<PathBuf> {
    match subject {
        Subject::Ours => install(folder),
        Subject::Reference => match std::env::var("WEFT_CNI_SUBJECT").as_deref() {
            Err(_) | Ok("" | "ours" | "reference") => Ok(REFERENCE_PLUGINS.into()),
            Ok(path) => Ok(path.into()),
        },
    }
}

fn install(folder: &Path) -> Result<PathBuf> {
    let bin = folder.join("cni-bin");
    if !bin.exists() {
        // Other tests of this process may fill the same folder now: fill one aside, then rename.
        let fresh = tempfile::Builder::new().prefix("cni-").tempdir_in(folder)?;
        process::run(
            Command::new(program("weft-cni")?)
                .arg("install")
                .arg(fresh.path()),
        )?;
        std::fs::rename(fresh.keep(), &bin).with_context(|| format!("create {}", bin.display()))?;
    }
    Ok(bin)
}

/// The flanneld under test.
pub fn flanneld() -> Result<PathBuf> {
    match std::env::var_os("WEFT_FLANNELD") {
        Some(path) => Ok(path.into()),
        None => program("flanneld-rs"),
    }
}

/// The path of one of our programs.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("WEFT_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe().context("path of this program")?;
            // target/debug/deps/<test> or target/debug/<program>
            let near = own.ancestors().skip(1).take(2);
            let near = near.map(|folder| folder.join(name));
            return near.clone().find(|path| path.is_file()).with_context(|| {
                let places: Vec<_> = near.map(|path| path.display().to_string()).collect();
                format!(
                    "no {name} at {}: run `cargo build --workspace` first",
                    places.join(" or ")
                )
            });
        }
    };
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "no {} (WEFT_BIN_DIR): build it first",
        path.display()
    );
    Ok(path)
}
