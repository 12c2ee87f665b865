//! A runtime of values, in which plans are carried out.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::agent::memory::{Memory, Probed};
use crate::agent::plan::{Action, Plan, View, plan};
use crate::agent::spec::{self, Role};
use crate::runtime::{
    ContainerConfig, ContainerState, ContainerStatus, SandboxConfig, SandboxStatus,
};

pub struct World {
    pub pod: Pod,
    pub sandboxes: Vec<SandboxStatus>,
    pub containers: Vec<ContainerStatus>,
    pub memory: Memory,
    pub now: Timestamp,
    next: u32,
}

#[derive(Clone, Debug)]
pub enum Happening {
    /// One of those that run ends with a code.
    End(usize, i32),
    SandboxDies,
    /// Seconds.
    Wait(u64),
    Step,
    ProbeFails(usize),
    /// It remembers nothing.
    NewAgent,
}

/// A Pod with this specification.
pub fn pod(spec: Value) -> Pod {
    let meta = json!({"name": "web", "namespace": "default", "uid": "u1", "generation": 1});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

impl World {
    pub fn new(pod: Pod) -> Self {
        Self {
            pod,
            sandboxes: Vec::new(),
            containers: Vec::new(),
            memory: Memory::default(),
            now: "2026-11-26T12:00:00Z".parse().unwrap(),
            next: 0,
        }
    }

    pub fn view(&self) -> View<'_> {
        View {
            pod: &self.pod,
            sandboxes: &self.sandboxes,
            containers: &self.containers,
            memory: &self.memory,
            now: self.now,
        }
    }

    pub fn plan(&self) -> Plan {
        plan(&self.view())
    }

    /// Plans and carries it out.
    pub fn step(&mut self) -> Vec<Action> {
        let actions = self.plan().actions;
        for action in &actions {
            self.apply(action);
        }
        actions
    }

    /// Until nothing is left to do without waiting.
    pub fn settle(&mut self) {
        for _ in 0..30 {
            if self.step().is_empty() {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.plan());
    }

    pub fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::End(which, code) => {
                let now = self.now;
                if let Some(container) = self.running().nth(*which) {
                    end(container, *code, now);
                }
            }
            Happening::SandboxDies => self
                .sandboxes
                .iter_mut()
                .for_each(|sandbox| sandbox.ready = false),
            Happening::Wait(seconds) => self.now += Duration::from_secs(*seconds),
            Happening::Step => drop(self.step()),
            Happening::ProbeFails(which) => {
                let id = self
                    .running()
                    .nth(*which)
                    .map(|container| container.id.clone());
                let probed = Probed {
                    liveness: Some(false),
                    ..Probed::default()
                };
                self.memory.probed.extend(id.map(|id| (id, probed)));
            }
            Happening::NewAgent => self.memory = Memory::default(),
        }
    }

    /// Regular init containers that run end well.
    pub fn finish_init(&mut self) {
        let (pod, now) = (self.pod.clone(), self.now);
        for container in self.running() {
            let role = spec::container(&pod, &container.config.name).map(|(role, _)| role);
            if role == Some(Role::Init) {
                end(container, 0, now);
            }
        }
    }

    /// What always holds.
    pub fn check(&self) {
        for (_, container) in spec::all(&self.pod) {
            let all = self.view().named(&container.name);
            let runs = |status: &&&ContainerStatus| status.state == ContainerState::Running;
            assert!(
                all.iter().filter(runs).count() <= 1,
                "two of {} run",
                container.name
            );
            let mut attempts: Vec<_> = all.iter().map(|status| status.config.attempt).collect();
            attempts.dedup();
            assert_eq!(
                attempts.len(),
                all.len(),
                "numbers of {} are unique",
                container.name
            );
        }
    }

    /// In the order of their names.
    fn running(&mut self) -> impl Iterator<Item = &mut ContainerStatus> {
        let mut all: Vec<_> = self
            .containers
            .iter_mut()
            .filter(|container| container.state == ContainerState::Running)
            .collect();
        all.sort_by(|one, other| one.config.name.cmp(&other.config.name));
        all.into_iter()
    }

    fn apply(&mut self, action: &Action) {
        self.next += 1;
        let number = self.next;
        let now = self.now;
        match action {
            Action::Fail { reason, message } => {
                self.memory.failure = Some(((*reason).to_owned(), (*message).to_owned()));
            }
            Action::StopSandbox { id } => {
                self.memory.stopped.insert(id.clone());
                self.sandboxes
                    .iter_mut()
                    .filter(|one| one.id == *id)
                    .for_each(|one| one.ready = false);
                self.running()
                    .filter(|one| one.sandbox == *id)
                    .for_each(|one| end(one, 137, now));
            }
            Action::RemoveSandbox { id } => {
                self.sandboxes.retain(|one| one.id != *id);
                self.containers.retain(|one| one.sandbox != *id);
            }
            Action::MakeSandbox { attempt, .. } => {
                assert!(self.sandboxes.iter().all(|one| !one.ready), "there is one");
                self.sandboxes.push(SandboxStatus {
                    id: format!("s{number}"),
                    config: SandboxConfig {
                        attempt: *attempt,
                        ..SandboxConfig::default()
                    },
                    ready: true,
                    ips: vec!["10.244.1.2".parse().unwrap()],
                    created: now,
                });
            }
            Action::Kill { id, .. } => {
                self.running()
                    .filter(|one| one.id == *id)
                    .for_each(|one| end(one, 137, now));
            }
            Action::RemoveContainer { id } => self.containers.retain(|one| one.id != *id),
            Action::Start {
                name,
                attempt,
                backoff,
            } => {
                self.memory
                    .restarts
                    .extend(backoff.map(|backoff| (name.clone(), backoff)));
                let sandbox = self
                    .sandboxes
                    .iter()
                    .find(|one| one.ready)
                    .unwrap()
                    .id
                    .clone();
                self.containers.push(ContainerStatus {
                    id: format!("c{number}"),
                    sandbox,
                    pod: spec::reference(&self.pod),
                    config: ContainerConfig {
                        name: name.clone(),
                        attempt: *attempt,
                        ..ContainerConfig::default()
                    },
                    state: ContainerState::Running,
                    created: now,
                    started: Some(now),
                    finished: None,
                    exit_code: None,
                    signal: 0,
                    reason: String::new(),
                    message: String::new(),
                    log: "/log".into(),
                });
            }
        }
    }
}

pub fn end(container: &mut ContainerStatus, code: i32, now: Timestamp) {
    container.state = ContainerState::Exited;
    container.exit_code = Some(code);
    container.finished = Some(now);
    container.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
}
