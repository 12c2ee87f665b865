//! `overlay`: two nodes joined in every way there is, measured side by side.
//!
//! Each round goes through the steps (TCP, UDP, round trips, connections), and in each step through
//! the subjects, beginning with another one each round. A ratio is taken within a round; what is
//! reported is the median of the rounds.

mod bounds;
mod chart;
mod cpu;
mod lab;
mod machine;
mod many_peers;
mod metric;
mod proof;
mod report;
mod results;
mod rtt;
mod site;
mod subject;
mod traffic;

pub use subject::Subject;

use crate::promise::{self, Promise};
use anyhow::{Context, Result};
use lab::Lab;
use machine::Machine;
use metric::Step;
use results::{Results, Round};
use serde_json::{Value, json};
use site::{Ready, Site};
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// One short round; for CI.
    pub quick: bool,
    pub rounds: Option<u32>,
    /// Compare two subnets with so many, and nothing else.
    pub peers: Option<usize>,
    /// Empty for the standard ones.
    pub subjects: Vec<Subject>,
}

/// Measures, prints, and writes `overlay.json` and `overlay.svg` (`overlay-peers.json` for
/// `--peers`); returns how many promises are not kept.
pub fn run(options: &Options, folder: &Path) -> Result<usize> {
    let machine = Machine::observe()?;
    println!("{}", machine.line());
    match options.peers {
        Some(peers) => run_many_peers(options, peers, &machine, folder),
        None => run_subjects(options, &machine, folder),
    }
}

fn run_subjects(options: &Options, machine: &Machine, folder: &Path) -> Result<usize> {
    let (rounds, seconds) = if options.quick { (1, 1) } else { (5, 2) };
    let rounds = options.rounds.unwrap_or(rounds);
    let subjects = match options.subjects.as_slice() {
        [] => Subject::standard(),
        chosen => chosen.to_vec(),
    };
    let results = measure(machine, &subjects, rounds, seconds)?;
    let promises = bounds::check(&results, &subjects);
    print!("{}", report::tables(&results));
    warn_of_other_work(&results.background);
    let missed = promise::print(&promises);
    let json = report::to_json(&results, machine, seconds, &promises);
    write(folder, "overlay.json", &format!("{json:#}\n"))?;
    let foot = format!("{}; {rounds} × {seconds} s", machine.line());
    write(folder, "overlay.svg", &chart::draw(&results, &foot))?;
    Ok(missed)
}

fn run_many_peers(
    options: &Options,
    peers: usize,
    machine: &Machine,
    folder: &Path,
) -> Result<usize> {
    // Short and many: what disturbs the machine then meets both sides alike.
    let (rounds, seconds) = if options.quick { (2, 1) } else { (9, 1) };
    let subjects = match options.subjects.as_slice() {
        [] => vec![Subject::UdpEbpf, Subject::UdpOffload],
        chosen => chosen.to_vec(),
    };
    let rounds = options.rounds.unwrap_or(rounds);
    let outcome = many_peers::run(machine, &subjects, peers, rounds, seconds)?;
    for line in outcome.remarks() {
        println!("  {line}");
    }
    let promises = outcome.promises();
    let missed = promise::print(&promises);
    let of = |results| report::to_json(results, machine, seconds, &[]);
    let json = json!({
        "subnets": peers,
        "with_2": of(&outcome.few),
        "with_all": of(&outcome.many),
        "promises": promises.iter().map(Promise::to_json).collect::<Vec<Value>>(),
    });
    write(folder, "overlay-peers.json", &format!("{json:#}\n"))?;
    Ok(missed)
}

/// Brings all subjects up, then goes round.
fn measure(machine: &Machine, subjects: &[Subject], rounds: u32, seconds: u32) -> Result<Results> {
    let lab = Lab::new(&machine.congestion)?;
    let mut results = Results::default();
    let mut sites = Vec::new();
    for (number, &subject) in subjects.iter().enumerate() {
        sites.push(Site::start(
            &lab,
            subject,
            number,
            ::tests::cluster::NETWORK,
        )?);
    }
    let mut ready = Vec::new();
    for site in sites {
        let subject = site.subject;
        match site.ready(&lab) {
            Ok(site) => {
                results.measured.push((subject, site.paths.clone()));
                ready.push(site);
            }
            Err(error) => {
                results.unavailable.push((subject, short(&error)));
            }
        }
    }
    for number in 0..rounds {
        results
            .background
            .push(cpu::background(Duration::from_millis(500))?);
        let mut round = Round::new();
        for step in Step::ALL {
            progress(&format!(
                "round {} of {rounds}: {}",
                number + 1,
                step.name()
            ));
            for site in &mut ready {
                note(
                    &mut round,
                    &mut results.failures,
                    site,
                    step,
                    number,
                    seconds,
                );
            }
        }
        results.rounds.push(round);
        // Another one goes first in the next round.
        if !ready.is_empty() {
            ready.rotate_left(1);
        }
    }
    progress("");
    for site in &mut ready {
        if let Err(error) = site.ensure_honest() {
            results.withdraw(site.site.subject, short(&error));
        }
    }
    Ok(results)
}

/// Where a person looks on, a line that is written over and over.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{text:<40}\r");
    }
}

/// Does one step of one subject; a failure is told, and costs that figure only.
fn note(
    round: &mut Round,
    failures: &mut Vec<String>,
    site: &mut Ready,
    step: Step,
    number: u32,
    seconds: u32,
) {
    let subject = site.site.subject;
    match step.measure(site, seconds) {
        Ok(figures) => {
            for (metric, value) in figures {
                let kept = round.entry((subject, metric)).or_insert(value);
                // The only one that a round measures more than once: resident memory.
                *kept = kept.max(value);
            }
        }
        Err(error) => failures.push(format!(
            "round {}, {}: {}",
            number + 1,
            subject.name(),
            short(&error)
        )),
    }
}

/// The causes in one line, without a log that the last of them may carry.
fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.lines().next().unwrap_or_default();
    line.trim_end_matches(':').to_owned()
}

fn warn_of_other_work(background: &[f64]) {
    let most = background.iter().copied().fold(0.0, f64::max);
    if most > 0.1 {
        println!(
            "note: something else kept up to {:.0} % of the cores busy: CPU s per GB counts it too\n",
            most * 100.0
        );
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
