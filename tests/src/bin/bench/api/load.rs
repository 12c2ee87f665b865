//! The load: creates at full speed, a world of Services and Pods, gets, lists, watches.

use super::client::{Client, Connection};
use crate::outcome::Series;
use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

const NAMESPACE: &str = "/api/v1/namespaces/bench";
/// Requests on one connection; a Go client uses about as many.
const STREAMS: u32 = 100;

/// A client with a world of a size.
pub struct Load {
    client: Client,
    objects: u32,
    writers: u32,
}

impl Load {
    /// `writers` requests at a time.
    pub fn new(client: Client, objects: u32, writers: u32) -> Self {
        Self {
            client,
            objects,
            writers,
        }
    }

    /// The namespace for all that follows. The reference makes ServiceAccounts only with its controllers.
    pub async fn prepare(&self) -> Result<()> {
        let connection = self.client.connect().await?;
        let namespace = json!({"metadata": {"name": "bench"}});
        connection
            .ask(Method::POST, "/api/v1/namespaces", namespace.to_string())
            .await?;
        let account = json!({"metadata": {"name": "runner"}});
        let path = format!("{NAMESPACE}/serviceaccounts");
        connection
            .ask(Method::POST, &path, account.to_string())
            .await?;
        Ok(())
    }

    /// Creates small objects, many at a time; how long all took.
    pub async fn create_many(&self, count: u32) -> Result<Duration> {
        let path = format!("{NAMESPACE}/configmaps");
        let begun = Instant::now();
        self.create(count, &path, |number| {
            json!({"metadata": {"name": format!("c{number}")}, "data": {"key": "a value of some length"}})
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// Removes them again.
    pub async fn remove_many(&self) -> Result<()> {
        let connection = self.client.connect().await?;
        connection
            .ask(Method::DELETE, &format!("{NAMESPACE}/configmaps"), "")
            .await?;
        Ok(())
    }

    /// Services, their slices, and a Pod behind each.
    pub async fn world(&self) -> Result<()> {
        let all = [
            (format!("{NAMESPACE}/services"), service as fn(u32) -> Value),
            (
                "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices".to_owned(),
                slice,
            ),
            (format!("{NAMESPACE}/pods"), pod),
        ];
        for (path, make) in all {
            self.create(self.objects, &path, make).await?;
        }
        Ok(())
    }

    async fn create(&self, count: u32, path: &str, make: impl Fn(u32) -> Value) -> Result<()> {
        let turns = Arc::new(Semaphore::new(self.writers as usize));
        let mut connections = Vec::new();
        for _ in 0..4 {
            connections.push(self.client.connect().await?);
        }
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let turn = Arc::clone(&turns).acquire_owned().await?;
            let connection = connections[number as usize % connections.len()].clone();
            let (path, body) = (path.to_owned(), make(number).to_string());
            tasks.spawn(async move {
                let done = connection.ask(Method::POST, &path, body).await;
                drop(turn);
                done
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    /// A connection to read with.
    pub async fn connect(&self) -> Result<Connection> {
        self.client.connect().await
    }

    /// Reads one Pod.
    pub async fn get(&self, connection: &Connection, number: u32) -> Result<()> {
        let path = format!("{NAMESPACE}/pods/p{}", number % self.objects);
        connection.ask(Method::GET, &path, "").await.map(drop)
    }

    /// Reads all Services; the length of the answer.
    pub async fn list(&self, connection: &Connection) -> Result<usize> {
        connection
            .ask(Method::GET, &format!("{NAMESPACE}/services"), "")
            .await
    }

    /// Opens watches on one kind, then makes changes one by one: how long until the last watch has each.
    pub async fn watches(&self, name: &str, count: u32, rounds: u32) -> Result<Series> {
        let mut connections = Vec::new();
        for _ in 0..count.div_ceil(STREAMS) {
            connections.push(self.client.connect().await?);
        }
        let path = format!("{NAMESPACE}/configmaps");
        let list = connections[0].open(Method::GET, &path, "").await?;
        let list: Value = serde_json::from_slice(&list.into_body().collect().await?.to_bytes())?;
        let revision = list["metadata"]["resourceVersion"]
            .as_str()
            .context("a list without a revision")?;
        let (to, mut arrivals) = mpsc::unbounded_channel();
        let mut watchers = JoinSet::new();
        for number in 0..count {
            let connection = connections[(number / STREAMS) as usize].clone();
            let watch = format!("{path}?watch=1&resourceVersion={revision}");
            let to = to.clone();
            let mut body = connection.open(Method::GET, &watch, "").await?.into_body();
            watchers.spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    let lines = frame
                        .data_ref()
                        .map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
                    let now = Instant::now();
                    // Nobody asks any more once all rounds are over.
                    (0..lines).for_each(|_| _ = to.send(now));
                }
            });
        }
        let mut series = Series::new(name);
        let mut slowest = Duration::ZERO;
        let writer = self.client.connect().await?;
        for round in 0..rounds {
            let body = json!({"metadata": {"name": format!("w{round}")}, "data": {"key": "value"}})
                .to_string();
            let begun = Instant::now();
            writer.ask(Method::POST, &path, body).await?;
            for _ in 0..count {
                let arrival = tokio::time::timeout(Duration::from_secs(20), arrivals.recv());
                let arrival = arrival.await.context("a watch did not get a change")?;
                let Some(at) = arrival else {
                    bail!("the watches ended");
                };
                let after = at.duration_since(begun);
                slowest = slowest.max(after);
            }
            series.push(std::mem::take(&mut slowest));
        }
        watchers.shutdown().await;
        Ok(series)
    }
}

fn service(number: u32) -> Value {
    json!({"metadata": {"name": format!("s{number}"), "labels": {"app": format!("a{number}")}},
        "spec": {"selector": {"app": format!("a{number}")}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}

fn ip(number: u32) -> String {
    format!("10.244.{}.{}", number / 250, number % 250 + 2)
}

fn slice(number: u32) -> Value {
    let name = format!("s{number}");
    let pod = json!({"kind": "Pod", "namespace": "bench", "name": format!("p{number}")});
    json!({"metadata": {"name": format!("{name}-x"), "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
        "endpoints": [{"addresses": [ip(number)], "conditions": {"ready": true}, "nodeName": "n1", "targetRef": pod}],
        "ports": [{"name": "http", "port": 8080}]})
}

fn pod(number: u32) -> Value {
    json!({"metadata": {"name": format!("p{number}"), "labels": {"app": format!("a{number}")}},
        "spec": {"serviceAccountName": "runner", "containers": [{"name": "web", "image": "nginx:1.27",
            "ports": [{"containerPort": 8080}], "env": [{"name": "A", "value": "b"}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}
