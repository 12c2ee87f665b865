//! How soon a change is answered.

use super::load::{HEADLESS, Load};
use crate::outcome::Series;
use anyhow::{Context, Result, ensure};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// A question may be lost while the server starts.
const TIMEOUT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions: the server has other things to do than to answer us.
const PAUSE: Duration = Duration::from_micros(300);

/// Asks one question at a time.
pub struct Asker(UdpSocket);

impl Asker {
    pub fn new(port: u16) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self(socket))
    }

    /// How many records of type A a name has.
    pub fn answers(&self, name: &str) -> Result<u16> {
        self.0.send(&question(name))?;
        let mut answer = [0; 65_535];
        let length = self.0.recv(&mut answer).context("no answer")?;
        ensure!(length > 12, "an answer of {length} bytes");
        Ok(u16::from_be_bytes([answer[6], answer[7]]))
    }
}

/// With EDNS, so that many records fit (RFC 1035, 4.1; RFC 6891, 6.1).
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    packet
}

/// Adds endpoints one by one: from the API server's answer, which is when it tells of the change, to the first answer that has
/// the address. At most 60 at a time fit into one packet.
pub async fn measure(title: &str, load: &Load, asker: &Asker, count: u32) -> Result<Series> {
    let mut series = Series::new(title);
    let connection = load.connect().await?;
    let name = format!("{HEADLESS}.bench.svc.cluster.local");
    let before = u32::from(asker.answers(&name)?);
    for number in 0..count.min(60) {
        load.add(&connection, before + number).await?;
        let begun = Instant::now();
        while u32::from(asker.answers(&name)?) <= before + number {
            ensure!(
                begun.elapsed() < PATIENCE,
                "endpoint {number} is not answered"
            );
            tokio::time::sleep(PAUSE).await;
        }
        series.push(begun.elapsed());
    }
    Ok(series)
}
