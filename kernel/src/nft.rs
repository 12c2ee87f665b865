//! nftables: rules as text by `nft -f -`, which an operator can replay by hand, and elements of
//! sets and maps by netlink, where there are tens of thousands of them.
//!
//! `nft -f` takes 0.6 s and 63 MB for 25,000 elements, of which the kernel needs a sixth. So what
//! is written once (tables, chains, the declarations of sets) goes through [`apply`], and what
//! changes goes through a [`Socket`]: a [`Transaction`] is one datagram, encoded as it is made, and
//! is carried out whole or not at all. Lists ([`Socket::elements`], [`Socket::rules`]) and drift
//! ([`generation`], [`Monitor`]) are asked of the kernel too, without starting a program.
//!
//! See linux/netfilter/nf_tables.h for the messages, nft(8) for the words.

use std::{fmt, sync::Arc};

use crate::{Result, process};

mod bytes;
mod element;
mod expression;
mod monitor;
mod objects;
mod ruleset;
mod socket;
mod transaction;

pub use bytes::Bytes;
pub use element::{Data, Element, Verdict};
pub use expression::{Base, Connection, Expressions, Meta, Of, Register};
pub use monitor::{Event, Monitor, What};
pub use objects::{Field, Hook, HookType, NewSet, Values};
pub use ruleset::{BaseChain, Chain, Rule, Set, SetData};
pub use socket::Socket;
pub use transaction::Transaction;

/// NFNL_SUBSYS_NFTABLES in the upper byte of a message's type.
const SUBSYSTEM: u16 = 10 << 8;

/// Family and name of a table; prints as `ip weft`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    /// Which packets come to it.
    pub family: Family,
    /// Its name.
    pub name: Arc<str>,
}

/// The family of a table (NFPROTO_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// ARP.
    Arp = 3,
    /// Whatever a device receives.
    Netdev = 5,
    /// Frames of bridges.
    Bridge = 7,
    /// IPv6.
    Ip6 = 10,
}

impl Table {
    /// A table's name; it need not exist.
    pub fn new(family: Family, name: &str) -> Self {
        Self {
            family,
            name: name.into(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.family, self.name)
    }
}

impl Family {
    const ALL: [Self; 6] = [
        Self::Inet,
        Self::Ip,
        Self::Arp,
        Self::Netdev,
        Self::Bridge,
        Self::Ip6,
    ];

    fn number(self) -> u8 {
        self as u8
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.number() == number)
    }

    /// As `nft` writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ip6 => "ip6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// Whether there is an `nft` program and the kernel answers it.
pub fn available() -> bool {
    process::find("nft").is_some() && generation().is_ok()
}

/// Applies a script as one transaction: all of it or nothing.
pub fn apply(script: &str) -> Result<()> {
    process::run("apply nftables transaction", "nft", &["-f", "-"], script).map(drop)
}

/// Asks whether the kernel would take a script, without applying it.
pub fn check(script: &str) -> Result<()> {
    process::run(
        "check nftables transaction",
        "nft",
        &["--check", "-f", "-"],
        script,
    )
    .map(drop)
}

/// A table as `nft -j list table` prints it; `None` if there is no such table.
pub fn list_table_json(family: &str, name: &str) -> Result<Option<String>> {
    list(&["-j", "list", "table", family, name], family, name)
}

/// A table as `nft -s list table` prints it (without counters); `None` if there is no such table.
pub fn list_table(family: &str, name: &str) -> Result<Option<String>> {
    list(&["-s", "list", "table", family, name], family, name)
}

fn list(arguments: &[&str], family: &str, name: &str) -> Result<Option<String>> {
    let what = format!("list nftables table {family} {name}");
    match process::run(&what, "nft", arguments, "") {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.to_string().contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number of the present ruleset in the calling thread's namespace; see [`Socket::generation`].
/// Who asks often keeps a socket.
pub fn generation() -> Result<u32> {
    Socket::open()?.generation()
}
