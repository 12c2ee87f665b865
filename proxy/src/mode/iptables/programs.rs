//! Which iptables to use where a host has two, and what it lacks.

use std::time::Duration;

use kernel::iptables::{Iptables, Variant, legacy_tables};

use crate::model::Family;

use super::terms::Parts;

/// Which iptables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that the kubelet uses, else the one with more rules, else the host's `iptables`.
    #[default]
    Auto,
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

/// Chains by which the kubelet says which iptables it uses, in table mangle.
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// Finds the program.
pub(super) fn choose(family: Family, choice: Choice) -> kernel::Result<Iptables> {
    let ipv6 = family == Family::V6;
    let find = |variant| Iptables::find_variant(ipv6, variant);
    match choice {
        Choice::Nft => return find(Variant::Nft),
        Choice::Legacy => return find(Variant::Legacy),
        Choice::Auto => {}
    }
    let (Ok(nft), Ok(legacy)) = (find(Variant::Nft), find(Variant::Legacy)) else {
        return Iptables::find(ipv6);
    };
    let (nft_seen, legacy_seen) = (Evidence::of(&nft), Evidence::of(&legacy));
    Ok(match prefer(nft_seen, legacy_seen) {
        Some(Variant::Nft) => nft,
        Some(Variant::Legacy) => legacy,
        None => Iptables::find(ipv6)?,
    })
}

/// What speaks for one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Evidence {
    hint: bool,
    rules: usize,
}

impl Evidence {
    fn of(iptables: &Iptables) -> Self {
        let tables: Vec<String> = match iptables.variant() {
            Variant::Nft => ["mangle", "filter", "nat"].map(str::to_owned).into(),
            // Only those that are there: asking for another would make it.
            Variant::Legacy => legacy_tables(iptables.is_ipv6()),
        };
        let mut seen = Self::default();
        for table in tables {
            // A table that cannot be listed (nft rules that iptables cannot say) speaks for nothing.
            let Ok(saved) = iptables.save(&table) else {
                continue;
            };
            seen.rules += saved.lines().filter(|line| line.starts_with('-')).count();
            seen.hint |= table == "mangle" && has_hint(&saved);
        }
        seen
    }
}

/// A table in the form of iptables-save has a chain of the kubelet's.
pub(super) fn has_hint(saved: &str) -> bool {
    saved
        .lines()
        .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
        .any(|chain| HINTS.contains(&chain))
}

/// As the wrappers of the distributions' images choose; `None` if nothing speaks for either.
fn prefer(nft: Evidence, legacy: Evidence) -> Option<Variant> {
    match (nft.hint, legacy.hint) {
        (true, false) => Some(Variant::Nft),
        (false, true) => Some(Variant::Legacy),
        _ if nft.rules > legacy.rules => Some(Variant::Nft),
        _ if legacy.rules > nft.rules => Some(Variant::Legacy),
        _ => None,
    }
}

/// Tries each part that can be left out, in a chain that goes again, and logs what is missing. Nothing
/// is learnt where iptables does not work at all.
pub(super) fn probe(iptables: &Iptables, had: Parts, wait: Duration) -> Option<Parts> {
    const CHAIN: &str = "KUBE-PROXY-PROBE";
    let takes = |rule: &str| {
        let text = format!("*nat\n:{CHAIN} - [0:0]\n-A {CHAIN} {rule}\nCOMMIT\n");
        let taken = iptables.restore_within(&text, wait, Duration::from_secs(60));
        let gone = format!("*nat\n:{CHAIN} - [0:0]\n-X {CHAIN}\nCOMMIT\n");
        if taken.is_ok()
            && let Err(error) = iptables.restore_within(&gone, wait, Duration::from_secs(60))
        {
            tracing::warn!(%error, "the chain {CHAIN} could not be removed again");
        }
        taken.is_ok()
    };
    if !takes("-j RETURN") {
        return None;
    }
    if !takes("-m statistic --mode random --probability 0.50000000000 -j RETURN") {
        tracing::error!(
            program = iptables.program(),
            "no match `statistic` (kernel module xt_statistic): Services with several endpoints cannot \
             be balanced; load the module or use another proxy mode"
        );
    }
    if !takes("-m addrtype --dst-type LOCAL -j RETURN") {
        tracing::error!(
            program = iptables.program(),
            "no match `addrtype` (kernel module xt_addrtype): node ports cannot be told; load the \
             module or use another proxy mode"
        );
    }

    let parts = Parts {
        comment: had.comment && takes("-m comment --comment \"probe\" -j RETURN"),
        recent: had.recent && takes("-m recent --set --name KUBE-PROXY-PROBE --rsource -j RETURN"),
        random_fully: had.random_fully && takes("-j MASQUERADE --random-fully"),
    };
    if parts != had {
        tracing::warn!(
            program = iptables.program(),
            comment = parts.comment,
            recent = parts.recent,
            random_fully = parts.random_fully,
            "iptables lacks a part; without `recent` there is no session affinity, without `comment` \
             rules do not say which Service they are of"
        );
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_hint_counts_more_than_rules() {
        let seen = |hint, rules| Evidence { hint, rules };
        for (nft, legacy, chosen) in [
            (seen(true, 0), seen(false, 90), Some(Variant::Nft)),
            (seen(false, 90), seen(true, 0), Some(Variant::Legacy)),
            (seen(true, 1), seen(true, 2), Some(Variant::Legacy)),
            (seen(false, 2), seen(false, 1), Some(Variant::Nft)),
            (seen(false, 0), seen(false, 0), None),
        ] {
            assert_eq!(prefer(nft, legacy), chosen);
        }
    }

    #[test]
    fn hints_are_chains_and_not_text() {
        assert!(has_hint("*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n"));
        assert!(!has_hint(
            "*mangle\n:X - [0:0]\n-A X -m comment --comment KUBE-IPTABLES-HINT\n"
        ));
    }
}
