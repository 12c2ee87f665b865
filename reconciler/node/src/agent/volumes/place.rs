//! Folders and files on the node that volumes stand for: host paths of a certain type, parts of a volume (`subPath`),
//! file systems in memory. Nothing leads out of a volume.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A name that is one part of a path and stays where it is.
///
/// # Errors
/// It is not.
pub fn plain(name: &str) -> Result<&str, String> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(format!("{name:?} is no name for a file"));
    }
    Ok(name)
}

/// Checks a host path, or makes it.
///
/// # Errors
/// It is not of the type.
pub fn host_path(path: &Path, kind: &str) -> Result<(), String> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!(
            "hostPath {} is not absolute or leads upwards",
            path.display()
        ));
    }
    let meta = fs::metadata(path).ok();
    let shown = path.display();
    let made = match (kind, &meta) {
        ("DirectoryOrCreate", None) => make_folder(path),
        ("FileOrCreate", None) => fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map(drop),
        // As container engines do for binds without a type.
        ("", None) => make_folder(path),
        _ => Ok(()),
    };
    made.map_err(|error| format!("make hostPath {shown}: {error}"))?;
    let kind_of = |test: fn(&fs::FileType) -> bool| {
        fs::metadata(path).is_ok_and(|meta| test(&meta.file_type()))
    };
    let (holds, what) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (kind_of(fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (kind_of(fs::FileType::is_file), "a file"),
        "Socket" => (kind_of(|kind| kind.is_socket()), "a socket file"),
        "CharDevice" => (kind_of(|kind| kind.is_char_device()), "a character device"),
        "BlockDevice" => (kind_of(|kind| kind.is_block_device()), "a block device"),
        other => return Err(format!("unknown hostPath type {other:?}")),
    };
    if holds {
        Ok(())
    } else {
        Err(format!("hostPath type check failed: {shown} is not {what}"))
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// A part of a volume; folders that are missing are made. Links are followed, and must not lead out of the volume. (A
/// container that changes the volume between this look and its neighbour's mount could still win that race: what it
/// can reach then is what the node's administrator could give it as a hostPath.)
///
/// # Errors
/// It leads out of the volume, or cannot be made.
pub fn part(volume: &Path, below: &str, read_only: bool) -> Result<PathBuf, String> {
    let refuse = || format!("subPath {below:?} leads out of its volume");
    let failed = |error: io::Error| format!("subPath {below:?}: {error}");
    let root = volume.canonicalize().map_err(failed)?;
    let mut at = root.clone();
    for component in Path::new(below).components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            _ => return Err(refuse()),
        };
        let next = at.join(name);
        match fs::symlink_metadata(&next) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !read_only => {
                fs::create_dir(&next).map_err(failed)?;
                let mode = fs::metadata(&at).map_err(failed)?.permissions();
                fs::set_permissions(&next, mode).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        at = next.canonicalize().map_err(failed)?;
        if !at.starts_with(&root) {
            return Err(refuse());
        }
    }
    Ok(at)
}

/// A file system in memory on a folder, unless it is there already.
///
/// # Errors
/// Of the kernel.
pub fn memory(folder: &Path, size: Option<u64>) -> io::Result<()> {
    if mounts_below(folder)?.iter().any(|known| known == folder) {
        return Ok(());
    }
    let options = size.map(|size| format!("size={size}"));
    mount(
        Some("tmpfs"),
        folder,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        options.as_deref(),
    )
    .map_err(io::Error::from)
}

/// Removes a folder and all in it; what is mounted below is unmounted first, and never entered.
///
/// # Errors
/// Of the file system; if something stays mounted, nothing is removed.
pub fn remove(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let folder = folder.canonicalize()?;
    let mut mounts = mounts_below(&folder)?;
    // The deepest first; of those on one folder, the last first.
    mounts.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in &mounts {
        umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    if let Some(left) = mounts_below(&folder)?.first() {
        return Err(io::Error::other(format!(
            "{} is still mounted",
            left.display()
        )));
    }
    fs::remove_dir_all(&folder)
}

/// Where something is mounted at or below a folder.
fn mounts_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| path.starts_with(folder))
        .collect())
}

/// Blanks and the like are in octal: `\040`.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes
            .get(at + 1..at + 4)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.unwrap_or(byte));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}
