//! What a real kube-apiserver 1.36.2 answered to, sent to ours: the same code, headers and body, field by field.
//!
//! `data/api/statuses.jsonl` has errors and deletions, `data/api/defaulted.jsonl` new objects of every kind and what
//! was stored of them; a line is a recording. Identities, times, revisions and addresses that a server chooses are
//! masked. The differences that remain are in the lists below, each with its reason; a difference that is gone fails
//! the test as one that is new does.

mod api_recordings;

use anyhow::{Context, Result, ensure};
use api_recordings::{differences, masked, recordings};
use serde_json::{Value, json};
use std::time::Duration;
use tests::curl::{Answer, Who, ask};
use tests::{ApiServer, eventually, requirement};

/// Recording, pointer of what differs (and what is below it), reason.
type Known = &'static [(&'static str, &'static str, &'static str)];

const STATUSES: Known = &[
    (
        "badrequest-continue",
        "/body/message",
        "quotes the decoder of the language that it is written in",
    ),
    (
        "expired-continue",
        "",
        "the token was not recorded; a new store has forgotten nothing",
    ),
    (
        "expired-list-exact-rv",
        "",
        "a new store has forgotten nothing",
    ),
    ("expired-watch", "", "a new store has forgotten nothing"),
    (
        "forbidden-podsecurity",
        "",
        "there is no Pod security admission",
    ),
    ("forbidden-quota", "", "there are no ResourceQuotas"),
    (
        "invalid-immutable",
        "/body/message",
        "no difference of two Go structs is appended",
    ),
    (
        "invalid-immutable",
        "/body/details/causes/0/message",
        "the same",
    ),
    (
        "invalid-patch-unknown-field-strict",
        "/body/message",
        "the object is quoted with other order of fields",
    ),
    (
        "invalid-patch-unknown-field-strict",
        "/body/details/causes/0/message",
        "the same",
    ),
    (
        "namespace-terminating-object",
        "/body/metadata/managedFields",
        "its conditions have no owner",
    ),
    (
        "namespace-terminating-object",
        "/body/status/conditions",
        "nobody writes what a namespace waits for",
    ),
    (
        "serviceunavailable-proxy-noendpoints",
        "",
        "there is no proxy subresource",
    ),
];

const DEFAULTED: Known = &[
    (
        "daemonset",
        "/body/metadata/managedFields/0/fieldsV1/f:metadata",
        "what the server adds after the defaults is nobody's",
    ),
    (
        "persistentvolume",
        "/body/metadata/finalizers",
        "no controller would take it off",
    ),
    (
        "persistentvolumeclaim",
        "/body/metadata/finalizers",
        "no controller would take it off",
    ),
];

/// Who made the objects of `defaulted`.
const WIRE: &str = "User-Agent: wire/1";
/// No name at all.
const NOBODY: &str = "User-Agent:";

const DEMO: &str = "/api/v1/namespaces/demo";

/// A server with what every recording presupposes: the namespace `demo`.
fn server() -> Result<Option<ApiServer>> {
    if !requirement::has_programs(&["curl"]) {
        return Ok(None);
    }
    let server = ApiServer::start(&[])?;
    made(&server, "/api/v1/namespaces", &named("Namespace", "demo"))?;
    // Pods need it.
    eventually(
        "the namespace has its ServiceAccount",
        Duration::from_secs(10),
        || {
            let path = format!("{DEMO}/serviceaccounts/default");
            let answer = ask(&server, Who::Admin, "GET", &path, &[], None)?;
            ensure!(answer.code == 200, "{}", answer.body);
            Ok(())
        },
    )?;
    Ok(Some(server))
}

fn named(kind: &str, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } })
}

/// A request with a JSON body, as the client of the recordings sent it.
fn send(server: &ApiServer, method: &str, path: &str, body: &Value) -> Result<Answer> {
    send_as(server, NOBODY, method, path, body)
}

/// The same from a program that says its name.
fn send_as(
    server: &ApiServer,
    agent: &str,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Answer> {
    let headers = ["Content-Type: application/json", agent].map(str::to_owned);
    ask(
        server,
        Who::Admin,
        method,
        path,
        &headers,
        Some(&body.to_string()),
    )
}

/// A new object that must be taken.
fn made(server: &ApiServer, path: &str, object: &Value) -> Result<()> {
    let answer = send(server, "POST", path, object)?;
    ensure!(
        answer.code == 201,
        "POST {path}: {}: {}",
        answer.code,
        answer.body
    );
    Ok(())
}

/// Fails when what differs is not what is known.
fn judge(found: &[(String, String, String)], known: Known) -> Result<()> {
    let is = |line: &(&str, &str, &str), (name, pointer, _): &(String, String, String)| {
        let below = pointer.strip_prefix(line.1);
        line.0 == name && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut wrong = Vec::new();
    for difference in found {
        if !known.iter().any(|line| is(line, difference)) {
            let (name, pointer, what) = difference;
            wrong.push(format!("{name} {pointer}\n    {what}"));
        }
    }
    for line in known {
        if !found.iter().any(|difference| is(line, difference)) {
            let (name, pointer, reason) = line;
            wrong.push(format!("{name} {pointer}\n    differs no longer: {reason}"));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} lines:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

#[test]
fn new_objects_are_stored_as_recorded() -> Result<()> {
    let Some(server) = server()? else {
        return Ok(());
    };
    let mut found = Vec::new();
    for recording in recordings("defaulted")? {
        let answer = send_as(
            &server,
            WIRE,
            "POST",
            recording.text("path")?,
            &recording.0["body"],
        )?;
        let is = json!({ "code": answer.code, "body": answer.value() });
        let was = json!({ "code": 201, "body": recording.0["stored"] });
        found.extend(differences(recording.name()?, &masked(&is), &masked(&was)));
    }
    judge(&found, DEFAULTED)
}

#[test]
fn answers_are_as_recorded() -> Result<()> {
    let Some(server) = server()? else {
        return Ok(());
    };
    let token = prepare(&server)?;
    let mut found = Vec::new();
    for recording in recordings("statuses")? {
        for first in recording.0["before"].as_array().into_iter().flatten() {
            let path = first["path"].as_str().context("a path")?;
            made(&server, path, &first["body"])?;
        }
        let (is, was) = replay(&server, &recording, &token)?;
        found.extend(differences(recording.name()?, &masked(&is), &masked(&was)));
    }
    judge(&found, STATUSES)
}

/// What the recordings of answers presuppose; a token of a user that has no rights.
fn prepare(server: &ApiServer) -> Result<String> {
    for recording in recordings("defaulted")? {
        if ["configmap", "deployment", "pod", "pod-rich"].contains(&recording.name()?) {
            let path = recording.text("path")?;
            let answer = send_as(server, WIRE, "POST", path, &recording.0["body"])?;
            ensure!(answer.code == 201, "POST {path}: {}", answer.body);
        }
    }
    let pods = format!("{DEMO}/pods");
    let container = |name: &str| json!({ "name": name, "image": "i" });
    let mut gated = named("Pod", "gated");
    gated["spec"] = json!({
        "containers": [container("c"), container("c2")], "schedulingGates": [{ "name": "a/b" }]
    });
    let mut guard = named("Pod", "guard");
    guard["metadata"]["labels"] = json!({ "app": "guard" });
    guard["spec"] = json!({ "containers": [container("c")] });
    made(server, &pods, &gated)?;
    made(server, &pods, &guard)?;
    let mut node = named("Node", "n1");
    node["status"] = json!({ "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }] });
    made(server, "/api/v1/nodes", &node)?;
    for pod in ["pod", "pod-rich", "guard"] {
        let mut binding = named("Binding", pod);
        binding["target"] = json!({ "kind": "Node", "name": "n1" });
        made(server, &format!("{pods}/{pod}/binding"), &binding)?;
    }
    let budgets = "/apis/policy/v1/namespaces/demo/poddisruptionbudgets";
    let mut budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "guard" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "guard" } } }
    });
    made(server, budgets, &budget)?;
    // As the disruption controller does, and the kubelet.
    budget["status"] = json!({
        "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
        "observedGeneration": 1
    });
    put(server, &format!("{budgets}/guard/status"), &budget)?;
    guard["status"] = json!({
        "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }]
    });
    put(server, &format!("{pods}/guard/status"), &guard)?;
    let mut service = named("Service", "noep");
    service["spec"] = json!({ "selector": { "a": "nothing" }, "ports": [{ "port": 80 }] });
    made(server, &format!("{DEMO}/services"), &service)?;
    for namespace in ["term", "restricted"] {
        made(server, "/api/v1/namespaces", &named("Namespace", namespace))?;
    }
    // So that the namespace stays, terminating.
    let mut held = named("ConfigMap", "held");
    held["metadata"]["finalizers"] = json!(["a/b"]);
    made(server, "/api/v1/namespaces/term/configmaps", &held)?;
    let path = format!("{DEMO}/serviceaccounts/default/token");
    let request =
        json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    let answer = send(server, "POST", &path, &request)?;
    let token = answer.value()["status"]["token"]
        .as_str()
        .map(str::to_owned);
    token.with_context(|| format!("POST {path}: {}: {}", answer.code, answer.body))
}

fn put(server: &ApiServer, path: &str, object: &Value) -> Result<()> {
    let answer = send(server, "PUT", path, object)?;
    ensure!(
        answer.code == 200,
        "PUT {path}: {}: {}",
        answer.code,
        answer.body
    );
    Ok(())
}

/// What is answered now, and what was: the code, the headers that were recorded, the body.
fn replay(
    server: &ApiServer,
    recording: &api_recordings::Recording,
    token: &str,
) -> Result<(Value, Value)> {
    let line = &recording.0;
    let who = match line["as"].as_str() {
        None => Who::Admin,
        Some("anonymous") => Who::Anonymous,
        Some("dev") => Who::Token(token),
        Some(_) => Who::Token("zzz"),
    };
    let mut headers = vec![NOBODY.to_owned()];
    for (name, value) in line["headers"].as_object().into_iter().flatten() {
        headers.push(format!("{name}: {}", value.as_str().context("a header")?));
    }
    let body = match &line["body"] {
        Value::Null => None,
        // Two bodies were too large to record.
        Value::String(text) if text == ">3MiB" => Some(" ".repeat((3 << 20) + 1)),
        Value::String(text) if text.starts_with("<annotations") => {
            let mut large = named("ConfigMap", "big");
            large["metadata"]["annotations"] = json!({ "a": "x".repeat(300 << 10) });
            Some(large.to_string())
        }
        Value::String(text) => Some(text.clone()),
        object => Some(object.to_string()),
    };
    if body.is_some() && line["headers"]["Content-Type"].is_null() {
        headers.push("Content-Type: application/json".into());
    }
    let (method, path) = (recording.text("method")?, recording.text("path")?);
    let answer = ask(server, who, method, path, &headers, body.as_deref())
        .with_context(|| format!("replay {}", line["name"]))?;
    let mut was = line["answer"].clone();
    let mut body = answer.value();
    if was["body"]["metadata"]["uid"].is_string()
        && was["body"]["metadata"]["managedFields"].is_null()
    {
        // Reduced: without what other programs had written.
        let fields = body.as_object_mut().context("an object")?;
        fields.remove("status");
        let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
        metadata.context("metadata")?.remove("managedFields");
    }
    if who == Who::Token(token) {
        let user = "system:serviceaccount:demo:default";
        was = serde_json::from_str(
            &was.to_string()
                .replace(r#"User \"dev\""#, &format!(r#"User \"{user}\""#)),
        )?;
    }
    let mut headers = json!({});
    for name in was["headers"].as_object().context("headers")?.keys() {
        headers[name] = answer.header(name).collect::<Vec<_>>().join(", ").into();
    }
    let is = json!({ "code": answer.code, "headers": headers, "body": body });
    Ok((is, was))
}
