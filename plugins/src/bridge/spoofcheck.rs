//! `macspoofchk`: frames from the container with another source address than its own are dropped,
//! by the reference's table `bridge nat`.
//!
//! ```text
//! PREROUTING: iifname <host veth> -> cni-br-iface-<id> -> cni-br-iface-<id>-mac:
//!             own source address -> return, anything else -> drop
//! ```
//! where `<id>` is container and interface. Table and PREROUTING are shared and stay. Newer versions
//! of the reference use a table of their own, `bridge cni_spoofcheck`; what they left there is removed
//! too.

use std::fmt::Write as _;

use kernel::{Mac, nft};

use crate::{
    cni::{Error, Result, code},
    netfilter::listed::Listed,
};

const FAMILY: &str = "bridge";

/// A table that the rules may be in, and its base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    table: &'static str,
    base: &'static str,
}

/// Where ours are made.
const OWN: Place = Place {
    table: "nat",
    base: "PREROUTING",
};

/// Where newer versions of the reference make theirs.
const NEWER: Place = Place {
    table: "cni_spoofcheck",
    base: "prerouting",
};

/// Whose frames are checked: container ID and interface name in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// Container ID.
    pub container: &'a str,
    /// Interface in the container.
    pub interface: &'a str,
}

impl Checked<'_> {
    fn id(&self) -> String {
        format!("{}-{}", self.container, self.interface)
    }
}

fn chains(id: &str) -> [String; 2] {
    let chain = format!("cni-br-iface-{id}");
    let mac = format!("{chain}-mac");
    [chain, mac]
}

fn comment(id: &str) -> String {
    format!("macspoofchk-{id}")
}

/// Makes the rules for the port `host_link`.
pub fn apply(checked: Checked<'_>, host_link: &str, mac: Mac) -> Result<()> {
    // The kernel allows more in an interface's name than nft does in a chain's.
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || b"_.-".contains(&letter);
    if !checked.interface.bytes().all(plain) {
        return Err(Error::new(
            code::INVALID_ENVIRONMENT,
            format!(
                "CNI_IFNAME {:?}: macspoofchk needs a name of letters, digits, '_', '.' and '-'",
                checked.interface
            ),
        ));
    }
    nft::apply(&setup(checked, host_link, mac)).map_err(failed)
}

/// Removes the rules; succeeds if there are none.
pub fn undo(checked: Checked<'_>) -> Result<()> {
    change(|place, listed| teardown(place, &checked.id(), listed))
}

/// Removes the rules of ports that are gone, as `is_there` tells by name. (The rules do not say of
/// which network they are, so the list of valid attachments of one network does not help.)
pub fn collect_garbage(is_there: impl Fn(&str) -> bool) -> Result<()> {
    change(|place, listed| garbage(place, listed, &is_there))
}

/// Changes both tables, where they are. Goes on past an error of the first.
fn change(plan: impl Fn(Place, &Listed) -> String) -> Result<()> {
    let own = change_table(OWN, &plan);
    own.and(change_table(NEWER, &plan))
}

fn change_table(place: Place, plan: impl Fn(Place, &Listed) -> String) -> Result<()> {
    let table = place.table;
    let Some(json) = nft::list_table_json(FAMILY, table).map_err(failed)? else {
        return Ok(());
    };
    let listed = Listed::parse(&json)
        .map_err(|cause| Error::generic(format!("read nft table {FAMILY} {table}: {cause}")))?;
    let script = plan(place, &listed);
    if script.is_empty() {
        return Ok(());
    }
    nft::apply(&script).map_err(failed)
}

fn failed(cause: kernel::Error) -> Error {
    Error::generic(format!("MAC spoof check: {cause}"))
}

fn setup(checked: Checked<'_>, host_link: &str, mac: Mac) -> String {
    let id = checked.id();
    let [chain, mac_chain] = chains(&id);
    let comment = comment(&id);
    let Place { table, base } = OWN;
    format!(
        "add table {FAMILY} {table}\n\
         add chain {FAMILY} {table} {base} {{ type filter hook prerouting priority -300 ; policy accept ; }}\n\
         add chain {FAMILY} {table} {chain}\n\
         add chain {FAMILY} {table} {mac_chain}\n\
         flush chain {FAMILY} {table} {chain}\n\
         flush chain {FAMILY} {table} {mac_chain}\n\
         add rule {FAMILY} {table} {base} iifname \"{host_link}\" jump {chain} comment \"{comment}\"\n\
         add rule {FAMILY} {table} {chain} jump {mac_chain} comment \"{comment}\"\n\
         add rule {FAMILY} {table} {mac_chain} ether saddr {mac} return comment \"{comment}\"\n\
         add rule {FAMILY} {table} {mac_chain} drop comment \"{comment}\"\n"
    )
}

fn teardown(place: Place, id: &str, listed: &Listed) -> String {
    let Place { table, base } = place;
    let comment = comment(id);
    let mut script = String::new();
    for rule in listed.commented(|text| text == comment) {
        if rule.chain == place.base {
            let _ = writeln!(
                script,
                "delete rule {FAMILY} {table} {base} handle {}",
                rule.handle
            );
        }
    }
    let there: Vec<_> = chains(id)
        .into_iter()
        .filter(|chain| listed.chains.contains(chain))
        .collect();
    for command in ["flush", "delete"] {
        for chain in &there {
            let _ = writeln!(script, "{command} chain {FAMILY} {table} {chain}");
        }
    }
    script
}

fn garbage(place: Place, listed: &Listed, is_there: impl Fn(&str) -> bool) -> String {
    let mut ids: Vec<_> = listed
        .rules
        .iter()
        .filter(|rule| rule.chain == place.base)
        .filter(|rule| rule.input_interface().is_some_and(|name| !is_there(name)))
        .filter_map(|rule| rule.comment.as_deref()?.strip_prefix("macspoofchk-"))
        .filter(|id| {
            // A container that came back under its ID has a living port beside the dead one.
            !listed
                .commented(|text| text == comment(id))
                .any(|rule| rule.input_interface().is_some_and(&is_there))
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids.iter().map(|id| teardown(place, id, listed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKED: Checked<'_> = Checked {
        container: "abc",
        interface: "eth0",
    };

    fn listed() -> Listed {
        Listed::parse(
            r#"{"nftables": [
            {"chain": {"name": "PREROUTING"}},
            {"chain": {"name": "cni-br-iface-abc-eth0"}},
            {"chain": {"name": "cni-br-iface-abc-eth0-mac"}},
            {"rule": {"chain": "PREROUTING", "handle": 5, "comment": "macspoofchk-abc-eth0", "expr": [
                {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "veth1"}}]}},
            {"rule": {"chain": "PREROUTING", "handle": 6, "comment": "macspoofchk-def-eth0", "expr": [
                {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "veth2"}}]}},
            {"rule": {"chain": "cni-br-iface-abc-eth0", "handle": 7, "comment": "macspoofchk-abc-eth0"}}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn setup_golden() {
        assert_eq!(
            setup(CHECKED, "veth1", Mac([2, 0, 0, 0, 0, 1])),
            r#"add table bridge nat
add chain bridge nat PREROUTING { type filter hook prerouting priority -300 ; policy accept ; }
add chain bridge nat cni-br-iface-abc-eth0
add chain bridge nat cni-br-iface-abc-eth0-mac
flush chain bridge nat cni-br-iface-abc-eth0
flush chain bridge nat cni-br-iface-abc-eth0-mac
add rule bridge nat PREROUTING iifname "veth1" jump cni-br-iface-abc-eth0 comment "macspoofchk-abc-eth0"
add rule bridge nat cni-br-iface-abc-eth0 jump cni-br-iface-abc-eth0-mac comment "macspoofchk-abc-eth0"
add rule bridge nat cni-br-iface-abc-eth0-mac ether saddr 02:00:00:00:00:01 return comment "macspoofchk-abc-eth0"
add rule bridge nat cni-br-iface-abc-eth0-mac drop comment "macspoofchk-abc-eth0"
"#
        );
    }

    const REMOVAL: &str = "delete rule bridge nat PREROUTING handle 5\n\
        flush chain bridge nat cni-br-iface-abc-eth0\n\
        flush chain bridge nat cni-br-iface-abc-eth0-mac\n\
        delete chain bridge nat cni-br-iface-abc-eth0\n\
        delete chain bridge nat cni-br-iface-abc-eth0-mac\n";

    #[test]
    fn teardown_leaves_the_base_chain_and_others() {
        assert_eq!(teardown(OWN, "abc-eth0", &listed()), REMOVAL);
        assert_eq!(teardown(OWN, "xyz-eth0", &listed()), "");
    }

    #[test]
    fn garbage_is_what_has_lost_its_port() {
        assert_eq!(garbage(OWN, &listed(), |name| name == "veth2"), REMOVAL);
        assert_eq!(garbage(OWN, &listed(), |_| true), "");
    }
}
