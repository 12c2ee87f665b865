//! The baseline of nftables: a chain and an anonymous map for each Service, as text for `nft -f`.
//!
//! The layout is the one that kube-proxy's nftables mode documents (chains, verdict maps, what each
//! base chain looks up), so that a packet meets the same lookups; the table has a name of its own.

use super::world::{PODS, Service};
use std::fmt::Write as _;

/// What does not depend on the Services.
const FRAME: &str = "\
table ip classic {
    set cluster-ips { type ipv4_addr; }
    set nodeport-ips { type ipv4_addr; }
    set hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
    map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map service-nodeports { type inet_proto . inet_service : verdict; }
    map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }

    chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
    chain masquerading {
        meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random
        ct status dnat ip saddr . ct original ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
    }
    chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
    chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
    chain cluster-ips-check { ip daddr @cluster-ips reject; }
    chain services {
        ip daddr @cluster-ips ip saddr != PODS jump mark-for-masquerade
        ip daddr . meta l4proto . th dport vmap @service-ips
        ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
    }
    chain filter-prerouting-pre-dnat { type filter hook prerouting priority -110; ct state new jump firewall-check; }
    chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
    chain filter-input {
        type filter hook input priority 0
        ct state new jump nodeport-endpoints-check
        ct state new jump service-endpoints-check
    }
    chain filter-forward {
        type filter hook forward priority 0
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain filter-output {
        type filter hook output priority 0
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
";

/// The whole ruleset.
pub fn render(services: &[Service]) -> String {
    let mut text = FRAME.replace("PODS", PODS);
    for service in services {
        let endpoints = service.endpoints.iter().enumerate();
        let map: Vec<_> = endpoints
            .map(|(index, endpoint)| format!("{index} : {} . {}", endpoint.ip(), endpoint.port()))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "    chain {} {{ meta l4proto {} dnat ip to numgen random mod {} map {{ {} }}; }}",
            chain(service),
            service.protocol,
            map.len(),
            map.join(", ")
        );
    }
    text += "}\n";
    let list = |element: fn(&Service) -> String| {
        let all: Vec<_> = services.iter().map(element).collect();
        all.join(",\n")
    };
    let ips = list(|service| service.front.ip().to_string());
    let fronts = list(|service| {
        format!(
            "{} . {} . {} : goto {}",
            service.front.ip(),
            service.protocol,
            service.front.port(),
            chain(service)
        )
    });
    let _ = writeln!(text, "add element ip classic cluster-ips {{\n{ips}\n}}");
    let _ = writeln!(text, "add element ip classic service-ips {{\n{fronts}\n}}");
    text
}

fn chain(service: &Service) -> String {
    let Service { name, protocol, .. } = service;
    format!("service-{name}/{protocol}/p")
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::proxy::world;

    #[test]
    fn each_service_has_one_chain_and_one_element() {
        let text = render(&world::services(12));
        assert_eq!(
            text.matches("    chain service-").count(),
            13,
            "with service-endpoints-check"
        );
        assert_eq!(text.matches(" : goto service-").count(), 12);
        assert!(text.contains("10.96.0.1 . tcp . 80 : goto service-s0/tcp/p"));
    }
}
