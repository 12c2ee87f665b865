//! What a chain of ours lacks, as a script for iptables-restore(8): pure.

use std::fmt;

/// A chain that we own and the jump to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its table.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The kernel's chain that jumps to it.
    pub parent: &'static str,
    /// The comment of the jump and of every rule.
    pub comment: &'static str,
}

/// A chain and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChain {
    /// Which.
    pub chain: Chain,
    /// Why, in a few words; empty when nothing is to be done.
    pub why: &'static str,
    /// The script, ending with a newline; none when all is as wanted.
    pub script: Option<String>,
}

impl fmt::Display for PlannedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Chain { table, name, .. } = self.chain;
        write!(f, "chain {name} of table {table}: {}", self.why)
    }
}

/// Compares `saved`, the table as iptables-save prints it, with the rules wanted (each `-A chain …`).
/// No rules means that chain and jumps must go. Of what is present only a wrong or missing part is
/// written.
pub fn plan(chain: Chain, rules: &[String], saved: &str) -> PlannedChain {
    let own = format!("-A {} ", chain.name);
    let jump_start = format!("-A {} ", chain.parent);
    let jump_end = format!("-j {}", chain.name);
    let declared = saved
        .lines()
        .any(|line| line.split(' ').next() == Some(&format!(":{}", chain.name)));
    let present: Vec<&str> = saved
        .lines()
        .filter(|line| line.starts_with(&own))
        .collect();
    let jumps: Vec<&str> = saved
        .lines()
        .filter(|line| line.starts_with(&jump_start) && line.ends_with(&jump_end))
        .collect();

    let mut lines = Vec::new();
    let mut why = "";
    if rules.is_empty() {
        lines.extend(jumps.iter().map(|jump| jump.replacen("-A", "-D", 1)));
        if declared {
            lines.push(format!("-F {}", chain.name));
            lines.push(format!("-X {}", chain.name));
        }
        if !lines.is_empty() {
            why = "removed";
        }
    } else {
        if present != rules {
            why = if declared { "rules differ" } else { "missing" };
            // Naming a chain in a restore empties it, within the transaction.
            lines.push(format!(":{} - [0:0]", chain.name));
            lines.extend(rules.iter().cloned());
        }
        if jumps.is_empty() {
            why = if why.is_empty() { "jump missing" } else { why };
            lines.push(format!(
                "-A {} -m comment --comment \"{}\" -j {}",
                chain.parent, chain.comment, chain.name
            ));
        }
        for extra in jumps.iter().skip(1) {
            why = if why.is_empty() { "jump doubled" } else { why };
            lines.push(extra.replacen("-A", "-D", 1));
        }
    }
    let script =
        (!lines.is_empty()).then(|| format!("*{}\n{}\nCOMMIT\n", chain.table, lines.join("\n")));
    PlannedChain { chain, why, script }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: Chain = Chain {
        table: "nat",
        name: "FLANNEL-POSTRTG",
        parent: "POSTROUTING",
        comment: "flanneld masq",
    };

    fn rules() -> Vec<String> {
        vec![
            "-A FLANNEL-POSTRTG -s 10.1.0.0/16 -j RETURN".to_owned(),
            "-A FLANNEL-POSTRTG -j MASQUERADE".to_owned(),
        ]
    }

    const JUMP: &str = "-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG";

    fn saved(lines: &[&str]) -> String {
        format!(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n{}\nCOMMIT\n",
            lines.join("\n")
        )
    }

    #[test]
    fn an_empty_table_gets_chain_and_jump() {
        assert_eq!(
            plan(CHAIN, &rules(), &saved(&[])).script.unwrap(),
            format!(
                "*nat\n:FLANNEL-POSTRTG - [0:0]\n-A FLANNEL-POSTRTG -s 10.1.0.0/16 -j RETURN\n\
                 -A FLANNEL-POSTRTG -j MASQUERADE\n{JUMP}\nCOMMIT\n"
            )
        );
    }

    #[test]
    fn what_is_right_is_not_touched() {
        let all = rules();
        let table = saved(&[":FLANNEL-POSTRTG - [0:0]", JUMP, &all[0], &all[1]]);
        assert_eq!(plan(CHAIN, &all, &table).script, None);
    }

    #[test]
    fn a_lost_jump_does_not_flush_the_chain() {
        let all = rules();
        let table = saved(&[":FLANNEL-POSTRTG - [0:0]", &all[0], &all[1]]);
        let planned = plan(CHAIN, &all, &table);
        assert_eq!(planned.script.unwrap(), format!("*nat\n{JUMP}\nCOMMIT\n"));
        assert_eq!(planned.why, "jump missing");
    }

    #[test]
    fn a_wrong_order_is_rewritten_and_a_doubled_jump_removed() {
        let all = rules();
        let table = saved(&[":FLANNEL-POSTRTG - [0:0]", JUMP, JUMP, &all[1], &all[0]]);
        let script = plan(CHAIN, &all, &table).script.unwrap();
        assert!(script.contains(":FLANNEL-POSTRTG - [0:0]"));
        assert_eq!(script.matches("-D POSTROUTING").count(), 1);
        assert!(!script.contains("-A POSTROUTING"));
    }

    #[test]
    fn removal_takes_jumps_first() {
        let table = saved(&[":FLANNEL-POSTRTG - [0:0]", JUMP, &rules()[0]]);
        let script = plan(CHAIN, &[], &table).script.unwrap();
        assert_eq!(
            script,
            "*nat\n-D POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n\
             -F FLANNEL-POSTRTG\n-X FLANNEL-POSTRTG\nCOMMIT\n"
        );
        assert_eq!(plan(CHAIN, &[], &saved(&[])).script, None);
    }

    #[test]
    fn chains_of_a_like_name_are_not_ours() {
        let table = saved(&[
            ":FLANNEL-POSTRTG-OLD - [0:0]",
            "-A FLANNEL-POSTRTG-OLD -j RETURN",
        ]);
        assert_eq!(plan(CHAIN, &[], &table).script, None);
    }
}
