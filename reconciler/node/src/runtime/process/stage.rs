//! The small single-threaded processes by which the runtime does its work: this program, executed again.
//!
//! - `pause FOLDER` holds a sandbox's namespaces, and reaps in a shared PID namespace.
//! - `shim FOLDER` starts a container's process and looks after it until it ends; it outlives the agent.
//! - `exec-in FOLDER` runs one more process in a running container, for as long as somebody listens.
//!
//! The folder, within the runtime's own, tells in `ps` whose they are, and finds those that were left behind.

mod child;
mod dev;
mod exec_in;
mod pause;
mod privileges;
mod relay;
mod root;
mod shim;
mod target;
mod user;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The first arguments that a stage is known by.
pub(super) const PAUSE: &str = "pause";
/// As above.
pub(super) const SHIM: &str = "shim";
/// As above.
pub(super) const EXEC_IN: &str = "exec-in";

/// Runs a stage if the arguments (without the program's name) ask for one; else `None`.
///
/// To be called first in `main`, before any thread is started.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let [name, folder] = arguments else {
        return None;
    };
    let folder = Path::new(folder);
    type Stage = fn(&Path) -> anyhow::Result<()>;
    let (title, stage): (_, Stage) = match name.to_str()? {
        PAUSE => (c"weft-pause", pause::run),
        SHIM => (c"weft-shim", shim::run),
        EXEC_IN => (c"weft-exec-in", exec_in::run),
        _ => return None,
    };
    // Nobody may reach the node's files by /proc/PID/exe of a stage that has entered a container (CVE-2019-5736).
    let result = nix::sys::prctl::set_name(title)
        .and_then(|()| nix::sys::prctl::set_dumpable(false))
        .map_err(anyhow::Error::from)
        .and_then(|()| stage(folder));
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", folder.display());
            ExitCode::FAILURE
        }
    })
}
