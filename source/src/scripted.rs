//! A scripted HTTP server on loopback: it answers each request for a list or a watch of a kind with
//! the next answer that the test has laid ready, byte for byte as a real API server was recorded to
//! (`facts/kubectl-wire.md`, section 8). It is not a real API server: it neither stores nor checks
//! anything, and it says what the script says.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What to answer to one request.
pub enum Answer {
    /// A status and a whole body.
    Whole(u16, String),
    /// Pieces of a watch as they come; the end of the channel is a clean end of the answer.
    Watch(mpsc::Receiver<Piece>),
}

/// A piece of a watch.
pub enum Piece {
    /// As it goes over the wire.
    Text(String),
    /// The connection breaks here.
    Cut,
}

type Scripts = BTreeMap<String, VecDeque<Answer>>;

/// The server; it ends with the test.
pub struct Server {
    /// Where it listens, on loopback.
    pub address: SocketAddr,
    scripts: Arc<Mutex<Scripts>>,
    /// What has been asked, as path and query.
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
    /// Ends of watches, so that they stay open.
    open: Mutex<Vec<mpsc::Sender<Piece>>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts one that has nothing laid ready: it answers everything as a server in trouble.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scripts = Arc::<Mutex<Scripts>>::default();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (for_task, heard) = (scripts.clone(), asked.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (scripts, heard) = (for_task.clone(), heard.clone());
                let serve = service_fn(move |request: Request<Incoming>| {
                    let answer = next(&scripts, &heard, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                connections.spawn(connection.serve_connection(TokioIo::new(stream), serve));
            }
        });
        Self {
            address,
            scripts,
            asked,
            task,
            open: Mutex::default(),
        }
    }

    /// Lays an answer ready for `list` or `watch` of a kind (by its plural).
    pub fn answer(&self, verb: &str, plural: &str, answer: Answer) {
        let mut scripts = self.scripts.lock().unwrap();
        let key = format!("{verb} {plural}");
        scripts.entry(key).or_default().push_back(answer);
    }

    /// A list of objects as of a resource version.
    pub fn list(&self, plural: &str, version: u32, items: &[Value]) {
        let body = json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": version.to_string()}, "items": items,
        });
        self.answer("list", plural, Answer::Whole(200, body.to_string()));
    }

    /// A watch that the test feeds; it stays open as long as the test holds the sender or, if it
    /// drops it, for ever.
    pub fn watch(&self, plural: &str) -> mpsc::Sender<Piece> {
        let (sender, receiver) = mpsc::channel(16);
        self.answer("watch", plural, Answer::Watch(receiver));
        self.open.lock().unwrap().push(sender.clone());
        sender
    }

    /// A watch that says this much and then ends as a server ends it when the time is up.
    pub fn short_watch(&self, plural: &str, pieces: impl IntoIterator<Item = Piece>) {
        let (sender, receiver) = mpsc::channel(16);
        for piece in pieces {
            assert!(
                sender.try_send(piece).is_ok(),
                "more pieces than there is room for"
            );
        }
        self.answer("watch", plural, Answer::Watch(receiver));
    }

    /// What has been asked for a kind.
    pub fn asked(&self, plural: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let path = format!("/{plural}?");
        asked
            .iter()
            .filter(|uri| uri.contains(&path))
            .cloned()
            .collect()
    }

    /// Until a kind has been asked for so many times.
    pub async fn until_asked(&self, plural: &str, times: usize) {
        for _ in 0..1000 {
            if self.asked(plural).len() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{plural} asked for {:?}", self.asked(plural));
    }
}

fn next(
    scripts: &Mutex<Scripts>,
    asked: &Mutex<Vec<String>>,
    request: &Request<Incoming>,
) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
    let uri = request.uri();
    asked.lock().unwrap().push(uri.to_string());
    let plural = uri.path().rsplit('/').next().unwrap_or_default();
    let is_watch = uri
        .query()
        .is_some_and(|query| query.contains("watch=true"));
    let verb = if is_watch { "watch" } else { "list" };
    let mut scripts = scripts.lock().unwrap();
    let script = scripts.get_mut(&format!("{verb} {plural}"));
    let answer = script.and_then(VecDeque::pop_front);
    let whole = |status: u16, body: String| {
        let body = Full::from(body).map_err(|never| match never {});
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(body.boxed_unsync())
            .unwrap()
    };
    match answer {
        // What the script does not provide for is a server in trouble.
        None => whole(500, status(500, "InternalError", "nothing laid ready")),
        Some(Answer::Whole(code, body)) => whole(code, body),
        Some(Answer::Watch(pieces)) => {
            let frames = futures_util::stream::unfold(pieces, |mut pieces| async move {
                let frame = match pieces.recv().await? {
                    Piece::Text(text) => Ok(Frame::data(Bytes::from(text))),
                    Piece::Cut => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                };
                Some((frame, pieces))
            });
            Response::builder()
                .header("content-type", "application/json")
                .body(StreamBody::new(frames).boxed_unsync())
                .unwrap()
        }
    }
}

/// A Status as the server writes it.
pub fn status(code: u16, reason: &str, message: &str) -> String {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
    .to_string()
}

/// A line of a watch.
pub fn line(kind: &str, object: &Value) -> Piece {
    // The type comes first on the wire.
    Piece::Text(format!(
        "{{\"type\":{},\"object\":{object}}}\n",
        json!(kind)
    ))
}

/// A Service of namespace `shop` as a server tells it, with what a reader leaves out.
pub fn service(name: &str, version: u32, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-11-21T07:04:45Z", "managedFields": [{"manager": "x"}]},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "type": "ClusterIP",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web"}]},
        "status": {"loadBalancer": {}},
    })
}
