//! Measured values, the promises they are held against, and how both are shown and kept.

use crate::plot;
use crate::promise::{self, Bound, Promise};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Times of one thing, measured many times.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub milliseconds: Vec<f64>,
}

impl Series {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            milliseconds: Vec::new(),
        }
    }

    pub fn push(&mut self, time: Duration) {
        self.milliseconds.push(time.as_secs_f64() * 1000.0);
    }

    /// The middle value; the lower of two. Zero for an empty series.
    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// The value below which the part `share` of all lies.
    pub fn at(&self, share: f64) -> f64 {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let positions = (0..sorted.len()).take_while(|i| *i as f64 <= last as f64 * share);
        positions.last().map_or(0.0, |i| sorted[i])
    }
}

/// All that one benchmark found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub series: Vec<Series>,
    pub promises: Vec<Promise>,
    /// Single figures that no promise is about.
    pub remarks: Vec<(String, f64, &'static str)>,
}

impl Outcome {
    /// Adds a promise to stay at or below a limit.
    pub fn promise(&mut self, text: &str, measured: f64, limit: f64, unit: &'static str) {
        self.promises.push(Promise {
            text: text.to_owned(),
            measured: Some(measured),
            bound: Bound::AtMost(limit),
            unit,
            note: String::new(),
        });
    }

    /// Prints medians and promises; returns how many are missed.
    pub fn print(&self) -> usize {
        for series in &self.series {
            println!(
                "  {:<58} median {:>8.2} ms   p90 {:>8.2} ms   ({} runs)",
                series.name,
                series.median(),
                series.at(0.9),
                series.milliseconds.len()
            );
        }
        for (text, value, unit) in &self.remarks {
            println!("  {text:<58} {value:.2} {unit}");
        }
        promise::print(&self.promises)
    }

    /// Writes `<name>.json` and `<name>.svg`.
    pub fn write(&self, folder: &Path, name: &str) -> Result<()> {
        let path = folder.join(format!("{name}.json"));
        std::fs::write(&path, format!("{:#}\n", self.to_json()))
            .with_context(|| format!("write {}", path.display()))?;
        let bars: Vec<_> = self
            .series
            .iter()
            .map(|series| (series.name.as_str(), series.median()))
            .collect();
        let path = folder.join(format!("{name}.svg"));
        std::fs::write(&path, plot::bars(&format!("{name}: median, ms"), &bars))
            .with_context(|| format!("write {}", path.display()))
    }

    fn to_json(&self) -> Value {
        let series = self.series.iter().map(|series| {
            json!({
                "name": series.name,
                "median_ms": series.median(),
                "p90_ms": series.at(0.9),
                "all_ms": series.milliseconds,
            })
        });
        let promises = self.promises.iter().map(Promise::to_json);
        let remarks = self
            .remarks
            .iter()
            .map(|(text, value, unit)| json!({ "what": text, "value": value, "unit": unit }));
        json!({
            "series": series.collect::<Vec<_>>(),
            "promises": promises.collect::<Vec<_>>(),
            "remarks": remarks.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_and_p90_near_the_end() {
        let series = Series {
            name: String::new(),
            milliseconds: vec![5.0, 1.0, 4.0, 2.0, 3.0],
        };
        assert_eq!(series.median(), 3.0);
        assert_eq!(series.at(0.9), 4.0);
        assert_eq!(series.at(1.0), 5.0);
        assert_eq!(Series::new("").median(), 0.0);
    }
}
