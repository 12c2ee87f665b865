//! Programs of ours that go on when the command that started them has ended.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kernel::Netns;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process, known by its number and by when it began: numbers are given out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Ticks after the machine's start (`/proc/PID/stat`, field 22).
    pub began: u64,
}

impl Process {
    /// Starts a program with its output in `log`, in a network namespace or the caller's own.
    pub fn start(
        program: &Path,
        arguments: &[String],
        namespace: Option<&Netns>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let what = || format!("start {} {}", program.display(), arguments.join(" "));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let errors = file
            .try_clone()
            .with_context(|| format!("open {}", log.display()))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::from(file))
            .stderr(Stdio::from(errors));
        let child = match namespace {
            Some(namespace) => namespace.run(|| command.spawn())?,
            None => command.spawn(),
        };
        let child = child.with_context(what)?;
        let pid = i32::try_from(child.id()).with_context(what)?;
        let began = began(pid).with_context(what)?;
        Ok(Self { pid, began })
    }

    /// Whether it still runs. One of our own that has ended is laid to rest.
    pub fn alive(&self) -> bool {
        // Only a child of this very process can be waited for; for others this does nothing.
        let _ = nix::sys::wait::waitpid(
            Pid::from_raw(self.pid),
            Some(nix::sys::wait::WaitPidFlag::WNOHANG),
        );
        began(self.pid).is_some_and(|began| began == self.began)
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        if !self.alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("send {signal} to process {}", self.pid))
            }
        }
    }

    /// Ends it: SIGTERM, and after `grace` SIGKILL.
    pub fn stop(&self, grace: Duration) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        if self.gone_within(grace) {
            return Ok(());
        }
        self.signal(Signal::SIGKILL)?;
        if self.gone_within(Duration::from_secs(10)) {
            return Ok(());
        }
        bail!("process {} does not end, though it was killed", self.pid)
    }

    fn gone_within(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.alive() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Bytes that are its own and resident: proportional set size.
    pub fn memory(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .ok()
            .map(|kb| kb << 10)
    }
}

/// When a process began; none if there is no such process, or it is a zombie.
fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        // The first thread may have ended while others still hold what the process had.
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        if threads.count() < 2 {
            return None;
        }
    }
    fields.nth(18)?.parse().ok()
}

/// The processes that keep their data below a folder, as their command lines say, with that place.
pub fn below(folder: &Path) -> Vec<(PathBuf, Process)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let data = data_of(&line)?;
        (data.starts_with(folder) && data != folder).then_some((
            data,
            Process {
                pid,
                began: began(pid)?,
            },
        ))
    })
    .collect()
}

/// Where a program that [`Process::start`] was asked for keeps its data.
fn data_of(line: &[u8]) -> Option<PathBuf> {
    let mut words = line.split(|&byte| byte == 0);
    let data = words.find_map(|word| {
        word.strip_prefix(b"--data=")
            .or_else(|| word.strip_prefix(b"--data-dir="))
    })?;
    Some(PathBuf::from(OsStr::from_bytes(data)))
}

/// The end of a log, for an error.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let arguments = ["5".to_owned()];
        let sleep = Process::start(Path::new("sleep"), &arguments, None, &log).unwrap();
        assert!(sleep.alive());
        let other = Process {
            began: sleep.began + 1,
            ..sleep.clone()
        };
        assert!(!other.alive());
        assert_eq!(below(folder.path()), []);
        sleep.stop(Duration::from_secs(5)).unwrap();
        assert!(!sleep.alive());
    }

    #[test]
    fn what_nobody_wrote_down_is_found_by_its_data() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let data = folder.path().join("server");
        // `sh` takes what comes after its script as names that the script may use.
        let arguments = [
            "-c".to_owned(),
            "sleep 5; :".to_owned(),
            format!("--data={}", data.display()),
        ];
        let stray = Process::start(Path::new("sh"), &arguments, None, &log).unwrap();
        assert_eq!(below(folder.path()), [(data, stray.clone())]);
        assert_eq!(below(&folder.path().join("serve")), []);
        stray.stop(Duration::ZERO).unwrap();
    }
}
