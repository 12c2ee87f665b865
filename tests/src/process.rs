//! Programs: run to their end with their output, or kept in the background with a log file.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs a program to its end and returns its standard output; a failure carries its messages.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", display(command)))?;
    into_text(command, output)
}

/// The same, with `input` on its standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let output = output_with_input(command, input)?;
    into_text(command, output)
}

/// Runs a program with `input` on its standard input; its exit status is the caller's to judge.
pub fn output_with_input(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", display(command)))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.as_bytes().to_vec();
    // On a thread of its own: a program that writes much before it has read all must not block us.
    // A program that ends without reading closes the pipe; its exit status tells the story.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child
        .wait_with_output()
        .with_context(|| format!("wait for {}", display(command)))?;
    match writer.join() {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).with_context(|| format!("write to {}", display(command)))
        }
        Ok(_) => Ok(output),
        Err(_) => bail!("the thread that writes to {} panicked", display(command)),
    }
}

fn into_text(command: &Command, output: Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{}: {}: {}{}",
        display(command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim(),
        String::from_utf8_lossy(&output.stdout).trim(),
    );
    String::from_utf8(output.stdout).with_context(|| format!("output of {}", display(command)))
}

fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// A background process; it is killed when the value is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both its outputs appended to the file `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Self::keep(name, command, log)
    }

    /// Starts `command` with the streams that it has; it logs to the file `log`.
    pub fn keep(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("start {}", display(command)))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote so far, and what its predecessors wrote to the same file.
    pub fn log(&self) -> Result<String> {
        let bytes =
            std::fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines of its log, for error messages.
    pub fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_else(|error| format!("{error:#}"));
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Fails, with the end of the log, if it has ended.
    pub fn ensure_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended ({status}); its log:\n{}",
                self.name,
                self.log_tail()
            );
        }
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?);
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!(
                    "{} still runs after {limit:?}; its log:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it with SIGKILL and waits.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("kill {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// Resident memory in bytes, from `/proc/<pid>/status`.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no VmRSS in {path}"))?
            .parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}
