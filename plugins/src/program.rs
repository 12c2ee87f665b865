//! The program `weft-cni`: a plugin when called by a plugin's name, else a small tool.

mod install;

use crate::cni::{Env, Plugin, serve};
use crate::registry;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
weft-cni: the standard CNI plugins in one binary

usage: weft-cni install DIR    put every plugin into DIR, as hard links to one file
       weft-cni list           name the plugins
       weft-cni PLUGIN         act as PLUGIN (CNI_COMMAND and the rest in the environment)
       weft-cni --version | help

Called by a plugin's name (a link to this file) it acts as that plugin.
";

/// Acts by the name of the program, argv\[0\], or else by the first argument.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let called = Path::new(&program).file_name().and_then(|n| n.to_str());
    if let Some(plugin) = called.and_then(registry::find) {
        return act(plugin);
    }
    let arguments: Vec<OsString> = arguments.collect();
    let words: Vec<&str> = arguments
        .iter()
        .map(|a| a.to_str().unwrap_or("?"))
        .collect();
    let outcome = match words.as_slice() {
        ["install", _] => install::install(Path::new(&arguments[1]))
            .map_err(|e| e.to_string())
            .and_then(|done| print(&done)),
        ["list"] => print(&list()),
        ["--version" | "-V" | "version"] => {
            print(&format!("weft-cni {}\n", env!("CARGO_PKG_VERSION")))
        }
        ["help" | "--help" | "-h"] => print(HELP),
        [name] => match registry::find(name) {
            Some(plugin) => return act(plugin),
            None => Err(format!("no plugin or command {name:?}\n\n{HELP}")),
        },
        _ => Err(HELP.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn act(plugin: &dyn Plugin) -> ExitCode {
    let served = serve(
        plugin,
        &Env::of_process(),
        &mut std::io::stdin().lock(),
        &mut std::io::stdout().lock(),
        &mut std::io::stderr().lock(),
    );
    match served {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{}: print result: {e}", plugin.name());
            ExitCode::FAILURE
        }
    }
}

fn list() -> String {
    registry::ALL
        .iter()
        .map(|plugin| format!("{}\n", plugin.name()))
        .collect()
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|e| format!("print: {e}"))
}
