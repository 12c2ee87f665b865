//! A stage's child: from the fork to the execution of the container's program.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, pipe2, setsid};

use super::super::record::Start;
use super::super::sys;
use super::relay::Ends;
use super::{privileges, root, user};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program gets as standard input, output and errors.
pub(super) enum Stdio {
    /// These.
    Pipes([OwnedFd; 3]),
    /// A new terminal of the container's own; the other end goes to the stage.
    Terminal,
}

/// The program's ends, and the stage's ends, of its streams; a terminal's come by [`await_program`].
pub(super) fn streams(tty: bool, stdin: bool) -> anyhow::Result<(Stdio, Ends)> {
    if tty {
        return Ok((Stdio::Terminal, Ends::default()));
    }
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("make a pipe");
    let ((output, stdout), (errors, stderr)) = (pipe()?, pipe()?);
    let (from, input) = if stdin {
        let (from, to) = pipe()?;
        (from, Some(to.into()))
    } else {
        (
            fs::File::open("/dev/null")
                .context("open /dev/null")?
                .into(),
            None,
        )
    };
    let ends = Ends {
        input,
        output: Some(output.into()),
        errors: Some(errors.into()),
        terminal: false,
    };
    Ok((Stdio::Pipes([from, stdout, stderr]), ends))
}

/// Runs `work`, which ends in another program, in a child; why it could not, it says on `status`.
pub(super) fn end(status: &UnixStream, work: impl FnOnce() -> anyhow::Result<Infallible>) -> ! {
    let Err(error) = work();
    let mut status = status;
    // If the stage is gone nobody is there to be told.
    let _ = status.write_all(format!("{error:#}").as_bytes());
    std::process::exit(1)
}

/// Puts the child into its cgroups while it makes its root, for the kernel takes its time over that, and lets it go on.
pub(super) fn confine(
    process: Pid,
    cgroups: &[PathBuf],
    mut status: &UnixStream,
) -> anyhow::Result<()> {
    for cgroup in cgroups {
        match fs::write(cgroup.join("cgroup.procs"), process.to_string()) {
            // It has ended already: what it says comes by `status`.
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(()),
            other => other.with_context(|| format!("enter {}", cgroup.display()))?,
        }
    }
    match status.write_all(&[0]) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("let the container's process go on")
        }
        _ => Ok(()),
    }
}

/// Waits until the child has executed its program. The error is the child's own text.
pub(super) fn await_program(
    process: Pid,
    status: &UnixStream,
    ends: &mut Ends,
) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let (length, descriptors) = match sys::receive_descriptors(status.as_fd(), &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // It ended before it read that it may go on.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            other => other.context("read the child's state")?,
        };
        for master in descriptors {
            let master = fs::File::from(master);
            ends.input = Some(master.try_clone().context("copy the terminal")?);
            ends.output = Some(master);
            ends.terminal = true;
        }
        if length == 0 {
            break;
        }
        text.extend(buffer[..length].iter().filter(|&&byte| byte != 0));
    }
    if text.is_empty() {
        return Ok(());
    }
    waitpid(process, None).context("wait for the child")?;
    Err(anyhow!("{}", String::from_utf8_lossy(&text)))
}

/// Enters the sandbox, makes the root, and once [`confine`] is done executes the container's program. The working
/// directory is its folder.
pub(super) fn start(
    start: &Start,
    stdio: Stdio,
    status: &UnixStream,
) -> anyhow::Result<Infallible> {
    set_pdeathsig(Signal::SIGKILL).context("end with the shim")?;
    let pause = start
        .pause
        .open()
        .context("the sandbox's pause process has ended")?;
    let shm = if start.host_ipc {
        sys::open_tree(Path::new("/dev/shm")).context("take the node's /dev/shm")?
    } else {
        root::shared_memory(&pause)?
    };
    for name in ["net", "ipc", "uts"] {
        let namespace = pause
            .namespace(name)
            .with_context(|| format!("open the sandbox's {name} namespace"))?;
        setns(namespace, CloneFlags::empty())
            .with_context(|| format!("enter the sandbox's {name} namespace"))?;
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare mounts")?;
    root::enter(start, &shm)?;
    drop(shm);
    let mut shim = status;
    shim.read_exact(&mut [0])
        .context("wait for the shim to set the limits")?;
    unshare(CloneFlags::CLONE_NEWCGROUP).context("unshare cgroups")?;
    execute(start, &start.arguments, stdio, status)
}

/// Executes a program in the root that the process is in.
pub(super) fn execute(
    start: &Start,
    arguments: &[String],
    stdio: Stdio,
    status: &UnixStream,
) -> anyhow::Result<Infallible> {
    setsid().context("start a session")?;
    let tty = matches!(stdio, Stdio::Terminal);
    let [stdin, stdout, stderr] = match stdio {
        Stdio::Pipes(pipes) => pipes,
        Stdio::Terminal => terminal(status)?,
    };
    let user = user::find(&start.user, &start.security)?;
    if start.security.user.or(Some(user.user)) != Some(0) {
        for end in [&stdin, &stdout, &stderr] {
            // So that the program can open /dev/stdout again. /dev/null is not its own.
            if nix::sys::stat::fstat(end)?.st_rdev == 0 || tty {
                nix::unistd::fchown(end, Some(user.user.into()), None)
                    .context("give it its streams")?;
            }
        }
    }
    enter_folder(&start.working_dir)?;
    let env = environment(start, tty, &user.home);
    privileges::give_up(&start.security, &user)?;
    // A change of user has cleared it.
    set_pdeathsig(Signal::SIGKILL).context("end with the shim")?;
    umask(Mode::from_bits_truncate(0o022));
    let [program, ..] = arguments else {
        bail!("no command specified");
    };
    let path = env
        .iter()
        .find_map(|pair| pair.strip_prefix("PATH="))
        .unwrap_or(PATH);
    let file = look_up(program, path)?;
    let c_strings = |strings: &[String]| -> anyhow::Result<Vec<CString>> {
        strings
            .iter()
            .map(|text| {
                CString::new(text.as_str()).with_context(|| format!("{text:?} holds a NUL"))
            })
            .collect()
    };
    let (c_file, c_arguments, c_env) = (
        CString::new(file.as_os_str().as_encoded_bytes())
            .context("the program's path holds a NUL")?,
        c_strings(arguments)?,
        c_strings(&env)?,
    );
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    sys::restore_sigpipe()?;
    SigSet::empty().thread_set_mask()?;
    let Err(errno) = execve(&c_file, &c_arguments, &c_env);
    Err(anyhow!("exec {}: {}", file.display(), text_of(errno)))
}

/// Opens a terminal, makes it the controlling one, gives its other end to the stage.
fn terminal(status: &UnixStream) -> anyhow::Result<[OwnedFd; 3]> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open("/dev/pts/ptmx", flags, Mode::empty()).context("open /dev/pts/ptmx")?;
    let slave = sys::terminal_peer(master.as_fd()).context("open the terminal")?;
    sys::control_terminal(slave.as_fd()).context("take the terminal")?;
    sys::send_descriptor(status.as_fd(), master.as_fd()).context("hand the terminal on")?;
    let copy = || slave.try_clone().context("copy the terminal");
    Ok([copy()?, copy()?, copy()?])
}

fn enter_folder(path: &str) -> anyhow::Result<()> {
    let path = Path::new(if path.is_empty() { "/" } else { path });
    if !path.exists() {
        // On a read-only root it cannot be made; entering it then says so.
        let _ = fs::create_dir_all(path);
    }
    chdir(path).map_err(|errno| anyhow!("chdir to cwd ({path:?}) failed: {}", text_of(errno)))
}

fn environment(start: &Start, tty: bool, home: &str) -> Vec<String> {
    let mut env: Vec<(String, String)> = Vec::new();
    let own = [("PATH", PATH), ("HOME", home), ("TERM", "xterm")];
    let own = own.iter().filter(|(name, _)| tty || *name != "TERM");
    let all = own
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .chain(start.env.iter().cloned());
    for (name, value) in all {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => env.push((name, value)),
        }
    }
    env.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// Finds a program as execvp(3) does. The texts are those that clients know from other runtimes.
fn look_up(program: &str, path: &str) -> anyhow::Result<PathBuf> {
    if program.is_empty() {
        bail!("no command specified");
    }
    if program.contains('/') {
        return match fs::metadata(program) {
            Err(error) => {
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                Err(anyhow!(
                    "exec: {program:?}: stat {program}: {}",
                    text_of(errno)
                ))
            }
            Ok(meta) if meta.is_dir() => Err(anyhow!("exec: {program:?}: is a directory")),
            Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
                Err(anyhow!("exec: {program:?}: permission denied"))
            }
            Ok(_) => Ok(program.into()),
        };
    }
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|file| {
            fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| anyhow!("exec: {program:?}: executable file not found in $PATH"))
}

/// An error's text as Go writes it.
fn text_of(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_execvp_finds_them() {
        assert_eq!(
            look_up("sh", "/nowhere:/bin").unwrap(),
            Path::new("/bin/sh")
        );
        let error = |program, path| look_up(program, path).unwrap_err().to_string();
        assert_eq!(
            error("no-such", "/bin"),
            r#"exec: "no-such": executable file not found in $PATH"#
        );
        assert_eq!(
            error("/no/such", ""),
            r#"exec: "/no/such": stat /no/such: no such file or directory"#
        );
        assert_eq!(
            error("/etc/passwd", ""),
            r#"exec: "/etc/passwd": permission denied"#
        );
        assert_eq!(error("/etc", ""), r#"exec: "/etc": is a directory"#);
    }
}
