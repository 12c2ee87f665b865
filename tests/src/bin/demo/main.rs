//! The demo: a cluster of N nodes in namespaces, built and proven before the reader's eyes.

mod leases;
mod pods;
mod report;
mod screen;
mod services;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal};

const USAGE: &str =
    "usage: demo [--nodes N] [--backend vxlan|udp|host-gw] [--store embedded|etcd] [--keep]";

/// What the demo is asked for.
struct Arguments {
    nodes: u8,
    backend: String,
    /// With etcd: leases of subnets there, and Pods by CNI alone.
    store: String,
    keep: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        nodes: 3,
        backend: "vxlan".to_owned(),
        store: "embedded".to_owned(),
        keep: false,
    };
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let mut value = || value.clone().or_else(|| words.next()).context(USAGE);
        match flag.as_str() {
            "--nodes" => arguments.nodes = value()?.parse().context(USAGE)?,
            "--backend" => arguments.backend = value()?,
            "--store" => arguments.store = value()?,
            "--keep" => arguments.keep = true,
            other => bail!("unknown argument {other:?}\n{USAGE}"),
        }
    }
    ensure!((1..=50).contains(&arguments.nodes), "--nodes wants 1 to 50");
    ensure!(
        ["vxlan", "udp", "host-gw"].contains(&arguments.backend.as_str()),
        "--backend wants vxlan, udp or host-gw, not {:?}",
        arguments.backend
    );
    ensure!(
        ["embedded", "etcd"].contains(&arguments.store.as_str()),
        "--store wants embedded or etcd, not {:?}",
        arguments.store
    );
    Ok(arguments)
}

fn main() -> Result<()> {
    let arguments = parse(std::env::args().skip(1))?;
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the demo needs root: sudo scripts/demo.sh"
    );
    let leases = arguments.store == "etcd";
    // Blocked before the first thread starts, and waited for at the end. An interrupt on the way
    // ends the process at once; the run's janitor cleans up either way.
    let mut interrupts = SigSet::empty();
    interrupts.add(Signal::SIGINT);
    interrupts.add(Signal::SIGTERM);
    interrupts.thread_block()?;
    let keep = arguments.keep;
    std::thread::spawn(move || {
        let code = match interrupts.wait() {
            Ok(_) if keep && leases => 0,
            Ok(_) => 130,
            Err(error) => {
                eprintln!("wait for signals: {error}");
                1
            }
        };
        println!("\ncleaning up");
        if !leases && let Err(error) = pods::clean_up() {
            eprintln!("{error:#}");
        }
        std::process::exit(code);
    });
    if leases {
        leases::run(&arguments)
    } else {
        pods::run(&arguments)
    }
}
