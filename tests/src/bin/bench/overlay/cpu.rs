//! Processor time of the whole machine: what a transfer costs includes the kernel and both nodes.
//!
//! `/proc/stat` (proc_stat(5)) counts in ticks of 10 ms over all cores: user, nice, system, idle,
//! iowait, irq, softirq, steal. Busy is all but idle, iowait and steal. Other work on the machine is
//! counted too, so it is measured once a round while nothing is sent, and told with the result.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Ticks a second in `/proc/stat`, the same on every Linux architecture we build for.
const TICKS: f64 = 100.0;

/// A point in time from which busy time is counted.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    busy: u64,
    at: Instant,
}

impl Clock {
    pub fn start() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let busy = parse(&text).with_context(|| format!("first line of /proc/stat: {text:.80}"))?;
        let at = Instant::now();
        Ok(Self { busy, at })
    }

    /// Processor seconds since then, all cores together.
    pub fn busy_seconds(self) -> Result<f64> {
        Ok(Self::start()?.busy.saturating_sub(self.busy) as f64 / TICKS)
    }
}

/// The share (0 to 1) of all cores that is busy during `time` while the caller only waits.
pub fn background(time: Duration) -> Result<f64> {
    let clock = Clock::start()?;
    std::thread::sleep(time);
    let busy = clock.busy_seconds()?;
    let cores = std::thread::available_parallelism()?.get() as f64;
    Ok(busy / clock.at.elapsed().as_secs_f64() / cores)
}

/// Busy ticks from the first line.
fn parse(text: &str) -> Option<u64> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = fields
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn busy_is_all_but_waiting_and_stolen() {
        let text = "cpu  10 2 30 1000 500 4 50 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse(text), Some(96));
        assert_eq!(parse("intr 5\n"), None);
    }
}
