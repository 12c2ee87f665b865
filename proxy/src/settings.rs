//! What of the node itself is set at start: connection tracking, route_localnet, our oom_score_adj.
//!
//! [`wanted`] says what shall be, [`observe`] what is, [`plan`] the difference, [`apply`] makes it so.
//! Limits are only raised; everything else is set to what was asked for. In a network namespace that
//! is not the host's the kernel keeps some of them read-only: that is said once, and we go on.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fmt, fs, io};

use crate::config::Conntrack;

/// The most connections that the limit is raised to by the number of cores (kube-proxy 1.36).
const MAX: u64 = 1_048_576;
/// Connections for each bucket of the hash table.
const PER_BUCKET: u64 = 4;

const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// Something with a number as its value. Prints as its name for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// A kernel parameter below /proc/sys.
    Sysctl(&'static str),
    /// The number of buckets of the connection table, of all namespaces together.
    Hashsize,
    /// How willing the kernel is to kill us for memory.
    OomScoreAdj,
}

impl fmt::Display for Setting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Sysctl(key) => key,
            Self::Hashsize => HASHSIZE,
            Self::OomScoreAdj => OOM_SCORE_ADJ,
        })
    }
}

/// What a setting shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// This or more.
    AtLeast(i64),
    /// This.
    Exactly(i64),
}

/// A change that is to be made. Prints as a command that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of what.
    pub setting: Setting,
    /// What it is.
    pub from: i64,
    /// What it shall be.
    pub to: i64,
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, from, to } = self;
        match setting {
            Setting::Sysctl(key) => write!(out, "sysctl -w {key}={to} # is {from}"),
            Setting::Hashsize | Setting::OomScoreAdj => {
                write!(out, "echo {to} > {setting} # is {from}")
            }
        }
    }
}

/// What shall be, for so many cores.
pub fn wanted(
    conntrack: &Conntrack,
    cores: usize,
    route_localnet: bool,
    oom_score_adj: i16,
) -> BTreeMap<Setting, Value> {
    use Setting::{Hashsize, OomScoreAdj, Sysctl};
    let mut wanted = BTreeMap::from([(OomScoreAdj, Value::Exactly(oom_score_adj.into()))]);
    if let Some(max) = connections(conntrack, cores) {
        let max_key = Sysctl("net.netfilter.nf_conntrack_max");
        wanted.insert(max_key, Value::AtLeast(whole(max)));
        wanted.insert(Hashsize, Value::AtLeast(whole(max / PER_BUCKET)));
    }
    for (key, time) in [
        (
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            conntrack.tcp_established,
        ),
        (
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
            conntrack.tcp_close_wait,
        ),
        ("net.netfilter.nf_conntrack_udp_timeout", conntrack.udp),
        (
            "net.netfilter.nf_conntrack_udp_timeout_stream",
            conntrack.udp_stream,
        ),
    ] {
        if let Some(seconds) = seconds(time) {
            wanted.insert(Sysctl(key), Value::Exactly(seconds));
        }
    }
    if conntrack.tcp_be_liberal {
        wanted.insert(Sysctl(LIBERAL), Value::Exactly(1));
    }
    if route_localnet {
        let key = "net.ipv4.conf.all.route_localnet";
        wanted.insert(Sysctl(key), Value::Exactly(1));
    }
    wanted
}

const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";

/// Whether packets outside the window are tracked, in the calling thread's network namespace. False
/// without connection tracking.
pub fn conntrack_is_liberal() -> bool {
    read(Setting::Sysctl(LIBERAL)).is_ok_and(|value| value != 0)
}

/// How many connections shall be tracked; `None`: as many as are. The floor is the operator's own
/// word and goes before the cap.
fn connections(conntrack: &Conntrack, cores: usize) -> Option<u64> {
    if conntrack.max_per_core == 0 {
        return None;
    }
    let by_cores = u64::from(conntrack.max_per_core).saturating_mul(cores as u64);
    Some(by_cores.min(MAX).max(conntrack.min.into()))
}

/// Whole seconds, at least one; `None`: the kernel's value is left alone.
fn seconds(time: Duration) -> Option<i64> {
    // The kernel keeps these in a signed int of ticks.
    let most = u64::from(i32::MAX.unsigned_abs()) / 1000;
    (!time.is_zero()).then(|| whole(time.as_secs().clamp(1, most)))
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is, in the calling thread's network namespace, of the settings that are there, and which
/// could not be read.
pub fn observe(wanted: &BTreeMap<Setting, Value>) -> (BTreeMap<Setting, i64>, Vec<Problem>) {
    let mut found = BTreeMap::new();
    let mut problems = Vec::new();
    for setting in wanted.keys() {
        match read(*setting) {
            Ok(value) => _ = found.insert(*setting, value),
            // Without the module nf_conntrack there is nothing to set, nor does anything need it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => problems.push(Problem {
                what: format!("read {setting}"),
                cause,
            }),
        }
    }
    (found, problems)
}

/// What is to be changed.
pub fn plan(wanted: &BTreeMap<Setting, Value>, found: &BTreeMap<Setting, i64>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (setting, value) in wanted {
        let Some(&from) = found.get(setting) else {
            continue;
        };
        let to = match *value {
            Value::AtLeast(least) => least.max(from),
            Value::Exactly(value) => value,
        };
        if to != from {
            changes.push(Change {
                setting: *setting,
                from,
                to,
            });
        }
    }
    changes
}

/// A setting that could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct Problem {
    /// What was tried.
    pub what: String,
    /// What the system said.
    pub cause: io::Error,
}

impl Problem {
    /// Whether the kernel, a mount or our own rights do not let us: nothing that trying again helps.
    pub fn is_refused(&self) -> bool {
        matches!(
            self.cause.raw_os_error(),
            Some(libc::EROFS | libc::EACCES | libc::EPERM | libc::EOPNOTSUPP)
        )
    }
}

/// Makes the changes, all that can be made; returns those that could not.
pub fn apply(changes: &[Change]) -> Vec<Problem> {
    let failed = |change: &Change| {
        let Change { setting, to, .. } = change;
        write(*setting, *to).err().map(|cause| Problem {
            what: format!("set {setting} to {to}"),
            cause,
        })
    };
    changes.iter().filter_map(failed).collect()
}

/// All of it, with what could not be done in the log: what is refused in one line.
pub fn run(wanted: &BTreeMap<Setting, Value>) {
    let (found, mut problems) = observe(wanted);
    problems.extend(apply(&plan(wanted, &found)));
    let (refused, failed): (Vec<_>, Vec<_>) = problems.into_iter().partition(Problem::is_refused);
    // Which process the kernel ends when memory is short is no matter of the network.
    let (harmless, refused): (Vec<_>, Vec<_>) = refused
        .into_iter()
        .partition(|problem| problem.what.contains(OOM_SCORE_ADJ));
    for problem in harmless {
        tracing::debug!("{problem}");
    }
    for problem in failed {
        tracing::error!("{problem}");
    }
    if !refused.is_empty() {
        let texts: Vec<_> = refused.iter().map(ToString::to_string).collect();
        tracing::warn!(
            "some settings cannot be changed from here and stay as they are; set them on the host, \
             or have them left alone by --conntrack-max-per-core=0 and times of 0: {}",
            texts.join("; ")
        );
    }
}

fn path(setting: Setting) -> std::path::PathBuf {
    match setting {
        Setting::Sysctl(key) => ["/proc/sys", &key.replace('.', "/")].iter().collect(),
        Setting::Hashsize => HASHSIZE.into(),
        Setting::OomScoreAdj => OOM_SCORE_ADJ.into(),
    }
}

fn read(setting: Setting) -> io::Result<i64> {
    let text = fs::read_to_string(path(setting))?;
    text.trim().parse().map_err(io::Error::other)
}

fn write(setting: Setting, value: i64) -> io::Result<()> {
    fs::write(path(setting), value.to_string())
}

#[cfg(test)]
mod tests;
