//! Node ports on loopback, beside a mode whose kernel rules cannot serve them: a packet with source 127.0.0.1 must not
//! leave the host, so it takes a process to carry what it says.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::counters::Counters;
use super::engine::Engine;
use super::fronts::Scope;
use super::surroundings::Surroundings;
use super::{Options, stickiness};
use crate::mode::Report;
use crate::model::{Changed, Family, LocalDetector, Wanted};

/// Forwards TCP node ports of 127.0.0.1 or ::1. It binds nothing else, and makes no routes.
pub struct Loopback {
    options: Options,
    counters: Arc<Counters>,
    address: IpAddr,
    engine: Option<Engine>,
    incomplete: bool,
}

impl Loopback {
    /// For a family. Threads and sockets are made by the first [`Loopback::sync`], in the network namespace of the
    /// thread that calls it, and end when this is dropped.
    pub fn new(family: Family, options: Options) -> Self {
        Self {
            options,
            counters: Arc::default(),
            address: match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            },
            engine: None,
            incomplete: false,
        }
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// As [`Mode::sync`](crate::mode::Mode::sync): listens on the node ports that there are, and on no others.
    pub fn sync(&mut self, wanted: &Wanted, changed: &Changed) -> Report {
        let report = self.sync_or_fail(wanted, changed);
        let report = report.unwrap_or_else(|error| Report {
            errors: vec![format!("{error:#}")],
            ..Report::default()
        });
        self.incomplete = !report.errors.is_empty();
        report
    }

    /// As [`Userspace::drain`](super::Userspace::drain).
    pub fn drain(&mut self, limit: Duration) -> bool {
        self.incomplete = true;
        match &mut self.engine {
            Some(engine) => engine.drain(limit, &self.counters),
            None => true,
        }
    }

    fn sync_or_fail(&mut self, wanted: &Wanted, changed: &Changed) -> anyhow::Result<Report> {
        // Every client is the node itself.
        let around = Surroundings {
            own: BTreeSet::from([self.address]),
            next_hops: BTreeSet::new(),
            node_ports: BTreeSet::from([self.address]),
            pods: LocalDetector::None,
            stickiness: stickiness(&wanted.site, &self.options),
        };
        let full = *changed == Changed::All || self.incomplete || self.engine.is_none();
        let engine = match &mut self.engine {
            Some(engine) => engine,
            none => {
                let scope = Scope::TcpNodePorts;
                let engine = Engine::start(scope, around.clone(), &self.options, &self.counters)?;
                none.insert(engine)
            }
        };
        Ok(engine.sync(wanted, changed, full.then_some(around), None))
    }
}
