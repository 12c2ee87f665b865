//! Services.

use serde_json::{Value, json};

use super::*;
use crate::model::{Service, Target};

fn base(changes: &Value) -> Value {
    let base = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a", "namespace": "shop", "labels": {"x": null}},
        "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "type": "ClusterIP",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]},
    });
    merged(base, changes)
}

#[test]
fn what_a_service_says() {
    let reduced = read(
        Kind::Services,
        base(&json!({"spec": {"publishNotReadyAddresses": true}})),
    );
    assert_eq!(
        reduced,
        Reduced {
            event: Event::Service(Service {
                name: shop("a"),
                target: Target::ClusterIps(ips(&["10.0.0.1"])),
                ports: [port("http", Protocol::Tcp, 80)].into(),
                publish_not_ready: true,
            }),
            complaints: Vec::new(),
        }
    );
}

#[test]
fn what_a_service_stands_for() {
    let cluster = |texts: &[&str]| Some(Target::ClusterIps(ips(texts)));
    let external = |text: &str| Some(Target::External(text.into()));
    let cases = [
        (
            json!({"clusterIPs": ["10.0.0.1", "fd00::1"]}),
            cluster(&["10.0.0.1", "fd00::1"]),
            "",
        ),
        (json!({"clusterIPs": null}), cluster(&["10.0.0.1"]), ""),
        (
            json!({"clusterIPs": ["10.0.0.1", "10.0.0.1"]}),
            cluster(&["10.0.0.1"]),
            "",
        ),
        (
            json!({"clusterIPs": ["10.0.0.1", "10.0.0.256"]}),
            cluster(&["10.0.0.1"]),
            "spec.clusterIPs: \"10.0.0.256\" is not an IP address",
        ),
        (
            json!({"clusterIPs": ["0.0.0.0"]}),
            None,
            "spec.clusterIPs: 0.0.0.0 is not the address of one host",
        ),
        (json!({"clusterIPs": ["None"]}), Some(Target::Headless), ""),
        (
            json!({"clusterIP": "None", "clusterIPs": null}),
            Some(Target::Headless),
            "",
        ),
        (
            json!({"clusterIP": "", "clusterIPs": null}),
            None,
            "spec.clusterIP is missing, so it has no records; for a headless Service write None",
        ),
        (
            json!({"clusterIP": null, "clusterIPs": null}),
            None,
            "spec.clusterIP is missing, so it has no records; for a headless Service write None",
        ),
        (
            json!({"type": "ExternalName", "externalName": "www.example.com"}),
            external("www.example.com"),
            "",
        ),
        (
            json!({"type": "ExternalName", "externalName": "WWW.example_1.com."}),
            external("WWW.example_1.com."),
            "",
        ),
        (
            json!({"type": "ExternalName", "externalName": "10.0.0.9"}),
            external("10.0.0.9"),
            "spec.externalName \"10.0.0.9\" looks like an IP address, so it has no records; \
             use a headless Service with an EndpointSlice",
        ),
        (
            json!({"type": "ExternalName", "externalName": "a..b"}),
            None,
            "spec.externalName \"a..b\" is not a host name",
        ),
        (
            json!({"type": "ExternalName"}),
            None,
            "spec.externalName \"\" is not a host name",
        ),
        (json!({"type": "LoadBalancer"}), cluster(&["10.0.0.1"]), ""),
    ];
    for (spec, target, complaint) in cases {
        let reduced = read(Kind::Services, base(&json!({"spec": spec})));
        let complaints: Vec<_> = reduced.complaints.iter().map(String::as_str).collect();
        match complaint {
            "" => assert_eq!(complaints, [""; 0], "{spec}"),
            text => assert_eq!(complaints, [format!("Service shop/a: {text}")], "{spec}"),
        }
        match (reduced.event, target) {
            (Event::Service(service), Some(target)) => assert_eq!(service.target, target, "{spec}"),
            (event, None) => assert_eq!(event, Event::ServiceGone(shop("a")), "{spec}"),
            (event, _) => panic!("{spec}: {event:?}"),
        }
    }
}

#[test]
fn a_name_with_dots_has_no_records() {
    let reduced = read(Kind::Services, base(&json!({"metadata": {"name": "a.b"}})));
    assert_eq!(reduced.event, Event::ServiceGone(shop("a.b")));
    assert_eq!(
        reduced.complaints,
        ["Service shop/a.b: metadata.name is not a DNS label, so it has no records"]
    );
}

#[test]
fn bad_ports_are_left_out() {
    let spec = json!({"ports": [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"port": 53},
        {"name": "http", "port": 70000},
        {"name": "Upper", "port": 80},
        {"name": "ftp", "port": 21, "protocol": "DCCP"},
        {"name": "all"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]});
    let reduced = read(Kind::Services, base(&json!({"spec": spec})));
    let Event::Service(service) = reduced.event else {
        panic!("{:?}", reduced.event);
    };
    assert_eq!(
        *service.ports,
        [port("dns", Protocol::Udp, 53), port("", Protocol::Tcp, 53)]
    );
    assert_eq!(
        reduced.complaints,
        [
            "Service shop/a: spec.ports \"http\": 70000 is no port number",
            "Service shop/a: spec.ports: the name \"Upper\" is not a DNS label",
            "Service shop/a: spec.ports \"ftp\": unknown protocol \"DCCP\"",
        ]
    );
}
