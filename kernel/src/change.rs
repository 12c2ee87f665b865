//! The changes that planners ask for, as values that print like the command an operator would type.

use std::{fmt, net::IpAddr, os::fd::RawFd};

use crate::{Address, BridgeVlan, Fdb, Mac, Neigh, Route, RouteKind, Vxlan, scope};

/// One change of the kernel's network state.
///
/// `Display` names links by index (`dev #7`); [`Change::describe`] takes the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make a link; it is an error if the name is taken.
    AddLink(NewLink),
    /// Remove a link.
    DeleteLink {
        /// Its index.
        index: u32,
        /// Its name, for messages.
        name: String,
    },
    /// Change attributes of a link.
    SetLink(SetLink),
    /// Add an address; it is an error if the link has it.
    AddAddress(Address),
    /// Remove an address.
    DeleteAddress(Address),
    /// Add a route; it is an error if there is one of the same destination and metric.
    AddRoute(Route),
    /// Add a route beside others of the same destination and metric: for IPv6 they become one of
    /// several next hops, for IPv4 the new one goes first. It is an error if the very same is there.
    AddRouteBeside(Route),
    /// Add a route or replace the one of the same destination and metric.
    ReplaceRoute(Route),
    /// Remove a route.
    DeleteRoute(Route),
    /// Add or replace a neighbour entry.
    ReplaceNeigh(Neigh),
    /// Remove a neighbour entry.
    DeleteNeigh(Neigh),
    /// Add or replace a device's own forwarding entry.
    ReplaceFdb(Fdb),
    /// Remove a device's own forwarding entry.
    DeleteFdb(Fdb),
    /// Put a bridge port into a VLAN.
    AddBridgeVlan {
        /// Index of the port, or of the bridge with `on_bridge`.
        dev: u32,
        /// The VLAN and how it is tagged.
        vlan: BridgeVlan,
        /// Change the bridge device itself, not a port of it.
        on_bridge: bool,
    },
    /// Take a bridge port out of a VLAN.
    DeleteBridgeVlan {
        /// Index of the port, or of the bridge with `on_bridge`.
        dev: u32,
        /// The VLAN id.
        vid: u16,
        /// Change the bridge device itself, not a port of it.
        on_bridge: bool,
    },
}

/// A link to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLink {
    /// Name, at most 15 bytes; empty lets the kernel choose.
    pub name: String,
    /// What sort.
    pub kind: NewLinkKind,
    /// Layer-3 MTU in bytes; the kernel's default if none.
    pub mtu: Option<u32>,
    /// Hardware address; random if none.
    pub mac: Option<Mac>,
    /// Bring it up at once.
    pub up: bool,
    /// Index of the bridge it joins.
    pub master: Option<u32>,
    /// Transmit queue length in packets.
    pub txqlen: Option<u32>,
    /// Make it in the namespace behind this file descriptor.
    pub netns: Option<RawFd>,
}

/// The sort of a link to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewLinkKind {
    /// A software bridge.
    Bridge {
        /// Set VLAN filtering; untouched if none.
        vlan_filtering: Option<bool>,
    },
    /// A veth pair; `peer` describes the other end.
    Veth {
        /// The other end (its own `kind` is not looked at). It cannot be made up: the kernel opens
        /// it before the pair is joined; bring it up by a second change.
        peer: Box<NewLink>,
    },
    /// A VXLAN tunnel end.
    Vxlan(Vxlan),
    /// The other end of a veth pair, or a device of no options.
    Plain,
    /// Any other kind, by the kernel's name and without options.
    Other(String),
}

impl NewLink {
    /// A link of this name and kind; all else as the kernel does it.
    pub fn new(name: impl Into<String>, kind: NewLinkKind) -> Self {
        Self {
            name: name.into(),
            kind,
            mtu: None,
            mac: None,
            up: false,
            master: None,
            txqlen: None,
            netns: None,
        }
    }
}

/// Attributes of a link to be changed; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetLink {
    /// Index of the link.
    pub index: u32,
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Promiscuous mode.
    pub promisc: Option<bool>,
    /// Layer-3 MTU in bytes.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Index of the bridge to join; 0 leaves the present one.
    pub master: Option<u32>,
    /// A new name.
    pub rename: Option<String>,
    /// Move it into the namespace behind this file descriptor.
    pub netns: Option<RawFd>,
    /// Bridge port: frames may go back out of the port they came in by.
    pub hairpin: Option<bool>,
    /// Bridge port: no frames between isolated ports.
    pub isolated: Option<bool>,
    /// Bridge port: learn source addresses.
    pub learning: Option<bool>,
    /// VXLAN: learn the remote end of inner source addresses.
    pub vxlan_learning: Option<bool>,
    /// VXLAN: outer source address, of the family it had.
    pub vxlan_local: Option<IpAddr>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(&|index| format!("#{index}")))
    }
}

impl Change {
    /// Verb and object, such as `replace route`: few values, fit for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AddLink(_) => "add link",
            Self::DeleteLink { .. } => "delete link",
            Self::SetLink(_) => "set link",
            Self::AddAddress(_) => "add address",
            Self::DeleteAddress(_) => "delete address",
            Self::AddRoute(_) | Self::AddRouteBeside(_) => "add route",
            Self::ReplaceRoute(_) => "replace route",
            Self::DeleteRoute(_) => "delete route",
            Self::ReplaceNeigh(_) => "replace neigh",
            Self::DeleteNeigh(_) => "delete neigh",
            Self::ReplaceFdb(_) => "replace fdb",
            Self::DeleteFdb(_) => "delete fdb",
            Self::AddBridgeVlan { .. } => "add vlan",
            Self::DeleteBridgeVlan { .. } => "delete vlan",
        }
    }

    /// It removes something, so that "not found" means it is done already.
    pub fn is_removal(&self) -> bool {
        matches!(
            self,
            Self::DeleteLink { .. }
                | Self::DeleteAddress(_)
                | Self::DeleteRoute(_)
                | Self::DeleteNeigh(_)
                | Self::DeleteFdb(_)
                | Self::DeleteBridgeVlan { .. }
        )
    }

    /// The change as a command line of ip(8) or bridge(8), links named by `name_of(index)`.
    pub fn describe(&self, name_of: &dyn Fn(u32) -> String) -> String {
        match self {
            Self::AddLink(link) => format!("add link {}", describe_new(link, name_of)),
            Self::DeleteLink { name, .. } => format!("delete link {name}"),
            Self::SetLink(set) => describe_set(set, name_of),
            Self::AddAddress(a) => format!("add address {} dev {}", a.net, name_of(a.dev)),
            Self::DeleteAddress(a) => format!("delete address {} dev {}", a.net, name_of(a.dev)),
            Self::AddRoute(r) | Self::AddRouteBeside(r) => {
                format!("add route {}", describe_route(r, name_of))
            }
            Self::ReplaceRoute(r) => format!("replace route {}", describe_route(r, name_of)),
            Self::DeleteRoute(r) => format!("delete route {}", describe_route(r, name_of)),
            Self::ReplaceNeigh(n) => format!("replace neigh {}", describe_neigh(n, name_of)),
            Self::DeleteNeigh(n) => format!("delete neigh {} dev {}", n.ip, name_of(n.dev)),
            Self::ReplaceFdb(e) => format!("replace fdb {}", describe_fdb(e, name_of)),
            Self::DeleteFdb(e) => format!("delete fdb {}", describe_fdb(e, name_of)),
            Self::AddBridgeVlan { dev, vlan, .. } => {
                let pvid = if vlan.pvid { " pvid" } else { "" };
                let untagged = if vlan.untagged { " untagged" } else { "" };
                format!(
                    "add vlan dev {} vid {}{pvid}{untagged}",
                    name_of(*dev),
                    vlan.vid
                )
            }
            Self::DeleteBridgeVlan { dev, vid, .. } => {
                format!("delete vlan dev {} vid {vid}", name_of(*dev))
            }
        }
    }
}

fn describe_new(link: &NewLink, name_of: &dyn Fn(u32) -> String) -> String {
    let mut text = link.name.clone();
    if let Some(mtu) = link.mtu.filter(|mtu| *mtu != 0) {
        text += &format!(" mtu {mtu}");
    }
    if let Some(mac) = link.mac {
        text += &format!(" address {mac}");
    }
    if let Some(master) = link.master {
        text += &format!(" master {}", name_of(master));
    }
    match &link.kind {
        NewLinkKind::Bridge { .. } => text += " type bridge",
        NewLinkKind::Veth { peer } => text += &format!(" type veth peer {}", peer.name),
        NewLinkKind::Vxlan(vxlan) => {
            text += &format!(" type vxlan id {} dstport {}", vxlan.vni, vxlan.port);
            if let Some(local) = vxlan.local {
                text += &format!(" local {local}");
            }
            if let Some(parent) = vxlan.parent {
                text += &format!(" dev {}", name_of(parent));
            }
        }
        NewLinkKind::Plain => {}
        NewLinkKind::Other(kind) => text += &format!(" type {kind}"),
    }
    text
}

fn describe_set(set: &SetLink, name_of: &dyn Fn(u32) -> String) -> String {
    let on = |flag: bool| if flag { "on" } else { "off" };
    let mut text = format!("set link {}", name_of(set.index));
    let mut push = |part: String| {
        text.push(' ');
        text.push_str(&part);
    };
    if let Some(up) = set.up {
        push(if up { "up" } else { "down" }.to_owned());
    }
    if let Some(promisc) = set.promisc {
        push(format!("promisc {}", on(promisc)));
    }
    if let Some(mtu) = set.mtu {
        push(format!("mtu {mtu}"));
    }
    if let Some(mac) = set.mac {
        push(format!("address {mac}"));
    }
    match set.master {
        Some(0) => push("nomaster".to_owned()),
        Some(master) => push(format!("master {}", name_of(master))),
        None => {}
    }
    if let Some(name) = &set.rename {
        push(format!("name {name}"));
    }
    if set.netns.is_some() {
        push("netns (another)".to_owned());
    }
    if let Some(hairpin) = set.hairpin {
        push(format!("hairpin {}", on(hairpin)));
    }
    if let Some(isolated) = set.isolated {
        push(format!("isolated {}", on(isolated)));
    }
    if let Some(learning) = set.learning.or(set.vxlan_learning) {
        push(format!("learning {}", on(learning)));
    }
    if let Some(local) = set.vxlan_local {
        push(format!("local {local}"));
    }
    text
}

fn describe_route(route: &Route, name_of: &dyn Fn(u32) -> String) -> String {
    let mut text = String::new();
    match route.kind {
        RouteKind::Blackhole => text += "blackhole ",
        RouteKind::Local => text += "local ",
        RouteKind::Unicast | RouteKind::Other(_) => {}
    }
    text += &match route.dst {
        dst if dst.prefix_len() == 0 => match dst.addr() {
            IpAddr::V4(_) => "default".to_owned(),
            IpAddr::V6(_) => "default (IPv6)".to_owned(),
        },
        dst => dst.to_string(),
    };
    if let Some(via) = route.via {
        text += &format!(" via {via}");
    }
    if let Some(dev) = route.dev {
        text += &format!(" dev {}", name_of(dev));
    }
    if route.table != Route::TABLE_MAIN {
        text += &format!(" table {}", route.table);
    }
    if let Some(src) = route.src {
        text += &format!(" src {src}");
    }
    if let Some(metric) = route.priority {
        text += &format!(" metric {metric}");
    }
    match route.scope {
        scope::LINK => text += " scope link",
        scope::HOST => text += " scope host",
        _ => {}
    }
    if !matches!(
        route.protocol,
        Route::PROTOCOL_BOOT | Route::PROTOCOL_KERNEL
    ) {
        text += &format!(" proto {}", route.protocol);
    }
    if route.onlink {
        text += " onlink";
    }
    text
}

fn describe_neigh(neigh: &Neigh, name_of: &dyn Fn(u32) -> String) -> String {
    let mac = neigh
        .mac
        .map(|m| format!(" lladdr {m}"))
        .unwrap_or_default();
    let state = if neigh.permanent {
        " nud permanent"
    } else {
        ""
    };
    format!("{}{mac} dev {}{state}", neigh.ip, name_of(neigh.dev))
}

fn describe_fdb(entry: &Fdb, name_of: &dyn Fn(u32) -> String) -> String {
    let dst = entry.dst.map(|d| format!(" dst {d}")).unwrap_or_default();
    format!("{} dev {}{dst} self", entry.mac, name_of(entry.dev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_like_ip() {
        let route = Route {
            via: Some("10.244.2.0".parse().unwrap()),
            dev: Some(7),
            onlink: true,
            ..Route::new("10.244.2.0/24".parse().unwrap())
        };
        assert_eq!(
            Change::ReplaceRoute(route).describe(&|_| "flannel.1".into()),
            "replace route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"
        );
        let set = SetLink {
            index: 3,
            up: Some(true),
            master: Some(2),
            hairpin: Some(true),
            ..SetLink::default()
        };
        assert_eq!(
            Change::SetLink(set).to_string(),
            "set link #3 up master #2 hairpin on"
        );
    }
}
