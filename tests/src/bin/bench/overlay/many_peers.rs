//! `--peers N`: a lookup must cost as much with N subnets as with two.
//!
//! The same two nodes, and N − 2 leases of nodes that do not exist come and go in etcd, so that what
//! differs is the size of the peer table and nothing else. Each round measures few, many, many, few:
//! a drift of the machine over the round then weighs on both alike.

use super::lab::Lab;
use super::machine::Machine;
use super::metric::{Metric, Step};
use super::report::figure;
use super::results::{Results, Round, Spread, plainly};
use super::site::{Ready, Site};
use super::subject::Subject;
use crate::promise::{Bound, Promise};
use ::tests::eventually;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// All lookups are in it, the existing nodes' subnets too.
pub const NETWORK: &str = "10.0.0.0/8";
/// The most by which many may be slower than few.
const LEAST: f64 = 0.95;

/// Round trips come last, and without a promise: their median shows a dearer lookup even on a machine
/// that is too busy for throughput to mean much.
const STEPS: [Step; 3] = [
    Step::Udp { payload: 64 },
    Step::Tcp {
        streams: 1,
        backward: false,
    },
    Step::RttIdle,
];

const PROMISED: [(&str, Metric); 2] = [
    ("UDP 64 B/s", Metric::SmallDelivered),
    ("TCP 1 stream", Metric::TcpOneForward),
];

/// Measures each subject with two and with `peers` subnets.
pub fn run(
    machine: &Machine,
    subjects: &[Subject],
    peers: usize,
    rounds: u32,
    seconds: u32,
) -> Result<Outcome> {
    let lab = Lab::new(&machine.congestion)?;
    let mut outcome = Outcome {
        few: Results::default(),
        many: Results::default(),
        peers,
        subjects: subjects.to_vec(),
    };
    for (number, &subject) in subjects.iter().enumerate() {
        let started = Site::start(&lab, subject, number, NETWORK)?;
        match started.ready(&lab) {
            Ok(ready) => outcome.compare(&lab, ready, rounds, seconds)?,
            Err(error) => outcome
                .few
                .unavailable
                .push((subject, super::short(&error))),
        }
    }
    Ok(outcome)
}

/// The figures with two subnets and with all; rounds of equal index belong together.
pub struct Outcome {
    pub few: Results,
    pub many: Results,
    pub peers: usize,
    subjects: Vec<Subject>,
}

impl Outcome {
    fn compare(&mut self, lab: &Lab, mut ready: Ready, rounds: u32, seconds: u32) -> Result<()> {
        let subject = ready.site.subject;
        println!("{}: {}, {rounds} rounds", subject.name(), ready.paths);
        for results in [&mut self.few, &mut self.many] {
            results.measured.push((subject, ready.paths.clone()));
        }
        for number in 1..=rounds {
            let mut measure = |ready: &mut Ready| {
                let (round, failures) = measure(ready, seconds);
                let failures = failures.into_iter();
                let name = subject.name();
                let lines = failures.map(|line| format!("round {number}, {name}: {line}"));
                self.few.failures.extend(lines);
                round
            };
            let first = measure(&mut ready);
            let lease = appear(lab, &ready, self.peers)?;
            let all = [measure(&mut ready), measure(&mut ready)];
            lab.etcd.ctl(&["lease", "revoke", &lease])?;
            wait_peers(&ready, 1)?;
            let two = [first, measure(&mut ready)];
            self.few.rounds.push(mean(&two));
            self.many.rounds.push(mean(&all));
        }
        if let Err(error) = ready.ensure_honest() {
            for results in [&mut self.few, &mut self.many] {
                results.withdraw(subject, super::short(&error));
            }
        }
        Ok(())
    }

    /// With all over with two, of each round.
    fn ratio(&self, subject: Subject, metric: Metric) -> Option<Spread> {
        let figure = plainly(subject, metric);
        let pairs = self.many.rounds.iter().zip(&self.few.rounds);
        Spread::of(pairs.filter_map(|(many, few)| Some(figure(many)? / figure(few)?)))
    }

    /// The promise for each subject and metric.
    pub fn promises(&self) -> Vec<Promise> {
        let promise = |subject: Subject, text: &str, metric| {
            let ratio = self.ratio(subject, metric);
            Promise {
                text: format!("{}, {text}, {} subnets", subject.name(), self.peers),
                measured: ratio.map(|ratio| ratio.median),
                bound: Bound::AtLeast(LEAST),
                unit: "×",
                note: match ratio {
                    Some(Spread { least, most, .. }) => {
                        format!("of the same with 2, {least:.2}–{most:.2}")
                    }
                    None => "not available, or failed".to_owned(),
                },
            }
        };
        let of = |subject| PROMISED.map(|(text, metric)| promise(subject, text, metric));
        self.subjects.iter().copied().flat_map(of).collect()
    }

    /// What is told beside: medians, round trips, and what failed.
    pub fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let metrics = [
            ("UDP 64 B, kp/s", Metric::SmallDelivered),
            ("TCP 1, Gbit/s", Metric::TcpOneForward),
            ("RTT p50, µs", Metric::IdleP50),
        ];
        for &(subject, _) in &self.few.measured {
            for (text, metric) in metrics {
                lines.push(format!(
                    "{}, {text}: {} with 2, {} with {}, ratio {}",
                    subject.name(),
                    figure(self.few.median(subject, metric)),
                    figure(self.many.median(subject, metric)),
                    self.peers,
                    figure(self.ratio(subject, metric).map(|ratio| ratio.median)),
                ));
            }
        }
        let unavailable = self.few.unavailable.iter();
        lines.extend(
            unavailable.map(|(subject, why)| format!("{}: not available: {why}", subject.name())),
        );
        let failures = self.few.failures.iter();
        lines.extend(failures.map(|line| format!("failed: {line}")));
        lines
    }
}

/// Each step's figures, and what failed.
fn measure(ready: &mut Ready, seconds: u32) -> (Round, Vec<String>) {
    let subject = ready.site.subject;
    let (mut round, mut failures) = (Round::new(), Vec::new());
    for step in STEPS {
        match step.measure(ready, seconds) {
            Ok(figures) => {
                let figures = figures.into_iter();
                round.extend(figures.map(|(metric, value)| ((subject, metric), value)));
            }
            Err(error) => failures.push(super::short(&error)),
        }
    }
    (round, failures)
}

/// Each metric's mean; none for one that a half lacks.
fn mean(halves: &[Round; 2]) -> Round {
    let [first, second] = halves;
    let both = first.iter().filter_map(|(key, value)| {
        let other = second.get(key)?;
        Some((*key, f64::midpoint(*value, *other)))
    });
    both.collect()
}

/// Writes the leases of all other nodes, waits until both daemons have them; returns the etcd lease.
fn appear(lab: &Lab, ready: &Ready, peers: usize) -> Result<String> {
    let lease = lab.etcd.grant(3600)?;
    let pairs: Vec<_> = subnets(ready)?
        .take(peers.saturating_sub(2))
        .map(|(subnet, address)| {
            let key = format!("{}/subnets/{subnet}-24", ready.site.prefix);
            let value = format!("{{\"PublicIP\":\"{address}\",\"PublicIPv6\":null}}");
            (key, value)
        })
        .collect();
    lab.etcd.put_all(
        &lease,
        pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    )?;
    wait_peers(ready, pairs.len() + 1)?;
    Ok(lease)
}

/// Subnets that the two nodes do not have, each with the address of a node that does not exist.
fn subnets(ready: &Ready) -> Result<impl Iterator<Item = (String, String)>> {
    let taken: Vec<_> = ready
        .site
        .nodes
        .iter()
        .map(|node| node.address.octets())
        .collect();
    let is_free = move |(high, low): &(u8, u8)| {
        !taken
            .iter()
            .any(|address| (address[1], address[2]) == (*high, *low))
    };
    let all = (1..=255).flat_map(|high| (0..=255).map(move |low| (high, low)));
    Ok(all.filter(is_free).map(|(high, low)| {
        (
            format!("10.{high}.{low}.0"),
            format!("172.{}.{high}.{low}", 16 + high % 16),
        )
    }))
}

/// Waits until both daemons serve so many peers.
fn wait_peers(ready: &Ready, wanted: usize) -> Result<()> {
    let wanted = format!("flanneld_peers {wanted}");
    for node in &ready.site.nodes {
        eventually(&wanted, Duration::from_secs(60), || {
            let (_, page) = node.flanneld.health("metrics")?;
            let line = page
                .lines()
                .find(|line| line.starts_with("flanneld_peers "));
            let line = line.context("no flanneld_peers in /metrics")?;
            ensure!(line == wanted, "{line}");
            Ok(())
        })?;
    }
    // The table is published after it is counted; there is no sign of that.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_compares_rounds_of_equal_index() {
        let results = |values: &[f64]| Results {
            rounds: values
                .iter()
                .map(|value| Round::from([((Subject::UdpEbpf, Metric::SmallDelivered), *value)]))
                .collect(),
            ..Results::default()
        };
        let outcome = Outcome {
            few: results(&[100.0, 50.0, 80.0]),
            many: results(&[99.0, 48.0, 40.0]),
            peers: 5000,
            subjects: vec![Subject::UdpEbpf],
        };
        let promises = outcome.promises();
        assert_eq!(promises[0].measured, Some(0.96));
        assert!(promises[0].holds());
        assert_eq!(promises[1].measured, None);
    }

    #[test]
    fn mean_is_by_metric() {
        let half = |value| Round::from([((Subject::UdpEbpf, Metric::SmallDelivered), value)]);
        assert_eq!(mean(&[half(1.0), half(3.0)]), half(2.0));
        assert_eq!(mean(&[half(1.0), Round::new()]), Round::new());
    }
}
