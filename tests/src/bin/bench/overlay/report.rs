//! The tables for a terminal of 80 columns, and the JSON of everything.

use super::machine::Machine;
use super::metric::Metric;
use super::results::{Results, Spread, plainly, tcp_one};
use super::subject::Subject;
use crate::promise::Promise;
use serde_json::{Map, Value, json};

/// The baseline of the last column.
const BASELINE: Subject = Subject::KernelVxlan;

/// A column: its width, three lines of heading, and what it shows.
type Column = (usize, [&'static str; 3], Metric);

const THROUGHPUT: [Column; 8] = [
    (7, ["TCP 1", "Gbit/s", "→"], Metric::TcpOneForward),
    (6, ["", "", "←"], Metric::TcpOneBackward),
    (7, ["TCP 8", "Gbit/s", "→"], Metric::TcpEightForward),
    (6, ["", "", "←"], Metric::TcpEightBackward),
    (8, ["UDP", "64 B", "kp/s"], Metric::SmallDelivered),
    (6, ["", "", "lost%"], Metric::SmallLost),
    (8, ["UDP", "1400 B", "kp/s"], Metric::LargeDelivered),
    (6, ["", "", "lost%"], Metric::LargeLost),
];

/// The last column of the first table.
const RATIO: (usize, [&str; 3]) = (8, ["TCP 1", "of the", "kernel"]);

const COST: [Column; 7] = [
    (8, ["RTT", "idle", "p50 µs"], Metric::IdleP50),
    (8, ["", "", "p99"], Metric::IdleP99),
    (8, ["RTT", "loaded", "p50 µs"], Metric::LoadedP50),
    (8, ["", "", "p99"], Metric::LoadedP99),
    (9, ["new", "TCP", "conn/s"], Metric::Connections),
    (9, ["CPU", "seconds", "per GB"], Metric::CpuPerGigabyte),
    (8, ["daemon", "memory", "MB"], Metric::Resident),
];

/// Throughput in one table, latency and cost in another; then what is not available, and what failed.
pub fn tables(results: &Results) -> String {
    let mut lines = Vec::new();
    for (line, mut heading) in headings(&THROUGHPUT).into_iter().enumerate() {
        let (width, texts) = RATIO;
        heading += &format!("{:>width$}", texts[line]);
        lines.push(heading);
    }
    for &(subject, _) in &results.measured {
        let ratio = results.ratio(tcp_one(subject), tcp_one(BASELINE));
        let ratio = figure(ratio.map(|ratio| ratio.median));
        lines.push(row(results, subject, &THROUGHPUT) + &format!("{ratio:>0$}", RATIO.0));
    }
    lines.push(String::new());
    lines.extend(headings(&COST));
    for &(subject, _) in &results.measured {
        lines.push(row(results, subject, &COST));
    }
    lines.push(String::new());
    for (subject, why) in &results.unavailable {
        lines.push(format!("{}: not available: {why}", subject.name()));
    }
    lines.extend(
        results
            .failures
            .iter()
            .map(|line| format!("failed: {line}")),
    );
    lines.join("\n") + "\n"
}

fn headings(columns: &[Column]) -> [String; 3] {
    [0, 1, 2].map(|line| {
        let cell = |(width, texts, _): &Column| format!("{:>width$}", texts[line]);
        let cells: String = columns.iter().map(cell).collect();
        format!("{:<16} {cells}", "")
    })
}

fn row(results: &Results, subject: Subject, columns: &[Column]) -> String {
    let cell = |&(width, _, metric): &Column| {
        format!("{:>width$}", figure(results.median(subject, metric)))
    };
    let cells: String = columns.iter().map(cell).collect();
    format!("{:<16} {cells}", subject.name())
}

/// Three digits that mean something; a dash for no value.
pub fn figure(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value >= 99.95 => format!("{value:.0}"),
        Some(value) if value >= 9.995 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// Everything, by subject, with each round's values.
pub fn to_json(results: &Results, machine: &Machine, seconds: u32, promises: &[Promise]) -> Value {
    let subjects = results.measured.iter().map(|(subject, paths)| {
        let metrics: Map<_, _> = Metric::ALL
            .into_iter()
            .map(|metric| {
                let values = results.values(*subject, metric);
                (metric.key().to_owned(), summary(values))
            })
            .collect();
        let of = |ratio: Option<Spread>| ratio.map(|ratio| ratio.median);
        let small = |subject| plainly(subject, Metric::SmallDelivered);
        json!({
            "name": subject.name(),
            "data_path": paths,
            "metrics": metrics,
            "tcp_1_of_kernel_vxlan": of(results.ratio(tcp_one(*subject), tcp_one(BASELINE))),
            "udp_64_of_kernel_vxlan": of(results.ratio(small(*subject), small(BASELINE))),
        })
    });
    let unavailable = results
        .unavailable
        .iter()
        .map(|(subject, why)| json!({ "name": subject.name(), "why": why }));
    json!({
        "machine": machine.to_json(),
        "rounds": results.rounds.len(),
        "seconds": seconds,
        "other_work_share_of_cores": results.background,
        "subjects": subjects.collect::<Vec<_>>(),
        "not_available": unavailable.collect::<Vec<_>>(),
        "failures": results.failures,
        "promises": promises.iter().map(Promise::to_json).collect::<Vec<_>>(),
    })
}

fn summary(values: Vec<f64>) -> Value {
    let spread = Spread::of(values.iter().copied());
    json!({
        "median": spread.map(|spread| spread.median),
        "least": spread.map(|spread| spread.least),
        "most": spread.map(|spread| spread.most),
        "rounds": values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::results::Round;

    /// Every subject with the widest figures that can occur.
    fn widest() -> Results {
        let mut round = Round::new();
        for subject in Subject::ALL {
            for metric in Metric::ALL {
                let value = match metric {
                    Metric::Connections => 99_999.0,
                    Metric::SmallDelivered | Metric::LargeDelivered => 9_999.0,
                    Metric::SmallLost | Metric::LargeLost => 100.0,
                    Metric::IdleP99 | Metric::LoadedP50 | Metric::LoadedP99 => 99_999.0,
                    _ => 999.0,
                };
                round.insert((subject, metric), value);
            }
        }
        Results {
            measured: Subject::ALL
                .map(|subject| (subject, "x".to_owned()))
                .to_vec(),
            rounds: vec![round],
            ..Results::default()
        }
    }

    #[test]
    fn tables_fit_eighty_columns_and_cells_stay_apart() {
        let text = tables(&widest());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "too wide: {line}");
        }
        let cells = |name: &str| {
            let line = text.lines().filter(|line| line.starts_with(name));
            line.map(|line| line[name.len()..].split_whitespace().count())
                .collect::<Vec<_>>()
        };
        assert_eq!(cells("vxlan tun/kernel"), [9, 7]);
    }

    #[test]
    fn what_is_missing_is_a_dash_and_said_below() {
        let mut results = widest();
        results.rounds[0].remove(&(Subject::UdpPlain, Metric::SmallDelivered));
        results.unavailable = vec![(Subject::GoUdp, "no Go".to_owned())];
        results.failures = vec!["round 1, udp plain: UDP 64: gone".to_owned()];
        let text = tables(&results);
        let plain = text.lines().find(|line| line.starts_with("udp plain"));
        assert!(plain.is_some_and(|line| line.contains(" – ")));
        assert!(text.contains("flannel udp: not available: no Go"));
        assert!(text.contains("failed: round 1, udp plain: UDP 64: gone"));
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(figure(Some(0.416)), "0.42");
        assert_eq!(figure(Some(23.46)), "23.5");
        assert_eq!(figure(Some(1234.5)), "1234");
        assert_eq!(figure(None), "–");
    }
}
