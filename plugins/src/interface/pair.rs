//! The veth pair between host and container: made, waited for, announced, removed.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use kernel::{Change, Link, Mac, Netlink, Netns, NewLink, SetLink, sysctl};

use super::apply;
use crate::cni::{Call, Error, Interface, Result, code};

/// How many random names are tried.
const NAME_TRIES: usize = 10;
/// How long a bridge port may take to forward.
const CARRIER: Duration = Duration::from_millis(2550);

/// Opens the container's namespace.
pub fn open_netns(call: &Call) -> Result<Netns> {
    Netns::open(call.netns.as_str())
        .map_err(|cause| Error::new(code::INVALID_NETNS, cause.to_string()))
}

/// The container's namespace, or none if it is gone: nothing of ours can be in it then. A plain
/// file at its path is what an unmounted namespace leaves behind.
pub fn find_netns(call: &Call) -> Result<Option<Netns>> {
    if call.netns.is_empty() {
        return Ok(None);
    }
    match Netns::open(call.netns.as_str()) {
        Ok(netns) => Ok(Some(netns)),
        Err(error) if error.is_not_found() || error.errno().is_none() => Ok(None),
        Err(cause) => Err(Error::new(code::INVALID_NETNS, cause.to_string())),
    }
}

/// Makes a veth pair and gives the name of the host's end, a new random one; `change` makes the
/// request from that name and the other end.
pub fn add_veth(
    host: &mut Netlink,
    peer: NewLink,
    change: impl Fn(&str, Box<NewLink>) -> Change,
) -> Result<String> {
    let mut tries = 0;
    loop {
        let Mac([_, _, a, b, c, d]) = random_mac()?;
        let name = format!("veth{a:02x}{b:02x}{c:02x}{d:02x}");
        match host.apply(&change(&name, Box::new(peer.clone()))) {
            Ok(()) => return Ok(name),
            Err(error) => {
                tries += 1;
                let taken = error.is_exists() && host.link(&name)?.is_some();
                if !taken || tries == NAME_TRIES {
                    return Err(error.into());
                }
            }
        }
    }
}

/// A hardware address of one's own making.
pub fn random_mac() -> Result<Mac> {
    Mac::random_local().map_err(|cause| Error::io("choose a hardware address", cause))
}

impl Interface {
    /// A link as a result shows it; `sandbox` is the path of its namespace, empty on the host.
    pub fn of(link: &Link, sandbox: &str) -> Self {
        Self {
            name: link.name.clone(),
            mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            mtu: link.mtu,
            sandbox: sandbox.to_owned(),
            ..Self::default()
        }
    }
}

/// Waits until the host's end has a carrier and so forwards. The kernel gets there by a work queue
/// within microseconds; a port that does not is an error.
pub fn await_carrier(host: &mut Netlink, name: &str) -> Result<Link> {
    let deadline = Instant::now() + CARRIER;
    let mut pause = Duration::from_micros(50);
    loop {
        let link = host.expect_link(name)?;
        if link.running {
            return Ok(link);
        }
        if Instant::now() > deadline {
            return Err(Error::generic(format!(
                "bridge port in error state: {name} has no carrier"
            )));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Has the kernel tell the neighbours where the addresses are now, since they may remember an earlier
/// owner: with `arp_notify` and `ndisc_notify` set it sends gratuitous ARP and unsolicited neighbour
/// advertisements whenever the hardware address is set, be it to what it is. (A packet socket of our
/// own would do too, but closing one waits for an RCU grace period: some 10 ms.)
pub fn announce(netlink: &mut Netlink, link: &Link) -> Result<()> {
    let again = Change::SetLink(SetLink {
        index: link.index,
        mac: link.mac,
        ..SetLink::default()
    });
    apply(netlink, &[again])
}

/// Lets the host forward packets of the families that `addresses` have.
pub fn enable_forwarding(addresses: impl Iterator<Item = IpAddr>) -> Result<()> {
    let (mut v4, mut v6) = (false, false);
    for address in addresses {
        v4 |= address.is_ipv4();
        v6 |= address.is_ipv6();
    }
    for (wanted, key) in [
        (v4, "net/ipv4/ip_forward"),
        (v6, "net/ipv6/conf/all/forwarding"),
    ] {
        if wanted {
            sysctl::ensure(key, "1")
                .map_err(|cause| Error::generic(format!("enable forwarding: {cause}")))?;
        }
    }
    Ok(())
}

/// DEL: removes the container's interface, and with it the other end of its veth pair. What is
/// gone already is no error.
pub fn remove_from(call: &Call) -> Result<()> {
    let Some(netns) = find_netns(call)? else {
        return Ok(());
    };
    let mut netlink = Netlink::open_in(&netns)?;
    match netlink.link(&call.ifname)? {
        Some(link) => remove(&mut netlink, &link),
        None => Ok(()),
    }
}

/// Removes a link of the host by name; that it is gone already is no error.
pub fn delete(name: &str) -> Result<()> {
    let mut host = Netlink::open()?;
    match host.link(name)? {
        Some(link) => remove(&mut host, &link),
        None => Ok(()),
    }
}

/// Removes a link; that it is gone already is no error.
fn remove(netlink: &mut Netlink, link: &Link) -> Result<()> {
    match netlink.apply(&Change::DeleteLink {
        index: link.index,
        name: link.name.clone(),
    }) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
