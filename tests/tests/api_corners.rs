//! What was found by reading and not by trying: each of these was wrong once.

#[path = "api/client.rs"]
mod client;

use anyhow::{Result, ensure};
use client::{Lines, ask, get};
use futures_util::future::join_all;
use kube::Client;
use serde_json::{Value, json};
use tests::ApiServer;

const NAMESPACED: &str = "/api/v1/namespaces/default";

async fn must(client: &Client, code: u16, method: &str, path: &str, body: Value) -> Result<Value> {
    let answer = ask(client, method, path, &body).await?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(
        answer.code == code,
        "{method} {path}: {} and not {code}: {text}",
        answer.code
    );
    answer.json()
}

/// Ends where the clock cannot count to.
async fn endless_watch(client: &Client) -> Result<()> {
    let path = format!(
        "{NAMESPACED}/configmaps?watch=1&timeoutSeconds={}",
        i64::MAX
    );
    let mut watch = Lines::open(client, &path).await?;
    let first = watch.event().await?;
    ensure!(first["type"] == "ADDED", "{first}");
    Ok(())
}

/// Nobody names a revision, so nobody is refused for one.
async fn patches_side_by_side(client: &Client) -> Result<()> {
    let path = format!("{NAMESPACED}/configmaps");
    must(
        client,
        201,
        "POST",
        &path,
        json!({"metadata": {"name": "many"}}),
    )
    .await?;
    let path = format!("{path}/many");
    let patch = |number: usize| {
        must(
            client,
            200,
            "PATCH",
            &path,
            json!({"data": {format!("k{number}"): "v"}}),
        )
    };
    for done in join_all((0..12).map(patch)).await {
        done?;
    }
    let made = get(client, &path).await?;
    ensure!(
        made["data"]
            .as_object()
            .is_some_and(|data| data.len() == 12),
        "{made}"
    );
    Ok(())
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "finalizers": ["example.com/hold"]},
        "spec": {"clusterIP": "10.96.0.77", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30077}]}})
}

/// A dry run of a Service leaves no trace, and the next one can have all that a former one had.
async fn services(client: &Client) -> Result<()> {
    let path = format!("{NAMESPACED}/services");
    let revision = async || -> Result<Value> {
        Ok(get(client, &path).await?["metadata"]["resourceVersion"].clone())
    };
    let before = revision().await?;
    must(
        client,
        201,
        "POST",
        &format!("{path}?dryRun=All"),
        service("a"),
    )
    .await?;
    ensure!(revision().await? == before, "a dry run was written");
    for name in ["a", "b"] {
        must(client, 201, "POST", &path, service(name)).await?;
        must(
            client,
            200,
            "DELETE",
            &format!("{path}/{name}"),
            Value::Null,
        )
        .await?;
        let free = json!({"metadata": {"finalizers": null}});
        must(client, 200, "PATCH", &format!("{path}/{name}"), free).await?;
    }
    Ok(())
}

/// A body that may be sent is no object that may be kept.
async fn too_large(client: &Client) -> Result<()> {
    let env: Vec<_> = (0..2000)
        .map(|number| json!({"name": format!("E{number}"), "value": "x".repeat(1000)}))
        .collect();
    let pod = json!({"metadata": {"name": "large"}, "spec": {"containers": [{"name": "c", "image": "i", "env": env}]}});
    must(client, 413, "POST", &format!("{NAMESPACED}/pods"), pod).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corners_are_safe() -> Result<()> {
    let mut server = ApiServer::start(&[])?;
    let client = client::client(&server.kubeconfig()).await?;
    endless_watch(&client).await?;
    patches_side_by_side(&client).await?;
    services(&client).await?;
    too_large(&client).await?;
    server.process()?.ensure_alive()
}
