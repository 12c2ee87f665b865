//! nftables transactions, by `nft -f -`: text that an operator can replay by hand.
//!
//! Whether anything changed since is asked of the kernel directly ([`generation`]), so that drift is
//! found without starting a program.

use std::io;

use crate::{Error, Result, process, sys::netfilter};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;

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

/// The number of the present ruleset: it grows with every transaction of any program in the calling
/// thread's namespace (NFT_MSG_GETGEN).
pub fn generation() -> Result<u32> {
    let get = || -> io::Result<u32> {
        let mut socket = netfilter::Socket::open()?;
        let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN;
        let answers = socket.request(kind, 0, 0, &[])?;
        answers
            .iter()
            .flat_map(|body| netfilter::attributes(body))
            .find(|(kind, _)| *kind == NFTA_GEN_ID)
            .and_then(|(_, value)| value.try_into().ok().map(u32::from_be_bytes))
            .ok_or_else(|| io::Error::other("answer without a generation number"))
    };
    get().map_err(|cause| Error::new("read nftables generation", cause))
}
