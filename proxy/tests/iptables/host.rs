//! Hosts that lack something, or where others hold the lock.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    time::Duration,
};

use kernel::process;
use proxy::{
    mode::{
        Mode as _,
        iptables::{Choice, IptablesMode, Options},
    },
    model::{Changed, Family},
};

use crate::{bed::Bed, wanted::variety};

/// Runs a test again in a process of its own with a variable set.
fn again(test: &str, variable: &str, value: &OsStr) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, value)
        .env(AGAIN, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

/// Set in such a process.
const AGAIN: &str = "WEFT_TEST_AGAIN";

/// The lock is a file that all programs of the host share, so this runs in a process of its own
/// with a file of its own.
#[test]
fn a_lock_that_is_held_is_named_and_waited_for_again() {
    const FILE: &str = "XTABLES_LOCKFILE";
    if std::env::var_os(AGAIN).is_some() {
        return with_lock(std::env::var_os(FILE).unwrap().as_ref());
    }
    if Bed::new(Choice::Legacy, Family::V4).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    again(
        "host::a_lock_that_is_held_is_named_and_waited_for_again",
        FILE,
        folder.path().join("lock").as_os_str(),
    );
}

/// An iptables that knows no `recent` and no `--random-fully` stands first in PATH.
#[test]
fn what_the_host_lacks_is_left_out() {
    if std::env::var_os(AGAIN).is_some() {
        return with_less();
    }
    if Bed::new(Choice::Legacy, Family::V4).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let real = process::find("iptables-legacy-restore").unwrap();
    let script = format!(
        "#!/bin/sh\ntext=$(cat)\ncase $text in *recent*|*random-fully*)\n  echo 'line 2 failed' >&2\n  \
         exit 2;;\nesac\nprintf '%s\\n' \"$text\" | exec {} \"$@\"\n",
        real.display()
    );
    let program = folder.path().join("iptables-legacy-restore");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut path = folder.path().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    again("host::what_the_host_lacks_is_left_out", "PATH", &path);
}

fn with_less() {
    let mut bed = Bed::new(Choice::Legacy, Family::V4).unwrap();
    let wanted = variety(&bed);
    assert!(bed.sync(&wanted, &Changed::All).changes > 30);
    let saved = bed.saved();
    for part in ["recent", "random-fully", "PROBE"] {
        assert!(!saved.contains(part), "{saved}");
    }
    assert!(saved.contains("MASQUERADE") && saved.contains("shop/sticky:http"));
    assert_eq!(bed.sync(&wanted, &Changed::All).changes, 0);
}

fn with_lock(path: &std::path::Path) {
    let bed = Bed::new(Choice::Legacy, Family::V4).unwrap();
    let wanted = variety(&bed);
    let mut mode = IptablesMode::new(
        Family::V4,
        Options {
            choice: Choice::Legacy,
            lock_wait: Duration::from_secs(1),
            ..Options::default()
        },
    );
    let lock = File::create(path).unwrap();
    lock.lock().unwrap();
    let report = bed.in_node(|| mode.sync(&wanted, &Changed::All));
    assert_eq!(report.errors.len(), 1, "{report:?}");
    assert!(report.errors[0].contains("xtables lock"), "{report:?}");
    lock.unlock().unwrap();
    let report = bed.in_node(|| mode.sync(&wanted, &Changed::All));
    assert_eq!(report.errors, Vec::<String>::new());
    assert!(report.full && report.changes > 0);
}
