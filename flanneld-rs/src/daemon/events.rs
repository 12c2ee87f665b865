//! Kernel events that may have disturbed what we made, or moved the external interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use ipnet::IpNet;
use kernel::monitor::{Event, Group, Monitor};
use kernel::{Link, Netlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::peers::Peers;
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

const EVERYTHING: Concern = Concern {
    uplink: true,
    datapath: true,
};

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
    /// It cannot be used now: whatever happens to any link may bring it back.
    pub uplink_lost: bool,
    /// The networks we route.
    pub networks: &'a [IpNet],
    /// The peers we serve.
    pub peers: &'a Peers,
}

impl Scope<'_> {
    /// Judges one event; `ours` are the indexes of our own devices. Of what lies on our devices only
    /// losses count: what others add beside our entries is their business, and a replaced entry is
    /// found by the slow timer. What belonged to a peer that has gone was removed by ourselves.
    fn concern(&self, event: &Event, ours: &BTreeSet<u32>) -> Concern {
        let concern = |datapath| Concern {
            uplink: false,
            datapath,
        };
        let beside = |datapath| Concern {
            uplink: self.uplink_lost,
            datapath,
        };
        match event {
            Event::Overrun => EVERYTHING,
            // Even what comes back unchanged has lost its routes, of which the kernel says nothing.
            Event::Link { link, .. }
                if link.index == self.uplink.index || link.name == self.uplink.name =>
            {
                EVERYTHING
            }
            Event::Address { address, .. } if address.dev == self.uplink.index => EVERYTHING,
            Event::Link { link, removed } => beside(is_ours(link) && (*removed || !link.up)),
            Event::Address { address, removed } => beside(*removed && ours.contains(&address.dev)),
            Event::Route { route, .. } if route.dst.prefix_len() == 0 => beside(false),
            Event::Route { route, removed } => {
                concern(*removed && (self.networks.contains(&route.dst) || self.routes(route.dst)))
            }
            Event::Neigh { neigh, removed } => {
                concern(*removed && ours.contains(&neigh.dev) && self.holds(neigh.ip))
            }
            Event::Fdb { fdb, removed } => {
                let at_peer = || fdb.dst.is_some_and(|dst| self.is_at(dst));
                concern(*removed && ours.contains(&fdb.dev) && at_peer())
            }
        }
    }

    /// A peer has exactly this subnet.
    fn routes(&self, dst: IpNet) -> bool {
        let mut peers = self.peers.iter();
        peers.any(|peer| peer.subnet.nets().any(|net| net == dst))
    }

    /// A peer has this address in its subnet.
    fn holds(&self, ip: IpAddr) -> bool {
        self.peers.iter().any(|peer| peer.subnet.contains(ip))
    }

    /// A peer announces this address.
    fn is_at(&self, ip: IpAddr) -> bool {
        self.peers.iter().any(|peer| match ip {
            IpAddr::V4(ip) => peer.attrs.public_ip == Some(ip),
            IpAddr::V6(ip) => peer.attrs.public_ipv6 == Some(ip),
        })
    }
}

/// Our devices are told by their names.
fn is_ours(link: &Link) -> bool {
    link.name.starts_with("flannel")
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
    netlink: Netlink,
    /// Indexes of our devices.
    ours: BTreeSet<u32>,
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
        let mut netlink = Netlink::open()?;
        Ok(Self {
            monitor,
            ours: our_devices(&mut netlink)?,
            netlink,
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
                match &event {
                    Event::Link { link, removed } if is_ours(link) => {
                        if *removed {
                            self.ours.remove(&link.index);
                        } else {
                            self.ours.insert(link.index);
                        }
                    }
                    Event::Overrun => self.ours = our_devices(&mut self.netlink)?,
                    _ => {}
                }
                if self.pending == EVERYTHING {
                    continue;
                }
                let concern = scope.concern(&event, &self.ours);
                self.pending.uplink |= concern.uplink;
                self.pending.datapath |= concern.datapath;
            }
        }
        guard.clear_ready();
        Ok(())
    }
}

fn our_devices(netlink: &mut Netlink) -> kernel::Result<BTreeSet<u32>> {
    let links = netlink.links()?;
    Ok(links
        .iter()
        .filter(|link| is_ours(link))
        .map(|link| link.index)
        .collect())
}

/// Asks the kernel rather than the last read: a datagram may hold only messages we do not know.
fn readable(monitor: &Monitor) -> nix::Result<bool> {
    let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests;
