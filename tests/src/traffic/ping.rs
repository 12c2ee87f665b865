//! ICMP echo through the `ping` program.

use crate::namespace::Namespace;
use anyhow::{Result, ensure};
use std::net::IpAddr;

/// A ping to be sent.
#[derive(Clone, Debug)]
pub struct Ping {
    to: IpAddr,
    count: u32,
    payload: u32,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PingReport {
    /// Mean round trip in milliseconds; unknown for payloads too small for ping's time stamp (16 bytes).
    pub average_ms: Option<f64>,
}

impl Ping {
    /// Three small packets.
    pub fn new(to: IpAddr) -> Self {
        Self {
            to,
            count: 3,
            payload: 56,
        }
    }

    /// Sends `count` packets.
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Sends packets with so many bytes of payload, behind IP and ICMP headers.
    pub fn payload(mut self, bytes: u32) -> Self {
        self.payload = bytes;
        self
    }

    /// Sends them, never in fragments; all must be answered.
    pub fn run(&self, from: &Namespace) -> Result<PingReport> {
        let output = from.exec(
            "ping",
            &[
                "-n",
                "-q",
                "-c",
                &self.count.to_string(),
                // ping waits no longer than this for the last answer once it has had one, and a
                // loaded machine may let a user-space data path wait for its turn.
                "-i",
                "0.3",
                "-W",
                "1",
                "-M",
                "do",
                "-s",
                &self.payload.to_string(),
                &self.to.to_string(),
            ],
        )?;
        ensure!(
            output.contains(" 0% packet loss"),
            "ping {} from {}: {output}",
            self.to,
            from.name()
        );
        let average_ms = parse(&output);
        ensure!(
            average_ms.is_some() || self.payload < 16,
            "output of ping: {output:?}"
        );
        Ok(PingReport { average_ms })
    }
}

/// Reads `rtt min/avg/max/mdev = 0.013/0.014/0.016/0.001 ms`.
fn parse(output: &str) -> Option<f64> {
    let (_, times) = output.split_once("rtt ")?.1.split_once(" = ")?;
    times.split('/').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn mean_is_the_second_number() {
        let report = parse("3 packets\nrtt min/avg/max/mdev = 0.013/0.024/0.036/0.001 ms\n");
        assert_eq!(report, Some(0.024));
        assert_eq!(parse("3 packets transmitted, 0 received"), None);
    }
}
