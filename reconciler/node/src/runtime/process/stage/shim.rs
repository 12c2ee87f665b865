//! `shim`: starts a container's process and looks after it: its output to the log, those that attach, its end.
//!
//! The agent may come and go. Standard input is the container's listening socket, standard output is where the shim
//! says `ok` once the program has been executed, or why it could not be; standard error is `shim.log` in the folder,
//! the working directory. It ends after the container has, and after `exit.json` is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, chdir, dup2_stdin, dup2_stdout, setsid};

use super::super::cgroup;
use super::super::log::Log;
use super::super::proc::Proc;
use super::super::record::{self, Exit, Processes, Start, Started};
use super::super::sys;
use super::child;
use super::relay::{Ended, Ends, Relay};

/// More than an exit record needs, but for its text.
const RESERVED: usize = 4096;

pub(super) fn run(folder: &Path) -> anyhow::Result<()> {
    chdir(folder).with_context(|| format!("enter {}", folder.display()))?;
    setsid().context("leave the agent's session")?;
    let listener = UnixListener::from(
        io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("take the socket")?,
    );
    let mut report = File::from(
        io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .context("take the report's pipe")?,
    );
    let null: OwnedFd = File::open("/dev/null").context("open /dev/null")?.into();
    dup2_stdin(&null).context("close standard input")?;
    dup2_stdout(&null).context("close standard output")?;
    drop(null);
    let signals = watch_children()?;
    let start: Start = record::read(Path::new("start.json"))?.context("there is no start.json")?;
    let exit = ExitFile::reserve()?;
    let log = Log::open(&start.log, start.log_max_size, start.log_max_files)
        .with_context(|| format!("open the log {}", start.log.display()))?;
    let (process, ends) = match begin(&start) {
        Ok(begun) => begun,
        Err(error) => {
            let text = format!("{error:#}");
            exit.write(&Exit {
                code: 128,
                signal: 0,
                finished: Timestamp::now(),
                oom: false,
                failure: Some(text.clone()),
            })?;
            return report
                .write_all(text.as_bytes())
                .context("report a failure");
        }
    };
    let own = Proc::of(Pid::this().as_raw()).context("find the shim's own start time")?;
    // One that has ended already, and is not yet waited for, has no start time to tell it by: nothing is killed by it.
    let child = Proc::of(process.as_raw()).unwrap_or(Proc {
        pid: process.as_raw(),
        start: 0,
    });
    record::write(
        Path::new("started.json"),
        &Started {
            process: child,
            shim: own,
            at: Timestamp::now(),
        },
    )
    .context("write started.json")?;
    report.write_all(b"ok").context("report the start")?;
    drop(report);
    let mut relay = Relay::of_container(
        process,
        signals,
        listener,
        ends,
        log,
        start.stdin_once,
        &start.cgroups,
    )?;
    let ended = relay.run()?;
    let Ended { code, signal } = ended;
    relay.finish(code);
    let oom = cgroup::was_out_of_memory(&start.cgroups);
    exit.write(&Exit {
        code,
        signal,
        finished: Timestamp::now(),
        oom,
        failure: None,
    })?;
    cgroup::remove(&start.cgroups);
    Ok(())
}

/// SIGCHLD by a descriptor; what would end the shim is held off, for it must end after its container.
pub(super) fn watch_children() -> anyhow::Result<SignalFd> {
    let mut held = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        held.add(signal);
    }
    held.thread_block().context("block signals")?;
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("watch for the child's end")
}

fn begin(start: &Start) -> anyhow::Result<(Pid, Ends)> {
    let alone = sys::SingleThreaded::check().context("fork")?;
    let (status, child_status) = UnixStream::pair().context("make a socket")?;
    let (stdio, mut ends) = child::streams(start.tty, start.stdin)?;
    match start.processes {
        Processes::Own => unshare(CloneFlags::CLONE_NEWPID).context("make a PID namespace")?,
        Processes::Host => {}
        Processes::Sandbox => {
            let pause = start
                .pause
                .open()
                .context("the sandbox's pause process has ended")?;
            let namespace = pause
                .namespace("pid")
                .context("open the sandbox's PID namespace")?;
            setns(namespace, CloneFlags::CLONE_NEWPID)
                .context("enter the sandbox's PID namespace")?;
        }
    }
    let Some(process) = alone.fork().context("fork")? else {
        child::end(&child_status, || child::start(start, stdio, &child_status));
    };
    drop((child_status, stdio));
    if let Err(error) = child::confine(process, &start.cgroups, &status) {
        kill(process, Signal::SIGKILL).context("end the container's process")?;
        waitpid(process, None).context("wait for the container's process")?;
        return Err(error);
    }
    child::await_program(process, &status, &mut ends)?;
    Ok((process, ends))
}

/// Where the end will be written. The space is taken at the beginning: a full disk must not lose an exit code.
struct ExitFile(File);

impl ExitFile {
    fn reserve() -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open("exit.new");
        let file = file.context("make exit.new")?;
        file.write_all_at(&[b' '; RESERVED], 0)
            .context("make exit.new")?;
        Ok(Self(file))
    }

    fn write(&self, exit: &Exit) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(exit).context("write the exit record")?;
        self.0
            .write_all_at(&bytes, 0)
            .context("write the exit record")?;
        self.0
            .set_len(bytes.len() as u64)
            .context("write the exit record")?;
        fs::rename("exit.new", "exit.json").context("write the exit record")
    }
}
