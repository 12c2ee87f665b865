//! One command of the `extension` backend: expanded, split on blanks, executed without a shell.

use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How often we look whether a command has ended, in milliseconds.
const TICK: u16 = 20;

/// True when the text has characters that only a shell would understand.
pub fn wants_shell(text: &str) -> bool {
    text.contains(['|', ';', '&', '<', '>', '"', '\'', '`', '(', '*'])
}

/// Runs it with `env` added to our own environment and `input` plus a newline on its stdin.
/// Returns stdout and stderr together, trimmed. A command that takes too long is killed.
pub fn run(text: &str, env: &[(&'static str, String)], input: &str) -> anyhow::Result<String> {
    run_for(text, env, input, LIMIT)
}

/// [`run`] with another time limit.
pub fn run_for(
    text: &str,
    env: &[(&'static str, String)],
    input: &str,
    limit: Duration,
) -> anyhow::Result<String> {
    let expanded = expand(text, |name| {
        let own = env
            .iter()
            .rev()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.clone());
        own.or_else(|| std::env::var(name).ok()).unwrap_or_default()
    });
    let mut words = expanded.split_whitespace();
    let Some(program) = words.next() else {
        bail!("run \"{text}\": nothing is left after expansion")
    };
    let what = || format!("run \"{text}\"");
    let (output, write_end) = std::io::pipe().with_context(what)?;
    let mut command = Command::new(program);
    command
        .args(words)
        .envs(env.iter().map(|(key, value)| (key, value)));
    command
        .stdin(Stdio::piped())
        .stderr(write_end.try_clone().with_context(what)?)
        .stdout(write_end);
    // The operator's command has no business with the store.
    command.env_remove("FLANNELD_ETCD_PASSWORD");
    let mut child = command.spawn().with_context(what)?;
    // Our copies of the pipe's write end live in `command`; reading ends when the child's are closed too.
    drop(command);
    if let Some(mut stdin) = child.stdin.take() {
        let input = format!("{input}\n");
        // A thread of its own: a command need not read its input, and then a long one never goes
        // through. It ends with the pipe's other end.
        std::thread::Builder::new()
            .name("extension-input".to_owned())
            .spawn(move || match stdin.write_all(input.as_bytes()) {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    tracing::warn!("write an extension command's input: {error}");
                }
                _ => {}
            })
            .with_context(what)?;
    }
    let (status, bytes) = wait(&mut child, output, limit).with_context(what)?;
    let output = String::from_utf8_lossy(&bytes).trim().to_owned();
    let Some(status) = status else {
        bail!(
            "run \"{text}\": not finished after {} s, killed: {output}",
            limit.as_secs_f32()
        );
    };
    if !status.success() {
        bail!("run \"{text}\": {status}: {output}");
    }
    Ok(output)
}

/// Reads until the child itself has ended; children of its own may live on and keep the pipe open.
/// `None`: it was killed at the time limit.
fn wait(
    child: &mut Child,
    mut output: PipeReader,
    limit: Duration,
) -> anyhow::Result<(Option<ExitStatus>, Vec<u8>)> {
    let until = Instant::now() + limit;
    let (mut bytes, mut open) = (Vec::new(), true);
    loop {
        // Asked before the pipe is emptied, so that nothing written before the end is missed.
        let status = child.try_wait()?;
        while open && readable(&output, if status.is_some() { 0 } else { TICK })? {
            let mut chunk = [0; 8192];
            let n = output.read(&mut chunk)?;
            bytes.extend_from_slice(&chunk[..n]);
            open = n > 0;
            if Instant::now() >= until {
                break;
            }
        }
        if status.is_some() {
            return Ok((status, bytes));
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok((None, bytes));
        }
        if !open {
            std::thread::sleep(Duration::from_millis(TICK.into()));
        }
    }
}

/// Something, or the end, can be read within that many milliseconds.
fn readable(pipe: &PipeReader, timeout: u16) -> nix::Result<bool> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(timeout)) {
        Err(nix::Error::EINTR) => Ok(false),
        ready => Ok(ready? > 0),
    }
}

/// `$NAME` and `${NAME}`; any other `$` stays.
fn expand(text: &str, value: impl Fn(&str) -> String) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        match braced.filter(|(name, _)| !name.is_empty() && name.chars().all(is_name)) {
            Some((name, tail)) => {
                out += &value(name);
                rest = tail;
            }
            None => {
                let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
                let (name, tail) = after.split_at(end);
                if name.is_empty() {
                    out.push('$')
                } else {
                    out += &value(name)
                }
                rest = tail;
            }
        }
    }
    out + rest
}
