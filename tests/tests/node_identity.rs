//! A node joins with a token, and is then who it says: to the API server, and to those who ask it.

#[path = "api/client.rs"]
mod client;
#[path = "api/wire.rs"]
mod wire;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use client::ask;
use node::identity::{self, Config};
use reconciler::api::pki::Pki;
use serde_json::{Value, json};
use tests::ApiServer;

fn config(server: &ApiServer, folder: &Path, token: Option<String>) -> Result<Config> {
    Ok(Config {
        server: server.url(),
        token,
        node: "n1".to_owned(),
        addresses: vec!["127.0.0.1".parse()?],
        folder: folder.to_owned(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_comes_back_without_its_token() -> Result<()> {
    let server = ApiServer::start(&[])?;
    let token = Pki::open(&server.folder(), &[])?.join_token()?;
    ensure!(
        token == Pki::open(&server.folder(), &[])?.join_token()?,
        "another token"
    );
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("node");
    let (secret, hash) = token.split_once('.').context("no hash")?;

    // Another authority, another secret, no token: nothing is believed, and nothing is left that would be.
    let other = format!("{secret}.{}", "0".repeat(64));
    let wrong = format!("{}.{hash}", "0".repeat(32));
    for (token, why) in [
        (Some(other), "UnknownIssuer"),
        (Some(wrong), "401"),
        (None, "give --token"),
    ] {
        let error = identity::obtain(&config(&server, &place, token)?).await;
        let error = format!("{:#}", error.err().context("it has joined")?);
        ensure!(error.contains(why), "{error}");
        ensure!(!place.join("node.kubeconfig").exists());
    }

    let joined = identity::obtain(&config(&server, &place, Some(token))?).await?;
    for file in std::fs::read_dir(&place)? {
        let file = file?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{:?}: {mode:o}", file.path());
    }
    let node = client::client(&joined.kubeconfig).await?;
    let own = json!({"metadata": {"name": "n1"}});
    ensure!(ask(&node, "POST", "/api/v1/nodes", &own).await?.code == 201);
    let not = json!({"metadata": {"name": "n2"}});
    ensure!(ask(&node, "POST", "/api/v1/nodes", &not).await?.code == 403);

    // Another process later: the same certificates.
    let read = |name: &str| std::fs::read_to_string(place.join(name));
    let before = (read("client.crt")?, read("serving.crt")?);
    let again = identity::obtain(&config(&server, &place, None)?).await?;
    ensure!((read("client.crt")?, read("serving.crt")?) == before && again.renew == joined.renew);
    // Before they end it asks for new ones, by the old.
    let renewed = identity::renew(&config(&server, &place, None)?).await?;
    let after = (read("client.crt")?, read("serving.crt")?);
    ensure!(
        after.0 != before.0 && after.1 != before.1,
        "the same certificates"
    );
    let node = client::client(&renewed.kubeconfig).await?;
    ensure!(
        ask(&node, "GET", "/api/v1/nodes/n1", &json!(null))
            .await?
            .code
            == 200
    );
    // It has another address by now, which it does not ask from.
    let mut moved = config(&server, &place, None)?;
    moved.addresses = vec!["192.0.2.1".parse()?];
    let error = identity::obtain(&moved).await.err().context("certified")?;
    ensure!(
        format!("{error:#}").contains("neither the node's name nor the address"),
        "{error:#}"
    );
    // Its key is lost: it needs a token again.
    std::fs::remove_file(place.join("client.key"))?;
    let error = identity::obtain(&config(&server, &place, None)?).await;
    ensure!(format!("{:#}", error.err().context("joined")?).contains("give --token"));
    ensure!(!server.log()?.contains("panicked"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joined_node_is_believed_by_the_api_server() -> Result<()> {
    let server = ApiServer::start(&[])?;
    let token = Pki::open(&server.folder(), &[])?.join_token()?;
    let folder = tempfile::tempdir()?;
    let joined = identity::obtain(&config(&server, folder.path(), Some(token))?).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let acceptor = tokio_rustls::TlsAcceptor::from(joined.tls);
    let node = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut tls = acceptor.accept(tcp).await?;
        let head = wire::head(&mut tls).await?;
        tokio::io::AsyncWriteExt::write_all(
            &mut tls,
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nworked",
        )
        .await?;
        Ok::<_, anyhow::Error>(head)
    });
    let admin = client::client(&server.kubeconfig()).await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "host"}]}});
    for (method, path, body) in [
        (
            "POST",
            "/api/v1/nodes",
            &json!({"metadata": {"name": "n1"}}),
        ),
        ("PATCH", "/api/v1/nodes/n1/status", &status),
        ("POST", "/api/v1/namespaces/default/pods", &pod),
    ] {
        let answer = ask(&admin, method, path, body).await?;
        ensure!(answer.code < 300, "{method} {path}: {answer:?}");
    }
    let logs = "/api/v1/namespaces/default/pods/p/log";
    let answer = ask(&admin, "GET", logs, &Value::Null).await?;
    ensure!(
        answer.code == 200 && answer.body == b"worked"[..],
        "{answer:?}"
    );
    ensure!(node.await??.starts_with("GET /containerLogs/default/p/c "));
    Ok(())
}
