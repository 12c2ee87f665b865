//! The promises about the overlay: each figure against its baseline of the same round.

use super::metric::Metric;
use super::results::{Results, Round, Spread, plainly, tcp_one, tcp_one_slower};
use super::subject::{Origin, Subject};
use crate::promise::{Bound, Promise};

/// Resident memory of a daemon under load, in MB.
const RESIDENT: f64 = 32.0;

/// Those promises that the chosen subjects allow to check; what could not be measured although it was
/// chosen is named.
pub fn check(results: &Results, chosen: &[Subject]) -> Vec<Promise> {
    use Subject::{KernelVxlan, RawVeth, UdpEbpf, UdpOffload, UdpPlain, VxlanTun};
    let small = |subject| plainly(subject, Metric::SmallDelivered);
    let p50 = |subject| plainly(subject, Metric::IdleP50);
    let book = Book { results, chosen };
    let mut promises = Vec::new();
    let pairs = [
        book.against(
            "TCP 1 stream",
            UdpEbpf,
            KernelVxlan,
            Bound::AtLeast(1.0),
            tcp_one,
            tcp_one,
        ),
        book.against(
            "UDP 64 B/s",
            UdpEbpf,
            KernelVxlan,
            Bound::AtLeast(1.25),
            small,
            small,
        ),
        book.against(
            "RTT p50",
            UdpEbpf,
            KernelVxlan,
            Bound::AtMost(1.0),
            p50,
            p50,
        ),
        book.against(
            "TCP 1 stream",
            UdpEbpf,
            RawVeth,
            Bound::AtLeast(0.85),
            tcp_one,
            tcp_one,
        ),
        book.against(
            "TCP 1 stream",
            UdpOffload,
            UdpPlain,
            Bound::AtLeast(18.0),
            tcp_one,
            tcp_one,
        ),
        book.against(
            "TCP 1 stream",
            UdpOffload,
            KernelVxlan,
            Bound::AtLeast(0.30),
            tcp_one,
            tcp_one,
        ),
        either(
            book.against(
                "UDP 64 B/s",
                UdpOffload,
                UdpPlain,
                Bound::AtLeast(10.0),
                small,
                small,
            ),
            book.against(
                "UDP 64 B/s",
                UdpOffload,
                KernelVxlan,
                Bound::AtLeast(0.6),
                small,
                small,
            ),
        ),
        book.against(
            "TCP 1 stream, slower way",
            VxlanTun,
            KernelVxlan,
            Bound::AtLeast(0.25),
            tcp_one_slower,
            tcp_one,
        ),
    ];
    promises.extend(pairs.into_iter().flatten());
    promises.extend(book.resident());
    promises
}

struct Book<'a> {
    results: &'a Results,
    chosen: &'a [Subject],
}

impl Book<'_> {
    /// A ratio; `None` when one of the two was not asked for.
    fn against<F, G>(
        &self,
        what: &str,
        subject: Subject,
        baseline: Subject,
        bound: Bound,
        figure: impl Fn(Subject) -> F,
        base: impl Fn(Subject) -> G,
    ) -> Option<Promise>
    where
        F: Fn(&Round) -> Option<f64>,
        G: Fn(&Round) -> Option<f64>,
    {
        if !self.chosen.contains(&subject) || !self.chosen.contains(&baseline) {
            return None;
        }
        let ratio = self.results.ratio(figure(subject), base(baseline));
        Some(Promise {
            text: format!("{}, {what}", subject.name()),
            measured: ratio.map(|ratio| ratio.median),
            bound,
            unit: "×",
            note: self.note(ratio, &[subject, baseline], Some(baseline)),
        })
    }

    /// The largest of our data paths' daemons.
    fn resident(&self) -> Option<Promise> {
        let is_ours = |subject: &Subject| subject.origin() == Origin::Ours;
        let ours: Vec<_> = self.chosen.iter().copied().filter(is_ours).collect();
        if ours.is_empty() {
            return None;
        }
        let largest = self.results.spread(|round| {
            let of = |subject: &Subject| round.get(&(*subject, Metric::Resident)).copied();
            ours.iter().filter_map(of).reduce(f64::max)
        });
        Some(Promise {
            text: "resident memory of the largest daemon under load".to_owned(),
            // Not the median: the promise is that it is never more.
            measured: largest.map(|largest| largest.most),
            bound: Bound::AtMost(RESIDENT),
            unit: "MB",
            note: match largest {
                Some(_) => String::new(),
                None => self.note(None, &ours, None),
            },
        })
    }

    fn note(&self, spread: Option<Spread>, of: &[Subject], baseline: Option<Subject>) -> String {
        let name = |baseline: Subject| baseline.name();
        match spread {
            Some(Spread { least, most, .. }) => format!(
                "of {}, {least:.2}–{most:.2}",
                baseline.map_or("itself", name)
            ),
            None => {
                let missing = |subject: &Subject| {
                    let unavailable = &self.results.unavailable;
                    unavailable.iter().any(|(other, _)| other == subject)
                };
                let names: Vec<_> = of.iter().filter(|s| missing(s)).map(|s| s.name()).collect();
                match names[..] {
                    [] => "a measurement failed".to_owned(),
                    _ => format!("not available: {}", names.join(", ")),
                }
            }
        }
    }
}

/// One promise with two ways to keep it: the one that is kept, or comes closer.
fn either(first: Option<Promise>, second: Option<Promise>) -> Option<Promise> {
    let (Some(first), Some(second)) = (&first, &second) else {
        return first.or(second);
    };
    let share = |promise: &Promise| match (promise.measured, promise.bound) {
        (Some(measured), Bound::AtLeast(limit)) => measured / limit,
        (Some(measured), Bound::AtMost(limit)) => limit / measured,
        (None, _) => 0.0,
    };
    let (better, other) = if share(first) >= share(second) {
        (first, second)
    } else {
        (second, first)
    };
    let mut better = better.clone();
    if let (Some(measured), Bound::AtLeast(limit)) = (other.measured, other.bound) {
        better.note += &format!("; or {measured:.2} ≥ {limit:.2} {}", other.note);
    }
    Some(better)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        for scale in [1.0, 1.1] {
            let mut round = Round::new();
            for (subject, speed, small) in [
                (Subject::KernelVxlan, 20.0, 100.0),
                (Subject::UdpOffload, 8.0, 50.0),
                (Subject::UdpPlain, 0.5, 4.0),
            ] {
                round.insert((subject, Metric::TcpOneForward), speed * scale);
                round.insert((subject, Metric::TcpOneBackward), speed * scale);
                round.insert((subject, Metric::SmallDelivered), small * scale);
                round.insert((subject, Metric::Resident), 10.0 * scale);
            }
            results.rounds.push(round);
        }
        results.unavailable = vec![(Subject::UdpEbpf, "no such path".to_owned())];
        results
    }

    #[test]
    fn promises_follow_the_chosen_subjects() {
        let results = results();
        let chosen = [Subject::KernelVxlan, Subject::UdpOffload, Subject::UdpPlain];
        let promises = check(&results, &chosen);
        let texts: Vec<_> = promises
            .iter()
            .map(|p| (p.text.as_str(), p.holds()))
            .collect();
        assert_eq!(
            texts,
            [
                ("udp offload, TCP 1 stream", false),
                ("udp offload, TCP 1 stream", true),
                ("udp offload, UDP 64 B/s", true),
                ("resident memory of the largest daemon under load", true),
            ]
        );
        // 50 of 4 is more than ten times; half of the kernel's is less than 0.6 of it.
        assert_eq!(promises[2].measured, Some(12.5));
        assert_eq!(promises[3].measured, Some(11.0));
    }

    #[test]
    fn what_is_not_available_is_named() {
        let chosen = [Subject::KernelVxlan, Subject::UdpEbpf];
        let promises = check(&results(), &chosen);
        assert_eq!(promises.len(), 4);
        assert!(promises.iter().all(|promise| !promise.holds()));
        assert_eq!(promises[0].note, "not available: udp ebpf");
    }
}
