//! Calling another plugin: found in CNI_PATH and executed, or, when the file found is this very
//! binary, called in-process with the same outcome and without a fork.

use crate::cni::{Call, CniResult, Error, Plugin, Result, Verb, code, json, plugin};
use crate::registry;
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// ADD of the plugin `name` with `config`, in `call`'s environment.
pub fn add(call: &Call, name: &str, config: &Value) -> Result<CniResult> {
    let text = match find(name, &call.path)? {
        Found::Own(own) => {
            let env = call.env().for_verb(Verb::Add);
            plugin::run(own, &env, Verb::Add, config.clone())?.into_bytes()
        }
        Found::File(file) => exec(call, &file, Verb::Add, config)?,
    };
    json::value(&text)
        .map_err(Into::into)
        .and_then(|value| CniResult::parse(&value, call.version))
        .map_err(|e| {
            let error = Error::new(code::DECODE, format!("read result of plugin {name}: {e}"));
            // It succeeded, so it made something that nobody will be told of.
            match run(call, Verb::Del, name, config) {
                Ok(()) => error,
                Err(undo) => error.and_also(&format!("undo failed: DEL of {name}: {undo}")),
            }
        })
}

/// A verb without result of the plugin `name` with `config`, in `call`'s environment but for
/// CNI_COMMAND: a failed ADD calls it with [`Verb::Del`].
pub fn run(call: &Call, verb: Verb, name: &str, config: &Value) -> Result<()> {
    match find(name, &call.path)? {
        Found::Own(own) => {
            plugin::run(own, &call.env().for_verb(verb), verb, config.clone()).map(drop)
        }
        Found::File(file) => exec(call, &file, verb, config).map(drop),
    }
}

/// Checks that a plugin of that name is in `path` (CNI_PATH), so that a step before its ADD need not
/// be taken in vain.
pub fn find_in_path(name: &str, path: &str) -> Result<()> {
    find(name, path).map(drop)
}

enum Found {
    Own(&'static dyn Plugin),
    File(PathBuf),
}

fn find(name: &str, path: &str) -> Result<Found> {
    if name.is_empty() {
        return Err(Error::config("no plugin name provided"));
    }
    if name.contains('/') || matches!(name, "." | "..") {
        return Err(Error::config(format!("invalid plugin name: {name}")));
    }
    for directory in path.split(':').filter(|d| !d.is_empty()) {
        let file = Path::new(directory).join(name);
        let Some(meta) = file.metadata().ok().filter(std::fs::Metadata::is_file) else {
            continue;
        };
        let is_this_binary = std::fs::metadata("/proc/self/exe")
            .is_ok_and(|own| (own.dev(), own.ino()) == (meta.dev(), meta.ino()));
        return Ok(match registry::find(name).filter(|_| is_this_binary) {
            Some(plugin) => Found::Own(plugin),
            None => Found::File(file),
        });
    }
    Err(Error::generic(format!(
        "failed to find plugin {name:?} in path {path:?}"
    )))
}

/// Executes a plugin and gives what it printed on stdout.
fn exec(call: &Call, file: &Path, verb: Verb, config: &Value) -> Result<Vec<u8>> {
    let shown = file.display();
    let failed = |e| Error::io(format!("run plugin {shown}"), e);
    let mut attempts = 0;
    let output = loop {
        match exec_once(call, file, verb, config) {
            // Someone is just writing the file: it will be there in a moment.
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && attempts < 5 => {
                attempts += 1;
                std::thread::sleep(Duration::from_secs(1));
            }
            outcome => break outcome.map_err(failed)?,
        }
    };
    if output.status.success() {
        std::io::stderr()
            .write_all(&output.stderr)
            .map_err(failed)?;
        return Ok(output.stdout);
    }
    Err(failure(&shown.to_string(), &output))
}

fn exec_once(call: &Call, file: &Path, verb: Verb, config: &Value) -> std::io::Result<Output> {
    let mut command = Command::new(file);
    for (name, value) in call.env().for_verb(verb).pairs() {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let text = json::to_compact(config);
    let mut stdin = child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    // Written beside the reading, so that neither side waits for the other with a full pipe. A
    // plugin that ends without reading its configuration is judged by its exit code alone.
    let writer = std::thread::spawn(move || match stdin.write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    });
    let output = child.wait_with_output()?;
    writer
        .join()
        .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))?;
    Ok(output)
}

/// The error a failed plugin printed, or one that shows what it did instead.
fn failure(file: &str, output: &Output) -> Error {
    let status = output.status;
    if output.stdout.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Error::generic(match said.trim() {
            "" => format!("plugin {file} failed with no error message: {status}"),
            said => format!("plugin {file} failed: {said:?}: {status}"),
        });
    }
    Error::parse(&output.stdout).unwrap_or_else(|e| {
        Error::generic(format!(
            "plugin {file} failed ({status}) but error parsing its diagnostic message {:?}: {e}",
            String::from_utf8_lossy(&output.stdout)
        ))
    })
}

#[cfg(test)]
mod tests;
