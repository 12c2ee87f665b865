//! This test program again, as a process that can be killed or run short of space.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set for the child: the folder of its store.
pub const FOLDER: &str = "WEFT_TEST_STORE";

/// This test binary again, only the test `name`, with `folder` in its environment.
pub fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

/// The folder of the store, in a child; elsewhere these "tests" have nothing to do.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(Into::into)
}
