//! All figures of a run, by round, and what is computed from them.

use super::metric::Metric;
use super::subject::Subject;
use std::collections::BTreeMap;

/// The figures of one round.
pub type Round = BTreeMap<(Subject, Metric), f64>;

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Subjects that were measured, with the data path in use.
    pub measured: Vec<(Subject, String)>,
    /// Subjects that could not be, and why.
    pub unavailable: Vec<(Subject, String)>,
    pub rounds: Vec<Round>,
    /// Steps that failed: they have no figure.
    pub failures: Vec<String>,
    /// The share of the machine that was busy with something else, by round.
    pub background: Vec<f64>,
}

/// A median with the least and the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// `None` for no values. The median of an even number of values is the mean of the middle two.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Self {
            median,
            least,
            most,
        })
    }
}

impl Results {
    /// Takes back a subject whose figures turned out not to be its own.
    pub fn withdraw(&mut self, subject: Subject, why: String) {
        self.measured.retain(|(other, _)| *other != subject);
        for round in &mut self.rounds {
            round.retain(|(other, _), _| *other != subject);
        }
        self.unavailable.push((subject, why));
    }

    /// The values of all rounds that have one.
    pub fn values(&self, subject: Subject, metric: Metric) -> Vec<f64> {
        let of_round = |round: &Round| round.get(&(subject, metric)).copied();
        self.rounds.iter().filter_map(of_round).collect()
    }

    pub fn median(&self, subject: Subject, metric: Metric) -> Option<f64> {
        Spread::of(self.values(subject, metric)).map(|spread| spread.median)
    }

    /// What `figure` makes of each round.
    pub fn spread(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(figure))
    }

    /// `figure` over `baseline`, each pair of the same round: what disturbs both does not count.
    pub fn ratio(
        &self,
        figure: impl Fn(&Round) -> Option<f64>,
        baseline: impl Fn(&Round) -> Option<f64>,
    ) -> Option<Spread> {
        self.spread(|round| Some(figure(round)? / baseline(round)?))
    }
}

/// TCP, one stream: the mean of both directions.
pub fn tcp_one(subject: Subject) -> impl Fn(&Round) -> Option<f64> + Copy {
    move |round| {
        let of = |metric| round.get(&(subject, metric)).copied();
        let there = of(Metric::TcpOneForward)?;
        let back = of(Metric::TcpOneBackward)?;
        Some(f64::midpoint(there, back))
    }
}

/// The slower direction, where the two nodes differ.
pub fn tcp_one_slower(subject: Subject) -> impl Fn(&Round) -> Option<f64> + Copy {
    move |round| {
        let of = |metric| round.get(&(subject, metric)).copied();
        Some(of(Metric::TcpOneForward)?.min(of(Metric::TcpOneBackward)?))
    }
}

/// One metric as it is.
pub fn plainly(subject: Subject, metric: Metric) -> impl Fn(&Round) -> Option<f64> + Copy {
    move |round| round.get(&(subject, metric)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_lies_between_the_middle_values() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).expect("values");
        assert_eq!((spread.median, spread.least, spread.most), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of([7.0]).map(|spread| spread.median), Some(7.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn withdrawn_subject_leaves_no_figure() {
        let key = |subject| (subject, Metric::IdleP50);
        let mut results = Results {
            measured: vec![(Subject::UdpEbpf, "ebpf".to_owned())],
            rounds: vec![Round::from([
                (key(Subject::UdpEbpf), 1.0),
                (key(Subject::UdpPlain), 2.0),
            ])],
            ..Results::default()
        };
        results.withdraw(Subject::UdpEbpf, "fell back".to_owned());
        assert_eq!(results.median(Subject::UdpEbpf, Metric::IdleP50), None);
        assert_eq!(
            results.median(Subject::UdpPlain, Metric::IdleP50),
            Some(2.0)
        );
        assert!(results.measured.is_empty());
        assert_eq!(results.unavailable[0].1, "fell back");
    }

    #[test]
    fn ratio_is_within_a_round_and_leaves_incomplete_rounds_out() {
        let metric = Metric::SmallDelivered;
        let round = |ours: f64, theirs: Option<f64>| {
            let mut round = Round::from([((Subject::UdpEbpf, metric), ours)]);
            round.extend(theirs.map(|value| ((Subject::KernelVxlan, metric), value)));
            round
        };
        let results = Results {
            rounds: vec![
                round(10.0, Some(5.0)),
                round(3.0, Some(1.0)),
                round(9.0, None),
            ],
            ..Results::default()
        };
        let ratio = results.ratio(
            plainly(Subject::UdpEbpf, metric),
            plainly(Subject::KernelVxlan, metric),
        );
        assert_eq!(ratio.map(|ratio| ratio.median), Some(2.5));
    }
}
