//! Links on the wire: RTM_{NEW,DEL,GET,SET}LINK.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData,
        InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan, LinkAttribute, LinkExtentMask,
        LinkFlags, LinkInfo, LinkMessage,
    },
};

use super::Netlink;
use crate::{
    BridgePort, BridgeVlan, Change, Error, Link, LinkKind, Mac, NewLink, NewLinkKind, Result,
    SetLink, Vxlan,
};

impl Netlink {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(skip_statistics());
        self.dump(
            "links",
            &RouteNetlinkMessage::GetLink(message),
            |message| match message {
                RouteNetlinkMessage::NewLink(link) => parse(link),
                _ => None,
            },
        )
    }

    /// The link of that name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(skip_statistics());
        self.get_link(message)
            .map_err(|cause| Error::new(format!("look up link {name}"), cause))
    }

    /// The link of that index, if there is one.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        let mut message = by_index(index);
        message.attributes.push(skip_statistics());
        self.get_link(message)
            .map_err(|cause| Error::new(format!("look up link #{index}"), cause))
    }

    /// Whether the link has a carrier (IFLA_CARRIER), be it up or down: of a TUN device, whether any process holds a
    /// queue of it. Unlike [`Link::running`] never late. A link that is not there has none.
    pub fn has_carrier(&mut self, index: u32) -> Result<bool> {
        let mut message = by_index(index);
        message.attributes.push(skip_statistics());
        let found = (self.get(RouteNetlinkMessage::GetLink(message)))
            .map_err(|cause| Error::new(format!("look up the carrier of link #{index}"), cause))?;
        let attributes = match found {
            Some(RouteNetlinkMessage::NewLink(link)) => link.attributes,
            _ => Vec::new(),
        };
        Ok((attributes.iter())
            .any(|attribute| matches!(attribute, LinkAttribute::Carrier(on) if *on != 0)))
    }

    /// The link of that name; its absence is an error.
    pub fn expect_link(&mut self, name: &str) -> Result<Link> {
        self.link(name)?.ok_or_else(|| {
            Error::new(
                format!("look up link {name}"),
                io::Error::from_raw_os_error(libc::ENODEV),
            )
        })
    }

    /// Brings a link up if it is down; says whether it was.
    pub fn ensure_up(&mut self, link: &Link) -> Result<bool> {
        if link.up {
            return Ok(false);
        }
        self.apply(&Change::SetLink(SetLink {
            index: link.index,
            up: Some(true),
            ..SetLink::default()
        }))?;
        Ok(true)
    }

    /// Makes a link unless one of that name is there; returns it and whether it was made.
    /// It does not compare an existing link's options: that is the planner's part.
    pub fn ensure_link(&mut self, new: &NewLink) -> Result<(Link, bool)> {
        if let Some(link) = self.link(&new.name)? {
            return Ok((link, false));
        }
        let made = match self.apply(&Change::AddLink(new.clone())) {
            Ok(()) => true,
            // Another process was quicker between the look and the leap.
            Err(error) if error.is_exists() => false,
            Err(error) => return Err(error),
        };
        Ok((self.expect_link(&new.name)?, made))
    }

    /// The VLANs of a bridge port (or of a bridge).
    pub fn bridge_vlans(&mut self, dev: u32) -> Result<Vec<BridgeVlan>> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
        let message = RouteNetlinkMessage::GetLink(message);
        let found = self.dump("bridge vlans", &message, |message| match message {
            RouteNetlinkMessage::NewLink(link) if link.header.index == dev => Some(vlans(&link)),
            _ => None,
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    fn get_link(&mut self, message: LinkMessage) -> io::Result<Option<Link>> {
        Ok(match self.get(RouteNetlinkMessage::GetLink(message))? {
            Some(RouteNetlinkMessage::NewLink(link)) => parse(link),
            _ => None,
        })
    }
}

fn skip_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

pub(super) fn by_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

pub(super) fn add(new: &NewLink) -> LinkMessage {
    let mut message = LinkMessage::default();
    if new.up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    let attributes = &mut message.attributes;
    if !new.name.is_empty() {
        attributes.push(LinkAttribute::IfName(new.name.clone()));
    }
    if let Some(mtu) = new.mtu.filter(|mtu| *mtu != 0) {
        attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(mac) = new.mac {
        attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(master) = new.master {
        attributes.push(LinkAttribute::Controller(master));
    }
    if let Some(length) = new.txqlen {
        attributes.push(LinkAttribute::TxQueueLen(length));
    }
    if let Some(fd) = new.netns {
        attributes.push(LinkAttribute::NetNsFd(fd));
    }
    let info = match &new.kind {
        NewLinkKind::Plain => return message,
        NewLinkKind::Bridge { vlan_filtering } => {
            let options = vlan_filtering.map(InfoBridge::VlanFiltering);
            (
                InfoKind::Bridge,
                InfoData::Bridge(options.into_iter().collect()),
            )
        }
        NewLinkKind::Veth { peer } => (
            InfoKind::Veth,
            InfoData::Veth(InfoVeth::Peer(add(&NewLink {
                kind: NewLinkKind::Plain,
                ..NewLink::clone(peer)
            }))),
        ),
        NewLinkKind::Vxlan(vxlan) => {
            if let Some(parent) = vxlan.parent {
                attributes.push(LinkAttribute::Link(parent));
            }
            (InfoKind::Vxlan, InfoData::Vxlan(vxlan_options(vxlan)))
        }
        NewLinkKind::Other(kind) => {
            let kind = LinkInfo::Kind(InfoKind::Other(kind.clone()));
            attributes.push(LinkAttribute::LinkInfo(vec![kind]));
            return message;
        }
    };
    attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(info.0),
        LinkInfo::Data(info.1),
    ]));
    message
}

fn vxlan_options(vxlan: &Vxlan) -> Vec<InfoVxlan> {
    let mut options = vec![
        InfoVxlan::Id(vxlan.vni),
        InfoVxlan::Learning(vxlan.learning),
        InfoVxlan::L2Miss(vxlan.l2miss),
        InfoVxlan::L3Miss(vxlan.l3miss),
        InfoVxlan::Port(vxlan.port),
    ];
    options.extend(vxlan.parent.map(InfoVxlan::Link));
    options.extend(vxlan.local.map(local));
    if vxlan.gbp {
        options.push(InfoVxlan::Gbp);
    }
    options
}

fn local(ip: IpAddr) -> InfoVxlan {
    match ip {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    }
}

pub(super) fn set(set: &SetLink) -> LinkMessage {
    let mut message = by_index(set.index);
    for (wanted, flag) in [(set.up, LinkFlags::Up), (set.promisc, LinkFlags::Promisc)] {
        if let Some(on) = wanted {
            message.header.change_mask |= flag;
            if on {
                message.header.flags |= flag;
            }
        }
    }
    let attributes = &mut message.attributes;
    if let Some(name) = &set.rename {
        attributes.push(LinkAttribute::IfName(name.clone()));
    }
    if let Some(mtu) = set.mtu {
        attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(mac) = set.mac {
        attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(master) = set.master {
        attributes.push(LinkAttribute::Controller(master));
    }
    if let Some(fd) = set.netns {
        attributes.push(LinkAttribute::NetNsFd(fd));
    }
    let port: Vec<InfoBridgePort> = [
        set.hairpin.map(InfoBridgePort::HairpinMode),
        set.isolated.map(InfoBridgePort::Isolated),
        set.learning.map(InfoBridgePort::Learning),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !port.is_empty() {
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(port)),
        ]));
    }
    let vxlan: Vec<InfoVxlan> = [
        set.vxlan_learning.map(InfoVxlan::Learning),
        set.vxlan_local.map(local),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !vxlan.is_empty() {
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vxlan)),
        ]));
    }
    message
}

pub(super) fn bridge_vlan(dev: u32, vlan: BridgeVlan, on_bridge: bool) -> LinkMessage {
    let mut message = by_index(dev);
    message.header.interface_family = AddressFamily::Bridge;
    let mut flags = BridgeVlanInfoFlags::empty();
    flags.set(BridgeVlanInfoFlags::Pvid, vlan.pvid);
    flags.set(BridgeVlanInfoFlags::Untagged, vlan.untagged);
    let mut spec = Vec::new();
    if on_bridge {
        // BRIDGE_FLAGS_SELF: the bridge device itself and not its master.
        spec.push(AfSpecBridge::Flags(
            netlink_packet_route::link::BridgeFlag::LowerDev,
        ));
    }
    spec.push(AfSpecBridge::VlanInfo(BridgeVlanInfo {
        flags,
        vid: vlan.vid,
    }));
    message.attributes.push(LinkAttribute::AfSpecBridge(spec));
    message
}

fn vlans(message: &LinkMessage) -> Vec<BridgeVlan> {
    let specs = message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::AfSpecBridge(specs) => Some(specs),
            _ => None,
        });
    specs
        .flatten()
        .filter_map(|spec| match spec {
            AfSpecBridge::VlanInfo(info) => Some(BridgeVlan {
                vid: info.vid,
                pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
                untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
            }),
            _ => None,
        })
        .collect()
}

/// `None` for a message without a name, which no kernel sends for a real link.
pub(crate) fn parse(message: LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        loopback: flags.contains(LinkFlags::Loopback),
        promisc: flags.contains(LinkFlags::Promisc),
        master: None,
        parent: None,
        parent_netns: None,
        txqlen: 0,
        kind: LinkKind::Plain,
        port: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.parent = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.parent_netns = Some(id),
            LinkAttribute::TxQueueLen(length) => link.txqlen = length,
            LinkAttribute::LinkInfo(infos) => parse_info(&mut link, infos),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn parse_info(link: &mut Link, infos: Vec<LinkInfo>) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => {
                link.kind = LinkKind::Bridge {
                    vlan_filtering: false,
                }
            }
            LinkInfo::Kind(InfoKind::Veth) => link.kind = LinkKind::Veth,
            LinkInfo::Kind(InfoKind::Tun) => link.kind = LinkKind::Tun,
            LinkInfo::Kind(InfoKind::Vxlan) => link.kind = LinkKind::Vxlan(Vxlan::default()),
            LinkInfo::Kind(kind) => link.kind = LinkKind::Other(kind.to_string()),
            LinkInfo::Data(InfoData::Bridge(options)) => {
                let vlan_filtering = options.contains(&InfoBridge::VlanFiltering(true));
                link.kind = LinkKind::Bridge { vlan_filtering };
            }
            LinkInfo::Data(InfoData::Vxlan(options)) => {
                link.kind = LinkKind::Vxlan(parse_vxlan(options));
            }
            LinkInfo::PortData(InfoPortData::BridgePort(options)) => {
                let mut port = BridgePort::default();
                for option in options {
                    match option {
                        InfoBridgePort::HairpinMode(on) => port.hairpin = on,
                        InfoBridgePort::Isolated(on) => port.isolated = on,
                        InfoBridgePort::Learning(on) => port.learning = on,
                        _ => {}
                    }
                }
                link.port = Some(port);
            }
            _ => {}
        }
    }
}

fn parse_vxlan(options: Vec<InfoVxlan>) -> Vxlan {
    let mut vxlan = Vxlan::default();
    for option in options {
        match option {
            InfoVxlan::Id(vni) => vxlan.vni = vni,
            InfoVxlan::Port(port) => vxlan.port = port,
            InfoVxlan::Link(index) => vxlan.parent = Some(index),
            InfoVxlan::Local(ip) => vxlan.local = Some(ip.into()),
            InfoVxlan::Local6(ip) => vxlan.local = Some(ip.into()),
            InfoVxlan::Learning(on) => vxlan.learning = on,
            InfoVxlan::L2Miss(on) => vxlan.l2miss = on,
            InfoVxlan::L3Miss(on) => vxlan.l3miss = on,
            InfoVxlan::Gbp => vxlan.gbp = true,
            _ => {}
        }
    }
    vxlan
}
