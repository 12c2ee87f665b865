//! What the nodes of a udp network tell each other, and the table made of it.
//!
//! flannel's udp leases have neither BackendType nor BackendData, and a Go flanneld does not look at
//! them. Ours carry `{"FinishesChecksums":true}`: the node completes inner checksums that a virtual
//! link left to the hardware, so it may be sent packets as the kernel has them.

use std::net::SocketAddr;

use serde::Serialize;
use tunnel::{Own, Peer, Table};

use crate::{
    backend::{Announcement, Desired},
    config::folded::Folded,
    lease::{BackendData, Lease},
};

#[derive(Serialize)]
struct Written {
    #[serde(rename = "FinishesChecksums")]
    finishes_checksums: bool,
}

/// What we announce.
pub fn announcement() -> Announcement {
    Announcement {
        data: Some(BackendData::new(&Written {
            finishes_checksums: true,
        })),
        ..Announcement::default()
    }
}

/// Peers are sent to at our own configured `port`, whatever port they use: a udp lease does not say.
/// A lease without an IPv4 address cannot be sent to and is left out.
pub fn table(desired: &Desired, port: u16) -> Table {
    let own = &desired.own.subnet;
    let own = Own {
        v4: own.v4,
        v6: own.v6,
        mac: None,
    };
    let peers = desired.peers.iter().filter_map(|lease| {
        Some(Peer {
            address: SocketAddr::from((lease.attrs.public_ip?, port)),
            v4: lease.subnet.v4,
            v6: lease.subnet.v6,
            mac: None,
            finishes_checksums: finishes_checksums(lease),
        })
    });
    Table::new(own, peers.collect())
}

/// A foreign daemon says nothing, and what cannot be read says nothing either.
fn finishes_checksums(lease: &Lease) -> bool {
    let data = lease.attrs.backend_data.as_ref();
    let said = data.and_then(|data| data.parse::<Folded>().ok()?.get("FinishesChecksums").ok()?);
    said.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use super::*;
    use crate::{
        lease::{LeaseAttrs, key},
        uplink::Uplink,
    };

    fn lease(subnet: &str, attrs: &str) -> Lease {
        Lease {
            subnet: key::parse(subnet).unwrap(),
            attrs: LeaseAttrs::parse(attrs).unwrap(),
        }
    }

    #[test]
    fn our_lease_is_flannels_and_one_word_more() {
        let announcement = announcement();
        let attrs = LeaseAttrs {
            public_ip: Some([192, 168, 66, 11].into()),
            public_ipv6: None,
            backend_type: announcement.backend_type.to_owned(),
            backend_data: announcement.data,
            backend_v6_data: announcement.data_v6,
        };
        let text = attrs.to_json();
        assert_eq!(
            text,
            r#"{"PublicIP":"192.168.66.11","PublicIPv6":null,"BackendData":{"FinishesChecksums":true}}"#
        );
        assert!(finishes_checksums(&lease("10.5.1.0-24", &text)));
    }

    #[test]
    fn leases_of_both_kinds_of_daemon_become_peers() {
        let ours = r#"{"PublicIP":"192.168.66.12","BackendData":{"FinishesChecksums":true}}"#;
        let go = r#"{"PublicIP":"192.168.66.13","PublicIPv6":null}"#;
        let odd = r#"{"PublicIP":"192.168.66.14","BackendData":["?"]}"#;
        let far = r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd66::15"}"#;
        let peers = [
            ("10.5.2.0-24&fd05:0:0:2::-64", ours),
            ("10.5.3.0-24", go),
            ("10.5.4.0-24", odd),
            ("10.5.5.0-24&fd05:0:0:5::-64", far),
        ];
        let desired = Desired {
            uplink: Uplink {
                index: 2,
                name: "eth0".to_owned(),
                mtu: 1500,
                address_v4: Some([192, 168, 66, 11].into()),
                address_v6: None,
                public_v4: Some([192, 168, 66, 11].into()),
                public_v6: None,
            },
            own: lease("10.5.1.0-24&fd05:0:0:1::-64", ours),
            peers: peers
                .into_iter()
                .map(|(subnet, attrs)| Arc::new(lease(subnet, attrs)))
                .collect(),
        };
        let table = table(&desired, 8285);
        let find = |ip: &str| {
            let peer = table.peer(ip.parse::<IpAddr>().unwrap());
            peer.map(|peer| (peer.address.to_string(), peer.finishes_checksums))
        };
        let at = |last, finishes| Some((format!("192.168.66.{last}:8285"), finishes));
        assert_eq!(find("10.5.2.9"), at(12, true));
        assert_eq!(find("fd05:0:0:2::9"), at(12, true));
        assert_eq!(find("10.5.3.9"), at(13, false));
        assert_eq!(find("10.5.4.9"), at(14, false));
        assert_eq!(find("10.5.5.9"), None);
        assert_eq!(table.own().v6, "fd05:0:0:1::/64".parse().ok());
    }
}
