//! How Pod traffic gets from node to node: the seam every backend implements.
//!
//! Theory. A backend is declarative: given [`Desired`] (the external interface, our own lease, the
//! peers) it makes the kernel so, from whatever it finds. It is called on one thread of its own
//! (`datapath`), never concurrently, and may block. Order of calls:
//!
//! 1. [`Backend::prepare`] once the external interface is known and again whenever it changes,
//!    before the lease is written: it makes what must exist for the announcement to be true (the
//!    VXLAN device and its MAC) and returns the announcement.
//! 2. [`Backend::mtu`], for subnet.env.
//! 3. [`Backend::reconcile`] after the lease is ours, on kernel events and on a slow timer.
//! 4. [`Backend::update`] for each batch of lease changes: only what these changes need.
//!
//! A lost or re-acquired lease, possibly with another subnet, simply is another `Desired`.
//! `--dry-run` calls only [`Backend::plan`]; `cleanup` only [`cleanup`].

pub mod alloc;
mod apply;
pub mod extension;
pub mod host_gw;
mod peer_routes;
mod report;
pub mod traffic;
pub mod udp;
pub mod vxlan;

use crate::config::{BackendConfig, NetworkConfig};
use crate::lease::{BackendData, Lease};
use crate::peers::{PeerChange, Peers};
use crate::uplink::Uplink;

pub use report::Report;
pub use traffic::Traffic;

/// Everything a backend must make true.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The external interface.
    pub uplink: Uplink,
    /// Our own lease.
    pub own: Lease,
    /// The other nodes; only leases of [`Backend::peer_types`], ours left out.
    pub peers: Peers,
}

/// What a backend announces through the lease. An empty `backend_type` is left out of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// `BackendType`.
    pub backend_type: &'static str,
    /// `BackendData`.
    pub data: Option<BackendData>,
    /// `BackendV6Data`.
    pub data_v6: Option<BackendData>,
}

/// One way to join the nodes. See the module text for the order of calls.
pub trait Backend: Send {
    /// The `BackendType`s of peers that this backend can reach.
    fn peer_types(&self) -> &'static [&'static str];

    /// Makes what the announcement depends on and returns the announcement. `previous` is our own
    /// lease as found in the store, so that a MAC or key can live on after a reboot.
    fn prepare(
        &mut self,
        uplink: &Uplink,
        previous: Option<&Lease>,
    ) -> anyhow::Result<Announcement>;

    /// The announcement as of now; the daemon compares it with the lease after every reconcile and
    /// publishes again when it differs.
    fn announcement(&self) -> Announcement;

    /// MTU for Pods on this external interface, right for both families.
    fn mtu(&self, uplink: &Uplink) -> u32;

    /// What [`Backend::reconcile`] would do, one printable command a line. Touches nothing, and
    /// works without [`Backend::prepare`].
    fn plan(&mut self, desired: &Desired) -> anyhow::Result<Vec<String>>;

    /// Compares the whole kernel state with `desired` and mends it: adds, replaces, removes stale.
    /// Goes on past errors and reports them.
    fn reconcile(&mut self, desired: &Desired) -> Report;

    /// Carries out `changes` only, quickly; `desired` already has them.
    fn update(&mut self, desired: &Desired, changes: &[PeerChange]) -> Report;

    /// Who carries packets and counts them; `None` when the kernel alone does. Asked for after every
    /// call of the above; what it hands out is read at every scrape of `/metrics`.
    fn traffic(&self) -> Option<Traffic> {
        None
    }

    /// Something of ours that carries packets has ended by itself, which no kernel event tells: a reconcile
    /// mends it. Asked for at every check of the firewall rules.
    fn has_ended(&self) -> bool {
        false
    }

    /// Orderly stop of the daemon; what must outlive it (devices, routes) is left alone.
    fn stop(&mut self) {}

    /// Removes everything this backend ever made on this host.
    fn cleanup(&mut self) -> Report;
}

/// Why a peer's lease cannot be used although its backend is ours: what it announces is garbage.
pub fn unusable(lease: &Lease) -> Option<String> {
    match lease.attrs.backend_type.as_str() {
        vxlan::NAME => vxlan::unusable(lease),
        _ => None,
    }
}

/// Removes everything that a daemon with this configuration may have made on this host. What vxlan makes
/// is known by name: a node may have run on another data path than the configuration's, one that
/// [`build`] would refuse.
pub fn cleanup(config: &NetworkConfig) -> anyhow::Result<Report> {
    match &config.backend {
        BackendConfig::Vxlan(vxlan) => Ok(vxlan::cleanup(vxlan.vni)?),
        _ => Ok(build(config)?.cleanup()),
    }
}

/// Makes the backend that the network configuration asks for.
pub fn build(config: &NetworkConfig) -> anyhow::Result<Box<dyn Backend>> {
    match config.backend.clone() {
        BackendConfig::Alloc => Ok(Box::new(alloc::Alloc)),
        BackendConfig::Extension(commands) => Ok(Box::new(extension::Extension::new(
            config,
            commands.clone(),
        ))),
        BackendConfig::Vxlan(vxlan) => vxlan::build(config, vxlan),
        BackendConfig::HostGw => Ok(Box::new(host_gw::HostGw::new(config)?)),
        BackendConfig::Udp(udp) => Ok(Box::new(udp::Udp::new(config, udp)?)),
    }
}
