//! The forwarder between real sockets: servers that answer, lie, lag, refuse, fall silent.

mod health;
mod loops;
mod server;

use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use server::{By, Server, addresses, bytes, empty};

const MS: Duration = Duration::from_millis(1);

/// A forwarder, and what it counts.
struct Bed {
    forward: Arc<Forward>,
    registry: Registry,
}

fn settings(servers: &[&Server]) -> Settings {
    Settings {
        upstreams: servers.iter().map(|server| server.address).collect(),
        ..Settings::default()
    }
}

/// Gives up early.
fn hasty(servers: &[&Server]) -> Settings {
    Settings {
        timeouts: Timeouts {
            first: 100 * MS,
            total: 600 * MS,
            stale: 200 * MS,
            health: 50 * MS,
            loops: Duration::from_secs(300),
        },
        ..settings(servers)
    }
}

impl Bed {
    fn new(settings: Settings) -> Self {
        let registry = Registry::new();
        Self {
            forward: Forward::new(settings, &registry).unwrap(),
            registry,
        }
    }

    async fn ask(&self, name: &str) -> Result<Reply, Failure> {
        let query = Query::query(Name::from_ascii(name).unwrap(), RecordType::A);
        self.forward.resolve(&query, false).await
    }

    /// The last bytes of the addresses in the answer.
    async fn lasts(&self, name: &str) -> Vec<u8> {
        lasts(&self.ask(name).await.unwrap())
    }

    /// The sum of a series, where the labels are so.
    fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let series = family.map(|family| family.get_metric()).unwrap_or_default();
        series
            .iter()
            .filter(|one| {
                labels.iter().all(|(key, value)| {
                    let mut pairs = one.get_label().iter();
                    pairs.any(|pair| pair.name() == *key && pair.value() == *value)
                })
            })
            .map(|one| {
                let value = one.get_counter().get_value() + one.get_gauge().get_value();
                value as u64 + one.get_histogram().get_sample_count()
            })
            .sum()
    }

    fn faults(&self, cause: &str) -> u64 {
        self.count("weft_dns_upstream_faults_total", &[("cause", cause)])
    }
}

fn lasts(reply: &Reply) -> Vec<u8> {
    let ip = |record: &Record| record.data.ip_addr();
    let last = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    reply.answers.iter().filter_map(ip).map(last).collect()
}

/// Waits until `done`, at most ten seconds.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !done().await {
        assert!(begin.elapsed() < Duration::from_secs(10), "never: {what}");
        sleep(20 * MS).await;
    }
}

/// [`Forward::run`], until it is dropped.
struct Running(JoinHandle<()>);

impl Running {
    fn new(bed: &Bed) -> Self {
        Self(tokio::spawn(Arc::clone(&bed.forward).run()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers with an address, for a minute.
async fn honest(last: u8) -> Server {
    Server::new(move |question, _| async move { bytes(&addresses(&question, 60, [last])) }).await
}

/// Answers with a code.
async fn refusing(code: ResponseCode) -> Server {
    Server::new(move |question, _| async move { bytes(&empty(&question, code)) }).await
}

/// Says nothing.
async fn silent() -> Server {
    Server::new(|_, _| async { vec![] }).await
}

#[tokio::test]
async fn a_question_is_asked_in_lower_case_with_edns_and_answered_as_spelled() {
    let one = Server::new(|question, _| async move {
        let edns = question.edns.as_ref().unwrap();
        assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1232, false));
        assert!(question.metadata.recursion_desired);
        assert_eq!(question.queries[0].name.to_ascii(), "www.example.");
        bytes(&addresses(&question, 60, [1]))
    })
    .await;
    let bed = Bed::new(settings(&[&one]));
    for name in ["wWw.Example.", "WWW.EXAMPLE."] {
        let reply = bed.ask(name).await.unwrap();
        assert_eq!(reply.answers[0].name.to_ascii(), name);
    }
    assert_eq!(one.asked(By::Udp), 1, "the second is the cache's");
    let to = one.address.to_string();
    let at = [("to", to.as_str()), ("rcode", "NOERROR")];
    assert_eq!(bed.count("coredns_forward_requests_total", &at[..1]), 1);
    assert_eq!(bed.count("coredns_forward_responses_total", &at), 1);
    assert_eq!(
        bed.count("coredns_forward_request_duration_seconds", &at),
        1
    );
    assert_eq!(bed.count("coredns_proxy_request_duration_seconds", &at), 1);
    let success = [
        ("type", "success"),
        ("zones", "."),
        ("server", "dns://:53"),
        ("view", ""),
    ];
    assert_eq!(bed.count("coredns_cache_hits_total", &success), 1);
    assert_eq!(bed.count("coredns_cache_entries", &success), 1);
    assert_eq!(bed.count("coredns_cache_misses_total", &[]), 1);
    assert_eq!(bed.count("coredns_cache_requests_total", &[]), 2);
}

#[tokio::test]
async fn the_do_bit_is_passed_on_and_keeps_answers_apart() {
    let one = Server::new(|question, _| async move {
        let edns = question.edns.as_ref().unwrap();
        let last = u8::from(edns.flags().dnssec_ok);
        let mut answer = addresses(&question, 60, [last]);
        answer.metadata.authentic_data = edns.flags().dnssec_ok;
        bytes(&answer)
    })
    .await;
    let bed = Bed::new(settings(&[&one]));
    let query = Query::query(Name::from_ascii("x.example.").unwrap(), RecordType::A);
    for _ in 0..2 {
        for dnssec_ok in [false, true] {
            let reply = bed.forward.resolve(&query, dnssec_ok).await.unwrap();
            assert_eq!(lasts(&reply), [u8::from(dnssec_ok)]);
            assert_eq!(reply.authentic_data, dnssec_ok);
        }
    }
    assert_eq!(one.asked(By::Udp), 2);
}

#[tokio::test]
async fn what_is_truncated_comes_by_tcp() {
    let one = Server::new(|question, by| async move {
        let mut answer = addresses(&question, 60, 0..100);
        if by == By::Udp {
            answer = addresses(&question, 60, [66]);
            answer.metadata.truncation = true;
        }
        bytes(&answer)
    })
    .await;
    let bed = Bed::new(settings(&[&one]));
    assert_eq!(bed.lasts("x.example.").await.len(), 100);
    assert_eq!((one.asked(By::Udp), one.asked(By::Tcp)), (1, 1));
}

#[tokio::test]
async fn what_is_larger_than_was_offered_comes_by_tcp_and_is_counted() {
    let one = Server::new(|question, _| async move { bytes(&addresses(&question, 60, 0..100)) });
    let one = one.await;
    let bed = Bed::new(settings(&[&one]));
    assert_eq!(bed.lasts("x.example.").await.len(), 100);
    assert_eq!((one.asked(By::Udp), one.asked(By::Tcp)), (1, 1));
    assert_eq!(bed.faults("oversized"), 1);
}

#[tokio::test]
async fn a_server_that_knows_no_edns_is_asked_without() {
    let one = Server::new(|question, _| async move {
        bytes(&match question.edns {
            Some(_) => empty(&question, ResponseCode::FormErr),
            None => addresses(&question, 60, [1]),
        })
    })
    .await;
    assert_eq!(Bed::new(settings(&[&one])).lasts("x.example.").await, [1]);
}

#[tokio::test]
async fn forged_answers_are_passed_over_and_counted() {
    let one = Server::new(|question, _| async move {
        let mut other_id = addresses(&question, 60, [66]);
        other_id.metadata.id = !other_id.metadata.id;
        let mut other_question = addresses(&question, 60, [66]);
        other_question.queries[0].name = Name::from_ascii("bank.example.").unwrap();
        let mut garbage = other_id.to_vec().unwrap();
        garbage.truncate(20);
        let messages = [
            other_id,
            other_question,
            question.clone(),
            addresses(&question, 60, [1]),
        ];
        let mut told: Vec<_> = messages.iter().map(|one| one.to_vec().unwrap()).collect();
        told.insert(0, vec![1, 2, 3]);
        told.insert(0, vec![]);
        told.insert(0, garbage);
        told
    })
    .await;
    let bed = Bed::new(settings(&[&one]));
    assert_eq!(bed.lasts("x.example.").await, [1]);
    let causes = ["other_id", "other_question", "not_answer", "malformed"];
    assert_eq!(causes.map(|cause| bed.faults(cause)), [4, 1, 1, 0]);
    assert_eq!(bed.count("coredns_cache_drops_total", &[]), 1);
}

#[tokio::test]
async fn a_server_that_talks_of_other_things_is_passed_over_for_the_next() {
    let garbled = Server::new(|question, _| async move {
        let mut told = addresses(&question, 60, [66]).to_vec().unwrap();
        told.truncate(told.len() - 2);
        vec![told]
    })
    .await;
    let unrelated = Server::new(|question, _| async move {
        let mut told = addresses(&question, 60, [66]);
        told.answers[0].name = Name::from_ascii("bank.example.").unwrap();
        bytes(&told)
    })
    .await;
    let good = honest(1).await;
    let bed = Bed::new(settings(&[&garbled, &unrelated, &good]));
    for number in 0..12 {
        assert_eq!(bed.lasts(&format!("x{number}.example.")).await, [1]);
    }
    let alone = Bed::new(hasty(&[&unrelated]));
    let failure = alone.ask("x.example.").await.unwrap_err();
    assert!(
        failure.to_string().contains(&unrelated.address.to_string()),
        "{failure}"
    );
    assert_eq!(alone.faults("unrelated"), 1);
    let alone = Bed::new(hasty(&[&garbled]));
    assert!(alone.ask("x.example.").await.is_err());
    assert_eq!(alone.faults("malformed"), 1);
}

#[tokio::test]
async fn one_that_refuses_is_followed_by_the_next() {
    for code in [ResponseCode::Refused, ResponseCode::ServFail] {
        let (bad, good) = (refusing(code).await, honest(1).await);
        let bed = Bed::new(settings(&[&bad, &good]));
        for number in 0..10 {
            assert_eq!(bed.lasts(&format!("x{number}.example.")).await, [1]);
        }
        assert!(bad.asked(By::Udp) < 8, "it comes last after some refusals");
        let both = Bed::new(settings(&[&bad, &bad]));
        assert_eq!(both.ask("x.example.").await.unwrap().code, code);
    }
}

#[tokio::test]
async fn one_that_lags_does_not_hold_up_the_answer() {
    let late = Server::new(|question, _| async move {
        sleep(3000 * MS).await;
        bytes(&addresses(&question, 60, [1]))
    })
    .await;
    let good = honest(2).await;
    let bed = Bed::new(settings(&[&late, &good]));
    for number in 0..5 {
        let begin = Instant::now();
        assert_eq!(bed.lasts(&format!("x{number}.example.")).await, [2]);
        assert!(begin.elapsed() < 2500 * MS, "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn silence_ends_with_a_failure_that_names_the_servers() {
    let (one, two) = (silent().await, silent().await);
    let bed = Bed::new(hasty(&[&one, &two]));
    let begin = Instant::now();
    let failure = bed.ask("x.example.").await.unwrap_err();
    assert!(begin.elapsed() >= 600 * MS);
    assert_eq!(failure.code(), ResponseCode::ServFail);
    for server in [&one, &two] {
        assert!(
            failure.to_string().contains(&server.address.to_string()),
            "{failure}"
        );
        assert!(server.asked(By::Udp) >= 2, "asked again");
    }
    let asked = one.asked(By::Udp);
    assert_eq!(
        bed.ask("x.example.").await.unwrap().code,
        ResponseCode::ServFail
    );
    assert_eq!(one.asked(By::Udp), asked, "not at once");
}

#[tokio::test]
async fn equal_questions_share_one_and_too_many_others_are_refused() {
    let one = Server::new(|question, _| async move {
        sleep(300 * MS).await;
        bytes(&addresses(&question, 60, [1]))
    })
    .await;
    let bed = Bed::new(Settings {
        max_concurrent: 3,
        ..settings(&[&one])
    });
    let ((first, second, third), beyond) = tokio::join!(
        async {
            tokio::join!(
                bed.ask("x.example."),
                bed.ask("X.example."),
                bed.ask("x.example.")
            )
        },
        async {
            sleep(50 * MS).await;
            bed.ask("y.example.").await
        },
    );
    for reply in [&first, &second, &third] {
        assert_eq!(lasts(reply.as_ref().unwrap()), [1]);
    }
    assert_eq!(second.unwrap().answers[0].name.to_ascii(), "X.example.");
    assert_eq!(beyond, Err(Failure::Busy(3)));
    assert_eq!(one.asked(By::Udp), 1);
    assert_eq!(
        bed.count("coredns_forward_max_concurrent_rejects_total", &[]),
        1
    );
    assert_eq!(
        bed.lasts("z.example.").await,
        [1],
        "the places are free again"
    );
}

#[tokio::test]
async fn a_question_goes_on_when_its_asker_is_gone() {
    let one = Server::new(|question, _| async move {
        sleep(200 * MS).await;
        bytes(&addresses(&question, 60, [1]))
    })
    .await;
    let bed = Bed::new(settings(&[&one]));
    assert!(timeout(50 * MS, bed.ask("x.example.")).await.is_err());
    assert_eq!(bed.lasts("x.example.").await, [1]);
    assert_eq!(one.asked(By::Udp), 1);
}

#[tokio::test]
async fn stubs_have_their_own_servers_and_a_reload_forgets_their_answers() {
    let (all, corp) = (honest(1).await, honest(2).await);
    let domain = Name::from_ascii("corp.example.").unwrap();
    let with = |servers: Vec<std::net::SocketAddr>| Settings {
        stubs: vec![(domain.clone(), servers)],
        ..settings(&[&all])
    };
    let bed = Bed::new(with(vec![corp.address]));
    assert_eq!(bed.lasts("x.corp.example.").await, [2]);
    assert_eq!(bed.lasts("x.example.").await, [1]);
    bed.forward.reload(settings(&[&all]));
    assert_eq!(bed.count("coredns_cache_entries", &[]), 0);
    assert_eq!(bed.lasts("x.corp.example.").await, [1]);
    bed.forward.reload(with(vec![]));
    let failure = bed.ask("x.corp.example.").await.unwrap_err();
    assert!(matches!(failure, Failure::NoUpstream(_)), "{failure}");
    assert!(failure.to_string().contains("--upstream"), "{failure}");
}

#[tokio::test]
async fn servers_are_asked_by_ipv6_too() {
    let one = Server::on_ip([0u16, 0, 0, 0, 0, 0, 0, 1], |question, by| async move {
        let mut answer = addresses(&question, 60, [1]);
        answer.metadata.truncation = by == By::Udp;
        bytes(&answer)
    })
    .await;
    let bed = Bed::new(settings(&[&one]));
    assert_eq!(bed.lasts("x.example.").await, [1]);
    assert_eq!((one.asked(By::Udp), one.asked(By::Tcp)), (1, 1));
}

#[tokio::test]
async fn its_own_address_is_not_asked() {
    let one = honest(1).await;
    let bed = Bed::new(Settings {
        own: vec![one.address],
        ..settings(&[&one])
    });
    assert!(matches!(
        bed.ask("x.example.").await,
        Err(Failure::NoUpstream(_))
    ));
    assert_eq!(one.asked(By::Udp), 0);
}

#[tokio::test]
async fn only_the_records_of_the_question_reach_the_client_and_the_cache() {
    let one = Server::new(|question, _| async move {
        let mut told = addresses(&question, 60, [1]);
        let bank = Name::from_ascii("bank.example.").unwrap();
        let lie = Record::from_rdata(bank, 60, RData::A(A::new(192, 0, 2, 66)));
        if question.queries[0].name.to_ascii() == "x.example." {
            told.add_answer(lie.clone());
            told.add_additional(lie);
        }
        bytes(&told)
    })
    .await;
    let bed = Bed::new(settings(&[&one]));
    assert_eq!(bed.lasts("x.example.").await, [1]);
    assert_eq!(bed.lasts("bank.example.").await, [1]);
}
