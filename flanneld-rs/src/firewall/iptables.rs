//! iptables mode: FLANNEL-POSTRTG in `nat`, FLANNEL-FWD in `filter`, each reached by one jump at the
//! end of the kernel's own chain.
//!
//! A chain is rewritten in one `iptables-restore --noflush` transaction, which replaces it without a
//! gap. Between full looks a fingerprint of the table, which needs no process, says whether one is due.

mod plan;

use std::collections::BTreeMap;

use kernel::iptables::{Fingerprint, Iptables};

use super::{FamilyNets, Firewall, Wanted, nft, rules};
use crate::backend::Report;
use plan::{Chain, PlannedChain};

const POSTROUTING: Chain = Chain {
    table: "nat",
    name: "FLANNEL-POSTRTG",
    parent: "POSTROUTING",
    comment: "flanneld masq",
};

const FORWARD: Chain = Chain {
    table: "filter",
    name: "FLANNEL-FWD",
    parent: "FORWARD",
    comment: "flanneld forward",
};

/// How each table looked, by IPv6 and table name.
type Fingerprints = BTreeMap<(bool, &'static str), Fingerprint>;

/// The iptables mode.
#[derive(Default)]
pub struct IptablesMode {
    /// What was wanted, and how each table looked, when all was last seen in order.
    seen: Option<(Wanted, Fingerprints)>,
    /// The other mode's tables have been looked for.
    other_mode_cleaned: bool,
}

impl IptablesMode {
    /// True when nothing can have changed since the last look.
    fn undisturbed(&self, wanted: &Wanted) -> bool {
        let Some((last, tables)) = &self.seen else {
            return false;
        };
        last == wanted
            && tables.iter().all(|((v6, table), before)| {
                let now = Iptables::find(*v6).and_then(|iptables| iptables.fingerprint(table));
                now.is_ok_and(|now| now == *before)
            })
    }

    fn look(&mut self, wanted: &Wanted, report: &mut Report) {
        if !self.other_mode_cleaned {
            report.merge(nft::remove_tables());
            self.other_mode_cleaned = true;
        }
        self.seen = None;
        let mut tables = Fingerprints::new();
        let mut in_order = true;
        // One family's failure (no ip6tables, say) must not cost the other its rules.
        for nets in &wanted.families {
            match reconcile_family(wanted, *nets, report) {
                Ok(looked) => {
                    in_order &= looked.in_order;
                    tables.extend(looked.tables);
                }
                Err(error) => {
                    in_order = false;
                    report.failed(format!("{error:#}"));
                }
            }
        }
        self.seen = in_order.then(|| (wanted.clone(), tables));
    }
}

/// What a look at one family found.
#[derive(Default)]
struct Looked {
    /// The tables before the look: what someone else changes meanwhile is then seen at the next.
    tables: Fingerprints,
    /// Nothing had to be changed.
    in_order: bool,
}

fn reconcile_family(
    wanted: &Wanted,
    nets: FamilyNets,
    report: &mut Report,
) -> anyhow::Result<Looked> {
    let Some(iptables) = find(wanted, nets)? else {
        return Ok(Looked {
            in_order: true,
            ..Looked::default()
        });
    };
    let mut looked = Looked {
        in_order: true,
        ..Looked::default()
    };
    for chain in [POSTROUTING, FORWARD] {
        let print = iptables.fingerprint(chain.table)?;
        looked
            .tables
            .insert((iptables.is_ipv6(), chain.table), print);
    }
    for planned in plans(&iptables, wanted, nets)? {
        if let Some(script) = &planned.script {
            iptables.restore(script)?;
            report.changed("replace iptables chain", || planned.to_string());
            looked.in_order = false;
        }
    }
    Ok(looked)
}

/// The program of a family; none if it is missing and no rules are wanted either.
fn find(wanted: &Wanted, nets: FamilyNets) -> anyhow::Result<Option<Iptables>> {
    match Iptables::find(nets.network.addr().is_ipv6()) {
        Ok(iptables) => Ok(Some(iptables)),
        Err(_) if !wanted.masquerade && !wanted.forward => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn plans(
    iptables: &Iptables,
    wanted: &Wanted,
    nets: FamilyNets,
) -> anyhow::Result<Vec<PlannedChain>> {
    let wanted = Wanted {
        fully_random: wanted.fully_random && iptables.has_random_fully(),
        ..wanted.clone()
    };
    let chains = [
        (POSTROUTING, rules::masquerade(&wanted, nets)),
        (FORWARD, rules::forward(&wanted, nets)),
    ];
    let mut plans = Vec::new();
    for (chain, rules) in chains {
        let rules: Vec<String> = rules
            .iter()
            .map(|rule| rule.iptables(chain.name, chain.comment))
            .collect();
        let saved = iptables.save(chain.table)?;
        plans.push(plan::plan(chain, &rules, &saved));
    }
    Ok(plans)
}

impl Firewall for IptablesMode {
    fn plan(&mut self, wanted: &Wanted) -> anyhow::Result<Vec<String>> {
        let mut scripts = Vec::new();
        for nets in &wanted.families {
            let Some(iptables) = find(wanted, *nets)? else {
                continue;
            };
            let program = if iptables.is_ipv6() {
                "ip6tables"
            } else {
                "iptables"
            };
            for planned in plans(&iptables, wanted, *nets)? {
                scripts.extend(
                    planned
                        .script
                        .map(|script| format!("{program}-restore --noflush <<END\n{script}END")),
                );
            }
        }
        Ok(scripts)
    }

    fn reconcile(&mut self, wanted: &Wanted, thorough: bool) -> Report {
        let mut report = Report::default();
        if !thorough && self.undisturbed(wanted) {
            return report;
        }
        self.look(wanted, &mut report);
        report
    }

    fn cleanup(&mut self) -> Report {
        let mut report = remove_chains();
        report.merge(nft::remove_tables());
        report
    }
}

/// Removes our chains and the jumps to them, of both families, wherever iptables is installed.
pub(super) fn remove_chains() -> Report {
    let mut report = Report::default();
    for v6 in [false, true] {
        // Without the program no rules of it were ever made.
        let Ok(iptables) = Iptables::find(v6) else {
            continue;
        };
        for chain in [POSTROUTING, FORWARD] {
            let removal = iptables.save(chain.table).and_then(|saved| {
                let planned = plan::plan(chain, &[], &saved);
                if let Some(script) = &planned.script {
                    iptables.restore(script)?;
                }
                Ok(planned)
            });
            match removal {
                Ok(planned) if planned.script.is_some() => {
                    report.changed("delete iptables chain", || planned.to_string());
                }
                Ok(_) => {}
                Err(error) => report.failed(error),
            }
        }
    }
    report
}
