//! Runs one plugin: finds it, feeds it, waits for it, kills it when it hangs.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::attachment::Attachment;

/// More than any result; what a plugin says beyond it is cut off.
const MOST_OUTPUT: u64 = 1 << 20;
/// In the environment of a plugin, and so of all that it starts: the cache folder of the agent whose it is.
const OWNER: &str = "WEFT_CNI_OWNER";

/// `CNI_COMMAND`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Is it still as ADD left it?
    Check,
    /// Remove what nobody has.
    Gc,
    /// Could you ADD?
    Status,
}

impl Verb {
    fn command(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }

    /// As libcni writes it in errors.
    fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Del => "delete",
            Self::Check => "check",
            Self::Gc => "gc",
            Self::Status => "status",
        }
    }
}

/// Where plugins are, and how long they may take.
#[derive(Debug)]
pub struct Plugins {
    /// In order.
    pub folders: Vec<PathBuf>,
    /// For one call.
    pub timeout: Duration,
    /// The agent's cache folder, which is its alone.
    pub owner: PathBuf,
}

/// Kills a plugin and its own children, unless it has ended: also when the call is given up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            match killpg(pid, Signal::SIGKILL) {
                // ESRCH: it ended at this moment.
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => tracing::warn!("kill the CNI plugin's process group {pid}: {error}"),
            }
        }
    }
}

impl Plugins {
    /// The program of a plugin.
    ///
    /// # Errors
    /// It is in none of the folders.
    pub fn find(&self, kind: &str) -> Result<PathBuf, String> {
        let mut paths = self.folders.iter().map(|folder| folder.join(kind));
        paths.find(|path| path.is_file()).ok_or_else(|| {
            let folders: Vec<_> = self
                .folders
                .iter()
                .map(|folder| folder.to_string_lossy())
                .collect();
            format!(
                "failed to find plugin {kind:?} in path [{}]",
                folders.join(" ")
            )
        })
    }

    /// Calls a plugin; what it wrote to standard output.
    ///
    /// # Errors
    /// What it said, with its name and the network's.
    pub async fn call(
        &self,
        network: &str,
        kind: &str,
        verb: Verb,
        attachment: Option<&Attachment>,
        config: &Value,
    ) -> Result<Vec<u8>, String> {
        let failed = |why: &dyn std::fmt::Display| {
            format!(
                "plugin type={kind:?} name={network:?} failed ({}): {why}",
                verb.word()
            )
        };
        let program = self.find(kind).map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
            command.env_remove(name);
        }
        command
            .env("CNI_COMMAND", verb.command())
            .env("CNI_PATH", self.path().map_err(|error| failed(&error))?)
            .env(OWNER, &self.owner);
        if let Some(attachment) = attachment {
            command
                .env("CNI_CONTAINERID", &attachment.container_id)
                .env("CNI_NETNS", &attachment.netns)
                .env("CNI_IFNAME", &attachment.ifname)
                .env("CNI_ARGS", attachment.cni_args());
        }
        let run = run(command, config.to_string().into_bytes());
        let output = match tokio::time::timeout(self.timeout, run).await {
            Ok(output) => output.map_err(|error| failed(&error))?,
            Err(_) => {
                return Err(failed(&format!(
                    "no answer within {:?}, killed",
                    self.timeout
                )));
            }
        };
        match output.success {
            true => Ok(output.stdout),
            false => Err(failed(&complaint(&output))),
        }
    }

    fn path(&self) -> Result<OsString, std::env::JoinPathsError> {
        std::env::join_paths(&self.folders)
    }
}

/// Kills the plugins of an agent that was killed: nobody waits for their answers, and what they would still do is
/// undone already. One that hangs would stay for ever.
pub fn end_strays(owner: &Path) {
    let mut mark = format!("{OWNER}=").into_bytes();
    mark.extend(owner.as_os_str().as_bytes());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        // One that has ended meanwhile, or is the kernel's own, has none.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment
            .split(|&byte| byte == 0)
            .any(|word| word == mark)
        {
            tracing::info!("kill process {pid}, a CNI plugin that an earlier agent has started");
            // It may have ended at this moment.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

struct Output {
    success: bool,
    status: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

async fn run(mut command: Command, input: Vec<u8>) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let mut group = Group(pid.map(Pid::from_raw));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        let Some(mut stdin) = stdin else {
            return Ok(());
        };
        match stdin.write_all(&input).await {
            // One that does not read has its reasons; it is judged by its answer.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    };
    let ((), stdout, stderr) = tokio::try_join!(feed, read(stdout), read(stderr))?;
    let status = child.wait().await?;
    // Reaped: its number may be another's by now.
    group.0 = None;
    Ok(Output {
        success: status.success(),
        status: status.to_string(),
        stdout,
        stderr,
    })
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe)
            .take(MOST_OUTPUT)
            .read_to_end(&mut bytes)
            .await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

/// The plugin's own error, or what there is instead.
fn complaint(output: &Output) -> String {
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    let part = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    match (part("msg"), part("details")) {
        ("", _) => {
            let text = [&output.stdout, &output.stderr]
                .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned())
                .join(" ");
            let text: String = text.trim().chars().take(1000).collect();
            format!("{}: {text:?}", output.status)
        }
        (message, "") => message.to_owned(),
        (message, details) => format!("{message}; {details}"),
    }
}
