//! The node's own addresses, followed as they change.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kernel::Netlink;
use kernel::monitor::{Group, Monitor};
use tokio::io::unix::AsyncFd;

use crate::config::{self, Checked, ModeName, Surroundings};
use crate::model::{Family, NodeInfo, Site};
use crate::settings;

/// What is around us on the node.
pub struct Neighbourhood {
    netlink: Netlink,
    monitor: AsyncFd<Monitor>,
    addresses: Vec<IpAddr>,
    /// Where the default routes lead out: what a node without a Node object calls its own.
    primary: Vec<IpAddr>,
    conntrack_liberal: bool,
}

impl Neighbourhood {
    /// Looks, and listens from then on, in the calling thread's network namespace.
    pub fn observe(checked: &Checked) -> anyhow::Result<Self> {
        #[allow(
            deprecated,
            reason = "the successor is unsafe because of sources that do not own their descriptor; this one does"
        )]
        let monitor = AsyncFd::new(Monitor::open(&[Group::Ipv4Address, Group::Ipv6Address])?)?;
        let mut new = Self {
            netlink: Netlink::open()?,
            monitor,
            addresses: Vec::new(),
            primary: Vec::new(),
            conntrack_liberal: settings::conntrack_is_liberal() || checked.conntrack.tcp_be_liberal,
        };
        new.look()?;
        Ok(new)
    }

    fn look(&mut self) -> anyhow::Result<bool> {
        let found = self.netlink.addresses(None)?;
        let mut addresses: Vec<IpAddr> = found
            .iter()
            .map(|address| address.net.addr())
            .filter(|ip| !is_link_local(*ip))
            .collect();
        addresses.sort();
        addresses.dedup();
        let routes = self.netlink.routes(kernel::RouteFilter::default())?;
        let uplinks: BTreeSet<u32> = routes
            .iter()
            .filter(|route| route.dst.prefix_len() == 0)
            .filter_map(|route| route.dev)
            .collect();
        let global = |address: &&kernel::Address| {
            !is_link_local(address.net.addr()) && !address.net.addr().is_loopback()
        };
        let mut primary: Vec<IpAddr> = Vec::new();
        for family in Family::ALL {
            let own = found.iter().filter(global);
            let of_family: Vec<_> = own
                .filter(|address| Family::of(address.net.addr()) == family)
                .collect();
            let uplink = of_family
                .iter()
                .find(|address| uplinks.contains(&address.dev));
            let best = uplink.or(of_family.first());
            primary.extend(best.map(|address| address.net.addr()));
        }
        let changed = self.addresses != addresses || self.primary != primary;
        self.addresses = addresses;
        self.primary = primary;
        Ok(changed)
    }

    /// Waits for news of addresses; whether they have really changed.
    pub async fn changed(&mut self) -> anyhow::Result<bool> {
        {
            let mut guard = self.monitor.readable_mut().await?;
            while !guard.get_inner_mut().events()?.is_empty() {}
            guard.clear_ready();
        }
        self.look()
    }

    /// All addresses but link-local ones.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.addresses.iter().copied().collect()
    }

    /// The node's primary address, IPv4 first.
    pub fn primary(&self, checked: &Checked, node: Option<&NodeInfo>) -> Option<IpAddr> {
        let own = self.node(node);
        let of = |family| config::primary_address(checked, Some(&own), family);
        of(Family::V4).or_else(|| of(Family::V6))
    }

    /// The Node object, or what stands in for it where there is none.
    fn node(&self, node: Option<&NodeInfo>) -> NodeInfo {
        let mut node = node.cloned().unwrap_or_default();
        if node.addresses.is_empty() {
            node.addresses.clone_from(&self.primary);
        }
        node
    }

    /// What all Services of a family have in common here.
    pub fn site(
        &self,
        checked: &Checked,
        mode: ModeName,
        node: Option<&NodeInfo>,
        family: Family,
    ) -> Site {
        let node = self.node(node);
        let around = Surroundings {
            node: Some(&node),
            local_addresses: &self.addresses,
            service_cidrs: &[],
            conntrack_liberal: self.conntrack_liberal,
        };
        config::site(checked, mode, &around, family)
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
