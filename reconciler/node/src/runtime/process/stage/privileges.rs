//! What a container's process may do: capabilities, `no_new_privs`, user and groups.
//!
//! Without choice of the Pod these are what other runtimes give too, less `MKNOD`: devices are kept out by having none
//! and making none, not by a device cgroup. There is no seccomp filter and no user namespace.

use anyhow::Context as _;
use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::user::User;
use crate::runtime::Security;

const DEFAULT: [Capability; 13] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];

/// Which capabilities a container has, of those that this process has.
fn wanted(security: &Security, held: &CapsHashSet) -> anyhow::Result<CapsHashSet> {
    if security.privileged {
        return Ok(held.clone());
    }
    let mut set: CapsHashSet = DEFAULT.into_iter().collect();
    if security.drop_capabilities.iter().any(|name| name == "ALL") {
        set.clear();
    }
    if security.add_capabilities.iter().any(|name| name == "ALL") {
        set.clone_from(held);
    }
    for name in security
        .add_capabilities
        .iter()
        .filter(|name| *name != "ALL")
    {
        set.insert(parse(name)?);
    }
    for name in security
        .drop_capabilities
        .iter()
        .filter(|name| *name != "ALL")
    {
        set.remove(&parse(name)?);
    }
    set.retain(|capability| held.contains(capability));
    Ok(set)
}

/// A capability's name, with or without `CAP_`.
fn parse(name: &str) -> anyhow::Result<Capability> {
    let full = if name.starts_with("CAP_") {
        name.to_owned()
    } else {
        format!("CAP_{name}")
    };
    full.parse()
        .ok()
        .with_context(|| format!("unknown capability {name:?}"))
}

/// Gives up all that the container may not do. The process stays able to execute a program, and little else.
pub(super) fn give_up(security: &Security, user: &User) -> anyhow::Result<()> {
    let held = caps::read(None, CapSet::Bounding).context("read capabilities")?;
    let wanted = wanted(security, &held)?;
    for capability in held.difference(&wanted) {
        caps::drop(None, CapSet::Bounding, *capability)
            .with_context(|| format!("drop {capability}"))?;
    }
    if security.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().context("set no_new_privs")?;
    }
    let groups: Vec<_> = user
        .groups
        .iter()
        .map(|&group| Gid::from_raw(group))
        .collect();
    setgroups(&groups).context("set groups")?;
    let (group, id) = (Gid::from_raw(user.group), Uid::from_raw(user.user));
    setresgid(group, group, group).context("set the group")?;
    setresuid(id, id, id).context("set the user")?;
    if user.user == 0 {
        // Of root, executing a program gives all that the bounding set allows.
        caps::set(None, CapSet::Effective, &wanted).context("set capabilities")?;
        caps::set(None, CapSet::Permitted, &wanted).context("set capabilities")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> CapsHashSet {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let security = Security {
            add_capabilities: names(add),
            drop_capabilities: names(drop),
            ..Security::default()
        };
        wanted(&security, &caps::all()).unwrap()
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        assert!(!of(&[], &[]).contains(&Capability::CAP_SYS_ADMIN));
        assert!(of(&["NET_ADMIN"], &[]).contains(&Capability::CAP_NET_ADMIN));
        assert_eq!(of(&["CAP_CHOWN"], &["ALL"]), [Capability::CAP_CHOWN].into());
        assert_eq!(of(&["ALL"], &[]), caps::all());
        assert!(!of(&["ALL"], &["SYS_ADMIN"]).contains(&Capability::CAP_SYS_ADMIN));
        assert!(parse("FLY").is_err());
    }
}
