//! nftables mode: one table a family, `ip flannel-ipv4` and `ip6 flannel-ipv6`, with the chains
//! `postrtg` and `forward`.
//!
//! A table's rules are replaced in one transaction. The ruleset's generation number, which needs no
//! process, says whether anybody changed anything since the last look.

use ipnet::IpNet;
use kernel::nft;

use super::{FamilyNets, Firewall, Wanted, iptables, rules};
use crate::backend::Report;

/// (family, table).
const TABLES: [(&str, &str); 2] = [("ip", "flannel-ipv4"), ("ip6", "flannel-ipv6")];

/// The nftables mode.
#[derive(Default)]
pub struct NftMode {
    seen: Option<Seen>,
    /// The other mode's chains have been looked for.
    other_mode_cleaned: bool,
    /// `masquerade fully-random` is understood.
    fully_random: Option<bool>,
}

/// How things were when all was last seen in order.
struct Seen {
    wanted: Wanted,
    generation: u32,
    /// Each table as `nft list` printed it after it was written.
    listings: Vec<Option<String>>,
}

impl NftMode {
    fn supported(&mut self, wanted: &Wanted) -> Wanted {
        let fully_random = wanted.fully_random
            && *self.fully_random.get_or_insert_with(|| {
                nft::check(
                    "add table ip weft-probe\n\
                     add chain ip weft-probe p { type nat hook postrouting priority 100 ; }\n\
                     add rule ip weft-probe p masquerade fully-random\n",
                )
                .is_ok()
            });
        Wanted {
            fully_random,
            ..wanted.clone()
        }
    }

    fn try_reconcile(
        &mut self,
        wanted: &Wanted,
        thorough: bool,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let wanted = self.supported(wanted);
        let generation = nft::generation()?;
        let last = self.seen.take().filter(|seen| seen.wanted == wanted);
        if let Some(seen) = &last
            && seen.generation == generation
            && !thorough
        {
            self.seen = last;
            return Ok(());
        }
        if !self.other_mode_cleaned {
            report.merge(iptables::remove_chains());
            self.other_mode_cleaned = true;
        }
        // What the number will be if nobody but us changes anything from here on: each transaction
        // adds one.
        let mut expected = nft::generation()?;
        let mut listings = Vec::new();
        for (at, nets) in wanted.families.iter().enumerate() {
            let (family, table) = table_of(nets.network);
            let before = nft::list_table(family, table)?;
            let in_order = match &last {
                Some(seen) => seen.listings.get(at) == Some(&before) && before.is_some(),
                None => before
                    .as_deref()
                    .is_some_and(|text| holds(text, &wanted, *nets)),
            };
            if in_order {
                listings.push(before);
                continue;
            }
            nft::apply(&render(&wanted, *nets))?;
            expected = expected.wrapping_add(1);
            report.changed("replace nftables table", || {
                let why = match before {
                    Some(_) => "rules differ",
                    None => "missing",
                };
                format!("table {family} {table}: {why}")
            });
            listings.push(nft::list_table(family, table)?);
        }
        // A change by someone else meanwhile may be in the listings, as if it were ours: then nothing
        // is remembered, and the next look compares the rules themselves.
        self.seen = (nft::generation()? == expected).then_some(Seen {
            wanted,
            generation: expected,
            listings,
        });
        Ok(())
    }
}

fn table_of(network: IpNet) -> (&'static str, &'static str) {
    TABLES[usize::from(network.addr().is_ipv6())]
}

/// The transaction that gives a family's table exactly the wanted rules.
fn render(wanted: &Wanted, nets: FamilyNets) -> String {
    let (family, table) = table_of(nets.network);
    let mut script = format!("add table {family} {table} {{ comment \"rules for {table}\" ; }}\n");
    let chains = [
        (
            "postrtg",
            "type nat hook postrouting priority srcnat",
            "chain to manage traffic masquerading by flannel",
            rules::masquerade(wanted, nets),
        ),
        (
            "forward",
            "type filter hook forward priority filter",
            "chain to accept flannel traffic",
            rules::forward(wanted, nets),
        ),
    ];
    for (chain, hook, comment, rules) in chains {
        let declare =
            format!("add chain {family} {table} {chain} {{ {hook} ; comment \"{comment}\" ; }}\n");
        // An unwanted chain is declared first so that its removal cannot fail.
        script += &declare;
        script += &format!("flush chain {family} {table} {chain}\n");
        if rules.is_empty() {
            script += &format!("delete chain {family} {table} {chain}\n");
        }
        for rule in rules {
            script += &format!("add rule {family} {table} {chain} {}\n", rule.nftables());
        }
    }
    script
}

/// A table found at start holds exactly our rules, in order. A listing in another form (an older or
/// newer nft prints the mark differently) only costs one rewrite.
fn holds(listing: &str, wanted: &Wanted, nets: FamilyNets) -> bool {
    let expected: Vec<String> = (rules::masquerade(wanted, nets).iter())
        .chain(&rules::forward(wanted, nets))
        .map(rules::Rule::nftables)
        .collect();
    let verdicts = ["return", "accept", "masquerade", "masquerade fully-random"];
    let found: Vec<&str> = listing
        .lines()
        .map(str::trim)
        .filter(|line| verdicts.iter().any(|verdict| line.ends_with(verdict)))
        .collect();
    let hooks = listing
        .lines()
        .filter(|line| line.contains(" hook "))
        .count();
    let chains = usize::from(wanted.masquerade) + usize::from(wanted.forward);
    found == expected && hooks == chains
}

impl Firewall for NftMode {
    fn plan(&mut self, wanted: &Wanted) -> anyhow::Result<Vec<String>> {
        let wanted = self.supported(wanted);
        let mut scripts = Vec::new();
        for nets in &wanted.families {
            let (family, table) = table_of(nets.network);
            let present = nft::list_table(family, table)?;
            if !present.is_some_and(|listing| holds(&listing, &wanted, *nets)) {
                scripts.push(format!("nft -f - <<END\n{}END", render(&wanted, *nets)));
            }
        }
        Ok(scripts)
    }

    fn reconcile(&mut self, wanted: &Wanted, thorough: bool) -> Report {
        let mut report = Report::default();
        if let Err(error) = self.try_reconcile(wanted, thorough, &mut report) {
            report.failed(format!("{error:#}"));
        }
        report
    }

    fn cleanup(&mut self) -> Report {
        let mut report = remove_tables();
        report.merge(iptables::remove_chains());
        report
    }
}

/// Removes both tables where they are, if nftables is there at all.
pub(super) fn remove_tables() -> Report {
    let mut report = Report::default();
    if !nft::available() {
        return report;
    }
    for (family, table) in TABLES {
        let removal = nft::list_table(family, table).and_then(|listing| match listing {
            Some(_) => nft::apply(&format!("delete table {family} {table}\n")).map(|()| true),
            None => Ok(false),
        });
        match removal {
            Ok(true) => report.changed("delete nftables table", || {
                format!("table {family} {table}")
            }),
            Ok(false) => {}
            Err(error) => report.failed(error),
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> (Wanted, FamilyNets) {
        let nets = FamilyNets {
            network: "10.244.0.0/16".parse().unwrap(),
            subnet: "10.244.1.0/24".parse().unwrap(),
        };
        let wanted = Wanted {
            families: vec![nets],
            masquerade: true,
            fully_random: true,
            forward: true,
        };
        (wanted, nets)
    }

    #[test]
    fn the_whole_table_as_text() {
        let (wanted, nets) = wanted();
        let start = "add table ip flannel-ipv4 { comment \"rules for flannel-ipv4\" ; }\n\
            add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority srcnat ; comment \"chain to manage traffic masquerading by flannel\" ; }\n\
            flush chain ip flannel-ipv4 postrtg\n\
            add rule ip flannel-ipv4 postrtg meta mark & 0x00004000 == 0x00004000 return\n\
            add rule ip flannel-ipv4 postrtg ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return\n\
            add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 return\n\
            add rule ip flannel-ipv4 postrtg ip saddr != 10.244.0.0/16 ip daddr 10.244.1.0/24 return\n\
            add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random\n\
            add rule ip flannel-ipv4 postrtg ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random\n";
        let text = render(&wanted, nets);
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with("add rule ip flannel-ipv4 forward ip daddr 10.244.0.0/16 accept\n"));
    }

    #[test]
    fn iptables_form_in_flannels_order() {
        let (wanted, nets) = wanted();
        let text: Vec<String> = rules::masquerade(&wanted, nets)
            .iter()
            .map(|rule| rule.iptables("FLANNEL-POSTRTG", "flanneld masq"))
            .collect();
        assert_eq!(
            text,
            [
                "-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN",
                "-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN",
                "-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment \"flanneld masq\" -j RETURN",
                "-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment \"flanneld masq\" -j RETURN",
                "-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully",
                "-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully",
            ]
        );
    }
}
