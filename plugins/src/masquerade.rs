//! `ipMasq`: traffic of a container to the world outside its subnet leaves with the node's address.
//!
//! Both backends write the rules that the reference plugins (`pkg/ip/ipmasq*`) write, so either
//! implementation removes what the other made. Each verb costs one or two processes, whatever the
//! number of addresses.

pub mod iptables;
pub mod nftables;

use std::path::Path;

use kernel::{ipnet::IpNet, iptables::Iptables, nft};

use crate::{
    cni::{Call, Error, Result},
    netfilter::{change_nat, listed::Listed, nat_transaction, saved::Saved},
};

pub use nftables::Owner;

/// Which of the kernel's two rule languages to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `iptables` and `ip6tables`.
    Iptables,
    /// `nft`.
    Nftables,
}

impl Backend {
    /// Reads a configuration value.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "iptables" => Some(Self::Iptables),
            "nftables" => Some(Self::Nftables),
            _ => None,
        }
    }

    /// Reads the key `ipMasqBackend`.
    pub fn from_config(text: Option<&str>) -> Result<Option<Self>> {
        text.map(|text| {
            Self::parse(text).ok_or_else(|| {
                Error::config(format!(
                    "unknown ipMasqBackend {text:?} (iptables or nftables)"
                ))
            })
        })
        .transpose()
    }

    /// What the reference takes when none is configured: iptables, unless only nftables works.
    pub fn detect() -> Self {
        if !iptables_works() && nft::available() {
            Self::Nftables
        } else {
            Self::Iptables
        }
    }
}

/// Is there an iptables whose kernel side is there too? Asked without starting it, as far as that
/// can be told.
fn iptables_works() -> bool {
    match Iptables::find(false) {
        Err(_) => false,
        Ok(tables) if !tables.is_legacy() => nft::generation().is_ok(),
        Ok(tables) => Path::new("/proc/net/ip_tables_names").exists() || tables.save("nat").is_ok(),
    }
}

/// Masquerades the traffic of `addresses` (each with its subnet's prefix length) that leaves its
/// subnet.
pub fn setup(backend: Option<Backend>, addresses: &[IpNet], owner: Owner<'_>) -> Result<()> {
    match backend.unwrap_or_else(Backend::detect) {
        Backend::Nftables => {
            // What an ADD that was killed left for another address goes in the same transaction.
            let stale = match list()? {
                Some(listed) => nftables::teardown(owner, &listed),
                None => String::new(),
            };
            let script = stale + &nftables::setup(addresses, owner);
            nft::apply(&script).map_err(failed)
        }
        Backend::Iptables => {
            for ipv6 in [false, true] {
                let of_family: Vec<_> = addresses
                    .iter()
                    .copied()
                    .filter(|net| net.addr().is_ipv6() == ipv6)
                    .collect();
                setup_iptables(ipv6, &of_family, owner)?;
            }
            Ok(())
        }
    }
}

fn setup_iptables(ipv6: bool, addresses: &[IpNet], owner: Owner<'_>) -> Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let tables = Iptables::find(ipv6).map_err(failed)?;
    let (network, container) = (owner.network, owner.container);
    let fresh = nat_transaction(&iptables::fresh(addresses, network, container));
    let Err(refusal) = tables.restore(&fresh) else {
        return Ok(());
    };
    // The chain is there already, or iptables does not work at all: looking at it tells.
    let saved = tables.save("nat").map_err(|_| failed(refusal))?;
    let missing = iptables::plan(addresses, network, container, &Saved::parse(&saved));
    if missing.is_empty() {
        return Ok(());
    }
    tables.restore(&nat_transaction(&missing)).map_err(failed)
}

/// Removes an attachment's rules from both backends, since it may have been made under another
/// configuration. Goes on past errors and gives the first.
///
/// `addresses` are those of the attachment, if known: a family that has none has no rules.
pub fn teardown(owner: Owner<'_>, addresses: &[IpNet]) -> Result<()> {
    let mut outcome = Ok(());
    for ipv6 in [false, true] {
        let of_family: Vec<IpNet> = addresses
            .iter()
            .copied()
            .filter(|net| net.addr().is_ipv6() == ipv6)
            .collect();
        if addresses.is_empty() || !of_family.is_empty() {
            outcome = outcome.and(change_nat(ipv6, |saved| {
                iptables::teardown(&of_family, owner.network, owner.container, saved)
            }));
        }
    }
    outcome.and(change_listed(|listed| nftables::teardown(owner, listed)))
}

/// The addresses that the runtime remembers of an ADD; none if it does not say.
pub fn remembered(call: &Call) -> Vec<IpNet> {
    // What cannot be read is no reason to leave the container's rules behind.
    let result = call.prev_result().ok().flatten().unwrap_or_default();
    result.ips.iter().map(|ip| ip.address).collect()
}

/// GC: removes the rules of every attachment of the network that is not listed as valid.
pub fn collect_garbage(call: &Call) -> Result<()> {
    let network = call.network.as_str();
    let attachments = call.valid_attachments()?;
    let valid: Vec<_> = attachments
        .iter()
        .map(|attachment| Owner {
            network,
            interface: &attachment.ifname,
            container: &attachment.container_id,
        })
        .collect();
    let containers: Vec<_> = valid.iter().map(|owner| owner.container).collect();
    let mut outcome = Ok(());
    for ipv6 in [false, true] {
        outcome = outcome.and(change_nat(ipv6, |saved| {
            iptables::garbage(network, &containers, saved)
        }));
    }
    outcome.and(change_listed(|listed| {
        nftables::garbage(network, &valid, listed)
    }))
}

fn change_listed(plan: impl FnOnce(&Listed) -> String) -> Result<()> {
    if !nft::available() {
        return Ok(());
    }
    let Some(listed) = list()? else {
        return Ok(());
    };
    let script = plan(&listed);
    if script.is_empty() {
        return Ok(());
    }
    nft::apply(&script).map_err(failed)
}

/// The reference's table; none if it is not there.
fn list() -> Result<Option<Listed>> {
    let Some(json) = nft::list_table_json("inet", nftables::TABLE).map_err(failed)? else {
        return Ok(None);
    };
    Listed::parse(&json)
        .map(Some)
        .map_err(|cause| Error::generic(format!("read nft table {}: {cause}", nftables::TABLE)))
}

fn failed(cause: kernel::Error) -> Error {
    Error::generic(format!("masquerade: {cause}"))
}
