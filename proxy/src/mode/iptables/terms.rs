//! What the rules of all Services of a family are written with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::{Family, LocalDetector, NodePortAddresses, PortName, Site};

use super::{
    names::{Chain, Fixed, Place},
    rule::Rules,
};

/// Matches and options that old programs or kernels lack. Without `statistic` there is no balancing
/// and so no mode; each of these can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// `-m comment`.
    pub comment: bool,
    /// `-m recent`: without it there is no session affinity.
    pub recent: bool,
    /// `MASQUERADE --random-fully`: without it ports of masqueraded connections may clash more.
    pub random_fully: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            comment: true,
            recent: true,
            random_fully: true,
        }
    }
}

/// The common part of all rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) site: Site,
    pub(super) parts: Parts,
    /// At most so many endpoints of a list are used; see [`super::Options::endpoint_limit`].
    pub(super) endpoint_limit: usize,
    /// There are so many endpoints that their rules go without comments, as kube-proxy's.
    pub(super) large: bool,
}

/// Which packets come from Pods of this cluster, as the matches that say so.
pub(super) enum Local<'a> {
    Unknown,
    Nets(Vec<IpNet>),
    Interface(&'a str, &'static str),
}

/// Above so many endpoints kube-proxy, too, leaves their comments out.
pub(super) const LARGE: usize = 1000;

impl Terms {
    pub(super) fn family(&self) -> Family {
        self.site.family
    }

    /// A comment, where they are to be had.
    pub(super) fn comment<'a>(
        &self,
        text: std::fmt::Arguments<'a>,
    ) -> Option<std::fmt::Arguments<'a>> {
        self.parts.comment.then_some(text)
    }

    /// A comment on a rule that there is for every endpoint.
    pub(super) fn endpoint_comment<'a>(
        &self,
        text: std::fmt::Arguments<'a>,
    ) -> Option<std::fmt::Arguments<'a>> {
        if self.large { None } else { self.comment(text) }
    }

    fn local(&self) -> Local<'_> {
        match &self.site.local {
            LocalDetector::None => Local::Unknown,
            LocalDetector::Cidrs(nets) => {
                let nets: Vec<_> = nets
                    .iter()
                    .filter(|net| Family::of_net(net) == self.family())
                    .map(IpNet::trunc)
                    .collect();
                match nets.iter().find(|net| net.prefix_len() == 0) {
                    _ if nets.is_empty() => Local::Unknown,
                    Some(all) => Local::Nets(vec![*all]),
                    None => Local::Nets(nets),
                }
            }
            LocalDetector::Interface(name) => Local::Interface(name, ""),
            LocalDetector::InterfacePrefix(prefix) => Local::Interface(prefix, "+"),
        }
    }

    /// Writes what masquerades connections to a cluster IP: all, or those that do not come from a Pod
    /// of this cluster.
    pub(super) fn masquerade_internal(
        &self,
        rules: &mut Rules,
        port: &PortName,
        (ip, number): (IpAddr, u16),
    ) {
        let (mut net, mut interface, mut target) = (None, None, Fixed::MarkMasq);
        if !self.site.masquerade_all {
            match self.local() {
                Local::Unknown => return,
                Local::Nets(nets) => match nets[..] {
                    // Nothing is off the cluster; iptables-nft refuses a rule that says so.
                    [all] if all.prefix_len() == 0 => return,
                    [one] => net = Some(one),
                    _ => target = Fixed::OffCluster,
                },
                Local::Interface(name, plus) => interface = Some(format!("{name}{plus}")),
            }
        }
        let mut rule = rules.rule();
        if let Some(net) = net {
            rule = rule.not_source(net);
        }
        rule = rule.destination(ip);
        if let Some(interface) = interface {
            rule = rule.not_interface(&interface);
        }
        rule.protocol(port.protocol)
            .comment(self.comment(format_args!("{port} cluster IP")))
            .port(Some(number))
            .jump(target.name());
    }

    /// Writes a jump of packets that come from a Pod of this cluster.
    pub(super) fn jump_if_local(
        &self,
        rules: &mut Rules,
        comment: std::fmt::Arguments<'_>,
        target: impl std::fmt::Display,
    ) {
        match self.local() {
            Local::Unknown => {}
            Local::Nets(nets) => {
                for net in nets {
                    rules
                        .rule()
                        .source(net)
                        .comment(self.comment(comment))
                        .jump(&target);
                }
            }
            Local::Interface(name, plus) => rules
                .rule()
                .interface(&format!("{name}{plus}"))
                .comment(self.comment(comment))
                .jump(&target),
        }
    }

    /// The chains that no Service has a part in.
    pub(super) fn fixed(&self) -> Vec<(Chain, Rules)> {
        let mark = self.site.masquerade_mark;
        let mut mark_masq = Rules::default();
        mark_masq
            .rule()
            .jump(format_args!("MARK --set-xmark {mark:#x}/{mark:#x}"));

        let mut postrouting = Rules::default();
        postrouting
            .rule()
            .matching(format_args!("-m mark ! --mark {mark:#x}/{mark:#x}"))
            .jump("RETURN");
        // Cleared, so that a packet that passes the stack again is not masqueraded again.
        postrouting
            .rule()
            .jump(format_args!("MARK --set-xmark {mark:#x}/0x0"));
        postrouting
            .rule()
            .comment(self.comment(format_args!("kubernetes service traffic requiring SNAT")))
            .jump(if self.parts.random_fully {
                "MASQUERADE --random-fully"
            } else {
                "MASQUERADE"
            });

        let mut forward = Rules::default();
        if !self.site.conntrack_liberal {
            forward
                .rule()
                .matching(format_args!("-m conntrack --ctstate INVALID"))
                .jump("DROP");
        }
        forward
            .rule()
            .comment(self.comment(format_args!("kubernetes forwarding rules")))
            .matching(format_args!("-m mark --mark {mark:#x}/{mark:#x}"))
            .jump("ACCEPT");
        forward
            .rule()
            .comment(self.comment(format_args!("kubernetes forwarding conntrack rule")))
            .matching(format_args!("-m conntrack --ctstate RELATED,ESTABLISHED"))
            .jump("ACCEPT");

        let mut chains = vec![
            (Chain::Fixed(Fixed::MarkMasq), mark_masq),
            (Chain::Fixed(Fixed::Postrouting), postrouting),
            (Chain::Fixed(Fixed::Forward), forward),
        ];
        if let Local::Nets(nets) = self.local()
            && nets.len() > 1
        {
            let mut off_cluster = Rules::default();
            for net in nets {
                off_cluster.rule().source(net).jump("RETURN");
            }
            off_cluster.rule().jump(Fixed::MarkMasq.name());
            chains.push((Chain::Fixed(Fixed::OffCluster), off_cluster));
        }
        chains
    }

    /// The end of the chain of all addresses: what is for a node's own address may be for a node
    /// port.
    pub(super) fn node_port_tail(&self) -> Rules {
        const COMMENT: &str =
            "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
        let mut rules = Rules::default();
        let answers_on_loopback = self.localhost_node_ports();
        let target = Place::NatNodePorts.name();
        match &self.site.node_port_addresses {
            NodePortAddresses::All => {
                let rule = rules.rule();
                let rule = if answers_on_loopback {
                    rule
                } else {
                    rule.not_destination(loopback(self.family()))
                };
                rule.comment(self.comment(format_args!("{COMMENT}")))
                    .destination_local()
                    .jump(target);
            }
            NodePortAddresses::Some(addresses) => {
                for ip in addresses
                    .iter()
                    .filter(|ip| Family::of(**ip) == self.family())
                    .filter(|ip| answers_on_loopback || !ip.is_loopback())
                {
                    rules
                        .rule()
                        .destination(*ip)
                        .comment(self.comment(format_args!("{COMMENT}")))
                        .jump(target);
                }
            }
        }
        rules
    }

    /// Node ports answer on loopback, for which the kernel must route what it calls martians.
    pub(super) fn localhost_node_ports(&self) -> bool {
        self.family() == Family::V4 && self.site.localhost_node_ports
    }
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        Family::V6 => IpAddr::from(Ipv6Addr::LOCALHOST).into(),
    }
}
