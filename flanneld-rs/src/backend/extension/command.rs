//! One command of the `extension` backend: expanded, split on blanks, executed without a shell.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// True when the text has characters that only a shell would understand.
pub fn wants_shell(text: &str) -> bool {
    text.contains(['|', ';', '&', '<', '>', '"', '\'', '`', '(', '*'])
}

/// Runs it with `env` added to our own environment and `input` plus a newline on its stdin.
/// Returns stdout and stderr together, trimmed.
pub fn run(text: &str, env: &[(&'static str, String)], input: &str) -> anyhow::Result<String> {
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
    let (mut output, write_end) = std::io::pipe().with_context(what)?;
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
        // A command that does not read its input has closed the pipe: not an error.
        match stdin.write_all(format!("{input}\n").as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(error).with_context(what);
            }
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes).with_context(what)?;
    let status = child.wait().with_context(what)?;
    let output = String::from_utf8_lossy(&bytes).trim().to_owned();
    if !status.success() {
        bail!("run \"{text}\": {status}: {output}");
    }
    Ok(output)
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
