//! Removing: our own rules, or those of a former kube-proxy, from both forms of iptables.

use std::time::Duration;

use kernel::iptables::{Iptables, Variant, legacy_tables};

use crate::{mode::Report, model::Family};

use super::{
    Options, canonical,
    jumps::{FIREWALL, firewall_rule},
    names::Table,
    observe,
    observed::Observed,
    ownership::{CANARY, Whose},
    programs,
    script::Script,
    texts,
};

/// Removes what a former Go kube-proxy left in iptables, in both forms of the program: all chains of its
/// iptables and ipvs modes (and so this mode's, which have the same names) with the jumps to them. What
/// the kubelet made stays.
pub fn remove_kube_proxy(family: Family) -> Report {
    remove(family, Whose::KubeProxys, Duration::from_secs(5))
}

/// Removes what the mode left in the form of iptables that it does not use with these options: a
/// switch from one form to the other must leave nothing that still translates.
pub fn remove_other_form(family: Family, options: &Options) -> Report {
    match programs::choose(family, options.choice) {
        Ok(used) => {
            let other = match used.variant() {
                Variant::Nft => Variant::Legacy,
                Variant::Legacy => Variant::Nft,
            };
            remove_from_forms(&[other], family, Whose::Ours, options.lock_wait)
        }
        Err(error) => Report {
            errors: vec![error.to_string()],
            ..Report::default()
        },
    }
}

pub(super) fn remove(family: Family, whose: Whose, wait: Duration) -> Report {
    remove_from_forms(&[Variant::Nft, Variant::Legacy], family, whose, wait)
}

fn remove_from_forms(forms: &[Variant], family: Family, whose: Whose, wait: Duration) -> Report {
    let mut report = Report {
        full: true,
        ..Report::default()
    };
    for &variant in forms {
        // Without the program there is no way that rules of it were made, or could be removed.
        let Ok(iptables) = Iptables::find_variant(family == Family::V6, variant) else {
            continue;
        };
        if variant == Variant::Legacy {
            let tables = legacy_tables(family == Family::V6);
            if !["nat", "filter"]
                .iter()
                .any(|table| tables.iter().any(|there| there == table))
            {
                continue;
            }
        }
        match remove_from(&iptables, whose, wait) {
            Ok(changes) => report.changes += changes,
            Err(error) => report.errors.push(error.to_string()),
        }
    }
    report
}

fn remove_from(iptables: &Iptables, whose: Whose, wait: Duration) -> kernel::Result<usize> {
    let observed = observe(iptables, whose)?;
    let mangle = mangle(iptables)?;
    let kubelet = programs::has_hint(&mangle);
    let script = plan(&observed, whose, kubelet);
    let mut changes = script.changes();
    for text in texts(iptables, script) {
        iptables.restore_within(&text, wait, super::LOAD_LIMIT)?;
    }
    if mangle
        .lines()
        .any(|line| line.starts_with(&format!(":{CANARY} ")))
    {
        let text = format!("*mangle\n:{CANARY} - [0:0]\n-X {CANARY}\nCOMMIT\n");
        iptables.restore_within(&text, wait, super::LOAD_LIMIT)?;
        changes += 1;
    }
    Ok(changes)
}

/// Table mangle, or nothing where there is no such table.
fn mangle(iptables: &Iptables) -> kernel::Result<String> {
    if iptables.variant() == Variant::Legacy
        && !legacy_tables(iptables.is_ipv6())
            .iter()
            .any(|table| table == "mangle")
    {
        return Ok(String::new());
    }
    iptables.save("mangle")
}

/// What removes all that is there. With the kubelet on the node KUBE-FIREWALL stays: the rule is
/// the kubelet's too.
fn plan(observed: &Observed, whose: Whose, kubelet: bool) -> Script {
    let mut script = Script::default();
    let goes = |table, chain: &str| whose.has(table, chain);
    for table in Table::ALL {
        for (from, rule) in observed.jumps(table) {
            let target = canonical::target(rule).unwrap_or("");
            if goes(table, target) && !goes(table, from) {
                script.delete(table, from, rule);
            }
        }
        for chain in observed.chains(table).filter(|chain| goes(table, chain)) {
            script.remove(table, chain);
        }
    }
    if !kubelet && let Some(rules) = observed.firewall() {
        let ours = firewall_rule(true);
        let bare = firewall_rule(false);
        let is_ours = |rule: &&String| canonical::same(rule, &ours) || canonical::same(rule, &bare);
        if rules.iter().all(|rule| is_ours(&rule)) {
            for (from, rule) in observed.jumps(Table::Filter) {
                if canonical::target(rule) == Some(FIREWALL) {
                    script.delete(Table::Filter, from, rule);
                }
            }
            script.remove(Table::Filter, FIREWALL);
        } else {
            for rule in rules.iter().filter(is_ours) {
                script.delete(Table::Filter, FIREWALL, rule);
            }
        }
    }
    script
}
