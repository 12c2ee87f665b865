//! The benchmarks behind SPECIFICATION.md: ours and the reference in one run, medians and ratios.

mod cni;
mod outcome;
mod peers;
mod plot;

use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;

const USAGE: &str = "usage: bench [--folder DIR] [--strict] [--rounds N] [cni|peers]…";

fn main() -> Result<()> {
    let mut folder = PathBuf::from("target/bench");
    let mut strict = false;
    let mut rounds = None;
    let mut names = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--folder" => folder = words.next().context(USAGE)?.into(),
            "--rounds" => rounds = Some(words.next().context(USAGE)?.parse().context(USAGE)?),
            "--strict" => strict = true,
            "cni" | "peers" => names.push(word),
            other => bail!("unknown argument {other:?}\n{USAGE}"),
        }
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmarks need root: sudo scripts/bench.sh"
    );
    if names.is_empty() {
        names = vec!["cni".to_owned(), "peers".to_owned()];
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let mut missed = 0;
    for name in &names {
        println!("== {name}");
        let outcome = match name.as_str() {
            "cni" => cni::run(rounds.unwrap_or(40))?,
            _ => peers::run(rounds.unwrap_or(5))?,
        };
        outcome.write(&folder, name)?;
        missed += outcome.print();
    }
    ensure!(!strict || missed == 0, "{missed} promises are missed");
    Ok(())
}
