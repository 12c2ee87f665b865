//! Who may do what: a node, a service account, nobody; and streams that are handed on to a node.

#[path = "api/client.rs"]
mod client;
#[path = "api/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::{SOON, ask, client_of};
use futures_util::AsyncBufReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};
use reconciler::api::pki::Pki;
use serde_json::{Value, json};
use tests::ApiServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const NAMESPACED: &str = "/api/v1/namespaces/default";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

/// A request that must be answered so.
async fn must(client: &Client, code: u16, method: &str, path: &str, body: Value) -> Result<Value> {
    let answer = ask(client, method, path, &body).await?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(
        answer.code == code,
        "{method} {path}: {} and not {code}: {text}",
        answer.code
    );
    if code >= 400 {
        answer.reason()?;
    }
    answer.json()
}

async fn bound_pod(admin: &Client, name: &str, node: &str) -> Result<Value> {
    must(admin, 201, "POST", &format!("{NAMESPACED}/pods"), pod(name)).await?;
    let binding = json!({"target": {"kind": "Node", "name": node}});
    must(
        admin,
        201,
        "POST",
        &format!("{NAMESPACED}/pods/{name}/binding"),
        binding,
    )
    .await?;
    must(
        admin,
        200,
        "GET",
        &format!("{NAMESPACED}/pods/{name}"),
        Value::Null,
    )
    .await
}

fn token(url: &str, folder: &std::path::Path, token: &str) -> Result<String> {
    let authority = folder.join("pki/ca.crt");
    Ok(format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {{server: '{url}', certificate-authority: '{}'}}\nusers:\n- name: u\n  user: {{{}}}\ncontexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\n",
        authority.to_str().context("a path that is no text")?,
        match token {
            "" => String::new(),
            token => format!("token: '{token}'"),
        }
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_its_own_work_and_nothing_else() -> Result<()> {
    let server = ApiServer::start(&[])?;
    let admin = client::client(&server.kubeconfig()).await?;
    let pki = Pki::open(&server.folder(), &[])?;
    let pair = pki.issue(
        "system:node:n1",
        &["system:nodes"],
        Duration::from_secs(3600),
    )?;
    let node = client_of(&pki.kubeconfig(&server.url(), "n1", &pair)).await?;

    // It registers itself, and nobody else.
    let named = |name: &str| json!({"metadata": {"name": name}});
    must(&node, 403, "POST", "/api/v1/nodes", named("n2")).await?;
    // A selector restricts nothing here, and must not seem to.
    let selected = "/api/v1/nodes?fieldSelector=metadata.name%3Dn1";
    must(&node, 403, "POST", selected, named("n2")).await?;
    must(&node, 201, "POST", "/api/v1/nodes", named("n1")).await?;
    must(&admin, 201, "POST", "/api/v1/nodes", named("n2")).await?;
    let kernel = json!({"status": {"nodeInfo": {"kernelVersion": "6.1"}}});
    let made = must(
        &node,
        200,
        "PATCH",
        "/api/v1/nodes/n1/status",
        kernel.clone(),
    )
    .await?;
    ensure!(made["status"]["nodeInfo"]["kernelVersion"] == "6.1");
    must(
        &node,
        403,
        "PATCH",
        "/api/v1/nodes/n2/status",
        kernel.clone(),
    )
    .await?;
    must(&node, 403, "PATCH", "/api/v1/nodes/n2", kernel).await?;
    must(&node, 403, "DELETE", "/api/v1/nodes/n1", Value::Null).await?;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    must(&node, 201, "POST", leases, named("n1")).await?;
    must(&node, 403, "POST", leases, named("n2")).await?;
    must(
        &node,
        403,
        "POST",
        &leases.replace("kube-node-lease", "default"),
        named("n1"),
    )
    .await?;

    let mine = bound_pod(&admin, "mine", "n1").await?;
    let theirs = bound_pod(&admin, "theirs", "n2").await?;
    must(
        &admin,
        201,
        "POST",
        &format!("{NAMESPACED}/pods"),
        pod("nobodys"),
    )
    .await?;
    must(
        &admin,
        201,
        "POST",
        &format!("{NAMESPACED}/secrets"),
        named("s"),
    )
    .await?;
    for (code, path) in [
        (200, "/api/v1/pods"),
        (200, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1"),
        (200, "/api/v1/services"),
        (200, "/apis/discovery.k8s.io/v1/endpointslices"),
        (200, "/api/v1/namespaces/default/secrets/s"),
        (403, "/api/v1/namespaces/default/secrets"),
        (403, "/apis/apps/v1/deployments"),
        (403, "/api/v1/namespaces/default/pods/mine/log"),
        (403, "/metrics"),
    ] {
        must(&node, code, "GET", path, Value::Null)
            .await
            .or_else(|error| match path {
                // What is no object is no JSON either.
                "/metrics" if error.to_string().contains("no Status") => Ok(Value::Null),
                _ => Err(error),
            })?;
    }
    let running = json!({"status": {"phase": "Running"}});
    for (code, name) in [
        (200, "mine"),
        (403, "theirs"),
        (403, "nobodys"),
        (404, "missing"),
    ] {
        must(
            &node,
            code,
            "PATCH",
            &format!("{NAMESPACED}/pods/{name}/status"),
            running.clone(),
        )
        .await?;
    }
    // With a status comes no other node.
    let mut moved = mine.clone();
    moved["spec"]["nodeName"] = json!("n2");
    moved["metadata"]["resourceVersion"] = Value::Null;
    let made = must(
        &node,
        200,
        "PUT",
        &format!("{NAMESPACED}/pods/mine/status"),
        moved,
    )
    .await?;
    ensure!(made["spec"]["nodeName"] == "n1");
    let pods = format!("{NAMESPACED}/pods");
    must(&node, 403, "POST", &pods, pod("new")).await?;
    must(
        &node,
        403,
        "PATCH",
        &format!("{pods}/mine"),
        json!({"metadata": {"labels": {"a": "b"}}}),
    )
    .await?;
    must(&node, 403, "DELETE", &pods, Value::Null).await?;
    must(&node, 403, "DELETE", &format!("{pods}/theirs"), Value::Null).await?;
    must(
        &node,
        403,
        "DELETE",
        &format!("{pods}/nobodys"),
        Value::Null,
    )
    .await?;
    let binding =
        json!({"metadata": {"name": "nobodys"}, "target": {"kind": "Node", "name": "n1"}});
    must(
        &node,
        403,
        "POST",
        &format!("{pods}/nobodys/binding"),
        binding.clone(),
    )
    .await?;
    must(
        &node,
        403,
        "POST",
        &format!("{NAMESPACED}/bindings"),
        binding,
    )
    .await?;
    must(
        &node,
        403,
        "POST",
        &format!("{pods}/theirs/eviction"),
        named("theirs"),
    )
    .await?;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "mine"}, "reason": "Started"});
    must(&node, 201, "POST", &format!("{NAMESPACED}/events"), event).await?;

    // Tokens for Pods that it runs.
    let path = format!("{NAMESPACED}/serviceaccounts/default/token");
    let request = |pod: &Value| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": {
            "apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}}})
    };
    must(
        &node,
        403,
        "POST",
        &path,
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}),
    )
    .await?;
    must(&node, 403, "POST", &path, request(&theirs)).await?;
    let answer = must(&node, 201, "POST", &path, request(&mine)).await?;
    let text = answer["status"]["token"].as_str().context("no token")?;
    let of_pod = client_of(&token(&server.url(), &server.folder(), text)?).await?;
    let review = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let who = must(&of_pod, 201, "POST", review, question.clone()).await?;
    ensure!(
        who["status"]["userInfo"]["username"] == "system:serviceaccount:default:default",
        "{who}"
    );
    must(
        &of_pod,
        403,
        "GET",
        &format!("{NAMESPACED}/pods"),
        Value::Null,
    )
    .await?;
    // It may end what it runs; the token dies with it.
    let now = json!({"gracePeriodSeconds": 0});
    must(&node, 200, "DELETE", &format!("{pods}/mine"), now).await?;
    must(&of_pod, 401, "POST", review, question.clone()).await?;

    // A certificate that is not of a node is nobody's.
    let pair = pki.issue("system:node:n1", &["others"], Duration::from_secs(3600))?;
    let other = client_of(&pki.kubeconfig(&server.url(), "x", &pair)).await?;
    must(&other, 403, "GET", &pods, Value::Null).await?;
    must(&other, 201, "POST", review, question).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lives_and_dies_with_its_account() -> Result<()> {
    let mut server = ApiServer::start(&[])?;
    let admin = client::client(&server.kubeconfig()).await?;
    let accounts = format!("{NAMESPACED}/serviceaccounts");
    let robot = json!({"metadata": {"name": "robot"}});
    must(&admin, 201, "POST", &accounts, robot.clone()).await?;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let made = must(
        &admin,
        201,
        "POST",
        &format!("{accounts}/robot/token"),
        request.clone(),
    )
    .await?;
    let text = made["status"]["token"]
        .as_str()
        .context("no token")?
        .to_owned();
    let client = client_of(&token(&server.url(), &server.folder(), &text)?).await?;
    let review = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let who = must(&client, 201, "POST", review, question.clone()).await?;
    ensure!(who["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot");
    must(&client, 403, "GET", "/api/v1/nodes", Value::Null).await?;
    must(
        &client,
        403,
        "POST",
        &format!("{accounts}/robot/token"),
        request,
    )
    .await?;
    // It outlives the server's process.
    ensure!(server.stop()?.success());
    server.resume()?;
    must(&client, 201, "POST", review, question.clone()).await?;
    must(
        &admin,
        200,
        "DELETE",
        &format!("{accounts}/robot"),
        Value::Null,
    )
    .await?;
    must(&client, 401, "POST", review, question.clone()).await?;
    // Another one of that name is another one.
    must(&admin, 201, "POST", &accounts, robot).await?;
    must(&client, 401, "POST", review, question.clone()).await?;
    for wrong in [
        format!("{text}x"),
        "nonsense".to_owned(),
        "a.b.c".to_owned(),
    ] {
        let client = client_of(&token(&server.url(), &server.folder(), &wrong)?).await?;
        must(&client, 401, "GET", "/api", Value::Null).await?;
    }
    // Nobody may ask how it goes, and no more.
    let nobody = client_of(&token(&server.url(), &server.folder(), "")?).await?;
    for path in ["/healthz", "/livez", "/readyz"] {
        ensure!(ask(&nobody, "GET", path, &Value::Null).await?.code == 200);
    }
    for path in [
        "/api",
        "/apis",
        "/version",
        "/metrics",
        "/openapi/v2",
        "/api/v1/pods",
        "/nonsense",
    ] {
        must(&nobody, 403, "GET", path, Value::Null).await?;
    }
    must(&nobody, 403, "POST", review, question).await?;
    Ok(())
}

/// A node's agent: it tells the heads of requests, and answers logs and exec.
struct Agent {
    port: u16,
    heads: mpsc::Receiver<String>,
    go: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn start(server: &ApiServer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let acceptor = TlsAcceptor::from(wire::node(&server.folder())?);
        let (to, heads) = mpsc::channel(16);
        let go = Arc::new(Notify::new());
        let signal = Arc::clone(&go);
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, to, go) = (acceptor.clone(), to.clone(), Arc::clone(&signal));
                tokio::spawn(async move {
                    let stream = acceptor.accept(tcp).await?;
                    serve(stream, &to, &go).await
                });
            }
        });
        Ok(Self {
            port,
            heads,
            go,
            task,
        })
    }
}

async fn serve(
    mut stream: TlsStream<TcpStream>,
    heads: &mpsc::Sender<String>,
    go: &Notify,
) -> Result<()> {
    let head = wire::head(&mut stream).await?;
    heads.send(head.clone()).await?;
    if head.starts_with("GET /containerLogs/") {
        let start = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n";
        stream.write_all(start.as_bytes()).await?;
        go.notified().await;
        stream.write_all(b"7\r\nsecond\n\r\n0\r\n\r\n").await?;
        return Ok(());
    }
    let start = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
    stream.write_all(start.as_bytes()).await?;
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            stream.write_all(b"bye").await?;
            stream.shutdown().await?;
            return Ok(());
        }
        bytes[..count].make_ascii_uppercase();
        stream.write_all(&bytes[..count]).await?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_handed_on_to_the_node() -> Result<()> {
    let server = ApiServer::start(&[])?;
    let admin = client::client(&server.kubeconfig()).await?;
    let mut agent = Agent::start(&server).await?;
    must(
        &admin,
        201,
        "POST",
        "/api/v1/nodes",
        json!({"metadata": {"name": "n1"}}),
    )
    .await?;
    bound_pod(&admin, "p", "n1").await?;
    let logs = format!("{NAMESPACED}/pods/p/log");
    must(&admin, 503, "GET", &logs, Value::Null).await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": agent.port}}}});
    must(&admin, 200, "PATCH", "/api/v1/nodes/n1/status", status).await?;

    let pods: Api<Pod> = Api::namespaced(admin.clone(), "default");
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = pods.log_stream("p", &follow).await?.lines();
    use futures_util::TryStreamExt;
    let line = tokio::time::timeout(SOON, lines.try_next()).await??;
    ensure!(line.as_deref() == Some("first"), "{line:?}");
    agent.go.notify_one();
    let line = tokio::time::timeout(SOON, lines.try_next()).await??;
    ensure!(line.as_deref() == Some("second"), "{line:?}");
    ensure!(lines.try_next().await?.is_none());
    let head = agent.heads.recv().await.context("no request")?;
    ensure!(
        head.starts_with("GET /containerLogs/default/p/c?"),
        "{head}"
    );
    ensure!(
        head.contains("follow=true") && !head.to_lowercase().contains("authorization"),
        "{head}"
    );

    // An upgraded connection: bytes both ways, as many as you like, and each side may end first.
    let config = wire::admin(&server.folder())?;
    let address = wire::address(&server)?;
    let path = format!("{NAMESPACED}/pods/p/exec?command=sh&stdin=true&stdout=true");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    let mut stream = wire::connect(&address, &config).await?;
    stream.write_all(request.as_bytes()).await?;
    let head = tokio::time::timeout(SOON, wire::head(&mut stream)).await??;
    ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
    ensure!(
        head.to_lowercase()
            .contains("sec-websocket-protocol: v5.channel.k8s.io"),
        "{head}"
    );
    let head = agent.heads.recv().await.context("no request")?;
    ensure!(
        head.starts_with("GET /exec/default/p/c?command=sh&stdin=true&stdout=true "),
        "{head}"
    );
    ensure!(
        head.to_lowercase()
            .contains("sec-websocket-key: aaaaaaaaaaaaaaaaaaaaaa=="),
        "{head}"
    );
    let (mut from, mut to) = tokio::io::split(stream);
    let sent = tokio::spawn(async move {
        for _ in 0..200 {
            to.write_all(&[b'a'; 10_000]).await?;
        }
        to.write_all(b"z").await?;
        to.shutdown().await
    });
    let mut received = Vec::new();
    tokio::time::timeout(SOON, from.read_to_end(&mut received)).await??;
    sent.await??;
    ensure!(
        received.len() == 2_000_004,
        "{} bytes came back",
        received.len()
    );
    ensure!(received.ends_with(b"AZbye"));

    // No upgrade, no such container, no such Pod; not yet on a node.
    must(&admin, 400, "POST", &path, Value::Null).await?;
    must(
        &admin,
        400,
        "GET",
        &format!("{logs}?container=x"),
        Value::Null,
    )
    .await?;
    must(
        &admin,
        404,
        "GET",
        &format!("{NAMESPACED}/pods/x/log"),
        Value::Null,
    )
    .await?;
    must(
        &admin,
        422,
        "GET",
        &format!("{logs}?tailLines=-1"),
        Value::Null,
    )
    .await?;

    // The node goes.
    agent.task.abort();
    // The listener goes with its task.
    let _ = (&mut agent.task).await;
    let answer = ask(&admin, "GET", &logs, &Value::Null).await?;
    ensure!(
        (answer.code, answer.reason()?.as_str()) == (503, "ServiceUnavailable"),
        "{answer:?}"
    );
    ensure!(
        answer.json()?["message"]
            .as_str()
            .is_some_and(|text| text.contains("n1")),
        "{answer:?}"
    );
    ensure!(!server.log()?.contains("panicked"));
    Ok(())
}
