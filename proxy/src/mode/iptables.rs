//! iptables mode: kube-proxy's chains, of which only what changed is computed and written.
//!
//! Theory. A service port has chains of its own (KUBE-SVC, -SVL, -EXT, -FW, and a KUBE-SEP for each
//! endpoint) and a line for each of its fronts in chains that all share (KUBE-SERVICES and so on). The
//! former are written when the service port changes; the latter are split by bits of the address or
//! node port (`tree`), so that a change rewrites a few dozen lines however many Services there are.
//! `plan` compares numbers of chains in memory; only a full sync looks at what the kernel has.
//!
//! Invariants:
//! - rules are the text that iptables-save prints, so that a restart finds nothing to write;
//! - of others' chains only single rules that go to a chain of ours are touched;
//! - after a write that failed nothing is believed: the next sync compares everything.
//!
//! What kube-proxy has and this mode has not: the chain KUBE-NODEPORTS of `filter`, which accepts health
//! check node ports; its two counters of nfacct; the canary chains (`drift` needs none).
//! `affinity_by_hash` is not offered: iptables has no match for it. Session affinity remembers, as
//! kube-proxy's, at most 100 clients of an endpoint (`ip_list_tot` of xt_recent).

mod canonical;
mod drift;
mod jumps;
mod names;
mod observed;
mod ownership;
mod plan;
mod port;
mod programs;
mod remove;
mod rule;
mod sample;
mod script;
mod terms;
#[cfg(test)]
mod tests;
pub mod trace;
mod tree;

use std::{collections::BTreeSet, os::fd::BorrowedFd, time::Duration};

use kernel::iptables::{self, Iptables, Variant};

use crate::{
    mode::{Mode, Report},
    model::{Changed, Family, PortName, Wanted},
};

use drift::Drift;
use observed::Observed;
use ownership::Whose;
use plan::Committed;
pub use programs::Choice;
pub use remove::{remove_kube_proxy, remove_other_form};
use script::Script;
pub use terms::Parts;

/// How the mode goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which iptables.
    pub choice: Choice,
    /// How long to wait for the xtables lock; the next sync tries again.
    pub lock_wait: Duration,
    /// At most so many endpoints of one list are used on this node, each node choosing its own: a new
    /// connection tries one rule for each until one takes it, and loading them takes time that grows
    /// with the square of their number (nf_tables: 0.4 s for 2,000, 6 s for 10,000, 21 s for 20,000;
    /// legacy: 0.4 s for 10,000, 18 s for 100,000; Linux 6.18, iptables 1.8.9).
    pub endpoint_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            choice: Choice::Auto,
            lock_wait: Duration::from_secs(5),
            endpoint_limit: 2000,
        }
    }
}

/// Lets the kernel route what is for 127.0.0.0/8.
const ROUTE_LOCALNET: &str = "net.ipv4.conf.all.route_localnet";
/// How long one text may take to load.
const LOAD_LIMIT: Duration = Duration::from_secs(600);
/// Lines of a text for iptables-nft, whose time grows with the square of it.
const NFT_LINES: usize = 4000;

/// iptables mode for one family.
pub struct IptablesMode {
    family: Family,
    options: Options,
    iptables: Option<Iptables>,
    parts: Parts,
    parts_asked: bool,
    committed: Option<Committed>,
    drift: Drift,
    said_no_hash: bool,
    said_sampled: BTreeSet<PortName>,
}

impl IptablesMode {
    /// Touches nothing yet.
    pub fn new(family: Family, options: Options) -> Self {
        Self {
            family,
            options,
            iptables: None,
            parts: Parts::default(),
            parts_asked: false,
            committed: None,
            drift: Drift::default(),
            said_no_hash: false,
            said_sampled: BTreeSet::new(),
        }
    }

    /// Which of the two forms of iptables it uses, once it has looked.
    pub fn variant(&self) -> Option<Variant> {
        self.iptables.as_ref().map(Iptables::variant)
    }

    fn iptables(&mut self) -> kernel::Result<Iptables> {
        if let Some(found) = &self.iptables {
            return Ok(found.clone());
        }
        let found = programs::choose(self.family, self.options.choice)?;
        self.parts.random_fully &= found.has_random_fully();
        tracing::info!(
            family = self.family.label(),
            program = found.program(),
            legacy = found.is_legacy(),
            random_fully = self.parts.random_fully,
            "iptables chosen"
        );
        self.iptables = Some(found.clone());
        Ok(found)
    }

    fn bring(&mut self, wanted: &Wanted, changed: &Changed) -> Result<Report, Failure> {
        plan::check(&wanted.site)?;
        self.say_what_differs(wanted, changed);
        let iptables = self.iptables()?;
        let known = self
            .committed
            .take()
            .filter(|known| known.is_of(&wanted.site, self.parts));
        let full = known.is_none() || *changed == Changed::All;
        self.drift.begin(&iptables, full)?;
        let (committed, script) = match (known, changed) {
            (Some(mut known), Changed::Ports(ports)) => {
                let script = known.update(wanted, ports);
                (known, script)
            }
            _ => {
                let observed = observe(&iptables, Whose::Ours)?;
                let limit = self.options.endpoint_limit;
                Committed::full(wanted, self.parts, limit, &observed)
            }
        };
        let changes = script.changes();
        self.write(&iptables, script)?;
        if full && self.opens_loopback(wanted) {
            // After the rule that keeps others out is in place.
            kernel::sysctl::ensure(ROUTE_LOCALNET, "1")?;
        }
        if full && changes == 0 {
            self.drift.unwritten(&iptables);
        }
        self.committed = Some(committed);
        Ok(Report {
            changes,
            errors: Vec::new(),
            full,
        })
    }

    fn opens_loopback(&self, wanted: &Wanted) -> bool {
        wanted.site.localhost_node_ports && self.family == Family::V4
    }

    fn write(&mut self, iptables: &Iptables, script: Script) -> Result<(), Failure> {
        for text in texts(iptables, script) {
            iptables
                .restore_within(&text, self.options.lock_wait, LOAD_LIMIT)
                .map_err(|error| explain(&error, &text, self.options.lock_wait))?;
            let tables = text.matches("\nCOMMIT\n").count();
            self.drift.wrote(iptables, tables);
        }
        Ok(())
    }

    /// After a failure, finds out once what the program or the kernel lacks. True if something can
    /// be left out and it is worth another try.
    fn lacks_parts(&mut self) -> bool {
        let Some(iptables) = self.iptables.as_ref().filter(|_| !self.parts_asked) else {
            return false;
        };
        let had = self.parts;
        let Some(parts) = programs::probe(iptables, had, self.options.lock_wait) else {
            return false;
        };
        self.parts_asked = true;
        self.parts = parts;
        parts != had
    }

    /// Logs, once each, what this mode does otherwise than asked.
    fn say_what_differs(&mut self, wanted: &Wanted, changed: &Changed) {
        if wanted.site.affinity_by_hash && !std::mem::replace(&mut self.said_no_hash, true) {
            tracing::warn!(
                family = self.family.label(),
                "session affinity by hash is not offered in iptables mode: clients are remembered in a \
                 table (xt_recent) instead"
            );
        }
        let limit = self.options.endpoint_limit;
        let large = |name: &&PortName| {
            let balancer = wanted.balancers.get(*name);
            balancer
                .is_some_and(|balancer| balancer.cluster.len().max(balancer.local.len()) > limit)
        };
        let sampled: Vec<_> = match changed {
            Changed::All => wanted.balancers.keys().filter(large).collect(),
            Changed::Ports(ports) => ports.iter().filter(large).collect(),
        };
        for name in sampled {
            if self.said_sampled.insert(name.clone()) {
                tracing::warn!(
                    service = %name,
                    limit,
                    "more endpoints than iptables can walk through: this node uses a sample of them; \
                     the nftables mode has no such limit"
                );
            }
        }
    }
}

impl Mode for IptablesMode {
    fn name(&self) -> &'static str {
        "iptables"
    }

    fn sync(&mut self, wanted: &Wanted, changed: &Changed) -> Report {
        let mut result = self.bring(wanted, changed);
        if matches!(result, Err(Failure::Refused(_))) && self.lacks_parts() {
            result = self.bring(wanted, &Changed::All);
        }
        result.unwrap_or_else(|failure| Report {
            errors: vec![match failure {
                Failure::Refused(error) | Failure::Other(error) => error,
            }],
            ..Report::default()
        })
    }

    fn disturbed(&mut self) -> Option<String> {
        self.committed.as_ref()?;
        self.drift.look(self.iptables.as_ref()?)
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        self.drift.events()
    }

    fn plan(&mut self, wanted: &Wanted) -> anyhow::Result<String> {
        plan::check(&wanted.site).map_err(anyhow::Error::msg)?;
        let iptables = self.iptables()?;
        let observed = observe(&iptables, Whose::Ours)?;
        let limit = self.options.endpoint_limit;
        let (_, script) = Committed::full(wanted, self.parts, limit, &observed);
        let program = iptables.program();
        let mut plan: String = texts(&iptables, script)
            .iter()
            .map(|text| format!("{program}-restore --noflush --counters <<'END'\n{text}END\n"))
            .collect();
        if self.opens_loopback(wanted) && kernel::sysctl::read(ROUTE_LOCALNET)? != "1" {
            plan.push_str(&format!("sysctl -w {ROUTE_LOCALNET}=1\n"));
        }
        Ok(plan)
    }

    fn cleanup(&mut self) -> Report {
        self.committed = None;
        remove::remove(self.family, Whose::Ours, self.options.lock_wait)
    }
}

fn observe(iptables: &Iptables, whose: Whose) -> kernel::Result<Observed> {
    Ok(Observed::new(
        whose,
        iptables.save("filter")?,
        iptables.save("nat")?,
    ))
}

fn texts(iptables: &Iptables, script: Script) -> Vec<String> {
    script.texts(match iptables.variant() {
        Variant::Nft => NFT_LINES,
        // A table is read and written whole for each text.
        Variant::Legacy => usize::MAX,
    })
}

/// Why a sync was not done.
enum Failure {
    /// iptables did not take rules.
    Refused(String),
    /// Anything else.
    Other(String),
}

impl From<String> for Failure {
    fn from(error: String) -> Self {
        Self::Other(error)
    }
}

impl From<kernel::Error> for Failure {
    fn from(error: kernel::Error) -> Self {
        Self::Other(error.to_string())
    }
}

/// What went wrong, with the line at fault or the way out.
fn explain(error: &kernel::Error, text: &str, wait: Duration) -> Failure {
    if iptables::is_lock_held(error) {
        return Failure::Other(format!(
            "apply iptables rules: another program has held the xtables lock for {} s; the next sync \
             tries again",
            wait.as_secs()
        ));
    }
    let message = error.to_string();
    let line = message
        .split_once("line")
        .and_then(|(_, rest)| {
            let digits = rest.trim_start_matches([':', ' ']);
            let end = digits.find(|c: char| !c.is_ascii_digit());
            digits[..end.unwrap_or(digits.len())].parse::<usize>().ok()
        })
        .and_then(|number| text.lines().nth(number.checked_sub(1)?));
    Failure::Refused(match line {
        Some(line) => format!("{message} (line: {line})"),
        None => message,
    })
}
