//! What the proxy asks a scripted server for, and what it makes of the answers. Failures of the server are tested where
//! they are dealt with, in the crate `source`.

mod bed;

use std::time::Duration;

use serde_json::{Value, json};
use source::scripted::{Answer, Piece, line, service, status};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use bed::{Bed, node, slice};

async fn say(watch: &mpsc::Sender<Piece>, kind: &str, object: &Value) {
    assert!(
        watch.send(line(kind, object)).await.is_ok(),
        "nobody watches"
    );
}

#[tokio::test]
async fn lists_and_watches_of_each_kind_with_the_right_selectors() {
    let mut watches = None;
    let mut bed = Bed::start(|server| {
        server.list("services", 5, &[service("a", 1, "10.0.0.1")]);
        server.list("endpointslices", 5, &[slice("a-1", 2, 3)]);
        server.list("nodes", 5, &[node(3, "x")]);
        let cidr = |name: &str, nets: &[&str]| {
            json!({"metadata": {"name": name, "resourceVersion": "4"}, "spec": {"cidrs": nets}})
        };
        let cidrs = [cidr("b", &["10.1.0.0/24", "junk"]), cidr("a", &["10.0.0.0/24", "fd00::/112"])];
        server.list("servicecidrs", 5, &cidrs);
        watches = Some((server.watch("services"), server.watch("endpointslices"), server.watch("nodes")));
    })
    .await;
    let (services, slices, nodes) = watches.unwrap();
    bed.until("all is listed", |bed| {
        bed.lists.len() == 3 && !bed.cidrs.is_empty()
    })
    .await;
    assert_eq!(bed.services["shop/a"], "10.0.0.1");
    bed.until("listed slices", |bed| {
        bed.slices.get("shop/a-1") == Some(&3)
    })
    .await;
    bed.until("listed node", |bed| bed.node.as_deref() == Some("x"))
        .await;
    assert_eq!(bed.cidrs, ["10.0.0.0/24", "10.1.0.0/24", "fd00::/112"]);

    say(&services, "ADDED", &service("b", 6, "10.0.0.2")).await;
    say(&services, "MODIFIED", &service("a", 7, "10.0.0.3")).await;
    bed.until_service("a", "10.0.0.3").await;
    say(&services, "DELETED", &service("b", 8, "10.0.0.2")).await;
    bed.until("b is gone", |bed| bed.services.len() == 1).await;
    say(&slices, "DELETED", &slice("a-1", 9, 3)).await;
    bed.until("the slice is gone", |bed| bed.slices.is_empty())
        .await;
    say(&nodes, "MODIFIED", &node(10, "y")).await;
    bed.until("another zone", |bed| bed.node.as_deref() == Some("y"))
        .await;
    say(&nodes, "DELETED", &node(11, "y")).await;
    bed.until("no node", |bed| bed.node.is_none()).await;

    let asked = |plural: &str, words: &[&str]| {
        let asked = bed.server.asked(plural);
        assert_eq!(asked.len(), 2, "a list and a watch: {asked:?}");
        for word in words {
            assert!(
                asked.iter().all(|uri| uri.contains(word)),
                "{word}: {asked:?}"
            );
        }
        assert!(asked[0].contains("limit=500"), "{asked:?}");
        let watch = [
            "watch=true",
            "resourceVersion=5",
            "allowWatchBookmarks=true",
        ];
        assert!(
            watch.iter().all(|word| asked[1].contains(word)),
            "{asked:?}"
        );
    };
    asked(
        "services",
        &[
            "/api/v1/services?",
            "fieldSelector=spec.clusterIP%21%3DNone",
            "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name",
        ],
    );
    asked(
        "endpointslices",
        &[
            "/apis/discovery.k8s.io/v1/endpointslices?",
            "labelSelector=%21service.kubernetes.io%2Fheadless",
        ],
    );
    asked(
        "nodes",
        &["/api/v1/nodes?", "fieldSelector=metadata.name%3Dn1"],
    );
    asked(
        "servicecidrs",
        &["/apis/networking.k8s.io/v1/servicecidrs?"],
    );
}

#[tokio::test]
async fn a_state_forgets_what_the_new_list_does_not_name_and_nothing_before() {
    let expired = status(410, "Expired", "too old resource version: 5 (627)");
    let mut bed = Bed::start(|server| {
        server.list(
            "services",
            5,
            &[service("a", 1, "10.0.0.1"), service("b", 2, "10.0.0.2")],
        );
        server.answer("watch", "services", Answer::Whole(410, expired));
        server.answer(
            "list",
            "services",
            Answer::Whole(500, status(500, "InternalError", "etcd")),
        );
        server.list("services", 700, &[service("b", 2, "10.0.0.2")]);
    })
    .await;
    let site = crate::model::Site {
        family: crate::model::Family::V4,
        node: "n1".into(),
        masquerade_all: false,
        masquerade_mark: 0x4000,
        local: crate::model::LocalDetector::None,
        node_port_addresses: crate::model::NodePortAddresses::All,
        service_cidrs: Vec::new(),
        affinity_by_hash: false,
        localhost_node_ports: false,
        conntrack_liberal: false,
    };
    let mut state = crate::state::State::new([site]);
    let mut whole = 0;
    let mut most = 0;
    while whole < 2 {
        for event in bed.events.recv().await.unwrap() {
            whole += usize::from(event == Event::Listed(Kind::Services));
            state.apply(event);
            state.take(crate::model::Family::V4);
            let wanted = state.wanted(crate::model::Family::V4).unwrap();
            most = most.max(wanted.balancers.len());
            let gone = wanted.balancers.len() < most;
            assert!(
                !gone || whole == 2,
                "something went before the list was whole"
            );
        }
    }
    let wanted = state.wanted(crate::model::Family::V4).unwrap();
    let left: Vec<_> = wanted.balancers.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["shop/b:http"]);
}

#[tokio::test]
async fn a_server_without_service_cidrs_is_left_alone_with_them() {
    let mut bed = Bed::start(|server| {
        server.answer(
            "list",
            "servicecidrs",
            Answer::Whole(404, "404 page not found\n".to_owned()),
        );
        server.list("services", 5, &[service("a", 1, "10.0.0.1")]);
    })
    .await;
    bed.until_service("a", "10.0.0.1").await;
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(bed.server.asked("servicecidrs").len(), 1);
}
