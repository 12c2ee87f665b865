//! Health ports of both families on all addresses of a node.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use proxy::health::{Health, NodePortHealth};
use proxy::metrics::Metrics;
use proxy::model::{Family, NodePortAddresses, ObjectName};

use crate::in_namespace;

fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn each_family_has_its_own_listener_of_one_port() {
    in_namespace("ports", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let health = Health::new(Duration::from_secs(30), Arc::clone(&metrics));
        let service = ObjectName::new("default", "web");
        runtime.block_on(async {
            let mut v4 = NodePortHealth::new(Family::V4, Arc::clone(&health));
            let mut v6 = NodePortHealth::new(Family::V6, Arc::clone(&health));
            let with = |count| BTreeMap::from([(service.clone(), (30_000, count))]);
            v4.update(&NodePortAddresses::All, &with(1)).await;
            v6.update(&NodePortAddresses::All, &with(0)).await;
            let ask = |address: &'static str| async move {
                tokio::task::spawn_blocking(move || get(address))
                    .await
                    .unwrap()
            };
            let text = ask("127.0.0.1:30000").await.unwrap();
            assert!(text.starts_with("HTTP/1.0 200"), "{text}");
            let text = ask("[::1]:30000").await.unwrap();
            assert!(text.starts_with("HTTP/1.0 503"), "{text}");
            v4.update(&NodePortAddresses::All, &BTreeMap::new()).await;
            assert!(ask("127.0.0.1:30000").await.is_err());
            assert!(ask("[::1]:30000").await.is_ok());
        });
        let text = metrics.render().unwrap();
        assert!(!text.contains("listen_failures_total{"), "{text}");
    });
}
