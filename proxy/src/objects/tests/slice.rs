//! EndpointSlices.

use super::*;
use crate::model::Slice;

fn read_slice(changes: &Value) -> (Slice, Vec<String>) {
    let reduced = read(Kind::Slices, slice(changes));
    match reduced.event {
        Event::Slice(slice) => (Arc::unwrap_or_clone(slice), reduced.complaints),
        other => panic!("{other:?}"),
    }
}

#[test]
fn some_slices_do_not_count() {
    let cases = [
        (json!({"addressType": "FQDN"}), 0),
        (json!({"addressType": "IPv5"}), 1),
        (json!({"addressType": null}), 1),
        (
            json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}}),
            0,
        ),
        (json!({"metadata": {"labels": null}}), 0),
        (
            json!({"metadata": {"labels": {"kubernetes.io/service-name": null}}}),
            0,
        ),
        (
            json!({"metadata": {"labels": {"kubernetes.io/service-name": "../a"}}}),
            1,
        ),
    ];
    for (case, complaints) in cases {
        let reduced = read(Kind::Slices, slice(&case));
        let gone = Event::SliceGone(ObjectName::new("shop", "a-1"));
        assert_eq!(reduced.event, gone, "{case}");
        assert_eq!(
            reduced.complaints.len(),
            complaints,
            "{case}: {:?}",
            reduced.complaints
        );
    }
}

#[test]
fn endpoints_have_the_apis_defaults() {
    let endpoint = |conditions: Value| {
        let changes = json!({"endpoints": [{"addresses": ["10.1.0.1", "10.1.0.2"], "conditions": conditions}]});
        let (slice, complaints) = read_slice(&changes);
        assert_eq!((slice.endpoints.len(), complaints.len()), (1, 0));
        let endpoint = &slice.endpoints[0];
        assert_eq!(endpoint.address.to_string(), "10.1.0.1");
        (endpoint.ready, endpoint.serving, endpoint.terminating)
    };
    assert_eq!(endpoint(json!(null)), (true, true, false));
    assert_eq!(endpoint(json!({})), (true, true, false));
    assert_eq!(endpoint(json!({"ready": false})), (false, true, false));
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    assert_eq!(endpoint(leaving), (false, true, true));
}

#[test]
fn what_a_slice_says() {
    let (slice, complaints) = read_slice(&json!({
        "metadata": {"annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:00:01.5Z"}},
        "ports": [{"name": "http", "port": 8080}, {"name": "http", "port": 8080}, {"name": "http", "port": 9090},
            {"name": "any"}, {"name": "zero", "port": 0}, {"port": 53, "protocol": "UDP"},
            {"port": 70000}, {"port": 1, "protocol": "DCCP"}, {"port": 1, "name": "no.label"}],
        "endpoints": [
            {"addresses": ["10.1.0.1"], "nodeName": "n1", "targetRef": null,
                "hints": {"forZones": [{"name": "x"}, {"name": "y"}], "forNodes": [{"name": "n1"}]}},
            {"addresses": ["fd00::1"]}, {"addresses": []}, {"addresses": ["web.example"]}, {"addresses": null}],
    }));
    assert_eq!(slice.service, ObjectName::new("shop", "a"));
    assert_eq!(slice.triggered, Some(1500));
    let ports = slice
        .ports
        .iter()
        .map(|port| format!("{}:{}/{}", port.name, port.port, port.protocol));
    assert_eq!(
        ports.collect::<Vec<_>>(),
        ["http:8080/tcp", "http:9090/tcp", ":53/udp"]
    );
    let endpoint = &slice.endpoints[0];
    assert_eq!(slice.endpoints.len(), 1);
    assert_eq!(endpoint.node.as_deref(), Some("n1"));
    assert_eq!(
        (texts(&endpoint.zone_hints), texts(&endpoint.node_hints)),
        (texts(&["x", "y"]), texts(&["n1"]))
    );
    let expected = [
        "EndpointSlice shop/a-1: ports \"\": 70000 is no port number",
        "EndpointSlice shop/a-1: ports \"\": unknown protocol \"DCCP\"",
        "EndpointSlice shop/a-1: ports: the name \"no.label\" is not a DNS label",
        "EndpointSlice shop/a-1: endpoints: fd00::1 is not IPv4",
        "EndpointSlice shop/a-1: endpoints: one has no address",
        "EndpointSlice shop/a-1: endpoints: \"web.example\" is not an IP address",
        "EndpointSlice shop/a-1: endpoints: one has no address",
    ];
    assert_eq!(complaints, expected);
}

#[test]
fn half_a_slice_is_a_slice() {
    let (slice, complaints) = read_slice(&json!({"ports": null, "endpoints": null}));
    assert!(slice.ports.is_empty() && slice.endpoints.is_empty() && complaints.is_empty());
    let when = json!({"metadata": {"annotations":
        {"endpoints.kubernetes.io/last-change-trigger-time": "yesterday"}}});
    let (slice, complaints) = read_slice(&when);
    assert_eq!((slice.triggered, complaints.len()), (None, 1));
}

#[test]
fn thousands_of_bad_lines_are_a_few_complaints() {
    let bad = vec![json!({"addresses": ["x"]}); 5000];
    let (_, complaints) = read_slice(&json!({"endpoints": bad}));
    assert_eq!(complaints.len(), 11);
    assert_eq!(complaints[10], "EndpointSlice shop/a-1: and more");
}
