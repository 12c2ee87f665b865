//! A process by id and start time: an id that has been given to another process is not taken for it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proc {
    pub(super) pid: i32,
    /// Clock ticks after boot: field 22 of /proc/PID/stat.
    pub(super) start: u64,
}

impl Proc {
    /// The process that has this id now; `None` if there is none, or only its remains.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let start = parse_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self { pid, start })
    }

    /// Whether it still runs.
    pub(super) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal; nothing if it has ended.
    pub(super) fn signal(self, signal: Signal) {
        if self.is_alive() {
            // ESRCH is an end in between; root may signal everything.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Its network namespace's path, while it lives.
    pub(super) fn netns(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }

    /// Its folder in /proc, which stays that of this process whoever gets the id next.
    pub(super) fn open(self) -> nix::Result<ProcFolder> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_PATH;
        let folder = open(format!("/proc/{}", self.pid).as_str(), flags, Mode::empty())?;
        if self.is_alive() {
            Ok(ProcFolder(folder))
        } else {
            Err(Errno::ESRCH)
        }
    }
}

/// A process's folder in /proc.
pub(super) struct ProcFolder(OwnedFd);

impl ProcFolder {
    /// Opens one of its namespaces: `net`, `mnt` …
    pub(super) fn namespace(&self, name: &str) -> nix::Result<OwnedFd> {
        openat(
            self.0.as_fd(),
            format!("ns/{name}").as_str(),
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    }
}

/// The start time in /proc/PID/stat; `None` of a zombie. The program's name may hold blanks and parentheses.
fn parse_start(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_a_hostile_name() {
        let stat = "7 (a) S 1 (b) S 1 7 7 0 -1 4194560 10 0 0 0 1 2 3 4 20 0 1 0 4242 99";
        assert_eq!(parse_start(stat), Some(4242));
        assert_eq!(parse_start("7 (x) Z 1 7 7"), None);
        assert_eq!(parse_start(""), None);
    }

    #[test]
    fn the_test_itself_is_alive_and_another_start_is_another_process() {
        let own = Proc::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        let other = Proc {
            start: own.start + 1,
            ..own
        };
        assert!(!other.is_alive());
        assert!(other.open().is_err());
    }
}
