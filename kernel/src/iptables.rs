//! iptables transactions, by `iptables-restore --noflush`, in whichever of its two forms (nf_tables
//! or legacy) the host uses.

use std::sync::OnceLock;

use crate::{Error, Result, nft, process, sys};

/// A value that changes when rules change; see [`Iptables::fingerprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Legacy(sys::TableShape),
    Nftables(u32),
}

/// Seconds to wait for the xtables lock: others (kube-proxy) hold it for long, and many Pods may
/// start at once.
const WAIT: &str = "60";

/// The iptables of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iptables {
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
        let program = program(ipv6);
        let what = format!("find {program}");
        let text = process::run(&what, program, &["--version"], "")?;
        let (version, legacy) = parse_version(&text)
            .ok_or_else(|| Error::other(what, format!("unreadable version {text:?}")))?;
        let found = Self {
            ipv6,
            legacy,
            version,
        };
        Ok(slot.get_or_init(|| found).clone())
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
        let program = format!("{}-restore", program(self.ipv6));
        let what = format!("apply {} transaction", program.trim_end_matches("-restore"));
        // --wait came to restore with 1.6.2.
        let arguments: &[&str] = if self.version >= (1, 6, 2) {
            &["--noflush", "--wait", WAIT]
        } else {
            &["--noflush"]
        };
        process::run(&what, &program, arguments, script).map(drop)
    }

    /// A table in the format of iptables-save(8).
    pub fn save(&self, table: &str) -> Result<String> {
        let program = format!("{}-save", program(self.ipv6));
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
        let program = program(self.ipv6);
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
