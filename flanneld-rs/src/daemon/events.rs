//! Kernel events that may have disturbed what we made, or moved the external interface.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use kernel::monitor::{Event, Group, Monitor};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::lease::Subnet;
use crate::uplink::Uplink;

/// How long to gather more events after a first one: below what a person notices, above a burst.
const GATHER: Duration = Duration::from_millis(20);

/// What a burst of events means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Concern {
    /// The external interface may have changed.
    pub uplink: bool,
    /// A device, address, route or entry of ours may be gone.
    pub datapath: bool,
}

impl Concern {
    fn any(self) -> bool {
        self.uplink || self.datapath
    }
}

/// What we look at.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The external interface.
    pub uplink: &'a Uplink,
    /// Our own subnet.
    pub own: &'a Subnet,
    /// The networks we route.
    pub networks: &'a [ipnet::IpNet],
}

impl Scope<'_> {
    /// Judges one event. Only losses count: what others add beside our entries is their business,
    /// and a replaced entry is found by the slow timer.
    pub fn concern(&self, event: &Event) -> Concern {
        let none = Concern::default();
        let datapath = Concern {
            datapath: true,
            ..none
        };
        match event {
            Event::Overrun => Concern {
                uplink: true,
                datapath: true,
            },
            Event::Link { link, removed }
                if link.index == self.uplink.index || link.name == self.uplink.name =>
            {
                Concern {
                    uplink: true,
                    datapath: *removed || !link.up,
                }
            }
            Event::Link { link, removed }
                if link.name.starts_with("flannel") && (*removed || !link.up) =>
            {
                datapath
            }
            Event::Address { address, removed } => Concern {
                uplink: address.dev == self.uplink.index,
                datapath: *removed
                    && self
                        .networks
                        .iter()
                        .any(|net| net.contains(&address.net.addr())),
            },
            Event::Route {
                route,
                removed: true,
            } => {
                // The own subnet belongs to the bridge plugin.
                let ours = self.networks.iter().any(|net| net.contains(&route.dst));
                if ours && !self.own.nets().any(|own| own.contains(&route.dst)) {
                    datapath
                } else {
                    none
                }
            }
            Event::Neigh {
                neigh,
                removed: true,
            } if self.networks.iter().any(|net| net.contains(&neigh.ip)) => {
                if self.own.contains(neigh.ip) {
                    none
                } else {
                    datapath
                }
            }
            Event::Fdb { fdb, removed: true } if fdb.dst.is_some() => datapath,
            _ => none,
        }
    }
}

/// Lends the descriptor in the form tokio asks for.
struct Source(Monitor);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The socket, awaited.
pub struct Events {
    monitor: AsyncFd<Source>,
    pending: Concern,
    until: Option<Instant>,
}

impl Events {
    /// Listens in the caller's network namespace.
    pub fn open() -> anyhow::Result<Self> {
        let groups = [
            Group::Link,
            Group::Neigh,
            Group::Ipv4Address,
            Group::Ipv4Route,
            Group::Ipv6Address,
            Group::Ipv6Route,
        ];
        #[allow(
            deprecated,
            reason = "the successor is unsafe because of sources that do not own their descriptor; this one does"
        )]
        let monitor = AsyncFd::new(Source(Monitor::open(&groups)?))?;
        Ok(Self {
            monitor,
            pending: Concern::default(),
            until: None,
        })
    }

    /// Waits for a burst that concerns us. Dropping the future loses nothing.
    pub async fn next(&mut self, scope: Scope<'_>) -> anyhow::Result<Concern> {
        loop {
            match self.until {
                None => self.read(scope).await?,
                Some(until) => match tokio::time::timeout_at(until, self.read(scope)).await {
                    Ok(read) => read?,
                    Err(_) => {
                        self.until = None;
                        return Ok(std::mem::take(&mut self.pending));
                    }
                },
            }
            if self.pending.any() && self.until.is_none() {
                self.until = Some(Instant::now() + GATHER);
            }
        }
    }

    /// Takes in all that can be read now.
    async fn read(&mut self, scope: Scope<'_>) -> anyhow::Result<()> {
        let mut guard = self.monitor.readable_mut().await?;
        while readable(&guard.get_inner().0)? {
            for event in guard.get_inner_mut().0.events()? {
                let concern = scope.concern(&event);
                self.pending.uplink |= concern.uplink;
                self.pending.datapath |= concern.datapath;
            }
        }
        guard.clear_ready();
        Ok(())
    }
}

/// Asks the kernel rather than the last read: a datagram may hold only messages we do not know.
fn readable(monitor: &Monitor) -> nix::Result<bool> {
    let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests;
