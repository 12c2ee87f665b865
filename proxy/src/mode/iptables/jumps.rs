//! The rules in the kernel's own chains that lead into ours, and KUBE-FIREWALL, which the kubelet has
//! too.

use super::names::Table;

/// A rule in a chain of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) table: Table,
    pub(super) from: &'static str,
    matches: &'static str,
    comment: &'static str,
    pub(super) to: &'static str,
}

impl Jump {
    /// The rule without `-A CHAIN`, as iptables-save prints it.
    pub(super) fn rule(&self, comments: bool) -> String {
        let mut rule = self.matches.to_owned();
        if comments && !self.comment.is_empty() {
            if !rule.is_empty() {
                rule.push(' ');
            }
            rule.push_str(&format!("-m comment --comment \"{}\"", self.comment));
        }
        if !rule.is_empty() {
            rule.push(' ');
        }
        rule + "-j " + self.to
    }
}

const NEW: &str = "-m conntrack --ctstate NEW";

const fn jump(
    table: Table,
    from: &'static str,
    matches: &'static str,
    comment: &'static str,
    to: &'static str,
) -> Jump {
    Jump {
        table,
        from,
        matches,
        comment,
        to,
    }
}

/// The jumps in kube-proxy's order: each is put first, so the last of a chain comes to stand on top.
///
/// One is not kube-proxy's: from OUTPUT to KUBE-EXTERNAL-SERVICES, so that the node itself, too, is
/// refused at once by a load balancer address without endpoints.
pub(super) const JUMPS: [Jump; 12] = {
    use Table::{Filter, Nat};
    const EXTERNAL: &str = "kubernetes externally-visible service portals";
    const PORTALS: &str = "kubernetes service portals";
    const FIREWALL: &str = "kubernetes load balancer firewall";
    [
        jump(Filter, "INPUT", NEW, EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        jump(Filter, "FORWARD", NEW, EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        jump(Filter, "OUTPUT", NEW, EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        jump(Filter, "FORWARD", NEW, PORTALS, "KUBE-SERVICES"),
        jump(Filter, "OUTPUT", NEW, PORTALS, "KUBE-SERVICES"),
        jump(
            Filter,
            "FORWARD",
            "",
            "kubernetes forwarding rules",
            "KUBE-FORWARD",
        ),
        jump(Filter, "INPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        jump(Filter, "OUTPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        jump(Filter, "FORWARD", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        jump(Nat, "OUTPUT", "", PORTALS, "KUBE-SERVICES"),
        jump(Nat, "PREROUTING", "", PORTALS, "KUBE-SERVICES"),
        jump(
            Nat,
            "POSTROUTING",
            "",
            "kubernetes postrouting rules",
            "KUBE-POSTROUTING",
        ),
    ]
};

/// The chain that is shared with the kubelet, which makes the same rule: it keeps others on the network from
/// the node's loopback addresses where `route_localnet` opens them.
pub(super) const FIREWALL: &str = "KUBE-FIREWALL";

/// The jumps to it.
pub(super) const FIREWALL_JUMPS: [Jump; 2] = [
    jump(Table::Filter, "INPUT", "", "", FIREWALL),
    jump(Table::Filter, "OUTPUT", "", "", FIREWALL),
];

/// Our rule in it, without `-A CHAIN`.
pub(super) fn firewall_rule(comments: bool) -> String {
    let comment = if comments {
        " -m comment --comment \"block incoming localnet connections\""
    } else {
        ""
    };
    format!(
        "! -s 127.0.0.0/8 -d 127.0.0.0/8{comment} -m conntrack ! --ctstate \
         RELATED,ESTABLISHED,DNAT -j DROP"
    )
}
