//! iptables mode: FLANNEL-POSTRTG in `nat`, FLANNEL-FWD in `filter`, each reached by one jump at the
//! end of the kernel's own chain.
//!
//! A chain is rewritten in one `iptables-restore --noflush` transaction, which replaces it without a
//! gap. Between full looks a fingerprint of the table, which needs no process, says whether one is due.

mod plan;

use std::collections::BTreeMap;

use kernel::iptables::{Fingerprint, Iptables};

use super::{Firewall, Wanted, nft, rules};
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

    fn plans(&self, wanted: &Wanted) -> anyhow::Result<Vec<(Iptables, PlannedChain)>> {
        let mut plans = Vec::new();
        for nets in &wanted.families {
            let iptables = Iptables::find(nets.network.addr().is_ipv6())?;
            let wanted = Wanted {
                fully_random: wanted.fully_random && iptables.has_random_fully(),
                ..wanted.clone()
            };
            for (chain, rules) in [
                (POSTROUTING, rules::masquerade(&wanted, *nets)),
                (FORWARD, rules::forward(&wanted, *nets)),
            ] {
                let rules: Vec<String> = rules
                    .iter()
                    .map(|rule| rule.iptables(chain.name, chain.comment))
                    .collect();
                let saved = iptables.save(chain.table)?;
                plans.push((iptables.clone(), plan::plan(chain, &rules, &saved)));
            }
        }
        Ok(plans)
    }

    fn try_reconcile(&mut self, wanted: &Wanted, report: &mut Report) -> anyhow::Result<()> {
        if !self.other_mode_cleaned {
            report.merge(nft::remove_tables());
            self.other_mode_cleaned = true;
        }
        self.seen = None;
        // Taken before the rules are read, and kept only if they need no change: what someone else
        // changes meanwhile, or after our own change, is then seen at the next look.
        let tables = fingerprints(wanted)?;
        let mut in_order = true;
        for (iptables, planned) in self.plans(wanted)? {
            if let Some(script) = &planned.script {
                iptables.restore(script)?;
                report.changed("replace iptables chain", || planned.to_string());
                in_order = false;
            }
        }
        self.seen = in_order.then(|| (wanted.clone(), tables));
        Ok(())
    }
}

impl Firewall for IptablesMode {
    fn plan(&mut self, wanted: &Wanted) -> anyhow::Result<Vec<String>> {
        let plans = self.plans(wanted)?;
        let needed = plans.iter().filter_map(|(iptables, planned)| {
            let program = if iptables.is_ipv6() {
                "ip6tables"
            } else {
                "iptables"
            };
            let script = planned.script.as_ref()?;
            Some(format!("{program}-restore --noflush <<END\n{script}END"))
        });
        Ok(needed.collect())
    }

    fn reconcile(&mut self, wanted: &Wanted, thorough: bool) -> Report {
        let mut report = Report::default();
        if !thorough && self.undisturbed(wanted) {
            return report;
        }
        if let Err(error) = self.try_reconcile(wanted, &mut report) {
            report.failed(format!("{error:#}"));
        }
        report
    }

    fn cleanup(&mut self) -> Report {
        let mut report = remove_chains();
        report.merge(nft::remove_tables());
        report
    }
}

/// How the tables look that the wanted rules are in.
fn fingerprints(wanted: &Wanted) -> anyhow::Result<Fingerprints> {
    let mut tables = Fingerprints::new();
    for nets in &wanted.families {
        let iptables = Iptables::find(nets.network.addr().is_ipv6())?;
        for chain in [POSTROUTING, FORWARD] {
            let print = iptables.fingerprint(chain.table)?;
            tables.insert((iptables.is_ipv6(), chain.table), print);
        }
    }
    Ok(tables)
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
