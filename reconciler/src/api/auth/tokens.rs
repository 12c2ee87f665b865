//! Tokens of a file: `token,user,uid,"group1,group2"`, one a line (Kubernetes' static token file). Uid may be empty and
//! the groups absent; empty lines and lines that begin with `#` are passed over.
//!
//! The file is 0600 and is read again when it has changed. If it then cannot be used, none of its tokens is good until
//! it can: a token that was taken out must not live on because of a slip in another line.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use super::User;
use crate::api::pki::private;

type Hash = [u8; 32];

/// What of a file's metadata changes with it: device, inode, size, mode, and times of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp([u64; 4], [i64; 4]);

struct Table {
    stamp: Option<Stamp>,
    /// Only hashes are kept: they are compared, so the time that takes tells nothing of a token.
    users: Vec<(Hash, User)>,
}

/// The file's tokens.
pub struct Tokens {
    path: PathBuf,
    table: RwLock<Table>,
}

impl Tokens {
    /// Reads the file; none is an empty one.
    ///
    /// # Errors
    /// It is open to others, or a line is wrong.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let stamp = stamp(path);
        Ok(Self {
            path: path.to_owned(),
            table: RwLock::new(Table {
                stamp,
                users: read(path)?,
            }),
        })
    }

    /// Whose a token is.
    pub fn find(&self, token: &str) -> Option<User> {
        self.refresh();
        let hash = hash(token);
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        // All are looked at, each to its end.
        let mut found = None;
        for (known, user) in &table.users {
            if equal(known, &hash) {
                found = Some(user);
            }
        }
        found.cloned()
    }

    fn refresh(&self) {
        let stamp = stamp(&self.path);
        let known = self
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .stamp;
        if stamp == known {
            return;
        }
        let users = read(&self.path).unwrap_or_else(|error| {
            tracing::warn!(
                "no token of {} is accepted until it is right: {error:#}",
                self.path.display()
            );
            Vec::new()
        });
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Table { stamp, users };
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp(
        [
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.mode().into(),
        ],
        [
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ],
    ))
}

fn hash(token: &str) -> Hash {
    Sha256::digest(token).into()
}

fn equal(a: &Hash, b: &Hash) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

fn read(path: &Path) -> anyhow::Result<Vec<(Hash, User)>> {
    let text = private::read(path)?.unwrap_or_default();
    let mut users: Vec<(Hash, User)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line itself is not shown: it holds a secret.
        let (hash, user) =
            parse(line).with_context(|| format!("{}, line {}", path.display(), index + 1))?;
        ensure!(
            !users.iter().any(|(known, _)| *known == hash),
            "{}, line {}: the token is already another line's",
            path.display(),
            index + 1
        );
        users.push((hash, user));
    }
    Ok(users)
}

fn parse(line: &str) -> anyhow::Result<(Hash, User)> {
    let fields = fields(line)?;
    let (token, name, uid, groups) = match fields.as_slice() {
        [token, name, uid] => (token, name, uid, ""),
        [token, name, uid, groups, ..] => (token, name, uid, groups.as_str()),
        _ => bail!("it has fewer than three fields: token,user,uid"),
    };
    ensure!(!token.is_empty(), "the token is empty");
    ensure!(!name.is_empty(), "the user is empty");
    let groups = groups
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(str::to_owned)
        .collect();
    let mut user = User::authenticated(name.clone(), groups);
    user.uid.clone_from(uid);
    Ok((hash(token), user))
}

/// Fields of a line; one that begins with `"` ends with `"`, and `""` within it is a quote.
fn fields(line: &str) -> anyhow::Result<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = if let Some(mut quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            loop {
                let Some((part, after)) = quoted.split_once('"') else {
                    bail!("a quote is not closed");
                };
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(after) => {
                        field.push('"');
                        quoted = after;
                    }
                    None => break (field, after),
                }
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (field, after) = rest.split_at(end);
            ensure!(!field.contains('"'), "a quote stands within a field");
            (field.trim().to_owned(), after)
        };
        fields.push(field);
        let after = after.trim_start();
        if after.is_empty() {
            return Ok(fields);
        }
        rest = after
            .strip_prefix(',')
            .context("something follows a quoted field")?
            .trim_start();
    }
}
