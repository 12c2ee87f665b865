//! Masquerade and forward rules: the seam both firewall modes implement.

mod iptables;
mod nft;
mod rules;

use ipnet::IpNet;

use crate::backend::Report;
use crate::cli::Options;
use crate::config::NetworkConfig;
use crate::lease::Subnet;

/// What the rules must express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// One entry per family the network has.
    pub families: Vec<FamilyNets>,
    /// `--ip-masq`.
    pub masquerade: bool,
    /// Inverse of `--ip-masq-fully-random-disable`.
    pub fully_random: bool,
    /// `--iptables-forward-rules` (both modes).
    pub forward: bool,
}

impl Wanted {
    /// What the options ask for in these networks.
    pub fn new(config: &NetworkConfig, own: &Subnet, options: &Options) -> Self {
        let nets = own.nets();
        let family = |subnet: IpNet| {
            let same = |network: &IpNet| network.addr().is_ipv4() == subnet.addr().is_ipv4();
            config
                .networks()
                .into_iter()
                .find(same)
                .map(|network| FamilyNets { network, subnet })
        };
        Self {
            families: nets.filter_map(family).collect(),
            masquerade: options.masquerade,
            fully_random: options.fully_random,
            forward: options.forward,
        }
    }
}

/// One family's networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyNets {
    /// The whole network (C).
    pub network: IpNet,
    /// This node's subnet (P).
    pub subnet: IpNet,
}

/// One firewall mode. Called on the same thread as the backend; may block.
pub trait Firewall: Send {
    /// What [`Firewall::reconcile`] would do, one printable command a line.
    fn plan(&mut self, wanted: &Wanted) -> anyhow::Result<Vec<String>>;

    /// Brings the rules to what is wanted without flushing a working path, and removes what the
    /// other mode left. `thorough` is false for the frequent `--iptables-resync` tick, which may use
    /// a cheap check first.
    fn reconcile(&mut self, wanted: &Wanted, thorough: bool) -> Report;

    /// Removes every rule, chain and table either mode ever made.
    fn cleanup(&mut self) -> Report;
}

/// The mode that the network configuration asks for.
pub fn build(nftables: bool) -> Box<dyn Firewall> {
    if nftables {
        Box::new(nft::NftMode::default())
    } else {
        Box::new(iptables::IptablesMode::default())
    }
}
