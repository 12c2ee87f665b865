//! The stages of the process runtime and nothing else: for tests, and for nodes that want the smallest processes.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    node::runtime::process::stage(&arguments).unwrap_or_else(|| {
        eprintln!("usage: weft-stage pause|shim|exec-in FOLDER (executed by the process runtime)");
        ExitCode::from(2)
    })
}
