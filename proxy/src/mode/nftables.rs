//! nftables mode: a table `weft-proxy` of our own in families ip and ip6, whose number of rules does
//! not depend on the number of Services. Rules are written once; everything that comes and goes with
//! Services is an element of a set or map. Both are written by netlink: the `nft` program needs ten
//! times the kernel's own time for the elements, and its version 1.0.6 can neither update a map of
//! IPv6 addresses nor add rules to a table whose sets were declared by `typeof … th dport`.
//!
//! What has been written is kept ([`book`]), so a change costs what it changes. It is held against
//! the kernel's own state when the process starts, after an error, and when somebody else's
//! transaction touched the table (the kernel's events say whose, and to which table; if events were
//! lost, everything is compared). Nothing is ever flushed that is right.

pub mod affinity;
pub mod book;
pub mod elements;
mod encode;
pub mod layout;
mod observe;
pub mod ruleset;
pub mod slots;
pub mod trace;
mod write;

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd};

use kernel::nft::{Event, Monitor, Socket, Transaction};

use crate::mode::{Mode, Report};
use crate::model::{Changed, Family, PortName, Site, Wanted};
use affinity::Purge;
use book::{Book, Delta};
use ruleset::{Basis, ruleset};

/// The mode, for one family.
pub struct Nftables {
    family: Family,
    socket: Option<Socket>,
    /// Hears who changes what; closed while much is written.
    monitor: Option<Monitor>,
    /// What the kernel has of ours.
    book: Book,
    /// What its rules were made from.
    basis: Option<Basis>,
    /// `book` and `basis` are known to be what the kernel has.
    sure: bool,
}

impl Nftables {
    /// Touches nothing yet. Acts in the namespace of the thread that calls [`Mode::sync`].
    pub fn new(family: Family) -> Self {
        Self {
            family,
            socket: None,
            monitor: None,
            book: Book::default(),
            basis: None,
            sure: false,
        }
    }

    /// What has been written, for `weft-proxy show` and the tests.
    pub fn book(&self) -> &Book {
        &self.book
    }

    fn socket(&mut self) -> kernel::Result<&mut Socket> {
        match &mut self.socket {
            Some(socket) => Ok(socket),
            empty => Ok(empty.insert(Socket::open()?)),
        }
    }

    /// Writes what changed at some ports.
    fn update(&mut self, wanted: &Wanted, ports: &BTreeSet<PortName>) -> Result<Report, Failed> {
        let mut delta = Delta::default();
        let mut purge = Purge::default();
        for name in ports {
            let new = wanted.balancers.get(name);
            let old = self.book.get(name).map(|old| old.balancer.clone());
            purge.port(name, old.as_deref(), new.map(AsRef::as_ref));
            delta.extend(self.book.change(name, new, &wanted.site));
        }
        let mut report = Report::default();
        // A new time-out needs its chain before an element can lead there. An old one's chain stays
        // until the next full look: nothing leads there.
        let known = self.basis.as_ref().map(|basis| &basis.timeouts);
        let missing = |seconds| known.is_none_or(|known| !known.contains(&seconds));
        if self.book.timeouts().any(missing) {
            let basis = self.basis_for(&wanted.site, known.cloned().unwrap_or_default());
            report.changes += self.write_rules(&basis)?;
        }
        report.changes += delta.len();
        let family = self.family;
        if delta.len() > write::CHUNK {
            // Its events would fill the monitor's buffer.
            self.monitor = None;
        }
        let socket = self.socket()?;
        let tally = Tally::before(socket)?;
        write::delta(socket, family, &delta)?;
        if self.monitor.is_none() {
            self.monitor = Some(Monitor::open()?);
            if tally.has_foreign(self.socket()?)? {
                tracing::info!("others changed rules while much was written; comparing everything");
                return self.look(wanted);
            }
        }
        affinity::purge(self.socket()?, family, &purge)?;
        Ok(report)
    }

    /// Compares everything with the kernel and writes the difference.
    fn look(&mut self, wanted: &Wanted) -> Result<Report, Failed> {
        self.sure = false;
        // Our own writing would fill its buffer; what others do meanwhile shows in the generation.
        self.monitor = None;
        let mut report = Report {
            full: true,
            ..Report::default()
        };
        // Twice at the most: if others keep changing rules, the events tell whether they are ours.
        for _ in 0..2 {
            let (changes, foreign) = self.look_once(wanted, &mut report)?;
            report.changes += changes;
            if !foreign {
                break;
            }
        }
        self.sure = report.errors.is_empty();
        Ok(report)
    }

    fn look_once(&mut self, wanted: &Wanted, report: &mut Report) -> Result<(usize, bool), Failed> {
        let family = self.family;
        let timeouts = wanted.balancers.values().filter_map(|each| each.affinity);
        let basis = self.basis_for(&wanted.site, timeouts.collect());
        let mut changes = self.write_rules(&basis)?;
        let socket = self.socket()?;
        let tally = Tally::before(socket)?;
        let observed = observe::contents(socket, family)?;
        let mut writer = write::Writer::new(socket, family);
        let book = writer.bring(observed, wanted);
        changes += writer.changes();
        report.errors.extend(writer.into_errors());
        affinity::purge(socket, family, &Purge::everything(wanted))?;
        // At a second look it listens already.
        if self.monitor.is_none() {
            self.monitor = Some(Monitor::open()?);
        }
        self.book = book;
        Ok((changes, tally.has_foreign(self.socket()?)?))
    }

    fn basis_for(&self, site: &Site, timeouts: BTreeSet<u32>) -> Basis {
        let timeouts: BTreeSet<u32> = match site.affinity_by_hash {
            true => BTreeSet::new(),
            false => timeouts.into_iter().chain(self.book.timeouts()).collect(),
        };
        Basis {
            site: site.clone(),
            timeouts,
        }
    }

    /// Makes the rules those of `basis`; says how many chains it rewrote.
    fn write_rules(&mut self, basis: &Basis) -> Result<usize, Failed> {
        let rules = ruleset(basis);
        let family = self.family;
        let socket = self.socket()?;
        let found = observe::rules(socket, family)?;
        if found.is(&rules) {
            self.basis = Some(basis.clone());
            return Ok(0);
        }
        if found.must_go() {
            let mut transaction = Transaction::new(&ruleset::table(family));
            transaction.delete_table();
            write::counted(socket, &transaction)?;
        }
        write::counted(socket, &found.transaction(&rules))?;
        let seal = observe::rules(socket, family)?.seal();
        write::counted(socket, &seal)?;
        self.basis = Some(basis.clone());
        Ok(rules.chains.len())
    }
}

/// Tells whether somebody else has changed rules since: the generation counts everybody's
/// transactions, and we know how many were ours, of both families. One of ours that falls between the
/// two readings looks like somebody else's, never the other way round.
struct Tally {
    generation: u32,
    own: u32,
}

impl Tally {
    fn before(socket: &mut Socket) -> Result<Self, Failed> {
        Ok(Self {
            generation: socket.generation()?,
            own: write::own_transactions(),
        })
    }

    fn has_foreign(&self, socket: &mut Socket) -> Result<bool, Failed> {
        let own = write::own_transactions().wrapping_sub(self.own);
        Ok(socket.generation()?.wrapping_sub(self.generation) > own)
    }
}

/// Why a sync came to nothing.
type Failed = kernel::Error;

impl Mode for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn sync(&mut self, wanted: &Wanted, changed: &Changed) -> Report {
        let result = match changed {
            Changed::Ports(ports) if self.sure => self.update(wanted, ports).or_else(|error| {
                // Somebody was there before us, most likely: see what is so, then try again.
                tracing::warn!("{error}; comparing everything");
                self.look(wanted)
            }),
            _ => self.look(wanted),
        };
        result.unwrap_or_else(|error| {
            self.sure = false;
            self.socket = None;
            Report {
                errors: vec![error.to_string()],
                full: true,
                ..Report::default()
            }
        })
    }

    fn disturbed(&mut self) -> Option<String> {
        let own = self.socket.as_ref().map(Socket::port_id);
        let monitor = self.monitor.as_mut()?;
        let mut found = None;
        loop {
            let events = match monitor.events() {
                Ok(None) => return found,
                Ok(Some(events)) => events,
                Err(error) => return Some(error.to_string()),
            };
            for event in events {
                match event {
                    Event::Overrun => found = Some("something (events were lost)".to_owned()),
                    Event::Changed {
                        table,
                        what,
                        name,
                        port_id,
                        ..
                    } if table == ruleset::table(self.family) && Some(port_id) != own => {
                        found.get_or_insert_with(|| format!("{what:?} {name} of table {table}"));
                    }
                    _ => {}
                }
            }
        }
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(Monitor::as_fd)
    }

    fn plan(&mut self, wanted: &Wanted) -> anyhow::Result<String> {
        let timeouts = wanted.balancers.values().filter_map(|each| each.affinity);
        let basis = Basis {
            site: wanted.site.clone(),
            timeouts: match wanted.site.affinity_by_hash {
                true => BTreeSet::new(),
                false => timeouts.collect(),
            },
        };
        let rules = ruleset(&basis);
        let family = self.family;
        let socket = self.socket()?;
        let found = observe::rules(socket, family)?;
        let mut script = match found.is(&rules) {
            true => String::new(),
            false => rules.script(),
        };
        let observed = observe::contents(socket, family)?;
        script += &write::script(observed, wanted);
        Ok(script)
    }

    fn cleanup(&mut self) -> Report {
        let mut report = Report::default();
        self.monitor = None;
        self.sure = false;
        self.book = Book::default();
        let family = self.family;
        let remove = |socket: &mut Socket| -> Result<usize, Failed> {
            let chains = socket.chains(&ruleset::table(family))?;
            if chains.is_empty() {
                return Ok(0);
            }
            let mut transaction = Transaction::new(&ruleset::table(family));
            transaction.delete_table();
            socket.commit(&transaction)?;
            Ok(chains.len())
        };
        match self.socket().and_then(remove) {
            Ok(changes) => report.changes = changes,
            // A kernel without nf_tables has nothing of ours.
            Err(error) if error.is_not_supported() || error.is_not_found() => {}
            Err(error) => report.errors.push(error.to_string()),
        }
        report
    }
}

/// Whether the kernel can do all that the mode's rules need, for a family. They are tried in a table
/// of another name, which is never seen: it is made and removed in one transaction.
pub fn probe(site: &Site) -> Result<(), Failed> {
    let rules = ruleset(&Basis {
        site: site.clone(),
        timeouts: BTreeSet::from([10_800]),
    });
    Socket::open()?.commit(&rules.rehearsal()).map(drop)
}
