//! A network namespace of the run: commands, sockets and settings inside it.

use crate::process::{self, Process};
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A named network namespace (`/run/netns/<name>`). A cheap handle; the [`crate::Run`] owns it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: Arc<str>,
}

impl Namespace {
    pub(crate) fn of_name(name: &str) -> Self {
        Self { name: name.into() }
    }

    /// Its name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, as `CNI_NETNS` wants it.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&*self.name)
    }

    /// Runs `job` on a thread of its own inside the namespace. A socket or a child process that is
    /// made there stays in the namespace also when it is used from elsewhere.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        kernel::Netns::open(self.path())?.run(job)?
    }

    /// Runs a program inside to its end; returns its output.
    pub fn exec<I: AsRef<OsStr> + Sync>(&self, program: &str, args: &[I]) -> Result<String> {
        self.run(|| process::run(Command::new(program).args(args)))
            .with_context(|| format!("in {}", self.name))
    }

    /// Runs a program inside, its words parted by blanks: `sh("ip route show")`.
    pub fn sh(&self, line: &str) -> Result<String> {
        let words: Vec<_> = line.split_whitespace().collect();
        let Some((program, args)) = words.split_first() else {
            bail!("an empty command line");
        };
        self.exec(program, args)
    }

    /// Runs many `ip` command lines in one process; the first failure ends it.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        self.run(|| {
            process::run_with_input(Command::new("ip").args(["-batch", "-"]), lines).map(drop)
        })
        .with_context(|| format!("in {}: ip -batch:\n{lines}", self.name))
    }

    /// Starts a background process inside.
    pub fn spawn(&self, name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        self.run(|| Process::spawn(name, command, log))
    }

    /// Reads a setting such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        self.run(|| {
            let path = Path::new("/proc/sys").join(key);
            let value = std::fs::read_to_string(&path)
                .with_context(|| format!("read {}", path.display()))?;
            Ok(value.trim().to_owned())
        })
    }

    /// Writes a setting such as `net/ipv4/ip_forward`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| {
            let path = Path::new("/proc/sys").join(key);
            std::fs::write(&path, value).with_context(|| format!("write {}", path.display()))
        })
    }

    /// A counter of `/proc/net/snmp` or of `netstat` beside it, for example `("Ip", "FragCreates")`.
    pub fn snmp(&self, group: &str, counter: &str) -> Result<u64> {
        let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let text = self.run(|| Ok(read("snmp")? + &read("netstat")?))?;
        parse_snmp(&text, group, counter)
            .with_context(|| format!("no counter {group} {counter} in {}", self.name))
    }

    /// A counter of `/proc/net/snmp6`, for example `Ip6FragCreates`.
    pub fn snmp6(&self, counter: &str) -> Result<u64> {
        let text = self.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp6")?))?;
        text.lines()
            .find_map(|line| line.strip_prefix(counter)?.trim().parse().ok())
            .with_context(|| format!("no counter {counter} in {}", self.name))
    }
}

/// Finds a counter in the two-line form of `/proc/net/snmp`: a line of names, a line of values.
fn parse_snmp(text: &str, group: &str, counter: &str) -> Option<u64> {
    let prefix = format!("{group}:");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let names = lines.next()?.split_whitespace();
    let mut values = lines.next()?.split_whitespace();
    let position = names.clone().position(|name| name == counter)?;
    values.nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_snmp;

    #[test]
    fn counter_is_found_below_its_name() {
        let text = "Ip: Forwarding FragCreates\nIp: 1 42\nTcp: A B\nTcp: 7 8\n";
        assert_eq!(parse_snmp(text, "Ip", "FragCreates"), Some(42));
        assert_eq!(parse_snmp(text, "Tcp", "B"), Some(8));
        assert_eq!(parse_snmp(text, "Tcp", "C"), None);
    }
}
