//! Random requests of every kind: the server never panics, never answers 500, and says every refusal as a Status.
//!
//! A run is random; its seed is in the failure's text, and `WEFT_FUZZ_SEED` repeats it (of one of the tasks; what the
//! others do meanwhile is not repeated). `WEFT_FUZZ_SECONDS` makes it longer.

#[path = "api/client.rs"]
mod client;
#[path = "api/random.rs"]
mod random;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::ask;
use fastrand::Rng;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use random::{Kind, kinds, mutate, protobuf, query, yaml};
use serde_json::{Value, json};
use tests::ApiServer;

const METHODS: [&str; 12] = [
    "GET", "GET", "POST", "POST", "POST", "PUT", "PUT", "PATCH", "PATCH", "DELETE", "OPTIONS",
    "BREW",
];
const MEDIA: [&str; 12] = [
    "application/json",
    "application/json; charset=utf-8",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/x-www-form-urlencoded",
    "text/plain",
    "",
    ";;;=",
];
const ACCEPT: [&str; 8] = [
    "application/json",
    "*/*",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "image/png",
    ";q=,,;as=",
];

/// A request that can be shown.
#[derive(Clone, Debug)]
struct Shot {
    method: &'static str,
    path: String,
    media: &'static str,
    accept: &'static str,
    body: Vec<u8>,
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

fn path(rng: &mut Rng, kind: &Kind) -> String {
    let segments = [
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "default",
        "pods",
        "x",
        "status",
        "scale",
        "binding",
        "eviction",
        "log",
        "exec",
        "portforward",
        "watch",
        "finalize",
        "token",
        "%2e%2e",
        "%00",
        "%ff%fe",
        "..",
        "",
        "a%2Fb",
        "é",
        "kube-system",
        "openapi",
        "v2",
        "v3",
        "version",
        "healthz",
        "metrics",
        "componentstatuses",
        "services",
    ];
    match rng.u8(..20) {
        // Anything at all.
        0 | 1 => (0..rng.usize(..8))
            .map(|_| format!("/{}", pick(rng, &segments)))
            .collect(),
        // A known path, gone on with.
        2 => format!(
            "{}/{}/{}",
            kind.path,
            pick(rng, &segments),
            pick(rng, &segments)
        ),
        3 => format!("{}/{}/{}", kind.path, kind.name, pick(rng, &segments)),
        4 | 5 => kind.path.clone(),
        6 => format!("{}/status", kind.one()),
        7 => format!("{}/scale", kind.one()),
        8..14 => kind.path.clone(),
        _ => kind.one(),
    }
}

fn shot(rng: &mut Rng, all: &[Kind]) -> Shot {
    let kind = &all[rng.usize(..all.len())];
    let object = match rng.u8(..10) {
        // Another kind's object, now and then.
        0 => all[rng.usize(..all.len())].object.clone(),
        _ => kind.object.clone(),
    };
    let method = pick(rng, &METHODS);
    let mut object = mutate(rng, object);
    if rng.u8(..4) == 0 {
        // Made again, it is new.
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("name");
            metadata.insert("generateName".into(), json!("fuzz-"));
        }
    }
    let mut media = pick(rng, &MEDIA);
    let body = match rng.u8(..20) {
        0 => (0..rng.usize(..200)).map(|_| rng.u8(..)).collect(),
        1 | 2 => protobuf(rng, kind),
        3 | 4 => yaml(rng, &object).into_bytes(),
        5 => random::value(rng, 6).to_string().into_bytes(),
        6 => random::json_patch(rng, &object).to_string().into_bytes(),
        7 => {
            let mut text = object.to_string().into_bytes();
            text.truncate(rng.usize(..=text.len()));
            text
        }
        8 => "[".repeat(rng.usize(..100_000)).into_bytes(),
        9 => format!("{}1{}", "{\"a\":".repeat(2000), "}".repeat(2000)).into_bytes(),
        10 => Vec::new(),
        _ => object.to_string().into_bytes(),
    };
    if rng.bool() {
        media = match method {
            "PATCH" => pick(rng, &MEDIA[4..8]),
            _ => MEDIA[0],
        };
    }
    if body.starts_with(b"k8s\0") && rng.u8(..8) > 0 {
        media = MEDIA[3];
    }
    let mut path = path(rng, kind);
    if rng.bool() {
        path += &query(rng);
    }
    Shot {
        method,
        path,
        media,
        accept: if rng.bool() {
            ACCEPT[0]
        } else {
            pick(rng, &ACCEPT)
        },
        body,
    }
}

/// Sends it; fails if the answer is none that a server may give.
async fn fire(client: &Client, shot: &Shot) -> Result<u16> {
    // What cannot be a request line is not sent.
    let Ok(uri) = shot.path.parse::<Uri>() else {
        return Ok(0);
    };
    if !shot.path.starts_with('/') {
        return Ok(0);
    }
    let mut request = Request::builder()
        .method(Method::from_bytes(shot.method.as_bytes())?)
        .uri(uri)
        .header("accept", HeaderValue::from_str(shot.accept)?);
    if !shot.media.is_empty() {
        request = request.header("content-type", HeaderValue::from_str(shot.media)?);
    }
    let request = request.body(Body::from(shot.body.clone()))?;
    let (parts, body) = client.send(request).await?.into_parts();
    let code = parts.status.as_u16();
    let media = parts
        .headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if code < 400 {
        let watching = shot.path.contains("watch");
        if !watching {
            let body = tokio::time::timeout(Duration::from_secs(20), body.collect());
            let body = body.await.context("the answer has no end")??.to_bytes();
            if media == "application/json" && code != 204 {
                serde_json::from_slice::<Value>(&body).context("the answer is no JSON")?;
            }
        }
        return Ok(code);
    }
    let body = body.collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    // 504: a revision that is not yet; 503: a node that is not there.
    ensure!(code < 500 || [503, 504].contains(&code), "{code}: {text}");
    // Where there are no objects a text is said, as the reference does.
    if code == 404 && media.starts_with("text/plain") {
        return Ok(code);
    }
    let status: Value =
        serde_json::from_slice(&body).with_context(|| format!("{code}, and no JSON: {text}"))?;
    ensure!(
        status["kind"] == "Status" && status["apiVersion"] == "v1",
        "{code}, and no Status: {text}"
    );
    ensure!(
        status["code"] == code && status["status"] == "Failure",
        "{code}: {text}"
    );
    ensure!(
        status["reason"].is_string() && status["message"].is_string(),
        "{code}: {text}"
    );
    Ok(code)
}

async fn task(client: Client, seed: u64, limit: Duration) -> Result<[usize; 6]> {
    let mut rng = Rng::with_seed(seed);
    let all = kinds();
    let end = Instant::now() + limit;
    let mut codes = [0; 6];
    for step in 0.. {
        if Instant::now() > end {
            break;
        }
        if step % 100 == 0 {
            // What the last ones have broken is made anew, so that there is something to change.
            for kind in &all {
                ask(
                    &client,
                    "DELETE",
                    &kind.one(),
                    &json!({"gracePeriodSeconds": 0}),
                )
                .await?;
                ask(&client, "POST", &kind.path, &kind.object).await?;
            }
        }
        let shot = shot(&mut rng, &all);
        let fired = tokio::time::timeout(Duration::from_secs(60), fire(&client, &shot)).await;
        let code = fired
            .context("no answer")
            .and_then(|code| code)
            .with_context(|| {
                let body = String::from_utf8_lossy(&shot.body);
                let body: String = body.chars().take(3000).collect();
                format!(
                    "WEFT_FUZZ_SEED={seed}, step {step}: {} {} ({}; accept {}): {body}",
                    shot.method, shot.path, shot.media, shot.accept
                )
            })?;
        codes[usize::from(code / 100)] += 1;
    }
    Ok(codes)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_are_answered() -> Result<()> {
    let mut server = ApiServer::start(&[])?;
    let client = client::client(&server.kubeconfig()).await?;
    for kind in kinds() {
        let made = ask(&client, "POST", &kind.path, &kind.object).await?;
        ensure!(made.code == 201, "{}: {made:?}", kind.path);
    }
    let limit = Duration::from_secs(number("WEFT_FUZZ_SECONDS").unwrap_or(15));
    let seeds: Vec<u64> = match number("WEFT_FUZZ_SEED") {
        Some(seed) => vec![seed],
        None => (0..4).map(|_| fastrand::u64(..)).collect(),
    };
    let tasks = seeds
        .into_iter()
        .map(|seed| tokio::spawn(task(client.clone(), seed, limit)));
    let mut codes = [0; 6];
    let mut failures = Vec::new();
    for done in futures_util::future::join_all(tasks).await {
        match done? {
            Ok(some) => (0..6).for_each(|index| codes[index] += some[index]),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    server.process()?.ensure_alive()?;
    let log = server.log()?;
    let panics: Vec<_> = log
        .lines()
        .filter(|line| line.contains("panicked"))
        .collect();
    ensure!(
        panics.is_empty(),
        "{}\n{}",
        panics.join("\n"),
        failures.join("\n")
    );
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    ensure!(
        codes[2] > 20 && codes[4] > 100,
        "the requests were one like another: {codes:?}"
    );
    println!("answers by their first digit: {codes:?}");
    Ok(())
}
