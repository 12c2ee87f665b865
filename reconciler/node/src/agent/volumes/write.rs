//! Writes the files of a volume so that readers see either all old ones or all new ones: the files are in a folder of
//! their own, `..data` leads to it and is replaced at once, and what users see are links into `..data`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::payload::Payload;

/// The link to the folder that counts.
pub const DATA: &str = "..data";

/// Makes a volume hold these files and no others. Writes nothing if it does already.
///
/// # Errors
/// Of the file system.
pub fn write(volume: &Path, files: &Payload, group: Option<u32>) -> io::Result<()> {
    let data = volume.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && is_current(&data, files, group) {
        return link(volume, files);
    }
    fs::create_dir_all(volume)?;
    let name = folder_name(volume)?;
    let folder = volume.join(&name);
    fill(&folder, files, group).inspect_err(|_| {
        // What is half written is of no use; the error that counts is the first.
        let _ = fs::remove_dir_all(&folder);
    })?;
    let fresh = volume.join("..data_tmp");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&name, &fresh)?;
    fs::rename(&fresh, &data)?;
    link(volume, files)?;
    match old.filter(|old| old.as_os_str() != name.as_str()) {
        Some(old) if old.components().count() == 1 => fs::remove_dir_all(volume.join(old)),
        _ => Ok(()),
    }
}

fn folder_name(volume: &Path) -> io::Result<String> {
    let now = jiff::Timestamp::now()
        .strftime("..%Y_%m_%d_%H_%M_%S")
        .to_string();
    for _ in 0..16 {
        let name = format!("{now}.{}", fastrand::u32(..));
        if fs::symlink_metadata(volume.join(&name)).is_err() {
            return Ok(name);
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

fn mode_of(mode: u32, group: Option<u32>) -> u32 {
    // The group has to read what is made for it.
    if group.is_some() {
        mode | 0o040 | (mode >> 3 & 0o010)
    } else {
        mode
    }
}

fn is_current(data: &Path, files: &Payload, group: Option<u32>) -> bool {
    let matches = |(path, file): (&String, &super::payload::File)| {
        let path = data.join(path);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            return false;
        };
        meta.is_file()
            && meta.permissions().mode() & 0o777 == mode_of(file.mode, group)
            && group.is_none_or(|group| meta.gid() == group)
            && meta.len() == file.data.len() as u64
            && fs::read(&path).is_ok_and(|have| have == file.data)
    };
    files.iter().all(matches) && count(data).is_ok_and(|count| count == files.len())
}

fn count(folder: &Path) -> io::Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found += if entry.file_type()?.is_dir() {
            count(&entry.path())?
        } else {
            1
        };
    }
    Ok(found)
}

fn fill(folder: &Path, files: &Payload, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mode = mode_of(file.mode, group);
        let mut handle = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        handle.write_all(&file.data)?;
        std::os::unix::fs::fchown(&handle, None, group)?;
        handle.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// What users see: a link for the first part of each path; links of files that are gone go too.
fn link(volume: &Path, files: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for name in &wanted {
        let link = volume.join(name);
        let target = Path::new(DATA).join(name);
        if fs::read_link(&link).ok().as_deref() != Some(&target) {
            symlink(&target, &link)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(DATA));
        if ours && !wanted.contains(&*name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
