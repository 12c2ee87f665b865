//! Sessions of a shell, written down as they are to go: commands and what they say, run and compared.
//!
//! A line `$ COMMAND` is a command, and lines `> …` after it belong to it. What follows is its output, of both
//! streams; `[1]` is its exit code when it is not 0. In the output `…` stands for any text of a line, a line `...` for
//! any lines. What stands before the first command is a remark.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::Command;

/// How long a command may take, in seconds.
const LIMIT: &str = "30";

/// A command and what it is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    output: Vec<String>,
    code: i32,
}

/// Runs the session in a file; `shell` makes what its commands run in. Fails with every command that said something
/// else.
pub fn run(path: &Path, shell: impl Fn() -> Command) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut wrong = Vec::new();
    let steps = parse(&text)?;
    ensure!(!steps.is_empty(), "no command in {}", path.display());
    for step in steps {
        let mut command = shell();
        let script = format!("exec 2>&1; {}", step.command);
        let output = command.args(["bash", "-c", &script]).output();
        let output = output.with_context(|| format!("run {}", step.command))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let code = output.status.code().unwrap_or(-1);
        let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
        let expected: Vec<&str> = step.output.iter().map(String::as_str).collect();
        if code != step.code || !is_like(&lines, &expected) {
            let place = format!("{}:{}", path.display(), step.line);
            let said = said.trim_end();
            wrong.push(format!("{place}: $ {}\n{said}\n[{code}]", step.command));
        }
    }
    if !wrong.is_empty() {
        bail!(
            "{} commands said something else:\n\n{}",
            wrong.len(),
            wrong.join("\n\n")
        );
    }
    Ok(())
}

/// `timeout`, which ends a command that hangs; the caller gives it an environment.
pub fn shell() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", LIMIT]);
    command
}

fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                line: index + 1,
                command: command.to_owned(),
                ..Step::default()
            });
            continue;
        }
        let Some(step) = steps.last_mut() else {
            continue;
        };
        let code = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(more) = line.strip_prefix("> ").or((line == ">").then_some("")) {
            ensure!(
                step.output.is_empty(),
                "line {}: it has said something",
                index + 1
            );
            step.command = format!("{}\n{more}", step.command);
        } else if let Some(Ok(code)) = code.map(str::parse) {
            step.code = code;
        } else {
            step.output.push(line.to_owned());
        }
    }
    for step in &mut steps {
        // An empty line sets commands apart.
        while step.output.last().is_some_and(String::is_empty) {
            step.output.pop();
        }
    }
    Ok(steps)
}

/// Whether lines are as they are to be, without empty ones at the end.
fn is_like(lines: &[&str], pattern: &[&str]) -> bool {
    match (pattern, lines) {
        ([], rest) => rest.iter().all(|line| line.is_empty()),
        (["...", pattern @ ..], _) => {
            (0..=lines.len()).any(|skipped| is_like(&lines[skipped..], pattern))
        }
        ([first, pattern @ ..], [line, lines @ ..]) => {
            is_line_like(line, first) && is_like(lines, pattern)
        }
        (_, []) => false,
    }
}

fn is_line_like(line: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('…') else {
        return line == pattern;
    };
    let Some(line) = line.strip_prefix(start) else {
        return false;
    };
    let ends = line.char_indices().map(|(index, _)| index);
    ends.chain([line.len()])
        .any(|skipped| is_line_like(&line[skipped..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read() -> Result<()> {
        let text = "about it\n\n$ one \\\n> two\nout\n\n[3]\n\n$ three\n";
        let steps = parse(text)?;
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[0].command, "one \\\ntwo");
        assert_eq!(
            (&*steps[0].output, steps[0].code),
            (&["out".to_owned()][..], 3)
        );
        assert_eq!((steps[1].line, &*steps[1].command), (9, "three"));
        assert!(steps[1].output.is_empty());
        Ok(())
    }

    #[test]
    fn output_is_compared() {
        assert!(is_like(&["a", "b"], &["a", "b"]));
        assert!(is_like(&["a", ""], &["a"]));
        assert!(!is_like(&["a", "b"], &["a"]));
        assert!(!is_like(&["a"], &["a", "b"]));
        assert!(is_like(&["a", "b", "c"], &["...", "c"]));
        assert!(is_like(&["c"], &["...", "c", "..."]));
        assert!(!is_like(&["a", "b"], &["...", "c"]));
        assert!(is_like(&["pod x deleted from y"], &["pod x deleted…"]));
        assert!(is_like(&["p 12s Running"], &["p …s Running"]));
        assert!(!is_like(&["p 12s Pending"], &["p … Running"]));
    }

    #[test]
    fn a_session_that_goes_otherwise_fails() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("session");
        std::fs::write(&path, "$ echo a; echo b >&2\na\nb\n\n$ exit 3\n[3]\n")?;
        run(&path, shell)?;
        std::fs::write(&path, "$ echo a\nb\n$ exit 3\n")?;
        let error = run(&path, shell).err().context("it differs")?.to_string();
        assert!(error.starts_with("2 commands"), "{error}");
        Ok(())
    }
}
