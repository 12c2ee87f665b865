//! What is measured of each subject, step by step.

use super::cpu;
use super::rtt;
use super::site::Ready;
use super::traffic::Load;
use crate::connections;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;

/// One figure of one subject and round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    TcpOneForward,
    TcpOneBackward,
    TcpEightForward,
    TcpEightBackward,
    SmallDelivered,
    SmallLost,
    LargeDelivered,
    LargeLost,
    IdleP50,
    IdleP99,
    LoadedP50,
    LoadedP99,
    Connections,
    CpuPerGigabyte,
    Resident,
}

impl Metric {
    /// Its key in the JSON file, which ends in the unit.
    pub fn key(self) -> &'static str {
        match self {
            Self::TcpOneForward => "tcp_1_forward_gbit_s",
            Self::TcpOneBackward => "tcp_1_backward_gbit_s",
            Self::TcpEightForward => "tcp_8_forward_gbit_s",
            Self::TcpEightBackward => "tcp_8_backward_gbit_s",
            Self::SmallDelivered => "udp_64_delivered_kpps",
            Self::SmallLost => "udp_64_lost_percent",
            Self::LargeDelivered => "udp_1400_delivered_kpps",
            Self::LargeLost => "udp_1400_lost_percent",
            Self::IdleP50 => "rtt_idle_p50_us",
            Self::IdleP99 => "rtt_idle_p99_us",
            Self::LoadedP50 => "rtt_loaded_p50_us",
            Self::LoadedP99 => "rtt_loaded_p99_us",
            Self::Connections => "connections_per_s",
            Self::CpuPerGigabyte => "cpu_s_per_gigabyte",
            Self::Resident => "daemon_resident_mb",
        }
    }

    pub const ALL: [Self; 15] = [
        Self::TcpOneForward,
        Self::TcpOneBackward,
        Self::TcpEightForward,
        Self::TcpEightBackward,
        Self::SmallDelivered,
        Self::SmallLost,
        Self::LargeDelivered,
        Self::LargeLost,
        Self::IdleP50,
        Self::IdleP99,
        Self::LoadedP50,
        Self::LoadedP99,
        Self::Connections,
        Self::CpuPerGigabyte,
        Self::Resident,
    ];
}

/// What is done in one go. All subjects do the same step one after another, so that what is
/// compared was measured within seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Tcp { streams: u32, backward: bool },
    Udp { payload: u32 },
    RttIdle,
    RttLoaded,
    Connections,
}

impl Step {
    pub const ALL: [Self; 9] = [
        Self::Tcp {
            streams: 1,
            backward: false,
        },
        Self::Tcp {
            streams: 1,
            backward: true,
        },
        Self::Tcp {
            streams: 8,
            backward: false,
        },
        Self::Tcp {
            streams: 8,
            backward: true,
        },
        Self::Udp { payload: 64 },
        Self::Udp { payload: 1400 },
        Self::RttIdle,
        Self::RttLoaded,
        Self::Connections,
    ];

    pub fn name(self) -> String {
        match self {
            Self::Tcp { streams, backward } => {
                let arrow = if backward { "←" } else { "→" };
                format!("TCP {streams} {arrow}")
            }
            Self::Udp { payload } => format!("UDP {payload}"),
            Self::RttIdle => "RTT idle".to_owned(),
            Self::RttLoaded => "RTT under load".to_owned(),
            Self::Connections => "connections".to_owned(),
        }
    }

    /// Does it, for so many seconds where time is the measure.
    pub fn measure(self, ready: &mut Ready, seconds: u32) -> Result<Vec<(Metric, f64)>> {
        let measured = self.figures(ready, seconds);
        // Why it failed is more in a dead daemon's log than in what the traffic's program says.
        ready.site.ensure_alive()?;
        let mut figures = measured.with_context(|| self.name())?;
        if let Some(bytes) = ready.site.resident_bytes()? {
            figures.push((Metric::Resident, bytes as f64 / 1e6));
        }
        Ok(figures)
    }

    fn figures(self, ready: &mut Ready, seconds: u32) -> Result<Vec<(Metric, f64)>> {
        let [near, far] = &ready.site.nodes;
        let time = Duration::from_secs(seconds.into());
        match self {
            Self::Tcp { streams, backward } => {
                let clock = cpu::Clock::start()?;
                let received = ready.iperf.run(Load::Tcp { streams, backward }, seconds)?;
                let busy = clock.busy_seconds()?;
                let rate = match (streams, backward) {
                    (1, false) => Metric::TcpOneForward,
                    (1, true) => Metric::TcpOneBackward,
                    (_, false) => Metric::TcpEightForward,
                    (_, true) => Metric::TcpEightBackward,
                };
                ensure!(received.bytes > 0.0, "nothing came through");
                let mut figures = vec![(rate, received.gigabits())];
                if rate == Metric::TcpOneForward {
                    let cost = busy / (received.bytes / 1e9);
                    figures.push((Metric::CpuPerGigabyte, cost));
                }
                Ok(figures)
            }
            Self::Udp { payload } => {
                let received = ready.iperf.run(Load::Udp { payload }, seconds)?;
                let (delivered, lost) = match payload {
                    64 => (Metric::SmallDelivered, Metric::SmallLost),
                    _ => (Metric::LargeDelivered, Metric::LargeLost),
                };
                Ok(vec![
                    (delivered, received.kilopackets()),
                    (lost, received.lost),
                ])
            }
            Self::RttIdle => {
                let trips = rtt::measure(&near.namespace, near.address, far.address, 2000, time)?;
                Ok(vec![
                    (Metric::IdleP50, trips.p50),
                    (Metric::IdleP99, trips.p99),
                ])
            }
            Self::RttLoaded => {
                let load = Load::Tcp {
                    streams: 1,
                    backward: false,
                };
                let sending = ready.iperf.begin(load, seconds)?;
                // Slow start is over, and the stream outlives the echoes.
                std::thread::sleep(time / 5);
                let trips = rtt::measure(
                    &near.namespace,
                    near.address,
                    far.address,
                    2000,
                    time * 7 / 10,
                );
                let resident = ready.site.resident_bytes()?;
                sending.finish()?;
                let trips = trips?;
                let mut figures = vec![
                    (Metric::LoadedP50, trips.p50),
                    (Metric::LoadedP99, trips.p99),
                ];
                figures.extend(resident.map(|bytes| (Metric::Resident, bytes as f64 / 1e6)));
                Ok(figures)
            }
            Self::Connections => {
                let listen = SocketAddr::new(far.address.into(), 0);
                let rate =
                    connections::measure(&near.namespace, &far.namespace, listen, None, time / 2)?;
                Ok(vec![(Metric::Connections, rate)])
            }
        }
    }
}
