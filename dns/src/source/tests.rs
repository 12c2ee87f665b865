//! What the DNS asks a scripted server for, and what it reads from a folder. Failures of either are tested where they are
//! dealt with, in the crate `source`; a real API server is in `tests/tests/dns_source.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use source::scripted::{Answer, Server, line};
use source::{Folder, Kube};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::*;
use crate::model::ObjectName;

/// A source that runs, and what it has said.
struct Bed {
    events: mpsc::Receiver<Vec<Event>>,
    said: Vec<Event>,
    task: JoinHandle<()>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bed {
    fn start(source: Source) -> Self {
        let (sender, events) = mpsc::channel(4);
        Self {
            events,
            said: Vec::new(),
            task: tokio::spawn(source.run(sender)),
        }
    }

    fn of_folder(path: &Path, pods: Pods) -> Self {
        let path = path.to_owned();
        let consumer = Named { pods };
        Self::start(Source::Folder(Folder { path, consumer }))
    }

    async fn of_server(server: &Server, pods: Pods) -> Self {
        let url = format!("http://{}", server.address);
        let kube = Kube::new(None, Some(&url), Named { pods }).await.unwrap();
        Self::start(Source::Kube(kube))
    }

    async fn until(&mut self, what: &str, so: impl Fn(&[Event]) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !so(&self.said) {
            match timeout_at(end, self.events.recv()).await {
                Ok(Some(batch)) => self.said.extend(batch),
                Ok(None) => panic!("the source ended before {what}"),
                Err(_) => panic!("not {what}: {:?}", self.said),
            }
        }
    }

    /// What there is by now: each object as it was last said.
    fn objects(&self) -> BTreeMap<String, Event> {
        let mut objects = BTreeMap::new();
        for event in &self.said {
            let Some(key) = Named::key_of(event) else {
                continue;
            };
            if *event == Named::gone(key.clone()) {
                objects.remove(&key.to_string());
            } else {
                objects.insert(key.to_string(), event.clone());
            }
        }
        objects
    }

    fn names(&self) -> Vec<String> {
        self.objects().into_keys().collect()
    }
}

fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"}})
}

fn slice(name: &str, address: &str) -> Value {
    let labels = json!({"kubernetes.io/service-name": name, "service.kubernetes.io/headless": ""});
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "namespace": "shop", "resourceVersion": "1", "labels": labels},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 80}]})
}

fn pod(name: &str, node: &str, status: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": node}, "status": status,
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"}})
}

fn running(address: &str) -> Value {
    json!({"phase": "Running", "podIP": address})
}

/// Writes objects as one manifest, aside first: a source may be reading.
fn write(folder: &Path, name: &str, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let aside = folder.join(format!(".{name}"));
    fs::write(&aside, list.to_string()).unwrap();
    fs::rename(&aside, folder.join(name)).unwrap();
}

#[tokio::test]
async fn a_folder_says_services_of_all_sorts_and_the_pods_that_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let mut on_host = pod("host", "n1", &running("10.0.0.1"));
    on_host["spec"]["hostNetwork"] = json!(true);
    let objects = [
        service("web", &json!({"clusterIP": "10.96.0.1"})),
        service("own", &json!({"clusterIP": "None"})),
        service(
            "far",
            &json!({"type": "ExternalName", "externalName": "example.org"}),
        ),
        slice("own", "10.1.0.1"),
        pod("here", "n1", &running("10.1.0.1")),
        pod("there", "n2", &running("10.2.0.1")),
        pod("nowhere", "n1", &json!({"phase": "Pending"})),
        pod(
            "done",
            "n1",
            &json!({"phase": "Succeeded", "podIP": "10.1.0.9"}),
        ),
        pod(
            "dead",
            "n1",
            &json!({"phase": "Failed", "podIP": "10.1.0.9"}),
        ),
        on_host,
    ];
    write(folder.path(), "all.json", &objects);
    let without = [
        "EndpointSlice shop/own-1",
        "Service shop/far",
        "Service shop/own",
        "Service shop/web",
    ];
    let cases = [
        (Pods::None, Vec::new()),
        (Pods::OfNode("n1".into()), vec!["Pod shop/here"]),
        (Pods::All, vec!["Pod shop/here", "Pod shop/there"]),
    ];
    for (pods, more) in cases {
        let kinds = Named { pods: pods.clone() }.kinds();
        let mut bed = Bed::of_folder(folder.path(), pods);
        let whole = Event::Listed(Kind::Slices);
        bed.until("listed", |said| said.contains(&whole)).await;
        let mut expected = without.to_vec();
        expected.splice(1..1, more);
        assert_eq!(bed.names(), expected);
        let begin: Vec<_> = kinds.iter().copied().map(Event::Restarted).collect();
        assert_eq!(bed.said[..kinds.len()], begin);
        let end: Vec<_> = kinds.iter().copied().map(Event::Listed).collect();
        assert_eq!(bed.said[bed.said.len() - kinds.len()..], end);
    }
}

#[tokio::test]
async fn what_leaves_a_folder_is_gone_and_a_pod_that_ends_too() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "a.json",
        &[
            service("a", &json!({"clusterIP": "10.96.0.1"})),
            slice("a", "10.1.0.1"),
        ],
    );
    write(
        folder.path(),
        "b.json",
        &[pod("p", "n1", &running("10.1.0.1"))],
    );
    let mut bed = Bed::of_folder(folder.path(), Pods::All);
    let whole = Event::Listed(Kind::Pods);
    bed.until("listed", |said| said.contains(&whole)).await;
    assert_eq!(bed.names().len(), 3);

    let ended = json!({"phase": "Succeeded", "podIP": "10.1.0.1"});
    write(folder.path(), "b.json", &[pod("p", "n1", &ended)]);
    fs::remove_file(folder.path().join("a.json")).unwrap();
    let name = |name: &str| ObjectName {
        namespace: "shop".into(),
        name: name.into(),
    };
    for gone in [
        Event::PodGone(name("p")),
        Event::ServiceGone(name("a")),
        Event::SliceGone(name("a-1")),
    ] {
        bed.until("gone", |said| said.contains(&gone)).await;
    }
    assert!(bed.objects().is_empty());
}

#[tokio::test]
async fn a_server_is_asked_for_what_is_wanted_in_small_pages() {
    let cases = [
        (Pods::None, None),
        (
            Pods::OfNode("n1".into()),
            Some(
                "fieldSelector=spec.nodeName%3Dn1%2Cstatus.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed",
            ),
        ),
        (
            Pods::All,
            Some("fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed"),
        ),
    ];
    for (pods, selector) in cases {
        let server = Server::start().await;
        let page = json!({"metadata": {"resourceVersion": "5", "continue": "more"},
            "items": [service("own", &json!({"clusterIP": "None"}))]});
        server.answer("list", "services", Answer::Whole(200, page.to_string()));
        let last = service("web", &json!({"clusterIP": "10.96.0.1"}));
        server.list("services", 5, &[last]);
        server.list("endpointslices", 5, &[slice("own", "10.1.0.1")]);
        server.list("pods", 5, &[pod("here", "n1", &running("10.1.0.1"))]);
        let watches = ["services", "endpointslices", "pods"].map(|kind| server.watch(kind));
        let kinds = Named { pods: pods.clone() }.kinds();
        let mut bed = Bed::of_server(&server, pods).await;
        bed.until("all is listed", |said| {
            kinds
                .iter()
                .all(|&kind| said.contains(&Event::Listed(kind)))
        })
        .await;
        let mut expected = vec!["EndpointSlice shop/own-1"];
        expected.extend(selector.map(|_| "Pod shop/here"));
        expected.extend(["Service shop/own", "Service shop/web"]);
        assert_eq!(bed.names(), expected);

        // The watches go on where the lists end.
        let [services, slices, pods] = watches;
        let more = line("ADDED", &service("new", &json!({"clusterIP": "10.96.0.2"})));
        assert!(services.send(more).await.is_ok());
        assert!(
            slices
                .send(line("DELETED", &slice("own", "10.1.0.1")))
                .await
                .is_ok()
        );
        bed.until("changes", |said| {
            let gone = |event: &Event| matches!(event, Event::SliceGone(_));
            let new =
                |event: &Event| matches!(event, Event::Service(new) if &*new.name.name == "new");
            said.iter().any(gone) && said.iter().any(new)
        })
        .await;
        if selector.is_some() {
            let left = pod("here", "n1", &running("10.1.0.1"));
            assert!(pods.send(line("DELETED", &left)).await.is_ok());
            bed.until("the Pod is gone", |said| {
                said.iter().any(|event| matches!(event, Event::PodGone(_)))
            })
            .await;
        }

        let whole = |kind: &str| {
            let asked = server.asked(kind);
            assert!(asked[0].contains("limit=200"), "{asked:?}");
            assert!(
                !asked.iter().any(|uri| uri.contains("Selector=")),
                "{asked:?}"
            );
        };
        whole("services");
        whole("endpointslices");
        let asked = server.asked("pods");
        match selector {
            None => assert!(asked.is_empty(), "{asked:?}"),
            Some(selector) => {
                assert!(asked.len() == 2, "a list and a watch: {asked:?}");
                assert!(asked.iter().all(|uri| uri.contains(selector)), "{asked:?}");
            }
        }
    }
}
