//! A hundred endpoint changes a second among many Services: when each is in the kernel, and what the
//! proxy's processor time is.
//!
//! A change gives one endpoint of a Service an address that nobody had before, so that the line of
//! `nft monitor` that names the address is that change's. The time runs from the rename of the
//! manifest until the line is read: it holds the folder watch's pause too, and the monitor's. A change
//! that a later one of the same Service overtook is in the kernel when that one is.

use super::Scale;
use super::host::Host;
use super::world::{self, Service};
use crate::lines::Lines;
use crate::outcome::{Outcome, Series};
use ::tests::Run;
use ::tests::proxy::{Daemon, Mode};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Between two changes.
const PAUSE: Duration = Duration::from_millis(10);
/// Services whose endpoints change, in turn.
const CHANGING: usize = 100;
/// Endpoints that come are of 10.240.0.0/14, which no Service begins with.
const FRESH: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 0);
/// Clock ticks a second in `/proc/<pid>/stat`.
const TICKS: f64 = 100.0;

/// Churns, and measures.
pub fn run(run: &Run, scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    let services = world::services(scale.more);
    // Spread over all of them.
    let step = services.len() / CHANGING;
    let mut changing: Vec<_> = services
        .iter()
        .step_by(step)
        .take(CHANGING)
        .cloned()
        .collect();
    let is_changing = |service: &Service| changing.iter().any(|other| other.name == service.name);
    let host = Host::new(run, "churn")?;
    let served = host.serve(Mode::Nftables, &services, is_changing)?;
    let mut monitor = Lines::start(&host.namespace, &["nft", "monitor"])?;
    // The monitor has no sign of being ready; it reads the whole ruleset first.
    std::thread::sleep(Duration::from_secs(3));

    let mut sent = BTreeMap::new();
    let mut series = Series::new("ours: nftables, endpoint changed, file renamed until event");
    let (began, used) = (Instant::now(), cpu_seconds(&served.daemon)?);
    let changes = u32::try_from(scale.churn.as_millis() / PAUSE.as_millis())?;
    for number in 0..changes {
        let service = &mut changing[number as usize % CHANGING];
        let ip = Ipv4Addr::from_bits(FRESH.to_bits() + number);
        service.endpoints[0] = SocketAddrV4::new(ip, world::ENDPOINT_PORT);
        let slice = service.slice();
        sent.insert(number, Instant::now());
        world::place(&host.manifests(), &service.name, &slice)?;
        // Events are read while we wait for the next change's time.
        listen(
            &mut monitor,
            began + PAUSE * (number + 1),
            &mut sent,
            &mut series,
        );
    }
    let spent = began.elapsed().as_secs_f64();
    let busy = (cpu_seconds(&served.daemon)? - used) / spent;
    let end = Instant::now() + Duration::from_secs(10);
    while !sent.is_empty() && Instant::now() < end {
        listen(&mut monitor, Instant::now() + PAUSE, &mut sent, &mut series);
    }
    ensure!(
        sent.is_empty(),
        "{} of {changes} changes never came to the kernel",
        sent.len()
    );
    let text = format!(
        "churn among {} Services, event until kernel, p99",
        scale.more
    );
    outcome.promise(&text, series.at(0.99), 100.0, "ms");
    outcome.promise("churn, processor, of one core", busy * 100.0, 30.0, "%");
    outcome.remark("churn, changes a second", f64::from(changes) / spent, "");
    outcome.series.push(series);
    Ok(())
}

/// Reads events until `end`, and notes those of changes that were sent.
fn listen(
    monitor: &mut Lines,
    end: Instant,
    sent: &mut BTreeMap<u32, Instant>,
    series: &mut Series,
) {
    while let Some((when, line)) = monitor.next_before(end) {
        if !line.starts_with("add") {
            continue;
        }
        let words = line.split(|c: char| !c.is_ascii_digit() && c != '.');
        for ip in words.filter_map(|word| word.parse::<Ipv4Addr>().ok()) {
            let Some(last) = ip.to_bits().checked_sub(FRESH.to_bits()) else {
                continue;
            };
            for number in (0..=last).rev().step_by(CHANGING) {
                match sent.remove(&number) {
                    Some(renamed) => series.push(when.saturating_duration_since(renamed)),
                    None => break,
                }
            }
        }
    }
}

/// Processor time of a process so far.
fn cpu_seconds(daemon: &Daemon) -> Result<f64> {
    let path = format!("/proc/{}/stat", daemon.id());
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_ticks(&text)
        .map(|ticks| ticks as f64 / TICKS)
        .with_context(|| format!("{path}: {text:?}"))
}

/// utime and stime of proc_pid_stat(5), fields 14 and 15; the name before them may hold anything.
fn parse_ticks(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::parse_ticks;

    #[test]
    fn user_and_system_time_are_added() {
        let line = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0 1 0 12345";
        assert_eq!(parse_ticks(line), Some(42));
    }
}
