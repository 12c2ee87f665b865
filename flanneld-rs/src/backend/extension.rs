//! `extension`: the operator's commands join the nodes.
//!
//! As in flannel since 2026: a command is expanded (`$VAR`), split on blanks and executed without a
//! shell. What a command did cannot be observed, so a command runs once per change and is not
//! repeated after it failed; `PostStartupCommand` alone is repeated until it succeeds.

mod command;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::{Announcement, Backend, Desired, Report};
use crate::config::{NetworkConfig, backend};
use crate::lease::{BackendData, Lease, Subnet};
use crate::peers::PeerChange;
use crate::uplink::Uplink;

const NAME: &str = "extension";

/// Remembers for which peers the add command has run.
pub struct Extension {
    commands: backend::Extension,
    network: String,
    started: Option<String>,
    post_started: Option<Subnet>,
    added: BTreeMap<Subnet, Arc<Lease>>,
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

    fn run_for_peer(&self, kind: &'static str, text: &str, peer: &Lease, report: &mut Report) {
        if text.is_empty() {
            return;
        }
        let result = Self::peer_input(peer)
            .map_err(anyhow::Error::from)
            .and_then(|input| command::run(text, &Self::peer_env(peer), &input));
        match result {
            Ok(output) => {
                tracing::info!("ran \"{text}\" for {}: {output}", peer.subnet);
                report.changed(kind, || text.to_owned());
            }
            Err(error) => {
                report.failed(format!("extension command for {}: {error:#}", peer.subnet))
            }
        }
    }

    fn add(&mut self, peer: &Arc<Lease>, report: &mut Report) {
        self.run_for_peer(
            "subnet add command",
            &self.commands.subnet_add,
            peer,
            report,
        );
        self.added.insert(peer.subnet, Arc::clone(peer));
    }

    fn remove(&mut self, peer: &Lease, report: &mut Report) {
        self.run_for_peer(
            "subnet remove command",
            &self.commands.subnet_remove,
            peer,
            report,
        );
        self.added.remove(&peer.subnet);
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
