//! iptables transactions, by `iptables-restore --noflush`, in whichever of its two forms (nf_tables
//! or legacy) the host uses, or in a named one.

use std::{fs, sync::OnceLock, time::Duration};

use crate::{Error, Result, nft, process, sys};

/// A value that changes when rules change; see [`Iptables::fingerprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Legacy(sys::TableShape),
    Nftables(u32),
}

/// The two forms of the program; on one host both may be installed, with rules in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Its rules are in nf_tables (`iptables-nft`).
    Nft,
    /// Its rules are in the xtables of the kernel (`iptables-legacy`).
    Legacy,
}

/// Seconds to wait for the xtables lock: others (kube-proxy) hold it for long, and many Pods may
/// start at once.
const WAIT: &str = "60";

/// The iptables of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iptables {
    /// `iptables`, `ip6tables-legacy` …
    program: String,
    ipv6: bool,
    legacy: bool,
    /// (major, minor, patch) of the program.
    version: (u32, u32, u32),
}

impl Iptables {
    /// Finds `iptables` (or `ip6tables`) and asks its version.
    pub fn find(ipv6: bool) -> Result<Self> {
        static FOUND: [OnceLock<Iptables>; 2] = [OnceLock::new(), OnceLock::new()];
        let slot = &FOUND[usize::from(ipv6)];
        if let Some(known) = slot.get() {
            return Ok(known.clone());
        }
        let found = Self::ask(program(ipv6).to_owned(), ipv6)?;
        Ok(slot.get_or_init(|| found).clone())
    }

    /// Finds the program of one form by its own name (`iptables-legacy`), or else `iptables` if
    /// that is of this form.
    pub fn find_variant(ipv6: bool, variant: Variant) -> Result<Self> {
        let base = program(ipv6);
        let suffix = match variant {
            Variant::Nft => "nft",
            Variant::Legacy => "legacy",
        };
        let named = format!("{base}-{suffix}");
        if process::find(&named).is_some() {
            return Self::ask(named, ipv6);
        }
        match Self::find(ipv6) {
            Ok(found) if found.variant() == variant => Ok(found),
            _ => Err(Error::other(
                format!("find {named}"),
                format!("neither it nor an {base} of this form is installed (package iptables)"),
            )),
        }
    }

    fn ask(program: String, ipv6: bool) -> Result<Self> {
        let what = format!("find {program}");
        let text = process::run(&what, &program, &["--version"], "")?;
        let (version, legacy) = parse_version(&text)
            .ok_or_else(|| Error::other(what, format!("unreadable version {text:?}")))?;
        Ok(Self {
            program,
            ipv6,
            legacy,
            version,
        })
    }

    /// As it is called, without `-restore` or `-save`.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Which of the two forms it is.
    pub fn variant(&self) -> Variant {
        if self.legacy {
            Variant::Legacy
        } else {
            Variant::Nft
        }
    }

    /// It speaks to the legacy xtables of the kernel and not to nf_tables.
    pub fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// It is `ip6tables`.
    pub fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    /// `MASQUERADE --random-fully` is understood (1.6.2).
    pub fn has_random_fully(&self) -> bool {
        self.version >= (1, 6, 2)
    }

    /// Applies a script in the format of iptables-save(8), one commit a table; chains that the
    /// script does not name stay as they are.
    pub fn restore(&self, script: &str) -> Result<()> {
        let program = format!("{}-restore", self.program);
        let what = format!("apply {} transaction", self.program);
        // --wait came to restore with 1.6.2.
        let arguments: &[&str] = if self.version >= (1, 6, 2) {
            &["--noflush", "--wait", WAIT]
        } else {
            &["--noflush"]
        };
        process::run(&what, &program, arguments, script).map(drop)
    }

    /// As [`Iptables::restore`], for large scripts and callers that try again: waits for the
    /// xtables lock at most `wait` (at least a second, whole seconds), see [`is_lock_held`], and
    /// may take `limit` altogether.
    pub fn restore_within(&self, script: &str, wait: Duration, limit: Duration) -> Result<()> {
        let program = format!("{}-restore", self.program);
        let what = format!("apply {} transaction", self.program);
        let wait = wait.as_secs().max(1).to_string();
        let mut arguments = vec!["--noflush", "--counters"];
        if self.version >= (1, 6, 2) {
            arguments.extend(["--wait", &wait]);
        }
        process::run_within(&what, &program, &arguments, script, limit).map(drop)
    }

    /// A table in the format of iptables-save(8). Legacy makes the table if it is not there yet
    /// (see [`legacy_tables`]).
    pub fn save(&self, table: &str) -> Result<String> {
        let program = format!("{}-save", self.program);
        process::run(
            &format!("list {program} {table}"),
            &program,
            &["-t", table],
            "",
        )
    }

    /// Tells, without starting a program, whether a table may have changed since: equal values mean
    /// that it has not (nf_tables), or that no rule was added or removed (legacy, which misses a
    /// rule swapped for another of the same size). Acts in the calling thread's namespace.
    pub fn fingerprint(&self, table: &str) -> Result<Fingerprint> {
        if !self.legacy {
            return nft::generation().map(Kind::Nftables).map(Fingerprint);
        }
        sys::table_shape(self.ipv6, table)
            .map(|shape| Fingerprint(Kind::Legacy(shape)))
            .map_err(|cause| Error::new(format!("look at iptables table {table}"), cause))
    }

    /// Runs one `iptables` command; `arguments` as on the command line.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let program = &self.program;
        let mut all = vec!["--wait", WAIT];
        all.extend(arguments);
        process::run(
            &format!("{program} {}", arguments.join(" ")),
            program,
            &all,
            "",
        )
    }
}

/// The error says that another program held the xtables lock for longer than we waited (legacy
/// only): nothing was changed.
pub fn is_lock_held(error: &Error) -> bool {
    error.to_string().contains("xtables lock")
}

/// The legacy tables that exist in the calling thread's namespace; asking makes none. Empty where
/// the kernel has no xtables.
pub fn legacy_tables(ipv6: bool) -> Vec<String> {
    let name = if ipv6 { "ip6" } else { "ip" };
    fs::read_to_string(format!("/proc/thread-self/net/{name}_tables_names"))
        .map(|text| text.lines().map(str::to_owned).collect())
        .unwrap_or_default()
}

fn program(ipv6: bool) -> &'static str {
    if ipv6 { "ip6tables" } else { "iptables" }
}

/// `iptables v1.8.9 (nf_tables)` → ((1, 8, 9), false). Before 1.8 there was only legacy.
fn parse_version(text: &str) -> Option<((u32, u32, u32), bool)> {
    let rest = text.split_once('v')?.1;
    let number = rest.split_whitespace().next()?;
    let mut parts = number.split('.').map(str::parse::<u32>);
    let major = parts.next()?.ok()?;
    let minor = parts.next()?.ok()?;
    let patch = parts.next().and_then(std::result::Result::ok).unwrap_or(0);
    Some(((major, minor, patch), !text.contains("nf_tables")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(
            parse_version("iptables v1.8.9 (nf_tables)\n"),
            Some(((1, 8, 9), false))
        );
        assert_eq!(
            parse_version("ip6tables v1.8.9 (legacy)"),
            Some(((1, 8, 9), true))
        );
        assert_eq!(parse_version("iptables v1.6.1"), Some(((1, 6, 1), true)));
        assert_eq!(parse_version("nonsense"), None);
    }
}
