//! The chart for the README: four panels of bars, the best first.
//!
//! The picture brings its own background, so that it reads on a light and on a dark page; where the
//! viewer tells its preference it follows.

use super::metric::Metric;
use super::report::figure;
use super::results::{Results, Spread, plainly, tcp_one};
use super::subject::{Origin, Subject};
use crate::plot::escape;
use std::fmt::Write as _;

const PANEL: f64 = 430.0;
const MARGIN: f64 = 24.0;
const LABELS: f64 = 112.0;
const BARS: f64 = 230.0;
const ROW: f64 = 22.0;
/// Title and foot of the picture, and the head of a panel.
const HEAD: f64 = 48.0;
const FOOT: f64 = 52.0;
const PANEL_HEAD: f64 = 38.0;

const STYLE: &str = "\
text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:13px;fill:#1f2328}
.title{font-size:17px;font-weight:600}.head{font-weight:600}.muted{fill:#59636e;font-size:12px}
.card{fill:#ffffff;stroke:#d1d9e0}
.kernel{fill:#8c959f}.ours{fill:#1f6feb}.go{fill:#d4851c}
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.muted{fill:#9198a1}
.card{fill:#0d1117;stroke:#3d444d}.kernel{fill:#6e7681}.ours{fill:#4493f8}.go{fill:#d29922}}
";

/// A panel: its heading, its unit, whether more is better, and its rows.
struct Panel {
    heading: &'static str,
    unit: &'static str,
    more: bool,
    rows: Vec<(Subject, f64)>,
}

/// The picture; `foot` names machine and circumstances.
pub fn draw(results: &Results, foot: &str) -> String {
    let panels = panels(results);
    let rows = results.measured.len() as f64;
    let panel_height = PANEL_HEAD + rows * ROW + 16.0;
    let width = 2.0 * PANEL + 2.0 * MARGIN;
    let height = HEAD + 2.0 * panel_height + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>Two nodes joined in different ways</title>\n<style>{STYLE}</style>\n\
         <rect class=\"card\" fill=\"#ffffff\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
        width - 1.0,
        height - 1.0
    );
    text(
        &mut svg,
        "title",
        MARGIN,
        31.0,
        "Two nodes joined in different ways",
    );
    legend(&mut svg, width);
    for (number, panel) in panels.iter().enumerate() {
        let x = MARGIN + PANEL * (number % 2) as f64;
        let y = HEAD + panel_height * (number / 2) as f64;
        draw_panel(&mut svg, panel, x, y);
    }
    text(
        &mut svg,
        "muted",
        MARGIN,
        height - 32.0,
        "Median of the rounds; two namespaces of one machine joined by a veth pair.",
    );
    text(&mut svg, "muted", MARGIN, height - 14.0, foot);
    svg.push_str("</svg>\n");
    svg
}

fn panels(results: &Results) -> [Panel; 4] {
    let tcp = |subject| results.spread(tcp_one(subject));
    let metric = |metric| move |subject| results.spread(plainly(subject, metric));
    let mut panels = [
        Panel {
            heading: "TCP, one stream",
            unit: "Gbit/s, mean of both directions",
            more: true,
            rows: rows(results, tcp),
        },
        Panel {
            heading: "UDP, 64-byte packets delivered",
            unit: "thousand a second",
            more: true,
            rows: rows(results, metric(Metric::SmallDelivered)),
        },
        Panel {
            heading: "Round trip, idle, median",
            unit: "µs",
            more: false,
            rows: rows(results, metric(Metric::IdleP50)),
        },
        Panel {
            heading: "Processor time for a gigabyte by TCP",
            unit: "s, both nodes, kernel included",
            more: false,
            rows: rows(results, metric(Metric::CpuPerGigabyte)),
        },
    ];
    for panel in &mut panels {
        panel.rows.sort_by(|a, b| match panel.more {
            true => b.1.total_cmp(&a.1),
            false => a.1.total_cmp(&b.1),
        });
    }
    panels
}

fn rows(results: &Results, figure: impl Fn(Subject) -> Option<Spread>) -> Vec<(Subject, f64)> {
    let of = |&(subject, _): &(Subject, String)| Some((subject, figure(subject)?.median));
    results.measured.iter().filter_map(of).collect()
}

fn draw_panel(svg: &mut String, panel: &Panel, x: f64, y: f64) {
    let better = if panel.more {
        "more is better"
    } else {
        "less is better"
    };
    text(svg, "head", x, y + 14.0, panel.heading);
    text(
        svg,
        "muted",
        x,
        y + 30.0,
        &format!("{} ({better})", panel.unit),
    );
    let values = panel.rows.iter().map(|row| row.1);
    let largest = values.fold(f64::MIN_POSITIVE, f64::max);
    for (number, (subject, value)) in panel.rows.iter().enumerate() {
        let top = y + PANEL_HEAD + ROW * number as f64;
        // A hair's breadth is seen where the value itself would not be.
        let width = (value / largest * BARS).max(1.0);
        text(svg, "", x, top + 14.0, subject.name());
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<rect class=\"{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"15\" rx=\"2\"/>",
            class(subject.origin()),
            x + LABELS,
            top + 2.0
        );
        text(
            svg,
            "",
            x + LABELS + width + 6.0,
            top + 14.0,
            &figure(Some(*value)),
        );
    }
}

fn legend(svg: &mut String, width: f64) {
    let mut x = width - MARGIN - 320.0;
    for (origin, label, room) in [
        (Origin::Kernel, "kernel", 80.0),
        (Origin::Ours, "flanneld-rs", 115.0),
        (Origin::Go, "flannel (Go)", 110.0),
    ] {
        let _ = writeln!(
            svg,
            "<rect class=\"{}\" x=\"{x:.1}\" y=\"19\" width=\"13\" height=\"13\" rx=\"2\"/>",
            class(origin)
        );
        text(svg, "muted", x + 19.0, 30.0, label);
        x += room;
    }
}

fn class(origin: Origin) -> &'static str {
    match origin {
        Origin::Kernel => "kernel",
        Origin::Ours => "ours",
        Origin::Go => "go",
    }
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, content: &str) {
    let class = match class {
        "" => String::new(),
        class => format!(" class=\"{class}\""),
    };
    let _ = writeln!(
        svg,
        "<text{class} x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
        escape(content)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::results::Round;

    fn results() -> Results {
        let mut round = Round::new();
        for (subject, value) in [
            (Subject::UdpPlain, 1.0),
            (Subject::UdpEbpf, 20.0),
            (Subject::RawVeth, 30.0),
        ] {
            for metric in Metric::ALL {
                round.insert((subject, metric), value);
            }
        }
        Results {
            measured: [Subject::RawVeth, Subject::UdpEbpf, Subject::UdpPlain]
                .map(|subject| (subject, String::new()))
                .to_vec(),
            rounds: vec![round],
            ..Results::default()
        }
    }

    /// Every element is closed in order, and no bare `<` or `&` is in the text.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some(start) = rest.find('<') {
            let content = &rest[..start];
            for (at, _) in content.match_indices('&') {
                assert!(
                    ["&amp;", "&lt;"]
                        .iter()
                        .any(|entity| content[at..].starts_with(entity)),
                    "a bare & in {content:?}"
                );
            }
            let end = start + rest[start..].find('>').expect("a tag that ends");
            let tag = &rest[start + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes of {tag:?}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().expect("a name"));
            }
            rest = &rest[end + 1..];
        }
        assert_eq!(open, [""; 0]);
        assert_eq!(rest.trim(), "");
    }

    #[test]
    fn picture_is_well_formed_whatever_the_machine_is_called() {
        let svg = draw(&results(), "2 cores of A&B <fast>");
        assert_well_formed(&svg);
        assert!(svg.contains("A&amp;B &lt;fast>"));
    }

    #[test]
    fn bars_are_sorted_best_first() {
        let panels = panels(&results());
        let names = |number: usize| -> Vec<_> {
            let panel: &Panel = &panels[number];
            panel.rows.iter().map(|row| row.0.name()).collect()
        };
        assert_eq!(names(0), ["raw veth", "udp ebpf", "udp plain"]);
        assert_eq!(names(2), ["udp plain", "udp ebpf", "raw veth"]);
    }
}
