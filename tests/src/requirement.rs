//! What a test needs from the machine, and the loud skip when it is not there.

use std::io::Write;
use std::path::PathBuf;

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
