//! The benchmarks behind SPECIFICATION.md: ours and the reference in one run, medians and ratios.

mod api;
mod cluster;
mod cni;
mod connections;
mod dns;
mod lines;
mod outcome;
mod overlay;
mod peers;
mod plot;
mod promise;
mod proxy;

use anyhow::{Context, Result, bail, ensure};
use overlay::Subject;
use std::path::PathBuf;

const USAGE: &str = "\
usage: bench [--folder DIR] [--strict] [--rounds N] [--quick] [cni|peers|overlay|proxy|api|cluster|dns]…
       bench … overlay [--peers N] [--subject NAME[,NAME]…]…";

const NAMES: [&str; 7] = ["cni", "peers", "overlay", "proxy", "api", "cluster", "dns"];

struct Arguments {
    folder: PathBuf,
    strict: bool,
    names: Vec<String>,
    overlay: overlay::Options,
}

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    // Started by the benchmark itself, as the other side of a comparison.
    if let Some(("copy-loop", rest)) = words
        .split_first()
        .map(|(word, rest)| (word.as_str(), rest))
    {
        return proxy::copy_loop(rest);
    }
    let arguments = parse(words.into_iter())?;
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmarks need root: sudo scripts/bench.sh"
    );
    let folder = &arguments.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let rounds = arguments.overlay.rounds;
    let mut missed = 0;
    for name in &arguments.names {
        println!("== {name}");
        let outcome = match name.as_str() {
            "cni" => cni::run(rounds.unwrap_or(40))?,
            "peers" => peers::run(rounds.unwrap_or(5))?,
            "proxy" => proxy::run(arguments.overlay.quick, rounds)?,
            "api" => api::run(arguments.overlay.quick, rounds)?,
            "cluster" => cluster::run(arguments.overlay.quick)?,
            "dns" => dns::run(arguments.overlay.quick, rounds)?,
            _ => {
                missed += overlay::run(&arguments.overlay, folder)?;
                continue;
            }
        };
        outcome.write(folder, name)?;
        missed += outcome.print();
    }
    ensure!(
        !arguments.strict || missed == 0,
        "{missed} promises are missed"
    );
    Ok(())
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        folder: PathBuf::from("target/bench"),
        strict: false,
        names: Vec::new(),
        overlay: overlay::Options::default(),
    };
    let overlay = &mut arguments.overlay;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--folder" => arguments.folder = words.next().context(USAGE)?.into(),
            "--rounds" => {
                overlay.rounds = Some(words.next().context(USAGE)?.parse().context(USAGE)?)
            }
            "--peers" => overlay.peers = Some(words.next().context(USAGE)?.parse().context(USAGE)?),
            "--quick" => overlay.quick = true,
            "--subject" => {
                for name in words.next().context(USAGE)?.split(',') {
                    overlay.subjects.push(subject(name)?);
                }
            }
            "--strict" => arguments.strict = true,
            name if NAMES.contains(&name) => arguments.names.push(word),
            other => bail!("unknown argument {other:?}\n{USAGE}"),
        }
    }
    if arguments.names.is_empty() {
        arguments.names = NAMES.map(str::to_owned).to_vec();
    }
    Ok(arguments)
}

fn subject(name: &str) -> Result<Subject> {
    let words = Subject::ALL.map(Subject::word).join(", ");
    Subject::find(name).with_context(|| format!("no subject {name:?}; there are {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn overlay_takes_its_own_options() {
        let line = "overlay --quick --subject raw-veth,udp-ebpf --subject vxlan-tun --peers 5000";
        let arguments = parsed(line).expect("arguments");
        assert_eq!(arguments.names, ["overlay"]);
        assert!(arguments.overlay.quick);
        assert_eq!(arguments.overlay.peers, Some(5000));
        assert_eq!(
            arguments.overlay.subjects,
            [Subject::RawVeth, Subject::UdpEbpf, Subject::VxlanTunBoth]
        );
    }

    #[test]
    fn no_name_means_all_and_an_unknown_one_is_refused() {
        assert_eq!(parsed("--rounds 3").expect("arguments").names, NAMES);
        assert!(parsed("overlays").is_err());
        assert!(parsed("overlay --subject wireguard").is_err());
        assert!(parsed("--rounds").is_err());
    }
}
