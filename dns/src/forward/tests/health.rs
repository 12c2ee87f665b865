//! Servers that fail and come back, stale answers, prefetch.

use std::future::pending;

use super::*;

#[tokio::test]
async fn one_that_fails_is_set_aside_probed_and_taken_back() {
    let (one, two) = (silent().await, honest(2).await);
    let bed = Bed::new(hasty(&[&one]));
    let address = one.address;
    assert!(bed.ask("a.example.").await.is_err());
    assert!(bed.ask("b.example.").await.is_err());
    let _running = Running::new(&bed);
    let to = address.to_string();
    until("a probe fails", async || {
        bed.count("coredns_forward_healthcheck_failures_total", &[("to", &to)]) > 0
    })
    .await;
    let before = bed.count("coredns_forward_healthcheck_broken_total", &[]);
    assert!(
        bed.ask("c.example.").await.is_err(),
        "asked for want of another"
    );
    assert_eq!(
        bed.count("coredns_forward_healthcheck_broken_total", &[]),
        before + 1
    );

    bed.forward.reload(hasty(&[&one, &two]));
    sleep(700 * MS).await;
    assert_eq!(bed.lasts("d.example.").await, [2]);

    drop(one);
    let one = Server::at(address, |question, _| async move {
        bytes(&addresses(&question, 60, [1]))
    })
    .await;
    bed.forward.reload(hasty(&[&one]));
    let aside = || {
        let routes = bed.forward.routes.load();
        routes.upstreams().any(|one| one.due().is_some())
    };
    until("it is taken back", async || !aside()).await;
    assert_eq!(bed.lasts("e.example.").await, [1]);
}

#[tokio::test]
async fn a_closed_port_fails_at_once() {
    let (one, two) = (honest(1).await, honest(2).await);
    let settings = settings(&[&one, &two]);
    drop(one);
    let bed = Bed::new(settings);
    for number in 0..6 {
        let begin = Instant::now();
        assert_eq!(bed.lasts(&format!("x{number}.example.")).await, [2]);
        assert!(begin.elapsed() < 2500 * MS, "{:?}", begin.elapsed());
    }
    drop(two);
    let begin = Instant::now();
    let failure = bed.ask("y.example.").await.unwrap_err();
    assert!(
        begin.elapsed() < 3000 * MS,
        "{:?}: {failure}",
        begin.elapsed()
    );
    assert!(failure.to_string().contains("refused"), "{failure}");
}

#[tokio::test]
async fn an_ended_answer_is_given_while_nobody_has_a_newer_one() {
    let one = Server::new(|question, _| async move { bytes(&addresses(&question, 1, [1])) }).await;
    let address = one.address;
    let mut patient = hasty(&[&one]);
    patient.timeouts.total = 2000 * MS;
    let bed = Bed::new(patient);
    assert_eq!(bed.lasts("X.example.").await, [1]);
    drop(one);
    let lagging = Server::at(address, |_, _| pending()).await;
    sleep(1050 * MS).await;
    let begin = Instant::now();
    let reply = bed.ask("X.example.").await.unwrap();
    assert!(
        (200 * MS..1900 * MS).contains(&begin.elapsed()),
        "{:?}",
        begin.elapsed()
    );
    assert!(reply.stale);
    assert_eq!((lasts(&reply), reply.answers[0].ttl), (vec![1], 30));
    assert_eq!(reply.answers[0].name.to_ascii(), "X.example.");
    assert_eq!(bed.count("coredns_cache_served_stale_total", &[]), 1);
    until("the upstream is known to fail", async || {
        bed.faults("timeout") > 0
    })
    .await;
    let asked = lagging.asked(By::Udp);
    assert!(bed.ask("x.example.").await.unwrap().stale);
    assert_eq!(lagging.asked(By::Udp), asked, "not asked again so soon");
}

#[tokio::test]
async fn a_stale_answer_gives_way_to_a_newer_one() {
    let turn = Arc::new(AtomicUsize::new(0));
    let one = Server::new(move |question, _| {
        let last = turn.fetch_add(1, Ordering::SeqCst);
        async move { bytes(&addresses(&question, 1, [u8::try_from(last).unwrap()])) }
    })
    .await;
    let bed = Bed::new(settings(&[&one]));
    assert_eq!(bed.lasts("x.example.").await, [0]);
    sleep(1050 * MS).await;
    let reply = bed.ask("x.example.").await.unwrap();
    assert_eq!((lasts(&reply), reply.stale), (vec![1], false));
}

#[tokio::test]
async fn a_popular_name_is_asked_for_again_before_its_end() {
    let one = Server::new(|question, _| async move { bytes(&addresses(&question, 3, [1])) }).await;
    let bed = Bed::new(settings(&[&one]));
    until("it is asked for twice", async || {
        assert_eq!(bed.lasts("x.example.").await, [1]);
        one.asked(By::Udp) == 2
    })
    .await;
    assert_eq!(bed.count("coredns_cache_prefetch_total", &[]), 1);
    assert_eq!(
        bed.count("coredns_cache_misses_total", &[]),
        1,
        "nobody waited"
    );
}
