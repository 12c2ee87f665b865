//! Questions that come back to where they were asked.

use std::net::SocketAddr;
use std::sync::{OnceLock, RwLock};

use hickory_proto::op::Message;

use super::*;
use crate::handler::{self, Handler, Origin, Step};
use crate::limits;
use crate::metrics::{self, Transport};
use crate::model::{Event, Kind};
use crate::zone::{self, Zone};

/// A server that asks the forwarder under test what it is asked, as a host's resolver does that points at it; or, if it
/// is straight, answers.
#[derive(Clone, Default)]
struct Mirror {
    forward: Arc<OnceLock<Arc<Forward>>>,
    straight: Arc<AtomicBool>,
}

impl Mirror {
    async fn told(self, question: Message) -> Vec<Vec<u8>> {
        if self.straight.load(Ordering::SeqCst) {
            return bytes(&addresses(&question, 60, [1]));
        }
        let query = question.queries[0].clone();
        let forward = self.forward.get().unwrap();
        // As the handler does.
        let code = if query.query_type == RecordType::HINFO && forward.is_probe(&query.name) {
            ResponseCode::Refused
        } else {
            match forward.resolve(&query, false).await {
                Ok(reply) => reply.code,
                Err(failure) => failure.code(),
            }
        };
        bytes(&empty(&question, code))
    }

    async fn new() -> (Self, Server) {
        let this = Self::default();
        let mirror = this.clone();
        let server = Server::new(move |question, _| mirror.clone().told(question)).await;
        (this, server)
    }

    fn shows(&self, bed: &Bed) {
        self.forward.set(Arc::clone(&bed.forward)).ok().unwrap();
    }
}

fn is_out(bed: &Bed) -> bool {
    bed.count("weft_dns_upstream_looping", &[]) > 0
}

#[tokio::test]
async fn one_that_brings_questions_back_is_out_until_it_does_not() {
    let (mirror, one) = Mirror::new().await;
    let mut quick = hasty(&[&one]);
    quick.timeouts.loops = 300 * MS;
    let bed = Bed::new(quick);
    mirror.shows(&bed);
    let running = Running::new(&bed);
    until("the loop is found", async || is_out(&bed)).await;
    let asked = one.asked(By::Udp);
    assert!(matches!(
        bed.ask("x.example.").await,
        Err(Failure::Looping(_))
    ));
    assert!(one.asked(By::Udp) <= asked + 1, "at most another probe");
    mirror.straight.store(true, Ordering::SeqCst);
    until("it is taken back", async || !is_out(&bed)).await;
    assert_eq!(bed.lasts("x.example.").await, [1]);
    drop(running);
    assert!(!bed.forward.is_probe(&Name::from_ascii("1.2.").unwrap()));
}

#[tokio::test]
async fn one_that_starts_later_is_found_as_well() {
    let (mirror, one) = Mirror::new().await;
    let (settings, address) = (hasty(&[&one]), one.address);
    drop(one);
    let bed = Bed::new(settings);
    mirror.shows(&bed);
    let _running = Running::new(&bed);
    sleep(50 * MS).await;
    let _late = Server::at(address, move |question, _| mirror.clone().told(question)).await;
    until("the loop is found", async || is_out(&bed)).await;
}

#[tokio::test]
async fn a_loop_that_nobody_found_yet_goes_round_once() {
    let (mirror, one) = Mirror::new().await;
    let bed = Bed::new(hasty(&[&one]));
    mirror.shows(&bed);
    assert!(bed.ask("x.example.").await.is_err());
    assert!(one.asked(By::Udp) <= 3, "{}", one.asked(By::Udp));
}

/// A server of ours, whole, that forwards to `upstream`; `listens` answers with it.
fn ours(upstream: SocketAddr, listens: &OnceLock<(Arc<Handler>, Arc<metrics::Server>)>) -> Bed {
    let bed = Bed::new(Settings {
        upstreams: vec![upstream],
        ..hasty(&[])
    });
    let domain = Name::from_ascii("cluster.local.").unwrap();
    let metrics = Arc::new(metrics::Metrics::new(&bed.registry, &domain).unwrap());
    let server = Arc::new(metrics.server(upstream));
    let mut zone = Zone::new(zone::Settings::new(domain));
    let kinds = [Kind::Services, Kind::Slices, Kind::Pods];
    zone.apply(kinds.map(Event::Listed).to_vec());
    let settings = handler::Settings {
        recursive: true,
        search: None,
        limits: limits::Settings::default(),
        query_log: false,
    };
    let zone = Arc::new(RwLock::new(zone));
    let handler = Handler::new(zone, Arc::clone(&bed.forward), metrics, settings);
    listens.set((handler, server)).ok().unwrap();
    bed
}

async fn listening(with: Arc<OnceLock<(Arc<Handler>, Arc<metrics::Server>)>>) -> Server {
    Server::new(move |question, _| {
        let with = Arc::clone(&with);
        async move {
            let (handler, server) = with.get().unwrap();
            let origin = Origin {
                client: SocketAddr::from(([127, 0, 0, 1], 40_000)),
                transport: Transport::Udp,
                server,
            };
            let (packet, mut out) = (question.to_vec().unwrap(), Vec::new());
            match handler.begin(&packet, origin, Instant::now(), &mut out) {
                Step::Answered => {}
                Step::Silence => return vec![],
                Step::Pending(pending) => handler.finish(pending, &mut out).await,
            }
            vec![out]
        }
    })
    .await
}

#[tokio::test]
async fn two_of_ours_that_forward_to_each_other_find_it() {
    let cells: [Arc<OnceLock<_>>; 2] = Default::default();
    let (one, two) = (
        listening(Arc::clone(&cells[0])).await,
        listening(Arc::clone(&cells[1])).await,
    );
    let beds = [ours(two.address, &cells[0]), ours(one.address, &cells[1])];
    let _running = [Running::new(&beds[0]), Running::new(&beds[1])];
    until("one of them finds it", async || beds.iter().any(is_out)).await;
    let asked = |one: &Server| one.asked(By::Udp);
    let before = asked(&one) + asked(&two);
    for bed in &beds {
        let outcome = bed.ask("x.example.").await;
        assert!(
            outcome.is_err() || outcome.is_ok_and(|reply| reply.code == ResponseCode::ServFail)
        );
    }
    assert!(
        asked(&one) + asked(&two) < before + 12,
        "it does not go round"
    );
}
