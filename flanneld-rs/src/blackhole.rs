//! `--ip-blackhole-route`: traffic for unused addresses of the node's own subnet is dropped here
//! rather than sent back out by the default route.
//!
//! The route has the worst possible metric, so the bridge's own route for the same subnet wins.

use ipnet::IpNet;
use kernel::{Change, Netlink, Route, RouteFilter, RouteKind};

use crate::backend::Report;
use crate::lease::Subnet;

/// Keeps the route.
pub struct Blackhole {
    netlink: Netlink,
    network: Vec<IpNet>,
}

impl Blackhole {
    /// For these networks. Nothing is made yet.
    pub fn open(network: Vec<IpNet>) -> kernel::Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
            network,
        })
    }

    /// The changes that leave exactly one blackhole route for each part of `own`.
    pub fn plan(&mut self, own: Option<&Subnet>) -> kernel::Result<Vec<Change>> {
        let filter = RouteFilter {
            table: Some(Route::TABLE_MAIN),
            ..RouteFilter::default()
        };
        let present = self.netlink.routes(filter)?;
        let ours = |route: &&Route| {
            route.kind == RouteKind::Blackhole
                && route.priority == Some(u32::MAX)
                && self
                    .network
                    .iter()
                    .any(|network| network.contains(&route.dst))
        };
        let wanted: Vec<IpNet> = own.into_iter().flat_map(Subnet::nets).collect();
        let stale = present
            .iter()
            .filter(ours)
            .filter(|route| !wanted.contains(&route.dst));
        let mut changes: Vec<Change> = stale
            .map(|route| Change::DeleteRoute(route.clone()))
            .collect();
        for dst in wanted {
            if !present.iter().filter(ours).any(|route| route.dst == dst) {
                let route = Route {
                    kind: RouteKind::Blackhole,
                    priority: Some(u32::MAX),
                    ..Route::new(dst)
                };
                changes.push(Change::AddRoute(route));
            }
        }
        Ok(changes)
    }

    /// Brings the kernel to it.
    pub fn reconcile(&mut self, own: &Subnet) -> Report {
        self.apply(Some(own))
    }

    /// Removes every route it made.
    pub fn cleanup(&mut self) -> Report {
        self.apply(None)
    }

    fn apply(&mut self, own: Option<&Subnet>) -> Report {
        let mut report = Report::default();
        match self.plan(own) {
            Ok(changes) => {
                for change in changes {
                    match self.netlink.apply(&change) {
                        Ok(()) => report.changed("blackhole route", || change.to_string()),
                        Err(error) => report.failed(error),
                    }
                }
            }
            Err(error) => report.failed(error),
        }
        report
    }
}
