//! `proxy`: the Service proxy against bare loads of the classic rulesets, in one run.

mod churn;
mod classic_iptables;
mod classic_nft;
mod data_path;
mod host;
mod loading;
mod packet;
mod stream;
mod world;

pub use stream::copy_loop;

use crate::outcome::Outcome;
use crate::promise::{Bound, Promise};
use ::tests::Run;
use anyhow::Result;
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Where the issue says 5,000 Services.
    pub many: u32,
    /// 10,000.
    pub more: u32,
    /// 20,000.
    pub most: u32,
    /// Repetitions; of the long ones at most three.
    pub rounds: u32,
    /// Packets in one turn of a candidate; it has [`TURNS`] in a round.
    pub packets: u16,
    /// Of connections and of a stream.
    pub time: Duration,
    /// Of changes.
    pub churn: Duration,
}

const FULL: Scale = Scale {
    many: 5_000,
    more: 10_000,
    most: 20_000,
    rounds: 5,
    packets: 4_000,
    time: Duration::from_secs(2),
    churn: Duration::from_secs(20),
};

const QUICK: Scale = Scale {
    many: 1_000,
    more: 2_000,
    most: 4_000,
    rounds: 2,
    packets: 2_000,
    time: Duration::from_secs(1),
    churn: Duration::from_secs(4),
};

/// Short turns find the quiet moments of a busy machine better than long ones.
const TURNS: u32 = 5;

/// Few Services, in every comparison.
const FEW: u32 = 10;

/// A step of the benchmark: measures, and adds what it found.
type Step = fn(&Run, &Scale, &mut Outcome) -> Result<()>;

const STEPS: [(&str, Step); 6] = [
    ("nftables, loading", loading::nftables),
    ("nftables, packets and connections", data_path::nftables),
    ("nftables, churn", churn::run),
    ("iptables, loading", loading::iptables),
    ("iptables, packets", data_path::iptables),
    ("userspace, one stream", stream::run),
];

/// Measures everything; a step that fails is a promise not kept, and the rest goes on.
pub fn run(quick: bool, rounds: Option<u32>) -> Result<Outcome> {
    let mut scale = if quick { QUICK } else { FULL };
    scale.rounds = rounds.unwrap_or(scale.rounds).max(1);
    let mut outcome = Outcome::default();
    for (name, step) in STEPS {
        println!("   … {name}");
        let run = Run::new()?;
        if let Err(error) = step(&run, &scale, &mut outcome) {
            outcome.promises.push(Promise {
                text: name.to_owned(),
                measured: None,
                bound: Bound::AtMost(0.0),
                unit: "",
                note: format!("{error:#}"),
            });
        }
    }
    Ok(outcome)
}

impl Outcome {
    /// Adds a promise to reach a limit.
    fn promise_at_least(&mut self, text: &str, measured: f64, limit: f64, unit: &'static str) {
        self.promises.push(Promise {
            text: text.to_owned(),
            measured: Some(measured),
            bound: Bound::AtLeast(limit),
            unit,
            note: String::new(),
        });
    }

    /// Adds a single figure.
    fn remark(&mut self, text: &str, value: f64, unit: &'static str) {
        self.remarks.push((text.to_owned(), value, unit));
    }
}

/// The middle of some values; the lower of two, and zero of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or(0.0)
}

/// The smallest: the one that other work on the machine disturbed least.
fn best(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}
