//! The one door to Linux networking: namespaces, links, addresses, routes, neighbours, forwarding
//! entries, sysctl, nftables, iptables, connection tracking, IPsec policies and kernel events.
//!
//! Planners make [`Change`] values (they print as the `ip`/`bridge` command an operator would type);
//! a [`Netlink`] socket applies them, many in flight at once. Everything here blocks and returns
//! within a few system calls; there is no runtime and no background thread.
//!
//! Invariants:
//! - only the modules below `sys` contain `unsafe`;
//! - a thread enters another namespace only inside [`Netns::run`], on a thread made for it, so no
//!   error path can leave the process in the wrong one;
//! - errors name operation, object and cause: `add route 10.244.2.0/24 dev flannel.1: network is down`.

mod change;
pub mod conntrack;
mod error;
pub mod ethtool;
pub mod filelock;
pub mod iptables;
mod mac;
pub mod monitor;
mod netlink;
mod netns;
pub mod nft;
pub mod process;
mod sys;
pub mod sysctl;
mod values;
pub mod xfrm;

pub use change::{Change, NewLink, NewLinkKind, SetLink};
pub use error::{Error, Result};
pub use ipnet;
pub use mac::{Mac, ParseMacError};
pub use netlink::{Direction, Filter, Netlink, RouteFilter};
pub use netns::Netns;
pub use values::{
    Address, BridgePort, BridgeVlan, Fdb, Link, LinkKind, Neigh, Route, RouteKind, Vxlan, scope,
};
