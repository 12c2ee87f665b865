//! Masquerade rules for nftables, in the reference's table `inet cni_plugins_masquerade`: a rule
//! per address, whose comment starts with a hash of the network and one of the attachment.

use std::fmt::Write as _;

use kernel::ipnet::IpNet;

use crate::netfilter::{listed::Listed, names};

/// Name of the table, of family `inet`.
pub const TABLE: &str = "cni_plugins_masquerade";
const CHAIN: &str = "masq_checks";
/// Longest comment that nft takes, in bytes.
const COMMENT_LENGTH: usize = 128;

/// One attachment: network, interface in the container, container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Name of the network.
    pub network: &'a str,
    /// Name of the interface in the container.
    pub interface: &'a str,
    /// Container ID.
    pub container: &'a str,
}

impl Owner<'_> {
    fn hash(&self) -> String {
        let instance = names::hash(&format!("{}:{}", self.interface, self.container), 16);
        format!("{}-{instance}", network_hash(self.network))
    }

    fn comment(&self) -> String {
        let plain = |text: &str| text.replace('"', "");
        let mut comment = format!(
            "{}, net: {}, if: {}, id: {}",
            self.hash(),
            plain(self.network),
            plain(self.interface),
            plain(self.container)
        );
        let mut end = comment.len().min(COMMENT_LENGTH);
        while !comment.is_char_boundary(end) {
            end -= 1;
        }
        comment.truncate(end);
        comment
    }
}

fn network_hash(network: &str) -> String {
    names::hash(network, 16)
}

/// The script that sets masquerading up: table and chains if missing, then one rule per address.
pub fn setup(addresses: &[IpNet], owner: Owner<'_>) -> String {
    let mut script = format!(
        "add table inet {TABLE} {{ comment \"Masquerading for plugins from github.com/containernetworking/plugins\" ; }}\n\
         add chain inet {TABLE} {CHAIN} {{ comment \"Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet\" ; }}\n\
         add chain inet {TABLE} postrouting {{ type nat hook postrouting priority 100 ; }}\n\
         flush chain inet {TABLE} postrouting\n\
         add rule inet {TABLE} postrouting ip daddr == 224.0.0.0/4 return\n\
         add rule inet {TABLE} postrouting ip6 daddr == ff00::/8 return\n\
         add rule inet {TABLE} postrouting goto {CHAIN}\n"
    );
    let comment = owner.comment();
    for address in addresses {
        let family = if address.addr().is_ipv4() {
            "ip"
        } else {
            "ip6"
        };
        let _ = writeln!(
            script,
            "add rule inet {TABLE} {CHAIN} {family} saddr == {} {family} daddr != {} masquerade comment \"{comment}\"",
            address.addr(),
            address.trunc()
        );
    }
    script
}

/// The script that removes an attachment's rules; empty if there are none.
pub fn teardown(owner: Owner<'_>, listed: &Listed) -> String {
    let hash = owner.hash();
    deletions(listed, |comment| comment.starts_with(&hash))
}

/// The script that removes the rules of every attachment of `network` that is not among `valid`.
pub fn garbage(network: &str, valid: &[Owner<'_>], listed: &Listed) -> String {
    let of_network = format!("{}-", network_hash(network));
    let valid: Vec<_> = valid.iter().map(Owner::comment).collect();
    deletions(listed, |comment| {
        comment.starts_with(&of_network) && !valid.iter().any(|valid| valid == comment)
    })
}

fn deletions(listed: &Listed, matches: impl Fn(&str) -> bool) -> String {
    let mut script = String::new();
    for rule in listed.commented(matches).filter(|rule| rule.chain == CHAIN) {
        let _ = writeln!(
            script,
            "delete rule inet {TABLE} {CHAIN} handle {}",
            rule.handle
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'_> = Owner {
        network: "test",
        interface: "eth0",
        container: "abc",
    };

    fn listed(comments: &[String]) -> Listed {
        let rules: Vec<_> = comments
            .iter()
            .zip(4..)
            .map(|(comment, handle)| {
                serde_json::json!({"rule": {"chain": CHAIN, "handle": handle, "comment": comment}})
            })
            .collect();
        Listed::parse(&serde_json::json!({ "nftables": rules }).to_string()).unwrap()
    }

    #[test]
    fn a_setup_golden() {
        let script = setup(
            &[
                "10.1.0.5/24".parse().unwrap(),
                "fd00::5/64".parse().unwrap(),
            ],
            OWNER,
        );
        let comment = OWNER.comment();
        assert!(comment.starts_with("ee26b0dd4af7e749-"), "{comment}");
        assert!(
            comment.ends_with(", net: test, if: eth0, id: abc"),
            "{comment}"
        );
        let rules: Vec<_> = script.lines().skip(7).collect();
        assert_eq!(
            rules,
            [
                format!(
                    "add rule inet cni_plugins_masquerade masq_checks ip saddr == 10.1.0.5 ip daddr != 10.1.0.0/24 masquerade comment \"{comment}\""
                ),
                format!(
                    "add rule inet cni_plugins_masquerade masq_checks ip6 saddr == fd00::5 ip6 daddr != fd00::/64 masquerade comment \"{comment}\""
                ),
            ]
        );
    }

    #[test]
    fn a_long_comment_is_cut_as_the_reference_cuts_it() {
        let owner = Owner {
            network: "a-network-with-a-rather-long-name",
            container: "0123456789012345678901234567890123456789012345678901234567890123",
            ..OWNER
        };
        assert_eq!(owner.comment().len(), COMMENT_LENGTH);
    }

    #[test]
    fn teardown_removes_its_own_and_nothing_else() {
        let other = Owner {
            interface: "eth1",
            ..OWNER
        };
        let listed = listed(&[OWNER.comment(), other.comment(), OWNER.comment()]);
        assert_eq!(
            teardown(OWNER, &listed),
            "delete rule inet cni_plugins_masquerade masq_checks handle 4\n\
             delete rule inet cni_plugins_masquerade masq_checks handle 6\n"
        );
    }

    #[test]
    fn garbage_spares_valid_attachments_and_other_networks() {
        let gone = Owner {
            container: "gone",
            ..OWNER
        };
        let elsewhere = Owner {
            network: "test2",
            container: "gone",
            ..OWNER
        };
        let listed = listed(&[OWNER.comment(), gone.comment(), elsewhere.comment()]);
        assert_eq!(
            garbage("test", &[OWNER], &listed),
            "delete rule inet cni_plugins_masquerade masq_checks handle 5\n"
        );
    }
}
