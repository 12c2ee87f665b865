//! How these tests ask the API server: kube's client, and below it requests and lines of watches as they are.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Client;
use kube::api::ObjectMeta;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tests::ApiServer;
use tests::apiserver::etcd::LoopbackEtcd;

/// For whatever should come soon: the machine may be busy with other tests.
pub const SOON: Duration = Duration::from_secs(30);

/// A server, and the etcd that it may stand on.
pub struct Bed {
    /// The server; dropped first.
    pub server: ApiServer,
    /// None: the embedded store.
    pub etcd: Option<LoopbackEtcd>,
}

impl Bed {
    /// On the embedded store.
    pub fn embedded() -> Result<Self> {
        let server = ApiServer::start(&[])?;
        Ok(Self { server, etcd: None })
    }

    /// On etcd.
    pub fn etcd() -> Result<Self> {
        let etcd = LoopbackEtcd::start()?;
        let server = ApiServer::start(&[&etcd.flag()])?;
        Ok(Self {
            server,
            etcd: Some(etcd),
        })
    }

    /// The administrator's client.
    pub async fn client(&self) -> Result<Client> {
        client(&self.server.kubeconfig()).await
    }
}

/// Whoever a kubeconfig names.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let text = std::fs::read_to_string(kubeconfig)
        .with_context(|| format!("read {}", kubeconfig.display()))?;
    client_of(&text).await
}

/// The same, from the kubeconfig's text.
pub async fn client_of(kubeconfig: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // 429 and 503 are to be seen.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// An answer, whatever it is.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{}: {}", self.code, String::from_utf8_lossy(&self.body)))
    }

    /// `reason` of the Status that it must be.
    pub fn reason(&self) -> Result<String> {
        let status = self.json()?;
        ensure!(status["kind"] == "Status", "no Status: {status}");
        ensure!(
            status["code"] == self.code,
            "the code in {status} is not {}",
            self.code
        );
        Ok(status["reason"].as_str().unwrap_or_default().to_owned())
    }

    /// A header as text; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// One request of any kind, with headers.
pub async fn ask_with(
    client: &Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Result<Answer> {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes())?)
        .uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.into()))?;
    let (parts, body) = client.send(request).await?.into_parts();
    let body = body.collect().await?.to_bytes().to_vec();
    Ok(Answer {
        code: parts.status.as_u16(),
        headers: parts.headers,
        body,
    })
}

/// GET, or a request with a JSON body.
pub async fn ask(client: &Client, method: &str, path: &str, body: &Value) -> Result<Answer> {
    let bytes = match body {
        Value::Null => Vec::new(),
        body => body.to_string().into_bytes(),
    };
    let media = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    ask_with(client, method, path, &[("content-type", media)], bytes).await
}

/// GET, which must succeed.
pub async fn get(client: &Client, path: &str) -> Result<Value> {
    let answer = ask(client, "GET", path, &Value::Null).await?;
    ensure!(
        answer.code == 200,
        "GET {path}: {}: {}",
        answer.code,
        String::from_utf8_lossy(&answer.body)
    );
    answer.json()
}

/// The lines of a watch.
pub struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    /// Opens one.
    pub async fn open(client: &Client, path: &str) -> Result<Self> {
        Self::open_with(client, path, "application/json").await
    }

    /// Opens one, in a form.
    pub async fn open_with(client: &Client, path: &str, accept: &str) -> Result<Self> {
        let request = Request::get(path)
            .header("accept", accept)
            .body(Body::empty())?;
        let (parts, body) = client.send(request).await?.into_parts();
        if parts.status != 200 {
            let body = body.collect().await?.to_bytes();
            bail!(
                "watch {path}: {}: {}",
                parts.status,
                String::from_utf8_lossy(&body)
            );
        }
        Ok(Self {
            body,
            rest: Vec::new(),
        })
    }

    /// The next event; none when the stream has ended cleanly. A stream that breaks off, or ends within a line, is an
    /// error.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        let next = tokio::time::timeout(SOON, self.line());
        next.await.context("nothing comes on the watch")?
    }

    /// The next event, which must come.
    pub async fn event(&mut self) -> Result<Value> {
        self.next().await?.context("the watch has ended")
    }

    /// The next event, if it comes within a time.
    pub async fn within(&mut self, limit: Duration) -> Result<Option<Value>> {
        match tokio::time::timeout(limit, self.line()).await {
            Ok(line) => line,
            Err(_) => Ok(None),
        }
    }

    async fn line(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                None => {
                    ensure!(
                        self.rest.is_empty(),
                        "the watch ended within a line: {}",
                        String::from_utf8_lossy(&self.rest)
                    );
                    return Ok(None);
                }
            }
        }
    }
}

/// `TYPE NAME` of an event.
pub fn brief(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{} {}",
        text(&event["type"]),
        text(&event["object"]["metadata"]["name"])
    )
}

/// The revision of an object, or of an event's.
pub fn revision(object: &Value) -> Result<u64> {
    let object = object.get("object").unwrap_or(object);
    let text = object["metadata"]["resourceVersion"].as_str();
    Ok(text
        .with_context(|| format!("no resourceVersion in {object}"))?
        .parse()?)
}

/// A ConfigMap with one entry, `n`.
pub fn config(name: &str, n: impl ToString) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("n".to_owned(), n.to_string())])),
        ..ConfigMap::default()
    }
}

/// A Service of a type with one port.
pub fn service(name: &str, kind: &str) -> Result<Service> {
    let value = json!({
        "metadata": {"name": name},
        "spec": {"type": kind, "selector": {"app": name}, "ports": [{"port": 80}]},
    });
    Ok(serde_json::from_value(value)?)
}

/// The code of an API error.
pub fn code<T>(result: Result<T, kube::Error>) -> Result<u16> {
    match result {
        Ok(_) => bail!("it succeeded"),
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(other) => Err(other.into()),
    }
}
