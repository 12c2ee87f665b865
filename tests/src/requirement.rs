//! What a test needs from the machine, and the loud skip when it is not there.

use crate::process;
use anyhow::Context;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// True when the test may run. Otherwise a line `SKIPPED: …` is written past the test harness's
/// capture, for `scripts/test.sh` to collect; with `WEFT_REQUIRE_ROOT=1` it is a failure.
pub fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("WEFT_REQUIRE_ROOT").is_none_or(|value| value != "1"),
        "this test needs root and WEFT_REQUIRE_ROOT=1 forbids to skip it"
    );
    skip("needs root (run scripts/test.sh with sudo)");
    false
}

/// True when all the programs can be found; otherwise a loud skip.
pub fn has_programs(names: &[&str]) -> bool {
    let missing: Vec<_> = names.iter().filter(|name| !is_in_path(name)).collect();
    if !missing.is_empty() {
        skip(&format!("needs {missing:?} (apt-get install)"));
    }
    missing.is_empty()
}

/// True when `kubectl` is there and of version 1.`minor` or later; otherwise a loud skip. Debian 12 has 1.20.
pub fn has_kubectl(minor: u32) -> bool {
    if !has_programs(&["kubectl"]) {
        return false;
    }
    match kubectl_minor() {
        Ok(found) if found >= minor => true,
        Ok(found) => {
            skip(&format!(
                "needs kubectl 1.{minor} or later; here is 1.{found}"
            ));
            false
        }
        Err(error) => panic!("ask kubectl for its version: {error:#}"),
    }
}

fn kubectl_minor() -> anyhow::Result<u32> {
    let said = process::run(Command::new("kubectl").args(["version", "--client", "-o", "json"]))?;
    let version: serde_json::Value = serde_json::from_str(&said)?;
    // Vendors write "32+".
    let minor = version["clientVersion"]["minor"]
        .as_str()
        .unwrap_or_default();
    let digits = minor.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    digits
        .parse()
        .with_context(|| format!("a minor version of {minor:?}"))
}

/// Whether a program can be found in `PATH`, or at its absolute path.
pub fn is_in_path(name: &str) -> bool {
    find_in_path(name).is_some()
}

/// The path of a program that can be found in `PATH`.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut paths = std::env::split_paths(&path).map(|folder| folder.join(name));
    paths.find(|path| path.is_file())
}

/// Says that the running test is skipped, and why.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not `eprintln!`: the harness would swallow it when the test passes.
    let line = format!("SKIPPED: {test}: {reason}\n");
    if std::io::stderr().write_all(line.as_bytes()).is_err() {
        panic!("cannot say on standard error that {test} is skipped: {reason}");
    }
}
