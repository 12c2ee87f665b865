//! Services with endpoints at an API server, and questions about them.

use crate::api::client::{Client, Connection};
use ::tests::ApiServer;
use anyhow::Result;
use hyper::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Of each Service.
pub const ENDPOINTS: u32 = 5;
/// Requests at a time.
const WRITERS: usize = 64;
const SERVICES: &str = "/api/v1/namespaces/bench/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices";

/// The headless Service that gets new endpoints.
pub const HEADLESS: &str = "news";

/// A client with a world of a size.
pub struct Load {
    client: Client,
    services: u32,
}

impl Load {
    pub fn new(server: &ApiServer, services: u32) -> Result<Self> {
        let client = Client::with_certificate(&server.url(), &server.folder().join("pki"))?;
        Ok(Self { client, services })
    }

    /// Makes everything.
    pub async fn create(&self) -> Result<()> {
        let connection = self.client.connect().await?;
        let namespace = json!({"metadata": {"name": "bench"}}).to_string();
        connection
            .ask(Method::POST, "/api/v1/namespaces", namespace)
            .await?;
        let headless = json!({"metadata": {"name": HEADLESS}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
        connection
            .ask(Method::POST, SERVICES, headless.to_string())
            .await?;
        for (path, make) in [(SERVICES, service as fn(u32) -> Value), (SLICES, slice)] {
            let turns = Arc::new(Semaphore::new(WRITERS));
            let mut tasks = JoinSet::new();
            for number in 0..self.services {
                let turn = Arc::clone(&turns).acquire_owned().await?;
                let (connection, body) = (connection.clone(), make(number).to_string());
                tasks.spawn(async move {
                    let done = connection.ask(Method::POST, path, body).await;
                    drop(turn);
                    done
                });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
        }
        Ok(())
    }

    /// A connection to write with.
    pub async fn connect(&self) -> Result<Connection> {
        self.client.connect().await
    }

    /// Gives the headless Service an endpoint more.
    pub async fn add(&self, connection: &Connection, number: u32) -> Result<()> {
        let body = named_slice(
            &format!("{HEADLESS}-{number}"),
            HEADLESS,
            &[address(number, 200)],
        );
        connection
            .ask(Method::POST, SLICES, body.to_string())
            .await
            .map(drop)
    }

    /// The name that was told last.
    pub fn last_service(&self) -> String {
        format!("s{}.bench.svc.cluster.local", self.services - 1)
    }

    /// For dnsperf: mostly addresses of Services, some types that are not there, some ports, some names that do not exist.
    pub fn questions(&self) -> String {
        let mut text = String::new();
        for turn in 0..self.services * 4 {
            // Every Service, in an order that is far from that of creation.
            let number = turn.wrapping_mul(2_654_435_761) % self.services;
            let name = format!("s{number}.bench.svc.cluster.local");
            let line = match turn % 20 {
                0 => format!("_http._tcp.{name} SRV"),
                1 => format!("{name}.default.svc.cluster.local A"),
                2 => {
                    let [a, b, c, d] = address(number, number % ENDPOINTS);
                    format!("{d}.{c}.{b}.{a}.in-addr.arpa PTR")
                }
                3..6 => format!("{name} AAAA"),
                _ => format!("{name} A"),
            };
            // Writing to a String does not fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

fn service(number: u32) -> Value {
    json!({"metadata": {"name": format!("s{number}")}, "spec": {"ports": [{"name": "http", "port": 80}]}})
}

/// The endpoint `index` of a Service; no two are the same.
fn address(service: u32, index: u32) -> [u8; 4] {
    let number = service * 256 + index;
    let [_, b, c, d] = number.to_be_bytes();
    [10, b.wrapping_add(100), c, d]
}

fn slice(number: u32) -> Value {
    let addresses: Vec<_> = (0..ENDPOINTS).map(|index| address(number, index)).collect();
    named_slice(&format!("s{number}-x"), &format!("s{number}"), &addresses)
}

fn named_slice(name: &str, service: &str, addresses: &[[u8; 4]]) -> Value {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|[a, b, c, d]| json!({"addresses": [format!("{a}.{b}.{c}.{d}")], "conditions": {"ready": true}, "nodeName": "n1"}))
        .collect();
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]})
}
