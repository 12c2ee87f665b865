//! `--peers N`: a lookup must cost as much with N subnets as with two.
//!
//! The same two nodes, and N − 2 leases of nodes that do not exist come and go in etcd, so that what
//! differs is the size of the peer table and nothing else. Each round measures few, many, many, few:
//! a drift of the machine over the round then weighs on both alike.

use super::lab::Lab;
use super::machine::Machine;
use super::metric::{Metric, Step};
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

const STEPS: [(Step, Metric); 2] = [
    (Step::Udp { payload: 64 }, Metric::SmallDelivered),
    (
        Step::Tcp {
            streams: 1,
            backward: false,
        },
        Metric::TcpOneForward,
    ),
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
    let mut few = Results::default();
    let mut many = Results::default();
    for (number, &subject) in subjects.iter().enumerate() {
        let started = Site::start(&lab, subject, number, NETWORK)?;
        let mut ready = match started.ready(&lab) {
            Ok(ready) => ready,
            Err(error) => {
                few.unavailable.push((subject, super::short(&error)));
                continue;
            }
        };
        for results in [&mut few, &mut many] {
            results.measured.push((subject, ready.paths.clone()));
        }
        println!("{}: {} ({} rounds)", subject.name(), ready.paths, rounds);
        for round in 0..rounds {
            let (mut two, mut all) = (Vec::new(), Vec::new());
            two.push(measure(&mut ready, seconds)?);
            let lease = appear(&lab, &ready, peers)?;
            all.push(measure(&mut ready, seconds)?);
            all.push(measure(&mut ready, seconds)?);
            lab.etcd.ctl(&["lease", "revoke", &lease])?;
            wait_peers(&ready, 1)?;
            two.push(measure(&mut ready, seconds)?);
            for (results, halves) in [(&mut few, two), (&mut many, all)] {
                results.rounds.push(mean(&halves));
            }
            let last = |results: &Results, metric| {
                let round = results.rounds.last();
                super::report::figure(
                    round.and_then(|round| round.get(&(subject, metric)).copied()),
                )
            };
            println!(
                "  round {}: 64-byte kp/s {} → {}, TCP Gbit/s {} → {}",
                round + 1,
                last(&few, Metric::SmallDelivered),
                last(&many, Metric::SmallDelivered),
                last(&few, Metric::TcpOneForward),
                last(&many, Metric::TcpOneForward),
            );
        }
        if let Err(error) = ready.ensure_honest() {
            for results in [&mut few, &mut many] {
                results.withdraw(subject, super::short(&error));
            }
        }
    }
    Ok(Outcome {
        few,
        many,
        peers,
        subjects: subjects.to_vec(),
    })
}

/// The figures with two subnets and with all; rounds of equal index belong together.
pub struct Outcome {
    pub few: Results,
    pub many: Results,
    pub peers: usize,
    subjects: Vec<Subject>,
}

impl Outcome {
    /// The promise for each subject and metric.
    pub fn promises(&self) -> Vec<Promise> {
        let mut promises = Vec::new();
        for &subject in &self.subjects {
            for (step, metric) in STEPS {
                let figure = plainly(subject, metric);
                let pairs = self.many.rounds.iter().zip(&self.few.rounds);
                let ratio =
                    Spread::of(pairs.filter_map(|(many, few)| Some(figure(many)? / figure(few)?)));
                let note = match ratio {
                    Some(ratio) => {
                        format!("of the same with 2, {:.2}–{:.2}", ratio.least, ratio.most)
                    }
                    None => "not available".to_owned(),
                };
                promises.push(Promise {
                    text: format!(
                        "{}, {}, {} subnets",
                        subject.name(),
                        step.name(),
                        self.peers
                    ),
                    measured: ratio.map(|ratio| ratio.median),
                    bound: Bound::AtLeast(LEAST),
                    unit: "×",
                    note,
                });
            }
        }
        promises
    }
}

fn measure(ready: &mut Ready, seconds: u32) -> Result<Round> {
    let mut round = Round::new();
    let subject = ready.site.subject;
    for (step, _) in STEPS {
        for (metric, value) in step.measure(ready, seconds)? {
            round.insert((subject, metric), value);
        }
    }
    Ok(round)
}

/// Each metric's mean over halves that have the same metrics.
fn mean(halves: &[Round]) -> Round {
    let mut sum = Round::new();
    for half in halves {
        for (key, value) in half {
            *sum.entry(*key).or_default() += value / halves.len() as f64;
        }
    }
    sum
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
    }
}
