//! For whom a cluster is: who typed `sudo weft up` works with it as himself. The kubeconfig is his, and the folders on
//! its way let him through; keys, tokens and the store stay root's. It makes him root of this machine (Pods may be
//! privileged), which `sudo` has made him before.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::Context;

use super::{Cluster, FOLDER};

/// User and group by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// As `sudo` says; none if root came some other way.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name| variable(name)?.parse().ok();
        let (user, group) = (number("SUDO_UID")?, number("SUDO_GID")?);
        (user != 0).then_some(Self { user, group })
    }
}

/// Puts the administrator's kubeconfig where its user finds it.
///
/// # Errors
/// The file system's.
pub fn hand_over(cluster: &Cluster) -> anyhow::Result<()> {
    let owner = Owner::of(|name| std::env::var(name).ok());
    let path = cluster.kubeconfig();
    let text = fs::read(cluster.server_kubeconfig())
        .with_context(|| format!("read {}", cluster.server_kubeconfig().display()))?;
    write(&path, &text, owner).with_context(|| format!("write {}", path.display()))?;
    if owner.is_some() {
        let folder = cluster.folder();
        let folders = folder.ancestors().take(3).take_while(|folder| {
            Path::new(FOLDER)
                .parent()
                .is_some_and(|top| folder.starts_with(top))
        });
        for folder in folders {
            let mode = fs::metadata(folder).map(|meta| meta.permissions().mode());
            mode.and_then(|mode| fs::set_permissions(folder, Permissions::from_mode(mode | 0o011)))
                .with_context(|| format!("let others through {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Whole or not at all; and never into a file that its owner could have made a link.
fn write(path: &Path, text: &[u8], owner: Option<Owner>) -> std::io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text)?;
    if let Some(owner) = owner {
        fchown(&file, Some(owner.user), Some(owner.group))?;
    }
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_typed_sudo_is_known_by_its_variables() {
        let of = |user: Option<&str>, group: Option<&str>| {
            Owner::of(|name| match name {
                "SUDO_UID" => user.map(str::to_owned),
                _ => group.map(str::to_owned),
            })
        };
        assert_eq!(
            of(Some("1000"), Some("100")),
            Some(Owner {
                user: 1000,
                group: 100
            })
        );
        assert_eq!(of(None, None), None);
        assert_eq!(of(Some("0"), Some("0")), None);
        assert_eq!(of(Some("-1"), Some("x")), None);
    }
}
