//! The watches against a scripted server. It is not a real API server, of which there is none on the
//! machines that run these tests; what it says, and how, was recorded from one.

mod bed;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::sample::{Event, Kind, Sample};
use crate::scripted::{Answer, Piece, line, service, status};
use bed::Bed;

async fn say(watch: &mpsc::Sender<Piece>, kind: &str, object: &Value) {
    assert!(
        watch.send(line(kind, object)).await.is_ok(),
        "nobody watches"
    );
}

#[tokio::test]
async fn pages_are_one_list() {
    let mut bed = Bed::start(|server| {
        let page = json!({"metadata": {"resourceVersion": "5", "continue": "more", "remainingItemCount": 1},
            "items": [service("a", 1, "10.0.0.1")]});
        server.answer("list", "services", Answer::Whole(200, page.to_string()));
        server.list("services", 5, &[service("b", 2, "10.0.0.2")]);
    })
    .await;
    bed.until("listed", |bed| bed.lists_of(Kind::Service) == (1, 1))
        .await;
    assert_eq!(bed.services.len(), 2);
    assert!(bed.server.asked("services")[1].contains("continue=more"));
}

#[tokio::test]
async fn a_watch_that_breaks_in_the_middle_of_a_line_goes_on_where_it_was() {
    let mut watches = None;
    let mut bed = Bed::start(|server| {
        server.list("services", 5, &[]);
        watches = Some((server.watch("services"), server.watch("services")));
    })
    .await;
    let (first, second) = watches.unwrap();
    say(&first, "ADDED", &service("a", 6, "10.0.0.1")).await;
    bed.until_service("a", "10.0.0.1").await;
    let Piece::Text(whole) = line("ADDED", &service("b", 7, "10.0.0.2")) else {
        panic!("a line is text");
    };
    let (half, _) = whole.split_at(whole.len() / 2);
    assert!(first.send(Piece::Text(half.to_owned())).await.is_ok());
    // What is written in one go with the break might never leave the server.
    sleep(Duration::from_millis(200)).await;
    assert!(first.send(Piece::Cut).await.is_ok());
    say(&second, "ADDED", &service("b", 7, "10.0.0.2")).await;
    bed.until_service("b", "10.0.0.2").await;
    assert_eq!(bed.lists_of(Kind::Service), (1, 1), "no new list is needed");
    let asked = bed.server.asked("services");
    assert!(
        asked.last().unwrap().contains("resourceVersion=6"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_bookmark_moves_the_place_where_a_watch_goes_on() {
    let bed = Bed::start(|server| {
        server.list("services", 5, &[service("a", 1, "10.0.0.1")]);
        let bookmark = json!({"kind": "Service", "apiVersion": "v1", "metadata":
            {"resourceVersion": "99", "creationTimestamp": null}, "spec": {}, "status": {"loadBalancer": {}}});
        server.short_watch("services", [line("BOOKMARK", &bookmark)]);
        drop(server.watch("services"));
    })
    .await;
    let mut bed = bed;
    bed.until("listed", |bed| bed.lists_of(Kind::Service) == (1, 1))
        .await;
    bed.server.until_asked("services", 3).await;
    assert!(bed.server.asked("services")[2].contains("resourceVersion=99"));
}

/// The answers of a server whose history does not reach back: as an event, and as a status.
fn expired() -> [Answer; 2] {
    let status = status(410, "Expired", "too old resource version: 5 (627)");
    let event = line("ERROR", &serde_json::from_str(&status).unwrap());
    let (sender, receiver) = mpsc::channel(1);
    assert!(sender.try_send(event).is_ok());
    [Answer::Watch(receiver), Answer::Whole(410, status)]
}

#[tokio::test]
async fn what_a_new_list_after_a_compaction_does_not_name_is_gone() {
    for answer in expired() {
        let mut bed = Bed::start(|server| {
            server.list(
                "services",
                5,
                &[service("a", 1, "10.0.0.1"), service("b", 2, "10.0.0.2")],
            );
            server.answer("watch", "services", answer);
            server.list(
                "services",
                700,
                &[service("b", 2, "10.0.0.2"), service("c", 650, "10.0.0.3")],
            );
        })
        .await;
        // What the state makes of it is the state's own test.
        bed.until("listed anew", |bed| bed.lists_of(Kind::Service) == (2, 2))
            .await;
        assert_eq!(bed.services.len(), 3);
        assert_eq!(bed.services["shop/c"], "10.0.0.3");
        bed.server.until_asked("services", 4).await;
        assert!(bed.server.asked("services")[3].contains("resourceVersion=700"));
    }
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again() {
    let mut bed = Bed::start(|server| {
        let failure = || status(500, "InternalError", "etcdserver: request timed out");
        for _ in 0..2 {
            server.answer("list", "services", Answer::Whole(500, failure()));
        }
        server.answer(
            "list",
            "services",
            Answer::Whole(502, "<html>Bad Gateway".to_owned()),
        );
        server.list("services", 5, &[service("a", 1, "10.0.0.1")]);
        server.answer("watch", "services", Answer::Whole(500, failure()));
    })
    .await;
    bed.until_service("a", "10.0.0.1").await;
    bed.until("listed", |bed| bed.lists_of(Kind::Service).1 == 1)
        .await;
    bed.server.until_asked("services", 6).await;
    assert_eq!(
        bed.lists_of(Kind::Service).1,
        1,
        "the watch is tried again, not the list"
    );
}

#[tokio::test]
async fn bad_objects_do_not_lose_the_others() {
    let mut bed = Bed::start(|server| {
        let mut unusable = service("bad", 2, "10.0.0.9");
        unusable["spec"]["ports"][0]["port"] = json!("eighty");
        let junk = [
            json!(5),
            json!(null),
            json!({"metadata": 7}),
            json!({"metadata": {"name": "-no-", "namespace": "shop"}, "spec": {"clusterIP": "10.0.0.8"}}),
            unusable,
        ];
        let mut items = vec![service("a", 1, "10.0.0.1")];
        items.extend(junk);
        items.push(service("b", 3, "10.0.0.2"));
        server.list("services", 5, &items);
        let null = json!({"metadata": {"resourceVersion": "5"}, "items": null}).to_string();
        server.answer("list", "endpointslices", Answer::Whole(200, null));
        server.short_watch("services", [
            line("MODIFIED", &service("a", 6, "10.0.0.3")),
            Piece::Text("{\"type\":\"STRANGE\",\"object\":{}}\n".to_owned()),
            Piece::Text("not even JSON\n".to_owned()),
            line("MODIFIED", &service("b", 7, "10.0.0.4")),
        ]);
    })
    .await;
    bed.until("listed", |bed| bed.lists_of(Kind::Service) == (1, 1))
        .await;
    assert_eq!(
        bed.services.keys().collect::<Vec<_>>(),
        ["shop/a", "shop/b"]
    );
    bed.until_service("a", "10.0.0.3").await;
    bed.until_service("b", "10.0.0.4").await;
    bed.until("slices listed", |bed| {
        bed.lists_of(Kind::EndpointSlice) == (1, 1)
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    // A port that was free a moment ago.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}");
    let kube = Kube::new(None, Some(&url), Sample).await.unwrap();
    let (sender, mut events) = mpsc::channel(4);
    let task = tokio::spawn(kube.run(sender));
    let end = Instant::now() + Duration::from_secs(2);
    while let Ok(batch) = tokio::time::timeout_at(end, events.recv()).await {
        let harmless = |event: &Event| matches!(event, Event::Restarted(_));
        assert!(batch.unwrap().iter().all(harmless));
    }
    drop(events);
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .expect("the source ends when nobody listens")
        .unwrap();
}

#[tokio::test]
async fn a_kubeconfig_is_used_and_the_master_replaces_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let text = "apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: https://192.0.2.1:6443}}]
users: [{name: u, user: {token: secret}}]
";
    std::fs::write(&path, text).unwrap();
    let kube = Kube::new(Some(&path), None, Sample).await.unwrap();
    assert_eq!(kube.server(), "https://192.0.2.1:6443/");
    let kube = Kube::new(Some(&path), Some("http://127.0.0.1:1"), Sample)
        .await
        .unwrap();
    assert_eq!(kube.server(), "http://127.0.0.1:1/");

    let missing = folder.path().join("missing");
    let error = Kube::new(Some(&missing), None, Sample).await.err().unwrap();
    assert!(format!("{error:#}").contains("missing"), "{error:#}");
    let error = Kube::new(None, Some("no url"), Sample).await.err().unwrap();
    assert!(format!("{error:#}").contains("--master"), "{error:#}");
}
