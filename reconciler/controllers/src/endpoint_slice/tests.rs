use super::plan::{CAPACITY, Change, MANAGED_BY, MANAGER, SERVICE, plan};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn service(more: Value) -> Service {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "demo", "uid": "s", "labels": {"tier": "front"},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        service["spec"][key] = value.clone();
    }
    serde_json::from_value(service).unwrap()
}

/// A Pod of the Service, ready, on port 8080.
fn pod(number: usize, more: &[(&str, Value)]) -> Pod {
    let mut pod = json!({
        "metadata": {"name": format!("web-{number:03}"), "namespace": "demo", "uid": format!("u{number}"),
            "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running",
            "podIPs": [{"ip": format!("10.1.{}.{}", number / 250, number % 250)}, {"ip": format!("fd00::{number:x}")}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}]},
    });
    for (pointer, value) in more {
        *pod.pointer_mut(pointer).unwrap() = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn unready(number: usize) -> Pod {
    pod(number, &[("/status/conditions/0/status", json!("False"))])
}

/// The slices after the changes, as a server keeps them.
fn apply(slices: &mut Vec<EndpointSlice>, changes: Vec<Change>, made: &mut usize) {
    for change in changes {
        match change {
            Change::Create(mut slice) => {
                *made += 1;
                let prefix = slice.metadata.generate_name.take().unwrap();
                slice.metadata.name = Some(format!("{prefix}{made:04}"));
                slices.push(slice);
            }
            Change::Update(slice) => {
                let old = slices
                    .iter_mut()
                    .find(|old| old.name_any() == slice.name_any());
                *old.unwrap() = slice;
            }
            Change::Delete(name) => slices.retain(|slice| slice.name_any() != name),
        }
    }
}

fn run(
    service: &Service,
    pods: &[Pod],
    slices: &mut Vec<EndpointSlice>,
    made: &mut usize,
) -> usize {
    let changes = plan(
        service,
        &pods.iter().collect::<Vec<_>>(),
        &slices.iter().collect::<Vec<_>>(),
    );
    let count = changes.len();
    apply(slices, changes, made);
    count
}

#[test]
fn a_slice_looks_as_it_does_in_kubernetes() {
    let mut slices = Vec::new();
    run(&service(json!({})), &[pod(7, &[])], &mut slices, &mut 0);
    let golden = json!([{
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "web-0001", "namespace": "demo",
            "labels": {"tier": "front", SERVICE: "web", MANAGED_BY: MANAGER},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:01:00Z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "s",
                "controller": true, "blockOwnerDeletion": true}],
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.7"], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "n1", "targetRef": {"kind": "Pod", "namespace": "demo", "name": "web-007", "uid": "u7"}}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }]);
    assert_eq!(json!(slices), golden);
}

#[test]
fn conditions_tell_who_is_ready_who_serves_and_who_leaves() {
    let leaving = |ready: &str| {
        let mut pod = pod(1, &[("/status/conditions/0/status", json!(ready))]);
        let now = serde_json::from_value(json!("2026-01-01T00:02:00Z")).unwrap();
        pod.metadata.deletion_timestamp = Some(now);
        pod
    };
    let everyone = service(json!({"publishNotReadyAddresses": true}));
    let usual = service(json!({}));
    for (service, pod, wanted) in [
        (&usual, pod(1, &[]), (true, true, false)),
        (&usual, unready(1), (false, false, false)),
        (&usual, leaving("True"), (false, true, true)),
        (&usual, leaving("False"), (false, false, true)),
        (&everyone, unready(1), (true, false, false)),
        (&everyone, leaving("True"), (true, true, true)),
    ] {
        let mut slices = Vec::new();
        run(service, &[pod], &mut slices, &mut 0);
        let endpoint = slices[0].endpoints.as_ref().unwrap()[0].clone();
        let conditions = endpoint.conditions.unwrap();
        let got = (conditions.ready, conditions.serving, conditions.terminating);
        assert_eq!(got, (Some(wanted.0), Some(wanted.1), Some(wanted.2)));
    }
}

#[test]
fn a_service_without_endpoints_has_one_empty_slice() {
    let ended = pod(1, &[("/status/phase", json!("Succeeded"))]);
    let unplaced = pod(2, &[("/status/podIPs", json!([]))]);
    let stranger = pod(3, &[("/metadata/labels", json!({"app": "other"}))]);
    let mut slices = Vec::new();
    assert_eq!(
        run(
            &service(json!({})),
            &[ended, unplaced, stranger],
            &mut slices,
            &mut 0
        ),
        1
    );
    assert_eq!(
        (slices[0].endpoints.clone(), slices[0].ports.clone()),
        (Some(Vec::new()), None)
    );
    // The first Pod fills it, the last leaves it.
    let name = slices[0].name_any();
    assert_eq!(
        run(&service(json!({})), &[pod(1, &[])], &mut slices, &mut 1),
        1
    );
    assert_eq!(run(&service(json!({})), &[], &mut slices, &mut 1), 1);
    assert_eq!((slices.len(), slices[0].name_any()), (1, name));
}

#[test]
fn both_families_and_different_ports_have_slices_of_their_own() {
    let dual = service(json!({"ipFamilies": ["IPv4", "IPv6"]}));
    let other = pod(
        2,
        &[("/spec/containers/0/ports/0/containerPort", json!(9090))],
    );
    let mut slices = Vec::new();
    run(&dual, &[pod(1, &[]), other], &mut slices, &mut 0);
    let mut seen: Vec<_> = slices
        .iter()
        .map(|slice| {
            (
                slice.address_type.as_str(),
                slice.ports.as_ref().unwrap()[0].port.unwrap(),
            )
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            ("IPv4", 8080),
            ("IPv4", 9090),
            ("IPv6", 8080),
            ("IPv6", 9090)
        ]
    );
    // One family less: its slices go.
    assert_eq!(
        run(&service(json!({})), &[pod(1, &[])], &mut slices, &mut 4),
        3
    );
    assert_eq!(slices.len(), 1);
}

#[test]
fn a_headless_services_pods_have_names() {
    let headless = service(json!({"clusterIP": "None", "ports": []}));
    let mut named = pod(1, &[]);
    let spec = named.spec.as_mut().unwrap();
    spec.hostname = Some("db-0".into());
    spec.subdomain = Some("web".into());
    let mut slices = Vec::new();
    run(&headless, &[named, pod(2, &[])], &mut slices, &mut 0);
    let names: Vec<_> = slices[0]
        .endpoints
        .iter()
        .flatten()
        .map(|e| e.hostname.clone())
        .collect();
    assert_eq!(names, [Some("db-0".to_owned()), None]);
    assert!(
        slices[0]
            .labels()
            .contains_key("service.kubernetes.io/headless")
    );
}

#[test]
fn services_without_selector_and_aliases_are_left_alone() {
    for service in [
        service(json!({"selector": {}})),
        service(json!({"type": "ExternalName"})),
    ] {
        assert_eq!(run(&service, &[pod(1, &[])], &mut Vec::new(), &mut 0), 0);
    }
}

/// What happens to one of 250 Pods.
#[derive(Clone, Debug)]
enum Event {
    Ready(usize),
    Unready(usize),
    OtherPort(usize),
    Gone(usize),
    Many(usize, usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let number = 0..250_usize;
    let event = prop_oneof![
        number.clone().prop_map(Event::Ready),
        number.clone().prop_map(Event::Unready),
        number.clone().prop_map(Event::OtherPort),
        number.clone().prop_map(Event::Gone),
        (number.clone(), number).prop_map(|(a, b)| Event::Many(a.min(b), a.max(b))),
    ];
    prop::collection::vec(event, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn slices_cover_exactly_the_pods_and_change_little(events in events()) {
        let service = service(json!({}));
        let mut pods = BTreeMap::<usize, Pod>::new();
        let mut slices = Vec::new();
        let mut made = 0;
        for event in events {
            let one = !matches!(event, Event::Many(..));
            match event {
                Event::Ready(number) => _ = pods.insert(number, pod(number, &[])),
                Event::Unready(number) => _ = pods.insert(number, unready(number)),
                Event::OtherPort(number) => {
                    let other = pod(number, &[("/spec/containers/0/ports/0/containerPort", json!(9090))]);
                    pods.insert(number, other);
                }
                Event::Gone(number) => _ = pods.remove(&number),
                Event::Many(first, last) => pods.extend((first..last).map(|number| (number, pod(number, &[])))),
            }
            let now: Vec<Pod> = pods.values().cloned().collect();
            let writes = run(&service, &now, &mut slices, &mut made);
            // A Pod that changes its ports leaves one slice and comes to another.
            prop_assert!(!one || writes <= 2, "{writes} writes for one Pod");

            let mut covered = BTreeMap::new();
            for slice in &slices {
                let endpoints = slice.endpoints.clone().unwrap();
                prop_assert!(endpoints.len() <= CAPACITY);
                prop_assert!(!endpoints.is_empty() || slices.len() == 1);
                for endpoint in endpoints {
                    let port = slice.ports.as_ref().unwrap()[0].port.unwrap();
                    let ready = endpoint.conditions.unwrap().ready.unwrap();
                    let uid = endpoint.target_ref.unwrap().uid.unwrap();
                    prop_assert!(covered.insert(uid, (port, ready)).is_none(), "twice in slices");
                }
            }
            let wanted: BTreeMap<_, _> = pods.values().map(|pod| {
                let port = pod.spec.as_ref().unwrap().containers[0].ports.as_ref().unwrap()[0].container_port;
                (pod.uid().unwrap(), (port, crate::pod::is_ready(pod)))
            }).collect();
            prop_assert_eq!(covered, wanted);
            prop_assert_eq!(run(&service, &now, &mut slices, &mut made), 0, "a second look finds nothing");
        }
    }
}
