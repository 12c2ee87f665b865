//! Who a container's process runs as: an image's `User` and the Pod's choice, by the container's own /etc/passwd.

use std::fs;

use anyhow::{Context as _, bail};

use crate::runtime::Security;

/// Ids of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Looks a user up, in the root that is the calling process's.
pub(super) fn find(image_user: &str, security: &Security) -> anyhow::Result<User> {
    // Images without these files are many.
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    resolve(image_user, security, &passwd, &group)
}

fn resolve(
    image_user: &str,
    security: &Security,
    passwd: &str,
    group: &str,
) -> anyhow::Result<User> {
    let (name, group_name) = match &security.user {
        Some(id) => (id.to_string(), None),
        None => match image_user.split_once(':') {
            Some((name, group)) => (name.to_owned(), Some(group)),
            None => (image_user.to_owned(), None),
        },
    };
    let name = if name.is_empty() { "0" } else { &name };
    // NAME:PASSWORD:UID:GID:TEXT:HOME:SHELL
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name));
    let number = |index: usize| -> Option<u32> { line.as_ref()?.get(index)?.parse().ok() };
    let Some(user) = number(2).or_else(|| name.parse().ok()) else {
        bail!("unable to find user {name}: no matching entries in passwd file");
    };
    let login = line
        .as_ref()
        .and_then(|fields| fields.first())
        .copied()
        .unwrap_or_default();
    let first = match (security.group, group_name) {
        (Some(id), _) => id,
        (None, Some(name)) => find_group(name, group).with_context(|| {
            format!("unable to find group {name}: no matching entries in group file")
        })?,
        (None, None) => number(3).unwrap_or(0),
    };
    let mut groups = security.groups.clone();
    groups.extend(groups_of(login, group));
    groups.push(first);
    groups.sort_unstable();
    groups.dedup();
    let home = line
        .as_ref()
        .and_then(|fields| fields.get(5))
        .copied()
        .filter(|home| !home.is_empty());
    Ok(User {
        user,
        group: first,
        groups,
        home: home.unwrap_or("/").to_owned(),
    })
}

// NAME:PASSWORD:GID:MEMBER,MEMBER
fn find_group(name: &str, table: &str) -> Option<u32> {
    let known = table
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .and_then(|fields| fields.get(2)?.parse().ok());
    known.or_else(|| name.parse().ok())
}

fn groups_of<'a>(login: &'a str, table: &'a str) -> impl Iterator<Item = u32> + 'a {
    table.lines().filter_map(move |line| {
        let fields: Vec<_> = line.split(':').collect();
        let member = fields
            .get(3)?
            .split(',')
            .any(|member| !member.is_empty() && member == login);
        fields.get(2)?.parse().ok().filter(|_| member)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:99:web,root\nx\n";

    fn of(image_user: &str, security: &Security) -> User {
        resolve(image_user, security, PASSWD, GROUP).unwrap()
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let nothing = Security::default();
        assert_eq!(of("", &nothing).home, "/root");
        let web = User {
            user: 33,
            group: 34,
            groups: vec![34, 99],
            home: "/var/www".into(),
        };
        assert_eq!(of("web", &nothing), web);
        assert_eq!(of("33", &nothing), web);
        assert_eq!(of("web:log", &nothing).group, 99);
        assert_eq!(
            of("12:13", &nothing),
            User {
                user: 12,
                group: 13,
                groups: vec![13],
                home: "/".into()
            }
        );
        assert!(resolve("nobody", &nothing, PASSWD, GROUP).is_err());
    }

    #[test]
    fn the_pod_overrules_the_image() {
        let security = Security {
            user: Some(1000),
            groups: vec![2000],
            ..Security::default()
        };
        assert_eq!(
            of("web:log", &security),
            User {
                user: 1000,
                group: 0,
                groups: vec![0, 2000],
                home: "/".into()
            }
        );
    }
}
