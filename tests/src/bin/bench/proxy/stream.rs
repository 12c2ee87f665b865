//! One TCP stream through userspace mode, against a bare copy loop in the same places.
//!
//! ```text
//!   client 10.252.0.2 ── 10.252.0.1 node 10.251.0.1 ── 10.251.0.2 server
//! ```
//! The loop is what `socat` does: read at most 8 KiB, write all of it, again; in a process of its own
//! ([`copy`] by `bench copy-loop`).

use super::Scale;
use super::median;
use super::world::Service;
use crate::outcome::Outcome;
use ::tests::proxy::{Mode, Proxy};
use ::tests::{Namespace, Run, eventually};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

const FRONT: &str = "10.96.0.1:80";
const LOOP: &str = "10.252.0.1:8081";
const SERVER: &str = "10.251.0.2:5201";
/// What socat reads at once, by default.
const BLOCK: usize = 8192;

/// Measures both, in turns.
pub fn run(run: &Run, scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    let [client, node, server] = ["client", "node", "server"].map(|name| run.namespace(name));
    let (client, node, server) = (client?, node?, server?);
    join(&node, &client, "client", "10.252.0")?;
    join(&node, &server, "server", "10.251.0")?;
    client.ip_batch("route add default via 10.252.0.1")?;
    let mut iperf = Command::new("iperf3");
    iperf.args(["--server", "--bind", "10.251.0.2"]);
    let _iperf = server.spawn("iperf3", &mut iperf, &run.folder().join("iperf3.log"))?;

    let service = Service {
        name: "stream".to_owned(),
        protocol: "tcp",
        front: FRONT.parse()?,
        endpoints: vec![SERVER.parse()?],
    };
    let manifests = run.subfolder("manifests")?;
    let mut list = service.objects();
    list[1]["ports"][0]["port"] = SERVER.parse::<SocketAddrV4>()?.port().into();
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": list });
    super::world::place(&manifests, "stream", &list)?;
    let log = run.folder().join("weft-proxy.log");
    let _ours = Proxy::new(&node, "node", &manifests, log)
        .mode(Mode::Userspace)
        .start()?;
    let mut copy = Command::new(std::env::current_exe()?);
    copy.args(["copy-loop", LOOP, SERVER]);
    let _loop = node.spawn("the copy loop", &mut copy, &run.folder().join("loop.log"))?;

    let mut ratios = Vec::new();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        ours.push(gigabits(&client, FRONT, scale.time)?);
        bare.push(gigabits(&client, LOOP, scale.time)?);
        ratios.push(ours[ours.len() - 1] / bare[bare.len() - 1]);
    }
    let text = "userspace TCP, one stream, of a copy loop";
    outcome.promise_at_least(text, median(&ratios), 2.0, "×");
    outcome.remark("userspace TCP, one stream, ours", median(&ours), "Gbit/s");
    outcome.remark(
        "userspace TCP, one stream, copy loop",
        median(&bare),
        "Gbit/s",
    );
    Ok(())
}

/// A veth pair between the node (`<net>.1`) and another namespace (`<net>.2`).
fn join(node: &Namespace, other: &Namespace, device: &str, net: &str) -> Result<()> {
    node.ip_batch(&format!(
        "link add {device} type veth peer name eth0 netns {}
         address add {net}.1/24 dev {device}
         link set {device} up",
        other.name()
    ))?;
    other.ip_batch(&format!(
        "address add {net}.2/24 dev eth0\nlink set eth0 up"
    ))
}

/// What the server got, in gigabits a second.
fn gigabits(client: &Namespace, address: &str, time: Duration) -> Result<f64> {
    let (ip, port) = address.split_once(':').context("no port")?;
    let line = format!(
        "iperf3 --client {ip} --port {port} --time {} --json --interval 0 --connect-timeout 3000",
        time.as_secs()
    );
    // The server serves one client after another, and says so to one that comes too early.
    eventually("iperf3 runs", Duration::from_secs(20), || {
        let output = client.sh(&line)?;
        let report: Value = serde_json::from_str(&output)?;
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
        let rate = rate.with_context(|| format!("iperf3 to {address}: {}", report["error"]))?;
        ensure!(rate > 0.0, "nothing came to {address}");
        Ok(rate / 1e9)
    })
}

/// `bench copy-loop LISTEN TARGET`: forwards each connection, both ways, until it is killed.
pub fn copy_loop(words: &[String]) -> Result<()> {
    let [listen, target] = words else {
        anyhow::bail!("usage: bench copy-loop LISTEN TARGET");
    };
    let target: SocketAddr = target.parse()?;
    let listener = TcpListener::bind(listen.as_str())?;
    loop {
        let (near, _) = listener.accept()?;
        let far = TcpStream::connect(target)?;
        for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            std::thread::spawn(move || copy(from, to));
        }
    }
}

/// One direction to its end, which is passed on.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut block = [0; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(length) if length > 0 && to.write_all(&block[..length]).is_ok() => {}
            _ => break,
        }
    }
    // The other side may be gone already; there is nobody to tell.
    let _ = to.shutdown(Shutdown::Write);
}
