//! Clients that are too large, too slow, too many: the server refuses them, and serves the others.

#[path = "api/client.rs"]
mod client;
#[path = "api/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::{SOON, get};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ClientConfig;
use tests::ApiServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const LARGE: usize = 100_000_000;

struct Site {
    server: ApiServer,
    address: String,
    admin: Arc<ClientConfig>,
}

impl Site {
    fn start() -> Result<Self> {
        let server = ApiServer::start(&[])?;
        let (address, admin) = (wire::address(&server)?, wire::admin(&server.folder())?);
        Ok(Self {
            server,
            address,
            admin,
        })
    }

    fn resident(&mut self) -> Result<u64> {
        self.server.process()?.resident_bytes()
    }

    /// It serves, and has not panicked.
    async fn check(&mut self) -> Result<()> {
        self.server.process()?.ensure_alive()?;
        let client = client::client(&self.server.kubeconfig()).await?;
        let begun = Instant::now();
        get(&client, PATH).await?;
        ensure!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        ensure!(!self.server.log()?.contains("panicked"));
        Ok(())
    }
}

/// Sends a body of [`LARGE`] bytes as far as the server takes it; the answer, and how much was sent.
async fn large(site: &Site, head: &str, piece: &[u8]) -> Result<(String, usize)> {
    let stream = wire::connect(&site.address, &site.admin).await?;
    let (mut from, mut to) = tokio::io::split(stream);
    to.write_all(head.as_bytes()).await?;
    let piece = piece.to_vec();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while sent < LARGE {
            // The server closes when it has said what it has to say.
            if to.write_all(&piece).await.is_err() {
                break;
            }
            sent += piece.len();
        }
        sent
    });
    let head = tokio::time::timeout(SOON, wire::head(&mut from)).await??;
    let mut body = vec![0; 4096];
    let count = tokio::time::timeout(SOON, from.read(&mut body)).await??;
    drop(from);
    sending.abort();
    let sent = sending.await.unwrap_or(0);
    Ok((head + &String::from_utf8_lossy(&body[..count]), sent))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_is_refused_before_it_is_kept() -> Result<()> {
    let mut site = Site::start()?;
    site.check().await?;
    let before = site.resident()?;
    let start = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    let sized = format!("{start}Content-Length: {LARGE}\r\n\r\n");
    let chunked = format!("{start}Transfer-Encoding: chunked\r\n\r\n");
    let plain = vec![b'x'; 65536];
    let chunk = [b"10000\r\n".as_slice(), &plain, b"\r\n"].concat();
    let many = (0..6).map(|index| {
        let (site, head, piece) = match index % 2 {
            0 => (&site, &sized, &plain),
            _ => (&site, &chunked, &chunk),
        };
        large(site, head, piece)
    });
    for done in futures_util::future::join_all(many).await {
        let (answer, _) = done?;
        ensure!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        ensure!(
            answer.contains("\"reason\":\"RequestEntityTooLarge\""),
            "{answer}"
        );
        ensure!(answer.contains("limit is 3145728"), "{answer}");
    }
    let grown = site.resident()?.saturating_sub(before);
    // Six bodies up to the limit, and what they are read into.
    ensure!(grown < 60_000_000, "it has grown by {grown} bytes");
    site.check().await
}

/// Reads until the server closes; what it said.
async fn closes(stream: &mut (impl AsyncReadExt + Unpin), limit: Duration) -> Result<String> {
    let mut said = Vec::new();
    let closed = tokio::time::timeout(limit, stream.read_to_end(&mut said)).await;
    // A reset is an end too.
    drop(closed.context("the server keeps the connection")?);
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_is_left() -> Result<()> {
    let mut site = Site::start()?;
    let limit = Duration::from_secs(25);
    let nothing = async {
        let mut tcp = TcpStream::connect(&site.address).await?;
        closes(&mut tcp, limit)
            .await
            .context("a connection that says nothing")
    };
    let only_tls = async {
        let mut stream = wire::connect(&site.address, &site.admin).await?;
        closes(&mut stream, limit)
            .await
            .context("a TLS connection that asks nothing")
    };
    let drop_by_drop = async {
        let stream = wire::connect(&site.address, &site.admin).await?;
        let (mut from, mut to) = tokio::io::split(stream);
        let sending = tokio::spawn(async move {
            for byte in format!("GET {PATH} HTTP/1.1\r\nHost: {}", "x".repeat(200)).bytes() {
                if to.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
        let said = closes(&mut from, limit)
            .await
            .context("headers byte by byte");
        sending.abort();
        said
    };
    let half_a_preface = async {
        let mut stream = wire::connect(&site.address, &site.admin).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n").await?;
        closes(&mut stream, limit)
            .await
            .context("half of the HTTP/2 preface")
    };
    let only_http2 = async {
        let mut config = ClientConfig::clone(&site.admin);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut stream = wire::connect(&site.address, &Arc::new(config)).await?;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await?;
        // The server's settings are no text.
        closes(&mut stream, limit)
            .await
            .context("an HTTP/2 connection that asks nothing")
    };
    let (nothing, only_tls, http2, drops, half) =
        tokio::join!(nothing, only_tls, only_http2, drop_by_drop, half_a_preface);
    http2?;
    for said in [nothing?, only_tls?, drops?, half?] {
        ensure!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    site.check().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_have_an_end() -> Result<()> {
    let mut site = Site::start()?;
    let before = site.resident()?;
    for head in [
        format!(
            "GET {PATH} HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n",
            "y".repeat(1 << 20)
        ),
        format!(
            "GET {PATH} HTTP/1.1\r\nHost: x\r\n{}\r\n",
            "X-Many: 1\r\n".repeat(50_000)
        ),
        format!(
            "GET {PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n",
            "a".repeat(1 << 20)
        ),
        "\r\n".repeat(10),
        "\0\u{1}\u{2} nonsense\r\n\r\n".to_owned(),
        format!("GET {PATH} HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        format!(
            "GET {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n"
        ),
    ] {
        let stream = wire::connect(&site.address, &site.admin).await?;
        let (mut from, mut to) = tokio::io::split(stream);
        // The server may close before it has read all.
        let sending = tokio::spawn(async move { drop(to.write_all(head.as_bytes()).await) });
        let said = closes(&mut from, Duration::from_secs(25)).await?;
        sending.abort();
        ensure!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    let grown = site.resident()?.saturating_sub(before);
    ensure!(grown < 30_000_000, "it has grown by {grown} bytes");
    site.check().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_idle_connections_are_no_burden() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < 4096 {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(4096), hard)?;
    }
    let mut site = Site::start()?;
    site.check().await?;
    let before = site.resident()?;
    // Each has asked once, so it is a client that may ask again.
    let mut idle = Vec::new();
    for _ in 0..2000 {
        let mut stream = wire::connect(&site.address, &site.admin).await?;
        let head = tokio::time::timeout(SOON, wire::ask(&mut stream, "/healthz")).await??;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        idle.push(stream);
        if idle.len() % 500 == 0 {
            site.check()
                .await
                .with_context(|| format!("with {} idle", idle.len()))?;
        }
    }
    let grown = site.resident()?.saturating_sub(before);
    ensure!(grown < 2000 * 60_000, "2000 connections take {grown} bytes");
    drop(idle);
    site.check().await
}
