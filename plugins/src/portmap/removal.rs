//! Taking forwarded ports away, from every backend and family that the host has: the configuration
//! and the host may have changed since the ADD.

use kernel::{iptables::Iptables, nft};

use super::{iptables, nftables};
use crate::{
    cni::{Call, Error, Result},
    netfilter::{change_nat, has_family, listed::Listed, saved::Saved},
};

/// Removes a container's rules; goes on past errors and gives the first.
pub fn remove(network: &str, container: &str) -> Result<()> {
    if !nft::available()
        && let Err(error) = Iptables::find(false)
        && Iptables::find(true).is_err()
    {
        return Err(Error::from(error).context("neither nft nor iptables can be run"));
    }
    let planned = |saved: &Saved| iptables::removal(network, container, saved);
    change_nat(false, planned)
        .and(change_nat(true, planned))
        .and(change_tables(|ipv6, listed| {
            nftables::teardown(ipv6, network, container, listed)
        }))
}

/// GC: removes the rules of every container of the network that is not listed as valid; goes on
/// past errors and gives the first.
pub fn collect_garbage(call: &Call) -> Result<()> {
    let network = call.network.as_str();
    let attachments = call.valid_attachments()?;
    let valid: Vec<_> = attachments
        .iter()
        .map(|attachment| attachment.container_id.as_str())
        .collect();
    let planned = |saved: &Saved| iptables::garbage(network, &valid, saved);
    change_nat(false, planned)
        .and(change_nat(true, planned))
        .and(change_tables(|ipv6, listed| {
            nftables::garbage(ipv6, network, &valid, listed)
        }))
}

/// Applies what `plan` finds to remove in the nft tables of both families, as one transaction each.
fn change_tables(plan: impl Fn(bool, &Listed) -> String) -> Result<()> {
    if !nft::available() {
        return Ok(());
    }
    let change = |ipv6| {
        let Some(listed) = list(ipv6)? else {
            return Ok(());
        };
        let script = plan(ipv6, &listed);
        if script.is_empty() {
            return Ok(());
        }
        Ok(nft::apply(&script)?)
    };
    let outcome = change(false);
    match change(true) {
        Err(_) if !has_family(true) => outcome,
        ipv6 => outcome.and(ipv6),
    }
}

/// The table of one family, if it is there.
pub fn list(ipv6: bool) -> Result<Option<Listed>> {
    let family = nftables::family(ipv6);
    nft::list_table_json(family, nftables::TABLE)?
        .map(|json| {
            Listed::parse(&json).map_err(|cause| {
                Error::generic(format!(
                    "read nft table {family} {}: {cause}",
                    nftables::TABLE
                ))
            })
        })
        .transpose()
}
