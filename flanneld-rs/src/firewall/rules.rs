//! The rules themselves, in flannel's order, before they take either mode's form.
//!
//! With C the whole network, P this node's subnet and M multicast, a packet that is about to leave:
//! 1. carries kube-proxy's mark 0x4000, so it is translated there: return;
//! 2. P → C and 3. C → P: Pod to Pod, never translated: return;
//! 4. from outside the network to our Pods: they must see the sender: return;
//! 5. C → anything but M: leaves the network: masquerade;
//! 6. from outside the network to a Pod elsewhere: its answer must come back here: masquerade.
//!
//! flannel's nftables form writes rule 4 as "not P → C", which makes rule 6 unreachable, and compares
//! the whole mark; here both modes mean the same.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{FamilyNets, Wanted};

/// One condition on an address, perhaps negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    not: bool,
    net: IpNet,
}

/// What happens to a packet that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Return,
    Accept,
    Masquerade { fully_random: bool },
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    marked: bool,
    from: Option<Side>,
    to: Option<Side>,
    verdict: Verdict,
}

/// kube-proxy's mark for packets it will masquerade itself.
const MARK: u32 = 0x4000;

fn is(net: IpNet) -> Option<Side> {
    Some(Side { not: false, net })
}

fn is_not(net: IpNet) -> Option<Side> {
    Some(Side { not: true, net })
}

/// The masquerade rules of one family; empty when not wanted.
pub fn masquerade(wanted: &Wanted, nets: FamilyNets) -> Vec<Rule> {
    if !wanted.masquerade {
        return Vec::new();
    }
    let (c, p) = (nets.network, nets.subnet);
    let multicast: IpNet = match c {
        IpNet::V4(_) => IpNet::new_assert([224, 0, 0, 0].into(), 4),
        IpNet::V6(_) => IpNet::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    };
    let rule = |from, to, verdict| Rule {
        marked: false,
        from,
        to,
        verdict,
    };
    let translate = Verdict::Masquerade {
        fully_random: wanted.fully_random,
    };
    vec![
        Rule {
            marked: true,
            ..rule(None, None, Verdict::Return)
        },
        rule(is(p), is(c), Verdict::Return),
        rule(is(c), is(p), Verdict::Return),
        rule(is_not(c), is(p), Verdict::Return),
        rule(is(c), is_not(multicast), translate),
        rule(is_not(c), is(c), translate),
    ]
}

/// The forward rules of one family; empty when not wanted.
pub fn forward(wanted: &Wanted, nets: FamilyNets) -> Vec<Rule> {
    if !wanted.forward {
        return Vec::new();
    }
    let rule = |from, to| Rule {
        marked: false,
        from,
        to,
        verdict: Verdict::Accept,
    };
    vec![rule(is(nets.network), None), rule(None, is(nets.network))]
}

impl Rule {
    /// As iptables-save(8) prints it.
    pub fn iptables(&self, chain: &str, comment: &str) -> String {
        let mut text = format!("-A {chain}");
        for (flag, side) in [("-s", self.from), ("-d", self.to)] {
            if let Some(Side { not, net }) = side {
                let not = if not { " !" } else { "" };
                // Writing to a String cannot fail.
                let _ = write!(text, "{not} {flag} {net}");
            }
        }
        if self.marked {
            let _ = write!(text, " -m mark --mark {MARK:#x}/{MARK:#x}");
        }
        let _ = write!(text, " -m comment --comment \"{comment}\" -j ");
        text.push_str(match self.verdict {
            Verdict::Return => "RETURN",
            Verdict::Accept => "ACCEPT",
            Verdict::Masquerade { fully_random: true } => "MASQUERADE --random-fully",
            Verdict::Masquerade { .. } => "MASQUERADE",
        });
        text
    }

    /// As `nft list` prints it.
    pub fn nftables(&self) -> String {
        let mut text = String::new();
        if self.marked {
            let _ = write!(text, "meta mark & {MARK:#010x} == {MARK:#010x} ");
        }
        for (word, side) in [("saddr", self.from), ("daddr", self.to)] {
            if let Some(Side { not, net }) = side {
                let family = if net.addr().is_ipv4() { "ip" } else { "ip6" };
                let not = if not { "!= " } else { "" };
                let _ = write!(text, "{family} {word} {not}{net} ");
            }
        }
        text.push_str(match self.verdict {
            Verdict::Return => "return",
            Verdict::Accept => "accept",
            Verdict::Masquerade { fully_random: true } => "masquerade fully-random",
            Verdict::Masquerade { .. } => "masquerade",
        });
        text
    }
}
