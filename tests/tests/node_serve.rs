//! Logs, exec, attach and port-forward by `kubectl` through the API server to the node's server.

#[path = "node_serve/bed.rs"]
mod bed;
#[path = "api/client.rs"]
mod client;
#[path = "node/host.rs"]
mod host;
#[path = "api/wire.rs"]
mod wire;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bed::Bed;
use client::SOON;
use node::runtime::ContainerState;
use reconciler::api::pki::Pki;
use serde_json::Value;
use tests::requirement;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// kubectl of this version speaks WebSockets to port-forward as well.
const KUBECTL: u32 = 31;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn commands_are_run_and_told_how_they_ended() -> Result<()> {
    if !requirement::has_kubectl(KUBECTL) {
        return Ok(());
    }
    let bed = Bed::start().await?;
    // A byte of each value, many times over: nothing is text.
    let bytes: Vec<u8> = (0..6_000_000u32).map(|number| (number / 3) as u8).collect();
    for spdy in [false, true] {
        let exec = |more: &[&'static str]| [&["exec", "p", "-c", "c"], more].concat();
        let mixed = exec(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        bed.must(spdy, b"", &mixed, 7, "out\n", "err\n")?;
        bed.must(spdy, b"", &exec(&["--", "true"]), 0, "", "")?;
        bed.must(
            spdy,
            b"a\nb\n",
            &exec(&["-i", "--", "wc", "-l"]),
            0,
            "2\n",
            "",
        )?;
        let none = exec(&["--", "/no/such/program"]);
        bed.must(
            spdy,
            b"",
            &none,
            1,
            "",
            "error executing command in container: exec: \"/no/such/program\"",
        )?;
        bed.must(
            spdy,
            b"x",
            &["attach", "p", "-c", "c", "-i"],
            0,
            "attached\nx",
            "aside",
        )?;
        bed.must(
            spdy,
            b"",
            &["exec", "p", "-c", "later", "--", "true"],
            1,
            "",
            "container not found (\"later\")",
        )?;
        let back = bed.kubectl(spdy, &bytes, &exec(&["-i", "--", "cat"]))?;
        ensure!(
            back.status.success() && back.stdout == bytes,
            "spdy: {spdy}: {} bytes",
            back.stdout.len()
        );
        // One that leaves a child with its output open is not waited for.
        let begun = Instant::now();
        let left = exec(&["--", "sh", "-c", "sleep 31 & echo done"]);
        bed.must(spdy, b"", &left, 0, "done\n", "")?;
        ensure!(begun.elapsed() < Duration::from_secs(20));
    }
    // A folder there and back, as tar.
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    std::fs::write(from.path().join("file"), &bytes)?;
    let text = |path: &std::path::Path| path.display().to_string();
    let target = format!("p:{}", text(&to.path().join("copy")));
    bed.must(
        false,
        b"",
        &["cp", "-c", "c", &text(from.path()), &target],
        0,
        "",
        "",
    )?;
    ensure!(std::fs::read(to.path().join("copy/file"))? == bytes);
    let back = text(&to.path().join("back"));
    let source = format!("{target}/file");
    let output = bed.kubectl(false, b"", &["cp", "-c", "c", &source, &back])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(std::fs::read(&back)? == bytes);
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_command_dies_with_its_client() -> Result<()> {
    if !requirement::has_kubectl(KUBECTL) {
        return Ok(());
    }
    let bed = Bed::start().await?;
    for spdy in [false, true] {
        let mark = bed.logs.path().join(format!("pid-{spdy}"));
        let script = format!(
            "echo $$ > {}.new; mv {0}.new {0}; exec sleep 300",
            mark.display()
        );
        let mut client = bed
            .command(spdy, &["exec", "p", "-c", "c", "--", "sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = until(|| std::fs::read_to_string(&mark).ok()).await?;
        client.kill()?;
        client.wait()?;
        let proc = std::path::Path::new("/proc").join(pid.trim());
        until(|| (!proc.exists()).then_some(())).await?;
    }
    bed.stop().await
}

async fn until<T>(mut seen: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(it) = seen() {
            return Ok(it);
        }
        ensure!(Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn logs_are_read_across_files_and_as_they_grow() -> Result<()> {
    if !requirement::has_kubectl(KUBECTL) {
        return Ok(());
    }
    let bed = Bed::start().await?;
    bed.log("1.log.1", &["one", "two"])?;
    bed.log("1.log", &["three"])?;
    bed.log("0.log", &["before"])?;
    let logs = |more: &[&'static str]| [&["logs", "p", "-c", "c"], more].concat();
    bed.must(false, b"", &logs(&[]), 0, "one\ntwo\nthree\n", "")?;
    bed.must(false, b"", &logs(&["--tail=2"]), 0, "two\nthree\n", "")?;
    bed.must(false, b"", &logs(&["--previous"]), 0, "before\n", "")?;
    bed.must(false, b"", &logs(&["--limit-bytes=5"]), 0, "one\nt", "")?;
    bed.must(
        false,
        b"",
        &logs(&["--since=1s"]),
        0,
        "one\ntwo\nthree\n",
        "",
    )
    .err()
    .context("all are older")?;
    bed.must(
        false,
        b"",
        &logs(&["--tail=1", "--timestamps"]),
        0,
        "2026-01-01T00:00:00.5Z three\n",
        "",
    )?;
    bed.must(
        false,
        b"",
        &["logs", "p", "-c", "later"],
        1,
        "",
        "Error from server (BadRequest): container \"later\" in pod \"p\" is waiting to start: ContainerCreating",
    )?;
    bed.must(
        false,
        b"",
        &["logs", "p", "-c", "none"],
        1,
        "",
        "container none is not valid for pod p",
    )?;

    // It grows, is rotated, grows, and ends.
    let mut client = bed
        .command(false, &logs(&["-f", "--tail=1"]))
        .stdout(Stdio::piped())
        .spawn()?;
    let output = client.stdout.take().context("no output")?;
    let (sender, mut lines) = tokio::sync::mpsc::channel(16);
    let reading = std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
            if line.is_err() || sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let mut next = async || -> Result<Option<String>> {
        let line = tokio::time::timeout(SOON, lines.recv()).await?;
        Ok(line.transpose()?)
    };
    ensure!(next().await?.as_deref() == Some("three"));
    bed.log("1.log", &["four"])?;
    ensure!(next().await?.as_deref() == Some("four"));
    let log = bed.logs.path().join("1.log");
    std::fs::rename(&log, bed.logs.path().join("1.log.1"))?;
    bed.log("1.log", &["five"])?;
    ensure!(next().await?.as_deref() == Some("five"));
    bed.log("1.log", &["six", "seven"])?;
    bed.observe(ContainerState::Exited);
    ensure!(next().await?.as_deref() == Some("six"));
    ensure!(next().await?.as_deref() == Some("seven"));
    ensure!(next().await?.is_none());
    ensure!(client.wait()?.success());
    ensure!(reading.join().is_ok());
    bed.stop().await
}

/// Reads to the client's end of sending, and sends it all back.
async fn mirror(listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (mut tcp, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut from, mut to) = tcp.split();
            tokio::io::copy(&mut from, &mut to).await?;
            to.shutdown().await
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn ports_are_forwarded_byte_for_byte() -> Result<()> {
    if !requirement::has_kubectl(KUBECTL) {
        return Ok(());
    }
    let bed = Bed::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let mirror = tokio::spawn(mirror(listener));
    for spdy in [false, true] {
        let mut client = bed
            .command(spdy, &["port-forward", "pod/p", &format!(":{port}"), ":1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = client.stdout.take().context("no output")?;
        let mut local = Vec::new();
        let mut said = std::io::BufRead::lines(std::io::BufReader::new(output));
        for line in said.by_ref() {
            let line = line?;
            if let Some(address) = line.strip_prefix("Forwarding from 127.0.0.1:") {
                local.push(
                    address
                        .split(' ')
                        .next()
                        .unwrap_or_default()
                        .parse::<u16>()?,
                );
            }
            if local.len() == 2 {
                break;
            }
        }
        // It says more with each connection, and ends when nobody listens.
        let listening = std::thread::spawn(move || said.count());
        // Frames of SPDY are slow in a debug build.
        let length = if spdy { 4 << 20 } else { 34 << 20 };
        let copies = (0..3).map(|number: u32| copy(local[0], length, number));
        tokio::time::timeout(4 * SOON, futures_util::future::try_join_all(copies))
            .await?
            .with_context(|| format!("spdy: {spdy}"))?;
        // Nobody listens at the other.
        let mut tcp = TcpStream::connect(("127.0.0.1", local[1])).await?;
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(SOON, tcp.read_to_end(&mut rest)).await?;
        let output = tokio::task::block_in_place(|| {
            if !spdy {
                // kubectl ends by itself when a connection could not be made.
                return client.wait_with_output();
            }
            client.kill()?;
            client.wait_with_output()
        })?;
        ensure!(listening.join().is_ok());
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            said.contains("error forwarding port 1 to pod p_default, uid uid-1: dial tcp 127.0.0.1:1: connect:"),
            "spdy: {spdy}: {said}"
        );
    }
    mirror.abort();
    bed.stop().await
}

/// Sends bytes through a forwarded port and reads them back at the same time.
async fn copy(port: u16, length: u32, seed: u32) -> Result<()> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut from, mut to) = tcp.into_split();
    let byte =
        move |number: u32| (number.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8;
    let sending = tokio::spawn(async move {
        let mut at = 0;
        while at < length {
            let piece: Vec<u8> = (at..length.min(at + 100_000)).map(byte).collect();
            to.write_all(&piece).await?;
            at += 100_000;
        }
        to.shutdown().await?;
        Ok::<_, std::io::Error>(to)
    });
    let mut seen: u32 = 0;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = from
            .read(&mut chunk)
            .await
            .with_context(|| format!("read byte {seen}"))?;
        if count == 0 {
            break;
        }
        for found in &chunk[..count] {
            ensure!(*found == byte(seen), "byte {seen} is another");
            seen += 1;
        }
    }
    ensure!(seen == length, "{seen} bytes of {length} came back");
    sending.await?.context("send")?;
    Ok(())
}

/// A request to the node itself; its answer's head and body.
async fn knock(bed: &Bed, kubeconfig_user: Option<&(&str, &str)>, path: &str) -> Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    let folder = bed.server.folder();
    use rustls::pki_types::pem::PemObject;
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(
        folder.join("pki/ca.crt"),
    )?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match kubeconfig_user {
        None => builder.with_no_client_auth(),
        Some((user, group)) => {
            let pair = Pki::open(&folder, &[])?.issue(user, &[group], Duration::from_secs(600))?;
            let (chain, key) = pair.der()?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    let tcp = TcpStream::connect(("127.0.0.1", bed.port)).await?;
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1")?;
    let mut tls = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await?;
    let mut text = Vec::new();
    tokio::time::timeout(SOON, tls.read_to_end(&mut text)).await??;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn only_the_api_server_is_let_in() -> Result<()> {
    let bed = Bed::start().await?;
    bed.log("1.log", &["secret"])?;
    let logs = "/containerLogs/default/p/c";
    for (user, path, code, body) in [
        (None, logs, "401 ", "Unauthorized"),
        (None, "/healthz", "401 ", "Unauthorized"),
        (
            Some(&("eve", "system:nodes")),
            logs,
            "403 ",
            "Forbidden (user=eve, verb=get",
        ),
        (Some(&("root", "system:masters")), logs, "200 ", "secret"),
        (
            Some(&("kube-apiserver-kubelet-client", "x")),
            "/healthz",
            "200 ",
            "ok",
        ),
        (
            Some(&("root", "system:masters")),
            "/pods",
            "404 ",
            "404 page not found",
        ),
        (
            Some(&("root", "system:masters")),
            "/containerLogs/default/q/c",
            "404 ",
            "pod \"q\" not found",
        ),
        (
            Some(&("root", "system:masters")),
            "/exec/default/p/other-uid/c?command=x&output=1",
            "404 ",
            "pod \"p\" not found",
        ),
        (
            Some(&("root", "system:masters")),
            "/exec/default/p/uid-1/c?command=x&output=1",
            "400 ",
            "Upgrade request required",
        ),
        (
            Some(&("root", "system:masters")),
            "/exec/default/p/c?command=x",
            "400 ",
            "at least 1 of stdin, stdout, stderr",
        ),
        (
            Some(&("root", "system:masters")),
            "/containerLogs/default/p/c?tailLines=-1",
            "400 ",
            "tailLines",
        ),
    ] {
        let answer = knock(&bed, user, path).await?;
        ensure!(
            answer.starts_with(&format!("HTTP/1.1 {code}")) && answer.contains(body),
            "{user:?} {path}: {answer}"
        );
    }
    // A certificate of another authority.
    let folder = tempfile::tempdir()?;
    let other = Pki::open(folder.path(), &[])?;
    ensure!(other.authority() != Pki::open(&bed.server.folder(), &[])?.authority());
    bed.stop().await
}

/// What a WebSocket says, message by message, through the API server.
async fn websocket(
    bed: &Bed,
    path: &str,
    protocols: &str,
) -> Result<(
    String,
    tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>,
)> {
    use tokio_tungstenite::tungstenite::protocol::Role;
    let address = wire::address(&bed.server)?;
    let mut stream = wire::connect(&address, &wire::admin(&bed.server.folder())?).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: {protocols}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let head = tokio::time::timeout(SOON, wire::head(&mut stream)).await??;
    let socket =
        tokio_tungstenite::WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    Ok((head.to_lowercase(), socket))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn other_clients_speak_plain_channels() -> Result<()> {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let bed = Bed::start().await?;
    let pod = "/api/v1/namespaces/default/pods/p";
    let exec = format!(
        "{pod}/exec?container=c&command=sh&command=-c&command=cat;exit+3&stdin=true&stdout=true&stderr=true"
    );
    let (head, mut socket) = websocket(&bed, &exec, "v5.channel.k8s.io,v4.channel.k8s.io").await?;
    ensure!(
        head.contains("sec-websocket-protocol: v5.channel.k8s.io"),
        "{head}"
    );
    socket.send(Message::binary(b"\0hello\n".to_vec())).await?;
    socket.send(Message::binary(b"\xff\0".to_vec())).await?;
    let mut said = Vec::new();
    while let Some(message) = tokio::time::timeout(SOON, socket.next()).await? {
        match message? {
            Message::Binary(bytes) => said.push(bytes),
            Message::Close(frame) => {
                ensure!(frame.is_some_and(|frame| u16::from(frame.code) == 1000));
                break;
            }
            _ => {}
        }
    }
    ensure!(
        said.len() == 3 && said[0] == [1][..] && said[1] == b"\x01hello\n"[..],
        "{said:?}"
    );
    ensure!(said[2][0] == 3);
    let status: Value = serde_json::from_slice(&said[2][1..])?;
    ensure!(status["details"]["causes"][0]["message"] == "3", "{status}");
    let (head, _) = websocket(&bed, &exec, "v9.channel.k8s.io").await?;
    ensure!(head.starts_with("http/1.1 403 "), "{head}");

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let mirror = tokio::spawn(mirror(listener));
    let forward = format!("{pod}/portforward?ports={port},1");
    let (head, mut socket) = websocket(&bed, &forward, "v4.channel.k8s.io").await?;
    ensure!(
        head.contains("sec-websocket-protocol: v4.channel.k8s.io"),
        "{head}"
    );
    let number = port.to_le_bytes();
    let mut firsts = vec![
        vec![0, number[0], number[1]],
        vec![1, number[0], number[1]],
        vec![2, 1, 0],
        vec![3, 1, 0],
    ];
    let (mut echoed, mut refused) = (Vec::new(), String::new());
    socket.send(Message::binary(b"\0ping".to_vec())).await?;
    while echoed != b"ping" || refused.is_empty() {
        let message = tokio::time::timeout(SOON, socket.next())
            .await?
            .context("closed")??;
        let Message::Binary(bytes) = message else {
            continue;
        };
        if !firsts.is_empty() {
            ensure!(bytes == firsts.remove(0), "{bytes:?}");
            continue;
        }
        match bytes[0] {
            0 => echoed.extend_from_slice(&bytes[1..]),
            3 => refused = String::from_utf8_lossy(&bytes[1..]).into_owned(),
            other => anyhow::bail!("channel {other}: {bytes:?}"),
        }
    }
    ensure!(
        refused.starts_with("error forwarding port 1 to pod p_default"),
        "{refused}"
    );
    let (head, _) = websocket(&bed, &format!("{pod}/portforward"), "v4.channel.k8s.io").await?;
    ensure!(head.starts_with("http/1.1 400 "), "{head}");
    mirror.abort();
    bed.stop().await
}
