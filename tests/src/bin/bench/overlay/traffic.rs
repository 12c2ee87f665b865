//! Throughput by iperf3: its server stays in node 2, a client runs for each measurement.

use ::tests::process::Process;
use ::tests::{Namespace, eventually};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PORT: u16 = 5201;
/// How much longer than asked for a client may run: its handshake goes over the way that it floods.
const GRACE: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// So many streams; `backward` from node 2 to node 1.
    Tcp { streams: u32, backward: bool },
    /// Datagrams of so many bytes, as fast as the sender can.
    Udp { payload: u32 },
}

/// What the receiver got.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Received {
    pub bytes: f64,
    pub seconds: f64,
    /// Datagrams; zero for TCP.
    pub packets: f64,
    /// Percent of the datagrams sent; zero for TCP.
    pub lost: f64,
}

impl Received {
    pub fn gigabits(&self) -> f64 {
        self.bytes * 8.0 / 1e9 / self.seconds
    }

    /// Thousands of datagrams a second.
    pub fn kilopackets(&self) -> f64 {
        self.packets / 1e3 / self.seconds
    }
}

/// A server in one namespace and where its clients run.
#[derive(Debug)]
pub struct Iperf {
    client: Namespace,
    source: Ipv4Addr,
    server: Namespace,
    address: Ipv4Addr,
    congestion: String,
    folder: PathBuf,
    process: Process,
}

impl Iperf {
    /// Starts the server on its address; clients send from theirs, TCP with this congestion control.
    pub fn start(
        client: (&Namespace, Ipv4Addr),
        server: (&Namespace, Ipv4Addr),
        congestion: &str,
        folder: &Path,
    ) -> Result<Self> {
        Ok(Self {
            client: client.0.clone(),
            source: client.1,
            server: server.0.clone(),
            address: server.1,
            congestion: congestion.to_owned(),
            folder: folder.to_owned(),
            process: serve(server.0, server.1, folder)?,
        })
    }

    /// Sends for so many seconds, to the end.
    pub fn run(&mut self, load: Load, seconds: u32) -> Result<Received> {
        let sent = self.begin(load, seconds)?.finish();
        if sent.is_err() {
            // A server whose client vanished waits for it; a fresh one does not.
            self.process.kill()?;
            self.process = serve(&self.server, self.address, &self.folder)?;
        }
        sent
    }

    /// Begins to send; the caller does something meanwhile.
    pub fn begin(&self, load: Load, seconds: u32) -> Result<Sending> {
        let mut command = Command::new("iperf3");
        command
            .args(["--client", &self.address.to_string()])
            .args(["--bind", &self.source.to_string()])
            .args(["--port", &PORT.to_string()])
            .args(["--time", &seconds.to_string()])
            .args(["--json", "--interval", "0", "--connect-timeout", "3000"]);
        match load {
            Load::Tcp { streams, backward } => {
                // By socket: a namespace may not choose what the machine's owner has not allowed.
                command.args(["--congestion", &self.congestion]);
                command.args(["--parallel", &streams.to_string()]);
                if backward {
                    command.arg("--reverse");
                }
            }
            Load::Udp { payload } => {
                command.args(["--udp", "--bitrate", "0", "--length", &payload.to_string()]);
            }
        }
        let log = self.folder.join("client.json");
        // The file is appended to; what an earlier client wrote is not this one's.
        if log.exists() {
            std::fs::remove_file(&log)?;
        }
        Ok(Sending {
            process: self.client.spawn("iperf3", &mut command, &log)?,
            limit: Duration::from_secs(seconds.into()) + GRACE,
        })
    }
}

fn serve(node: &Namespace, address: Ipv4Addr, folder: &Path) -> Result<Process> {
    let mut command = Command::new("iperf3");
    command
        .arg("--server")
        .args(["--bind", &address.to_string()])
        .args(["--port", &PORT.to_string()]);
    let mut process = node.spawn("iperf3", &mut command, &folder.join("server.log"))?;
    eventually("iperf3 listens", Duration::from_secs(5), || {
        process.ensure_alive()?;
        let table = node.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/tcp")?))?;
        // Local port in hexadecimal; state 0A is LISTEN.
        let listens = |line: &str| line.contains(&format!(":{PORT:04X} ")) && line.contains(" 0A ");
        match table.lines().any(listens) {
            true => Ok(()),
            false => bail!("nothing listens on port {PORT}"),
        }
    })?;
    Ok(process)
}

/// A client at work.
#[derive(Debug)]
pub struct Sending {
    process: Process,
    limit: Duration,
}

impl Sending {
    /// Waits for its end and reads its report.
    pub fn finish(mut self) -> Result<Received> {
        self.process.wait(self.limit)?;
        let text = self.process.log()?;
        parse(&text).context("iperf3")
    }
}

/// Reads the client's JSON, of iperf3 3.7 and later.
fn parse(text: &str) -> Result<Received> {
    // A warning may stand before the report: both its outputs go to one file.
    let start = text
        .find('{')
        .with_context(|| format!("no report, but {text:?}"))?;
    let report: Value = serde_json::from_str(&text[start..]).context("its report is no JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("{error}");
    }
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
    let needed = |pointer: &str| number(pointer).with_context(|| format!("no {pointer}"));
    let bytes = needed("/end/sum_received/bytes")?;
    let seconds = needed("/end/sum_received/seconds")?;
    let Some(sent) = number("/end/sum_sent/packets") else {
        return Ok(Received {
            bytes,
            seconds,
            packets: 0.0,
            lost: 0.0,
        });
    };
    let packets = needed("/end/sum_received/packets")? - needed("/end/sum_received/lost_packets")?;
    Ok(Received {
        bytes,
        seconds,
        packets,
        lost: (1.0 - packets / sent.max(1.0)).max(0.0) * 100.0,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn tcp_is_what_the_receiver_counted() {
        let text = r#"warning: something may result in something
            {"end":{"sum_sent":{"bytes":9e9,"seconds":2.0},
            "sum_received":{"bytes":5e9,"seconds":2.0}}}"#;
        let received = parse(text).expect("a report");
        assert_eq!(received.gigabits(), 20.0);
        assert_eq!((received.packets, received.lost), (0.0, 0.0));
    }

    #[test]
    fn delivered_is_counted_less_lost() {
        let text = r#"{"end":{"sum_sent":{"packets":165780,"bytes":10609920,"seconds":1.0},
            "sum_received":{"bytes":8987648,"seconds":1.0,"packets":165780,"lost_packets":25348}}}"#;
        let received = parse(text).expect("a report");
        assert_eq!(received.kilopackets(), 140.432);
        assert!((received.lost - 15.29).abs() < 0.01);
    }

    #[test]
    fn its_own_error_is_ours() {
        let error = parse(r#"{"end":{},"error":"unable to connect"}"#).expect_err("an error");
        assert_eq!(error.to_string(), "unable to connect");
        assert!(parse("").is_err());
        assert!(parse(r#"{"end":{}}"#).is_err());
    }
}
