//! Which of the chains that are there are ours: made by this mode or by a kube-proxy.

use super::names::{Fixed, Kind, Place, Table};

/// Which chains are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those that this mode makes or has in common with kube-proxy's iptables mode.
    Ours,
    /// These and those of kube-proxy's ipvs mode.
    KubeProxys,
}

impl Whose {
    pub(super) fn has(self, table: Table, chain: &str) -> bool {
        is_ours(table, chain) || (self == Self::KubeProxys && is_ipvs(table, chain))
    }
}

/// Chains that kube-proxy's ipvs mode has besides.
fn is_ipvs(table: Table, chain: &str) -> bool {
    match table {
        Table::Filter => [
            "KUBE-IPVS-FILTER",
            "KUBE-IPVS-OUT-FILTER",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "KUBE-NODE-PORT",
        ]
        .contains(&chain),
        Table::Nat => ["KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-FIREWALL"].contains(&chain),
    }
}

/// Whether a chain is one that only a Service proxy makes, ours or a former kube-proxy: everything
/// in it is ours to replace. KUBE-FIREWALL is not: the kubelet has it too.
pub(super) fn is_ours(table: Table, name: &str) -> bool {
    if name == CANARY {
        return true;
    }
    let split = |place: Place| {
        place.table() == table
            && name.strip_prefix(place.name()).is_some_and(|rest| {
                rest.is_empty() || (rest.starts_with('-') && is_hex(&rest[1..]))
            })
    };
    if Place::ALL.into_iter().any(split) {
        return true;
    }
    match table {
        Table::Filter => ["KUBE-FORWARD", "KUBE-NODEPORTS"].contains(&name),
        Table::Nat => {
            [Fixed::MarkMasq, Fixed::OffCluster, Fixed::Postrouting]
                .iter()
                .any(|fixed| fixed.name() == name)
                || PORT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        }
    }
}

/// The order of [`super::names::Chain::rank`] for a chain known by name only.
pub(super) fn rank_of_name(name: &str) -> u8 {
    match PORT_PREFIXES
        .iter()
        .position(|prefix| name.starts_with(prefix))
    {
        // Prefixes are in the order of `Kind`, and those of old kube-proxies after them.
        Some(position) => 1 + position.min(Kind::Firewall as usize) as u8,
        None if name.starts_with("KUBE-MARK-") || name == Fixed::OffCluster.name() => 0,
        // What leads to all others, of ipvs mode too.
        None if name == Place::NatServices.name() => 10,
        None => {
            let branch = name.rsplit('-').next().filter(|branch| is_hex(branch));
            let place = u8::from(!name.starts_with(Place::NatNodePorts.name()));
            place + 8 - branch.map_or(0, |branch| branch.len() as u8)
        }
    }
}

/// kube-proxy's canary, by which it notices that tables were flushed; we need none.
pub(super) const CANARY: &str = "KUBE-PROXY-CANARY";

/// Beginnings of names of service ports' chains, in the order of [`Kind`]; KUBE-XLB- is of
/// kube-proxy before 1.24.
const PORT_PREFIXES: [&str; 6] = [
    "KUBE-SEP-",
    "KUBE-SVL-",
    "KUBE-SVC-",
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-XLB-",
];

fn is_hex(text: &str) -> bool {
    (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_and_other_programs_chains_are_not_ours() {
        for name in [
            "KUBE-FIREWALL",
            "KUBE-IPTABLES-HINT",
            "KUBE-KUBELET-CANARY",
            "KUBE-SERVICES-mine",
            "KUBE-ROUTER-SERVICES",
            "DOCKER",
        ] {
            assert!(!is_ours(Table::Nat, name), "{name}");
            assert!(!is_ours(Table::Filter, name), "{name}");
        }
        assert!(!is_ours(Table::Filter, "KUBE-SVC-NPX46M4PTMTKRN6Y"));
    }
}
