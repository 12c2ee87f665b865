//! The proxy's test bed, proven without the proxy: by hand-written nftables rules on the nodes.

use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tests::pod::Family;
use tests::process;
use tests::proxy::{Mode, Options, Site, cluster_ip, external_ip};
use tests::traffic::{Outcome, Transport, UdpClient, knock};

const PATIENCE: Duration = Duration::from_millis(400);

/// DNAT of cluster IP 1 and external address 1, a reject and a drop, for one family.
fn rules(family: Family, backend: SocketAddr) -> String {
    let word = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let [c1, c2, c3] = [1, 2, 3].map(|number| cluster_ip(family, number));
    let e1 = external_ip(family, 1);
    format!(
        "table {word} by-hand {{
            chain services {{
                {word} daddr {{ {c1}, {e1} }} meta l4proto {{ tcp, udp }} th dport 80 dnat to {backend}
            }}
            chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
            chain output {{ type nat hook output priority -100; jump services; }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ct original {word} daddr {e1} masquerade
            }}
            chain fates {{ {word} daddr {c2} reject; {word} daddr {c3} drop; }}
            chain forward {{ type filter hook forward priority filter; jump fates; }}
            chain local {{ type filter hook output priority filter; jump fates; }}
        }}\n"
    )
}

#[test]
fn clients_tell_answers_refusal_and_silence_apart() -> Result<()> {
    let Some(site) = Site::prepare(&Options::new(Mode::Nftables))? else {
        return Ok(());
    };
    let (client1, client2) = (site.pod(0)?, site.pod(1)?);
    let backend = site.backend(1, 8080)?;
    for node in &site.nodes {
        let text = rules(Family::V4, backend.address(Family::V4)?)
            + &rules(Family::V6, backend.address(Family::V6)?);
        node.namespace.run(|| {
            process::run_with_input(std::process::Command::new("nft").args(["-f", "-"]), &text)
        })?;
    }
    for &family in site.families() {
        let server = backend.address(family)?;
        let [good, refused, silent] =
            [1, 2, 3].map(|number| SocketAddr::new(cluster_ip(family, number), 80));
        for transport in [Transport::Tcp, Transport::Udp] {
            for client in [&client1, &client2] {
                let from = &client.namespace;
                let seen = client.ip(family)?;
                site.answers_seeing(from, good, transport, server, seen)?;
                site.refused(from, refused, transport)?;
                let nothing = knock(from, silent, transport, PATIENCE)?;
                ensure!(nothing == Outcome::Silence, "{silent}: {nothing}");
            }
            let node = &site.nodes[0];
            site.answers(&node.namespace, good, transport, &[server])?;
            // From the world, by way of n1, which masquerades.
            let front = SocketAddr::new(external_ip(family, 1), 80);
            let seen = site.masqueraded(0, &backend.pod, family);
            site.answers_seeing(&site.underlay.outside, front, transport, server, seen)?;
        }
        let socket = UdpClient::new(&client1.namespace, good)?;
        for _ in 0..3 {
            let outcome = socket.ask(PATIENCE)?;
            ensure!(matches!(outcome, Outcome::Answered(_)), "{outcome}");
        }
    }
    Ok(())
}
