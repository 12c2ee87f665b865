//! One question to several servers: the best first, another when it takes longer than usual or fails.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::Query;
use tokio::sync::Notify;
use tokio::time::{Instant as Moment, sleep_until};
use tracing::{info, warn};

use super::Failure;
use super::answer::{Reply, distil};
use super::exchange::{Fault, ask};
use super::metrics::Metrics;
use super::settings::Timeouts;
use super::upstream::Upstream;

/// A server is asked so many times before the question is given up.
const ASKS: usize = 3;
/// One question in so many goes to two servers at once, so that the second is known as well.
const BOTH: u32 = 16;

/// The question, and what it needs on its way.
#[derive(Clone)]
pub(super) struct Question {
    pub query: Query,
    pub dnssec_ok: bool,
    pub timeouts: Timeouts,
    pub metrics: Arc<Metrics>,
    /// Told when a server is set aside.
    pub wake: Arc<Notify>,
}

/// The first good answer of `upstreams`. If all refuse or fail (REFUSED, SERVFAIL, …), the last such answer.
pub(super) async fn race(
    upstreams: &[Arc<Upstream>],
    question: &Question,
) -> Result<Reply, Failure> {
    let name = &question.query.name;
    if upstreams.is_empty() {
        return Err(Failure::NoUpstream(name.clone()));
    }
    let order = order(upstreams);
    if order.is_empty() {
        return Err(Failure::Looping(name.clone()));
    }
    if order.iter().all(|one| is_aside(one)) {
        question.metrics.broken.inc();
    }
    let mut plan = Plan::new(order.len());
    let mut running = FuturesUnordered::new();
    let begin = Moment::now();
    let mut end = pin!(sleep_until(begin + question.timeouts.total));
    let mut next = pin!(sleep_until(begin));
    let mut both = fastrand::u32(..BOTH) == 0;
    let mut refusal: Option<Reply> = None;
    let mut faults: Vec<Option<Fault>> = order.iter().map(|_| None).collect();
    loop {
        tokio::select! {
            biased;
            Some((place, told)) = running.next() => {
                match told {
                    Ok(reply) if Reply::is_good(&reply) => return Ok(reply),
                    Ok(reply) => refusal = Some(reply),
                    Err(fault) => faults[place] = Some(fault),
                }
                plan.ended(place);
                if !plan.all_asked() {
                    next.as_mut().reset(Moment::now());
                }
                if plan.is_settled() {
                    break;
                }
            }
            () = &mut next, if !plan.is_over() => {
                // The others had their time; a refusal is an answer too.
                if plan.all_asked() && refusal.is_some() {
                    break;
                }
                let Some(place) = plan.next() else { continue };
                let upstream = Arc::clone(&order[place]);
                let pause = match plan.all_asked() {
                    true => question.timeouts.first,
                    false if std::mem::take(&mut both) && !is_aside(&order[1]) => Duration::ZERO,
                    false => upstream.hedge(),
                };
                running.push(attempt(place, upstream, question));
                next.as_mut().reset(Moment::now() + pause);
            }
            () = &mut end => break,
        }
    }
    drop(running);
    refusal.ok_or_else(|| {
        let why: Vec<String> = order
            .iter()
            .zip(faults)
            .map(|(one, fault)| format!("{}: {}", one.name, fault.unwrap_or(Fault::Silent)))
            .collect();
        Failure::Unanswered(why.join("; ").into())
    })
}

/// The servers that may be asked, the best first, equals by chance.
fn order(upstreams: &[Arc<Upstream>]) -> Vec<Arc<Upstream>> {
    let mut order: Vec<_> = upstreams
        .iter()
        .filter_map(|one| Some((one.rank()?, one)))
        .collect();
    fastrand::shuffle(&mut order);
    order.sort_by_key(|(rank, _)| *rank);
    order.into_iter().map(|(_, one)| Arc::clone(one)).collect()
}

fn is_aside(upstream: &Upstream) -> bool {
    upstream.rank().is_none_or(|rank| rank.aside)
}

/// Who is asked next: each once, then those that are silent again.
struct Plan {
    asked: Vec<usize>,
    ended: Vec<bool>,
}

impl Plan {
    fn new(servers: usize) -> Self {
        Self {
            asked: vec![0; servers],
            ended: vec![false; servers],
        }
    }

    /// Who is asked least among those that have not answered.
    fn peek(&self) -> Option<usize> {
        (0..self.asked.len())
            .filter(|&place| !self.ended[place] && self.asked[place] < ASKS)
            .min_by_key(|&place| self.asked[place])
    }

    fn next(&mut self) -> Option<usize> {
        let place = self.peek()?;
        self.asked[place] += 1;
        Some(place)
    }

    /// It answered, whatever: it is not asked again.
    fn ended(&mut self, place: usize) {
        self.ended[place] = true;
    }

    fn is_over(&self) -> bool {
        self.peek().is_none()
    }

    /// Whether all answered: what else was asked of them is not worth the wait.
    fn is_settled(&self) -> bool {
        self.ended.iter().all(|ended| *ended)
    }

    /// Whether all were asked once.
    fn all_asked(&self) -> bool {
        self.peek().is_none_or(|place| self.asked[place] > 0)
    }
}

/// One question to one server; what it shows of the server is noted, also when nobody waits any more.
async fn attempt(
    place: usize,
    upstream: Arc<Upstream>,
    question: &Question,
) -> (usize, Result<Reply, Fault>) {
    let mut asked = Asked {
        upstream: &upstream,
        question,
        begin: Instant::now(),
        told: false,
    };
    question.metrics.asked(&upstream.name);
    let told = ask(
        upstream.address,
        &question.query,
        question.dnssec_ok,
        |fault| question.metrics.fault(&upstream.name, fault),
    )
    .await
    .and_then(|message| distil(message, &question.query, question.dnssec_ok));
    asked.told = true;
    match &told {
        Ok(reply) => {
            let time = asked.begin.elapsed();
            question.metrics.answered(&upstream.name, reply.code, time);
            if upstream.answered(time, !reply.is_good()) {
                info!("upstream {} answers again", upstream.name);
            }
        }
        Err(fault) => asked.failed(fault),
    }
    (place, told)
}

/// A question that waits for its answer.
struct Asked<'a> {
    upstream: &'a Upstream,
    question: &'a Question,
    begin: Instant,
    told: bool,
}

impl Asked<'_> {
    fn failed(&self, fault: &Fault) {
        self.question.metrics.fault(&self.upstream.name, fault);
        if fault.is_ours() {
            return;
        }
        let wait = self.question.timeouts.health;
        if self.upstream.failed(Instant::now(), wait) {
            warn!(
                "upstream {} is set aside until a probe is answered: {fault}",
                self.upstream.name
            );
            self.question.wake.notify_one();
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let time = self.begin.elapsed();
        if time < self.question.timeouts.first {
            self.upstream.lagged(time);
        } else {
            self.failed(&Fault::Silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_asked_once_before_the_silent_are_asked_again() {
        let mut plan = Plan::new(3);
        assert_eq!([plan.next(), plan.next()], [Some(0), Some(1)]);
        assert!(!plan.all_asked());
        plan.ended(1);
        assert_eq!(plan.next(), Some(2));
        assert!(plan.all_asked());
        let rest: Vec<_> = std::iter::from_fn(|| plan.next()).collect();
        assert_eq!(rest, [0, 2, 0, 2]);
        assert!(plan.is_over());
    }

    #[test]
    fn a_server_that_failed_is_not_asked_again() {
        let mut plan = Plan::new(1);
        plan.next();
        plan.next();
        assert!(!plan.is_settled());
        plan.ended(0);
        assert!(plan.is_over() && plan.is_settled());
    }
}
