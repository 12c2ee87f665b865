//! A real etcd in the underlay's namespace, for `--store etcd`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::bail;
use kernel::Netns;

use super::Cluster;
use super::process::{self, Process};
use super::up::make_folder;

/// Where it listens.
const PORT: u16 = 2379;
/// For one question.
const LIMIT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);

/// Starts it, if it is wanted and does not run.
pub fn start(cluster: &Cluster, underlay: &Netns) -> anyhow::Result<Option<Process>> {
    if cluster.shape.store != "etcd" || cluster.etcd.as_ref().is_some_and(Process::alive) {
        return Ok(None);
    }
    let Some(etcd) = kernel::process::find("etcd") else {
        bail!("--store etcd needs the program etcd: apt-get install etcd-server");
    };
    let folder = cluster.etcd_folder();
    make_folder(&folder)?;
    let arguments = [
        format!("--data-dir={}", folder.join("data").display()),
        format!("--listen-client-urls=http://127.0.0.1:{PORT}"),
        format!("--advertise-client-urls=http://127.0.0.1:{PORT}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-cluster=default=http://127.0.0.1:2380".to_owned(),
    ];
    Process::start(&etcd, &arguments, Some(underlay), &folder.join("etcd.log")).map(Some)
}

/// Waits until it answers: after it was killed it reads its log again and elects itself, and the API server waits for
/// that only a few seconds.
pub fn wait(
    cluster: &Cluster,
    etcd: &Process,
    underlay: &Netns,
    patience: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    while !underlay.run(is_healthy)?.unwrap_or(false) {
        let why = if !etcd.alive() {
            "has ended"
        } else if Instant::now() > end {
            "does not answer"
        } else {
            std::thread::sleep(LOOK);
            continue;
        };
        let log = cluster.etcd_folder().join("etcd.log");
        bail!(
            "etcd {why}; the end of its log:\n{}",
            process::tail(&log, 12)
        );
    }
    Ok(())
}

fn is_healthy() -> io::Result<bool> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer.contains(r#""health":"true""#))
}
