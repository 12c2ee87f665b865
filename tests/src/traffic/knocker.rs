//! A client that never stops: one new connection after another, to show that none is turned away.

use super::knock::{Outcome, Transport, knock};
use crate::namespace::Namespace;
use anyhow::{Result, bail};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one knock may wait: a second SYN after a second counts as served, late.
const PATIENCE: Duration = Duration::from_secs(3);

/// The running client.
#[derive(Debug)]
pub struct Knocker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<KnockerReport>,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct KnockerReport {
    /// Knocks that were answered.
    pub answered: u32,
    /// What became of the others, and when.
    pub failures: Vec<String>,
    /// The longest that an answer took.
    pub longest: Duration,
}

impl Knocker {
    /// Begins to knock from `from` at `server`, by TCP.
    pub fn start(from: &Namespace, server: SocketAddr) -> Self {
        let from = from.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut report = KnockerReport::default();
            let began = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let knocked = Instant::now();
                let failure = match knock(&from, server, Transport::Tcp, PATIENCE) {
                    Ok(Outcome::Answered(_)) => None,
                    Ok(other) => Some(other.to_string()),
                    Err(error) => Some(format!("{error:#}")),
                };
                match failure {
                    None => report.answered += 1,
                    Some(what) => {
                        let when = (knocked - began).as_secs_f64();
                        report.failures.push(format!("after {when:.2} s: {what}"));
                    }
                }
                report.longest = report.longest.max(knocked.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            report
        });
        Self { stop, thread }
    }

    /// Ends it; fails if a knock was not answered, or there was none.
    pub fn finish(self) -> Result<KnockerReport> {
        self.stop.store(true, Ordering::Relaxed);
        let report = match self.thread.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if !report.failures.is_empty() || report.answered == 0 {
            bail!(
                "{} knocks were answered, {} were not: {:?}",
                report.answered,
                report.failures.len(),
                &report.failures[..report.failures.len().min(5)]
            );
        }
        Ok(report)
    }
}
