//! Whether someone else changed our chains, found out without listing rules.
//!
//! Legacy: the shape of the two tables, by a system call each; any program's change of them shows, but
//! a rule swapped for another of the same size does not, and looking closer means to list everything:
//! after a full sync in vain it is not looked again for some times as long as that took. nf_tables: the kernel tells of every change
//! with table and chain, so that only those of our chains count; a rule that goes from a chain of the
//! kernel's may be a jump to ours, for which that one chain is listed. What slips through is found by
//! the timed full sync.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, BorrowedFd},
    time::Instant,
};

use kernel::{
    iptables::{Fingerprint, Iptables, Variant},
    nft::{self, Event, Monitor, What},
};

use super::{
    canonical,
    jumps::{FIREWALL, JUMPS},
    names::Table,
    ownership::is_ours,
};

/// Watches both tables.
#[derive(Default)]
pub(super) struct Drift {
    watch: Option<Watch>,
    /// What was noticed during a sync and is told at the next look.
    trouble: Option<String>,
    begun: Option<Instant>,
    /// Until when others may change legacy tables without our looking closer.
    rest: Option<Instant>,
}

/// A full sync in vain is followed by a rest of so many times its length.
const REST: u32 = 5;

enum Watch {
    Legacy(Vec<Fingerprint>),
    Nft(Listener),
}

impl Drift {
    /// Before a sync: from here on nothing escapes. A full one will see what happened before.
    pub(super) fn begin(&mut self, iptables: &Iptables, full: bool) -> kernel::Result<()> {
        if full {
            self.trouble = None;
        }
        self.begun = Some(Instant::now());
        self.rest = None;
        let noticed = match &mut self.watch {
            None => {
                self.watch = Some(match iptables.variant() {
                    Variant::Legacy => Watch::Legacy(prints(iptables)?),
                    Variant::Nft => Watch::Nft(Listener::open(iptables.is_ipv6())?),
                });
                None
            }
            Some(watch) => watch.look(iptables),
        };
        if !full {
            self.note(noticed);
        }
        Ok(())
    }

    /// After each text that was written, which had so many tables.
    pub(super) fn wrote(&mut self, iptables: &Iptables, tables: usize) {
        let noticed = match &mut self.watch {
            Some(Watch::Nft(listener)) => listener.own(tables),
            Some(Watch::Legacy(seen)) => match prints(iptables) {
                Ok(now) => {
                    *seen = now;
                    None
                }
                Err(error) => Some(error.to_string()),
            },
            None => None,
        };
        self.note(noticed);
    }

    /// After a full sync that found nothing to write: what happened meanwhile was someone else's.
    pub(super) fn unwritten(&mut self, iptables: &Iptables) {
        self.rest = self
            .begun
            .map(|begun| Instant::now() + begun.elapsed() * REST);
        let noticed = self.watch.as_mut().and_then(|watch| watch.look(iptables));
        self.note(noticed);
    }

    /// Says what changed since.
    pub(super) fn look(&mut self, iptables: &Iptables) -> Option<String> {
        if iptables.is_legacy() && self.rest.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let noticed = self.watch.as_mut().and_then(|watch| watch.look(iptables));
        self.note(noticed);
        self.trouble.take()
    }

    /// Readable when there is news (nf_tables).
    pub(super) fn events(&self) -> Option<BorrowedFd<'_>> {
        match &self.watch {
            Some(Watch::Nft(listener)) => Some(listener.monitor.as_fd()),
            _ => None,
        }
    }

    fn note(&mut self, noticed: Option<String>) {
        if self.trouble.is_none() {
            self.trouble = noticed;
        }
    }
}

impl Watch {
    fn look(&mut self, iptables: &Iptables) -> Option<String> {
        match self {
            Self::Legacy(seen) => match prints(iptables) {
                Ok(now) if now == *seen => None,
                Ok(now) => {
                    *seen = now;
                    Some("rules of table nat or filter were changed".to_owned())
                }
                Err(error) => Some(error.to_string()),
            },
            Self::Nft(listener) => listener.foreign(iptables),
        }
    }
}

fn prints(iptables: &Iptables) -> kernel::Result<Vec<Fingerprint>> {
    Table::ALL
        .iter()
        .map(|table| iptables.fingerprint(table.name()))
        .collect()
}

/// Hears of changes in nf_tables.
struct Listener {
    monitor: Monitor,
    family: nft::Family,
    /// The first chain of ours that the transaction being heard has touched.
    touched: Option<String>,
}

/// What was heard.
#[derive(Default)]
struct Heard {
    /// Transactions that touched our chains: a chain of each, and who it was.
    transactions: Vec<(String, String)>,
    /// Chains of the kernel's that lost a rule.
    reduced: BTreeSet<(Table, String)>,
    trouble: Option<String>,
}

impl Listener {
    fn open(ipv6: bool) -> kernel::Result<Self> {
        Ok(Self {
            monitor: Monitor::open()?,
            family: if ipv6 {
                nft::Family::Ip6
            } else {
                nft::Family::Ip
            },
            touched: None,
        })
    }

    /// What we did ourselves, in at most so many transactions; more were someone else's.
    fn own(&mut self, transactions: usize) -> Option<String> {
        let heard = self.listen();
        match heard.transactions.get(transactions) {
            Some((chain, _)) => Some(format!("chain {chain} was changed during a sync")),
            None => heard.trouble,
        }
    }

    /// What others did.
    fn foreign(&mut self, iptables: &Iptables) -> Option<String> {
        let heard = self.listen();
        if let Some((chain, by)) = heard.transactions.first() {
            return Some(format!("chain {chain} was changed by {by}"));
        }
        heard.trouble.or_else(|| {
            heard
                .reduced
                .iter()
                .find_map(|(table, chain)| lost_jump(iptables, *table, chain))
        })
    }

    fn listen(&mut self) -> Heard {
        let mut heard = Heard::default();
        loop {
            match self.monitor.events() {
                Ok(Some(events)) => {
                    for event in events {
                        self.hear(event, &mut heard);
                    }
                }
                Ok(None) => return heard,
                Err(error) => {
                    heard.trouble = Some(error.to_string());
                    return heard;
                }
            }
        }
    }

    fn hear(&mut self, event: Event, heard: &mut Heard) {
        match event {
            Event::Overrun => heard.trouble = Some("events of nf_tables were lost".to_owned()),
            Event::Generation { pid, process, .. } => {
                if let Some(chain) = self.touched.take() {
                    heard
                        .transactions
                        .push((chain, format!("{process} (process {pid})")));
                }
            }
            Event::Changed {
                table,
                what,
                name,
                removed,
                ..
            } => {
                let ours = Table::ALL
                    .into_iter()
                    .find(|ours| table.family == self.family && *ours.name() == *table.name);
                let Some(table) = ours else { return };
                match what {
                    What::Table if removed => {
                        self.touched = Some(format!("(all of table {})", table.name()));
                    }
                    What::Chain | What::Rule
                        if is_ours(table, &name) || (removed && name == FIREWALL) =>
                    {
                        self.touched.get_or_insert(name);
                    }
                    What::Rule if removed => {
                        heard.reduced.insert((table, name));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Which jump is not in a chain of the kernel's any more.
fn lost_jump(iptables: &Iptables, table: Table, chain: &str) -> Option<String> {
    let wanted = || {
        JUMPS
            .iter()
            .filter(|jump| jump.table == table && jump.from == chain)
    };
    wanted().next()?;
    let listed = match iptables.run(&["-t", table.name(), "-S", chain]) {
        Ok(listed) => listed,
        Err(error) => return Some(error.to_string()),
    };
    let targets: BTreeSet<_> = listed.lines().filter_map(canonical::target).collect();
    wanted()
        .find(|jump| !targets.contains(jump.to))
        .map(|jump| format!("the jump from {chain} to {} is gone", jump.to))
}
