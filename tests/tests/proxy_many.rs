//! Many Services: all of them are served, one more is served soon, a restart finds them.

use anyhow::Result;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tests::cluster::Stack;
use tests::pod::Family;
use tests::proxy::{Endpoints, Mode, Options, Service, Site};
use tests::snapshot;
use tests::traffic::Transport::{Tcp, Udp};

const IN_A_FILE: u32 = 200;
/// For a start with all of them; the tests' build is slow.
const LIMIT: Duration = Duration::from_secs(60);

fn ip(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 100, 0, 1).to_bits() + number).into()
}

fn at(number: u32) -> SocketAddr {
    SocketAddr::new(ip(number), 80)
}

/// Writes `count` Services, all before the same two backends; each has its own two ports.
fn serves(mode: Mode, count: u32) -> Result<()> {
    let options = Options::new(mode).stack(Stack::V4);
    let Some(mut site) = Site::prepare(&options)? else {
        return Ok(());
    };
    let client = site.pod(0)?;
    let backends = [site.backend(0, 8080)?, site.backend(1, 8080)?];
    let servers = [
        backends[0].address(Family::V4)?,
        backends[1].address(Family::V4)?,
    ];
    let objects = |number: u32| {
        let name = format!("s{number}");
        let slices = Endpoints::web(&name, &[&backends[0], &backends[1]]).value();
        [
            Service::web(&name, &[ip(number)]).value().clone(),
            slices["items"][0].clone(),
        ]
    };
    for first in (0..count).step_by(IN_A_FILE as usize) {
        let items: Vec<_> = (first..count.min(first + IN_A_FILE))
            .flat_map(&objects)
            .collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        site.manifests
            .object(&format!("many-{first:06}.json"), &list)?;
    }
    let node = &mut site.nodes[0];
    node.daemon = Some(node.proxy.start_within(LIMIT)?);
    for number in [0, 1, count / 2, count - 2, count - 1] {
        for transport in [Tcp, Udp] {
            site.answers(&client.namespace, at(number), transport, &servers)?;
        }
    }
    // One more.
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects(count) });
    site.manifests.object("one-more.json", &list)?;
    site.answers(&client.namespace, at(count), Tcp, &servers)?;
    let before = snapshot::of_firewall(&site.nodes[0].namespace)?;
    // A crash, and a start that finds everything there.
    let node = &mut site.nodes[0];
    node.take_proxy()?.kill()?;
    node.daemon = Some(node.proxy.start_within(LIMIT)?);
    let after = snapshot::of_firewall(&site.nodes[0].namespace)?;
    snapshot::ensure_same(&format!("{mode}: after a restart"), &before, &after)?;
    site.manifests.remove("one-more.json")?;
    site.unanswered(&client.namespace, at(count), Tcp)?;
    site.answers(&client.namespace, at(count - 1), Tcp, &servers)?;
    Ok(())
}

#[test]
fn nftables_20_000() -> Result<()> {
    serves(Mode::Nftables, 20_000)
}

#[test]
fn iptables_legacy_3_000() -> Result<()> {
    serves(Mode::IptablesLegacy, 3_000)
}
