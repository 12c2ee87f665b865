//! Endpoints: which of a Service's, their names, their addresses and ports.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};

use super::{Leads, Question, Wanted, is_wanted};
use crate::zone::store::{Held, Host};
use crate::zone::{Found, labels, records};

/// What stands before the name of a Service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::zone) enum Label<'a> {
    /// Nothing: the Service itself.
    Service,
    /// The host name of an endpoint.
    Named(&'a str),
    /// A dashed address: of an endpoint that has no host name, or as a host name.
    Dashed(IpAddr),
}

impl<'a> Label<'a> {
    /// Of an endpoint.
    pub(in crate::zone) fn of(host: &'a Host) -> Self {
        match &host.hostname {
            Some(name) => labels::spelt(name).map_or(Self::Named(name), Self::Dashed),
            None => Self::Dashed(host.address),
        }
    }

    /// The whole name, given the Service's; `None` if it is longer than a name may be.
    pub(in crate::zone) fn before(self, service: &Name) -> Option<Name> {
        match self {
            Self::Service => Some(service.clone()),
            Self::Named(name) => records::below([name.as_bytes()], service),
            Self::Dashed(ip) => records::below([labels::dash(ip).as_bytes()], service),
        }
    }
}

/// Which endpoints of a Service.
pub(super) enum Which<'a> {
    All,
    Named {
        label: &'a str,
        /// The address that the label spells, if any.
        spelt: Option<IpAddr>,
    },
}

impl<'a> Which<'a> {
    pub(super) fn named(label: &'a str) -> Self {
        Self::Named {
            label,
            spelt: labels::spelt(label),
        }
    }

    /// Those of a slice, ready or not.
    fn of<'s>(&self, slice: &'s Held) -> impl Iterator<Item = &'s Host> + use<'s> {
        let (some, others) = match *self {
            Self::All => (&*slice.hosts, [].as_slice()),
            Self::Named { label, spelt } => {
                let unnamed = spelt.map(|ip| slice.unnamed(ip));
                (slice.named(label), unnamed.unwrap_or_default())
            }
        };
        some.iter().chain(others)
    }
}

impl<'a> Question<'a> {
    /// The name of one endpoint, or of a headless Service; of the Service without the first labels, `below` many.
    pub(super) fn endpoints(&self, below: usize, which: &Which<'_>) -> Found {
        if self.kind == RecordType::SRV {
            let leads = self.endpoint_ports(which, None);
            return match leads.addresses.is_empty() {
                true => Found::NoName,
                false => self.ports(below, leads),
            };
        }
        let mut ips = Vec::new();
        for slice in self.zone.store.slices_of(self.entry) {
            let hosts = which.of(slice).filter(|host| self.front.takes(host));
            ips.extend(hosts.map(|host| host.address));
        }
        match ips.is_empty() {
            true => Found::NoName,
            false => records::addresses(self.asked, self.kind, self.ttl(), ips),
        }
    }

    /// The endpoints that have a wanted port; without one, all, with their ports.
    pub(super) fn endpoint_ports(
        &self,
        which: &Which<'_>,
        wanted: Option<&Wanted<'_>>,
    ) -> Leads<'a> {
        let mut leads = Leads::default();
        for slice in self.zone.store.slices_of(self.entry) {
            let ports = || slice.ports.iter().filter(|port| is_wanted(port, wanted));
            if wanted.is_some() && ports().next().is_none() {
                continue;
            }
            for host in which.of(slice).filter(|host| self.front.takes(host)) {
                let label = Label::of(host);
                leads
                    .targets
                    .extend(ports().map(|port| (label, port.number)));
                leads.addresses.push((label, host.address));
            }
        }
        leads
    }
}
