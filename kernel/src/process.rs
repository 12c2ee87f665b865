//! Running the programs that own a kernel interface for us (`nft`, `iptables-restore`).
//!
//! Arguments are passed as a vector and never through a shell.

use std::{
    env, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Error, Result};

/// How long a program may take: more than any wait of its own for a lock.
const LIMIT: Duration = Duration::from_secs(90);
/// Where system programs are, for callers that run with a bare environment.
const FALLBACK_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path of an executable program, from PATH and then the system's own directories.
pub fn find(program: &str) -> Option<PathBuf> {
    let given = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&given)
        .chain(env::split_paths(FALLBACK_PATH))
        .map(|dir| dir.join(program))
        .find(|path| {
            path.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// Runs a program to its end with `input` on stdin; its standard output if it succeeded, else an
/// error with what it wrote to stderr. `what` names the operation.
pub fn run(what: &str, program: &str, arguments: &[&str], input: &str) -> Result<String> {
    run_within(what, program, arguments, input, LIMIT)
}

/// As [`run`], for a program that may take `limit` before it is killed.
pub fn run_within(
    what: &str,
    program: &str,
    arguments: &[&str],
    input: &str,
    limit: Duration,
) -> Result<String> {
    let error = |cause: io::Error| Error::new(what, cause);
    let path = find(program).ok_or_else(|| {
        Error::other(
            what,
            format!("program {program} not found (install the package that has it)"),
        )
    })?;
    let mut child = Command::new(path)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(error)?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // A thread of its own: a program that answers before it has read all must not block us.
        let writer = scope.spawn(move || match stdin {
            Some(mut stdin) => match stdin.write_all(input.as_bytes()) {
                // It stopped reading because it found a mistake, which its stderr tells.
                Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                other => other,
            },
            None => Ok(()),
        });
        // Another: a program that hangs must not hang us.
        let pid = Pid::from_raw(child.id().cast_signed());
        let (ended, waiting) = mpsc::channel::<()>();
        let watchdog = scope.spawn(move || {
            let hangs = waiting.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            // Not reaped yet, so the number is still its own; an error means that it just ended.
            hangs && kill(pid, Signal::SIGKILL).is_ok()
        });
        let output = child.wait_with_output();
        drop(ended);
        if watchdog.join().unwrap_or(false) {
            return Err(io::Error::other(format!(
                "{program} did not end within {} s and was killed",
                limit.as_secs()
            )));
        }
        match writer.join() {
            Ok(written) => written.and(output),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
    .map_err(error)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.trim();
    Err(Error::other(
        what,
        if complaint.is_empty() {
            format!("{program} ended with {}", output.status)
        } else {
            format!("{program}: {complaint}")
        },
    ))
}
