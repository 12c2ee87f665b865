//! `weft-cni install DIR`: one file in DIR and a hard link to it for every plugin.
//!
//! Every name is replaced by a rename, so that a runtime which starts a plugin meanwhile finds
//! either the old file or the new one, whole.

use crate::registry;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What failed, at which file.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {cause}", path.display())]
pub struct Error {
    what: &'static str,
    path: PathBuf,
    cause: io::Error,
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |cause| Error {
        what,
        path: path.to_owned(),
        cause,
    }
}

/// Installs this program and every plugin name into `dir`; says what it did.
pub fn install(dir: &Path) -> Result<String, Error> {
    let names: Vec<_> = registry::ALL.iter().map(|plugin| plugin.name()).collect();
    install_from(Path::new("/proc/self/exe"), dir, &names)
}

fn install_from(program: &Path, dir: &Path, names: &[&str]) -> Result<String, Error> {
    std::fs::create_dir_all(dir).map_err(at("create directory", dir))?;
    let own = dir.join("weft-cni");
    if !is_same_file(program, &own).map_err(at("look at", &own))? {
        let fresh = fresh_name(dir, "weft-cni");
        replace(&own, &fresh, || {
            // Copied, not linked: the build folder or a package may replace its file in place.
            std::fs::copy(program, &fresh)?;
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
            std::fs::File::open(&fresh)?.sync_all()
        })?;
    }
    for name in names {
        let link = dir.join(name);
        // Renaming one link onto another of the same file does nothing and would leave the first.
        if !is_same_file(&own, &link).map_err(at("look at", &link))? {
            let fresh = fresh_name(dir, name);
            replace(&link, &fresh, || std::fs::hard_link(&own, &fresh))?;
        }
    }
    Ok(format!(
        "installed {} plugins into {}: {}\n",
        names.len(),
        dir.display(),
        names.join(" ")
    ))
}

/// Makes `fresh` and renames it to `target`; leaves no `fresh` behind.
fn replace(
    target: &Path,
    fresh: &Path,
    make: impl FnOnce() -> io::Result<()>,
) -> Result<(), Error> {
    make()
        .and_then(|()| std::fs::rename(fresh, target))
        .map_err(|cause| {
            // The first failure is the one to tell; a leftover would be harmless.
            let _ = std::fs::remove_file(fresh);
            at("install", target)(cause)
        })
}

fn fresh_name(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.{}.new", std::process::id()))
}

fn is_same_file(a: &Path, b: &Path) -> io::Result<bool> {
    // A symbolic link at the target is replaced, so it is looked at itself.
    match b.symlink_metadata() {
        Ok(b) => a
            .metadata()
            .map(|a| (a.dev(), a.ino()) == (b.dev(), b.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_name_is_one_file_and_old_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        let target = dir.path().join("a/b");
        std::fs::write(&program, "new").unwrap();
        std::fs::create_dir_all(&target).unwrap();
        std::fs::write(target.join("bridge"), "old").unwrap();
        std::os::unix::fs::symlink("/no/such", target.join("ptp")).unwrap();
        for _ in 0..2 {
            install_from(&program, &target, &["bridge", "ptp"]).unwrap();
            assert_eq!(listing(&target), ["bridge", "ptp", "weft-cni"]);
            let own = target.join("weft-cni").metadata().unwrap();
            assert_eq!((own.nlink(), own.mode() & 0o777), (3, 0o755));
            assert_eq!(std::fs::read(target.join("ptp")).unwrap(), b"new");
        }
        std::fs::write(&program, "newer").unwrap();
        install_from(&program, &target, &["bridge", "ptp"]).unwrap();
        assert_eq!(std::fs::read(target.join("bridge")).unwrap(), b"newer");
        assert_eq!(target.join("weft-cni").metadata().unwrap().nlink(), 3);
    }

    #[test]
    fn a_folder_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bridge")).unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "x").unwrap();
        let error = install_from(&program, dir.path(), &["bridge"]).unwrap_err();
        assert!(error.to_string().contains("/bridge: "), "{error}");
        assert_eq!(listing(dir.path()), ["bridge", "program", "weft-cni"]);
    }
}
