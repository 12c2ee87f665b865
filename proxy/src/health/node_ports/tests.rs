//! Health ports on loopback addresses of their own for each test.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::health::tests::{get, health};

/// A port that nobody has at the moment, on one address.
fn free_port(ip: IpAddr) -> u16 {
    let listener = server::open(SocketAddr::new(ip, 0), true).unwrap();
    listener.local_addr().unwrap().port()
}

fn only(ip: IpAddr) -> NodePortAddresses {
    NodePortAddresses::Some([ip].into())
}

#[tokio::test]
async fn a_port_answers_as_kube_proxys_does() {
    let ip = IpAddr::from([127, 77, 1, 1]);
    let health = health(Duration::from_secs(30));
    let mut ports = NodePortHealth::new(Family::V4, Arc::clone(&health));
    let web = ObjectName::new("default", "web");
    let at = SocketAddr::new(ip, free_port(ip));
    let mut services = BTreeMap::from([(web.clone(), (at.port(), 2))]);
    ports.update(&only(ip), &services).await;
    for path in ["/", "/any/path?x"] {
        let (head, body) = get(at, path).await;
        assert!(head.starts_with("http/1.0 200"), "{head}");
        for header in [
            "content-type: application/json",
            "x-content-type-options: nosniff",
            "x-load-balancing-endpoint-weight: 2",
        ] {
            assert!(head.contains(header), "{header} in {head}");
        }
        let body: Value = serde_json::from_str(&body).unwrap();
        let wanted = json!({
            "service": { "namespace": "default", "name": "web" },
            "localEndpoints": 2,
            "serviceProxyHealthy": true,
        });
        assert_eq!(body, wanted);
    }
    // No endpoint: 503, on the same listener.
    services.insert(web, (at.port(), 0));
    ports.update(&only(ip), &services).await;
    let (head, body) = get(at, "/").await;
    assert!(head.starts_with("http/1.0 503"), "{head}");
    assert!(
        head.contains("x-load-balancing-endpoint-weight: 0"),
        "{head}"
    );
    assert!(body.contains(r#""localEndpoints":0"#), "{body}");
}

#[tokio::test]
async fn a_proxy_that_is_behind_gets_no_traffic_but_a_leaving_node_does() {
    let ip = IpAddr::from([127, 77, 1, 2]);
    let health = health(Duration::ZERO);
    let mut ports = NodePortHealth::new(Family::V4, Arc::clone(&health));
    let at = SocketAddr::new(ip, free_port(ip));
    let services = BTreeMap::from([(ObjectName::new("a", "b"), (at.port(), 1))]);
    ports.update(&only(ip), &services).await;
    health.set_node_eligible(false);
    assert!(get(at, "/").await.0.starts_with("http/1.0 200"));
    health.queued(Family::V4);
    let (head, body) = get(at, "/").await;
    assert!(head.starts_with("http/1.0 503"), "{head}");
    assert!(body.contains(r#""serviceProxyHealthy":false"#), "{body}");
}

#[tokio::test]
async fn changes_touch_only_the_listeners_that_they_are_about() {
    let ip = IpAddr::from([127, 77, 1, 3]);
    let health = health(Duration::from_secs(30));
    let mut ports = NodePortHealth::new(Family::V4, health);
    let [one, two, three] = ["one", "two", "three"].map(|name| ObjectName::new("ns", name));
    let (first, second) = (free_port(ip), free_port(ip));
    let services = BTreeMap::from([(one.clone(), (first, 1)), (two, (second, 1))]);
    ports.update(&only(ip), &services).await;
    // A connection to the one that stays.
    let mut open = tokio::net::TcpStream::connect((ip, first)).await.unwrap();
    // The port of the one that goes is taken by another at once.
    let services = BTreeMap::from([(one, (first, 1)), (three, (second, 3))]);
    ports.update(&only(ip), &services).await;
    let (_, body) = get(SocketAddr::new(ip, second), "/").await;
    assert!(body.contains("three"), "{body}");
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    open.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("one"), "{text}");
    // All gone.
    ports.update(&only(ip), &BTreeMap::new()).await;
    for port in [first, second] {
        assert!(tokio::net::TcpStream::connect((ip, port)).await.is_err());
    }
}

#[tokio::test]
async fn a_port_in_use_is_counted_and_does_not_hold_others_up() {
    let ip = IpAddr::from([127, 77, 1, 4]);
    let health = health(Duration::from_secs(30));
    let taken = server::open(SocketAddr::new(ip, 0), true).unwrap();
    let mut ports = NodePortHealth::new(Family::V4, Arc::clone(&health));
    let (bad, good) = (taken.local_addr().unwrap().port(), free_port(ip));
    let services = BTreeMap::from([
        (ObjectName::new("a", "bad"), (bad, 1)),
        (ObjectName::new("b", "good"), (good, 1)),
    ]);
    ports.update(&only(ip), &services).await;
    let (head, _) = get(SocketAddr::new(ip, good), "/").await;
    assert!(head.starts_with("http/1.0 200"), "{head}");
    let text = health.metrics.render().unwrap();
    let line = r#"kubeproxy_listen_failures_total{listener="node_port_health"} 1"#;
    assert!(text.contains(line), "{text}");
}

#[test]
fn addresses_of_the_family_only() {
    let some = NodePortAddresses::Some(
        ["192.0.2.1", "fd00::1"]
            .map(|ip| ip.parse().unwrap())
            .into(),
    );
    for (family, addresses, wanted) in [
        (Family::V4, &some, "192.0.2.1"),
        (Family::V6, &some, "fd00::1"),
        (Family::V4, &NodePortAddresses::All, "0.0.0.0"),
        (Family::V6, &NodePortAddresses::All, "::"),
    ] {
        let ports = NodePortHealth::new(family, health(Duration::ZERO));
        assert_eq!(
            ports.addresses(addresses),
            [wanted.parse::<IpAddr>().unwrap()]
        );
    }
}
