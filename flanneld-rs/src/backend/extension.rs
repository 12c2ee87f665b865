//! `extension`: the operator's commands join the nodes.
//!
//! As in flannel since 2026: a command is expanded (`$VAR`), split on blanks and executed without a
//! shell. What a command did cannot be observed, so a command that succeeded runs once per change.
//! One that failed is repeated with growing pauses, except for `SubnetRemoveCommand`, and the node is
//! not ready until it succeeds.

mod command;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Announcement, Backend, Desired, Report};
use crate::config::{NetworkConfig, backend};
use crate::lease::{BackendData, Lease, Subnet};
use crate::peers::PeerChange;
use crate::uplink::Uplink;

const NAME: &str = "extension";
/// Longest pause before a failed command runs again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Remembers for which peers the add command has run.
pub struct Extension {
    commands: backend::Extension,
    network: String,
    started: Option<String>,
    post_started: Option<Subnet>,
    /// The add command has run; whether it succeeded is told by `failed`.
    added: BTreeMap<Subnet, Arc<Lease>>,
    failed: BTreeMap<Subnet, Failure>,
}

/// An add command that failed.
struct Failure {
    error: String,
    attempts: u32,
    again_at: Instant,
}

impl Extension {
    /// Nothing runs yet.
    pub fn new(config: &NetworkConfig, commands: backend::Extension) -> Self {
        for text in [
            &commands.pre_startup,
            &commands.post_startup,
            &commands.subnet_add,
            &commands.subnet_remove,
        ] {
            if command::wants_shell(text) {
                tracing::warn!(
                    "extension command runs without a shell: quotes, pipes and ; in \"{text}\" are passed as they are; \
                     put them in a script and name the script"
                );
            }
        }
        let network = config
            .v4
            .map(|range| range.network.to_string())
            .unwrap_or_default();
        Self {
            commands,
            network,
            started: None,
            post_started: None,
            added: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    fn peer_env(lease: &Lease) -> [(&'static str, String); 4] {
        fn text<T: ToString>(value: Option<T>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        [
            ("SUBNET", text(lease.subnet.v4)),
            ("IPV6SUBNET", text(lease.subnet.v6)),
            ("PUBLIC_IP", text(lease.attrs.public_ip)),
            ("PUBLIC_IPV6", text(lease.attrs.public_ipv6)),
        ]
    }

    /// What a peer's pre-startup command printed, which its add and remove commands read.
    fn peer_input(lease: &Lease) -> Result<String, serde_json::Error> {
        lease
            .attrs
            .backend_data
            .as_ref()
            .map_or_else(|| Ok(String::new()), BackendData::parse)
    }

    /// Runs a command for one peer; the error is a text for the operator.
    fn run_for_peer(
        kind: &'static str,
        text: &str,
        peer: &Lease,
        report: &mut Report,
    ) -> Result<(), String> {
        if text.is_empty() {
            return Ok(());
        }
        let output = Self::peer_input(peer)
            .map_err(anyhow::Error::from)
            .and_then(|input| command::run(text, &Self::peer_env(peer), &input))
            .map_err(|error| format!("extension command for {}: {error:#}", peer.subnet))?;
        tracing::info!("ran \"{text}\" for {}: {output}", peer.subnet);
        report.changed(kind, || text.to_owned());
        Ok(())
    }

    fn add(&mut self, peer: &Arc<Lease>, report: &mut Report) {
        let text = &self.commands.subnet_add;
        let result = Self::run_for_peer("subnet add command", text, peer, report);
        self.added.insert(peer.subnet, Arc::clone(peer));
        let before = self.failed.remove(&peer.subnet);
        if let Err(error) = result {
            report.failed(&error);
            let attempts = before.map_or(0, |failure| failure.attempts) + 1;
            let pause = Duration::from_secs(1 << (attempts - 1).min(6)).min(LONGEST_PAUSE);
            let failure = Failure {
                error,
                attempts,
                again_at: Instant::now() + pause,
            };
            self.failed.insert(peer.subnet, failure);
        }
    }

    fn remove(&mut self, peer: &Lease, report: &mut Report) {
        let text = &self.commands.subnet_remove;
        if let Err(error) = Self::run_for_peer("subnet remove command", text, peer, report) {
            report.failed(error);
        }
        self.added.remove(&peer.subnet);
        self.failed.remove(&peer.subnet);
    }

    /// Repeats the failed add commands whose pause is over; the others stay reported.
    fn add_again(&mut self, report: &mut Report) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (subnet, failure) in &self.failed {
            match self.added.get(subnet) {
                Some(peer) if failure.again_at <= now => due.push(Arc::clone(peer)),
                _ => report.failed(&failure.error),
            }
        }
        for peer in due {
            self.add(&peer, report);
        }
    }

    fn post_start(&mut self, own: &Lease, report: &mut Report) {
        let text = &self.commands.post_startup;
        if text.is_empty() || self.post_started == Some(own.subnet) {
            return;
        }
        let mut env = Self::peer_env(own).to_vec();
        env.push(("NETWORK", self.network.clone()));
        match command::run(text, &env, "") {
            Ok(output) => {
                tracing::info!("ran \"{text}\": {output}");
                report.changed("post-startup command", || text.clone());
                self.post_started = Some(own.subnet);
            }
            Err(error) => report.failed(format!("post-startup command: {error:#}")),
        }
    }

    fn stale(&self, desired: &Desired) -> Vec<Arc<Lease>> {
        let gone = |lease: &&Arc<Lease>| desired.peers.get(&lease.subnet) != Some(*lease);
        self.added.values().filter(gone).cloned().collect()
    }

    fn missing(&self, desired: &Desired) -> Vec<Arc<Lease>> {
        let absent = |lease: &&Arc<Lease>| self.added.get(&lease.subnet) != Some(*lease);
        desired.peers.iter().filter(absent).cloned().collect()
    }
}

impl Backend for Extension {
    fn peer_types(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn prepare(
        &mut self,
        _uplink: &Uplink,
        _previous: Option<&Lease>,
    ) -> anyhow::Result<Announcement> {
        if self.started.is_none() && !self.commands.pre_startup.is_empty() {
            let output = command::run(&self.commands.pre_startup, &[], "")?;
            tracing::info!("ran \"{}\": {output}", self.commands.pre_startup);
            self.started = Some(output);
        }
        Ok(self.announcement())
    }

    fn announcement(&self) -> Announcement {
        Announcement {
            backend_type: NAME,
            data: self.started.as_ref().map(BackendData::new),
            data_v6: None,
        }
    }

    fn mtu(&self, uplink: &Uplink) -> u32 {
        uplink.mtu
    }

    fn plan(&mut self, desired: &Desired) -> anyhow::Result<Vec<String>> {
        let line = |text: &str, lease: &Lease| {
            let env = Self::peer_env(lease).map(|(key, value)| format!("{key}={value}"));
            format!("{} {text}", env.join(" "))
        };
        let mut lines = Vec::new();
        if !self.commands.pre_startup.is_empty() && self.started.is_none() {
            lines.push(self.commands.pre_startup.clone());
        }
        if !self.commands.post_startup.is_empty() && self.post_started != Some(desired.own.subnet) {
            lines.push(line(&self.commands.post_startup, &desired.own));
        }
        if !self.commands.subnet_remove.is_empty() {
            lines.extend(
                self.stale(desired)
                    .iter()
                    .map(|lease| line(&self.commands.subnet_remove, lease)),
            );
        }
        if !self.commands.subnet_add.is_empty() {
            lines.extend(
                self.missing(desired)
                    .iter()
                    .map(|lease| line(&self.commands.subnet_add, lease)),
            );
        }
        Ok(lines)
    }

    fn reconcile(&mut self, desired: &Desired) -> Report {
        let mut report = Report::default();
        self.post_start(&desired.own, &mut report);
        for lease in self.stale(desired) {
            self.remove(&lease, &mut report);
        }
        self.add_again(&mut report);
        for lease in self.missing(desired) {
            self.add(&lease, &mut report);
        }
        report
    }

    fn update(&mut self, _desired: &Desired, changes: &[PeerChange]) -> Report {
        let mut report = Report::default();
        for change in changes {
            match change {
                PeerChange::Added(lease) => self.add(lease, &mut report),
                PeerChange::Changed { old, new } => {
                    self.remove(old, &mut report);
                    self.add(new, &mut report);
                }
                PeerChange::Removed(lease) => self.remove(lease, &mut report),
            }
        }
        report
    }

    fn cleanup(&mut self) -> Report {
        Report::default()
    }
}

#[cfg(test)]
mod tests;
