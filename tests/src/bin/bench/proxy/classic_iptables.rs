//! The baseline of iptables: kube-proxy's chains, one rule of KUBE-SERVICES for each Service, as text
//! for `iptables-restore`.

use super::world::{PODS, Service};
use std::fmt::Write as _;

/// The nat table, and the filter table as far as a packet to a Service meets it.
pub fn render(services: &[Service]) -> String {
    let mut chains = String::from(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
         :KUBE-MARK-MASQ - [0:0]\n",
    );
    let mut rules = String::from(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n",
    );
    for (number, service) in services.iter().enumerate() {
        one(&mut chains, &mut rules, number, service);
    }
    rules.push_str(
        "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be \
         the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n",
    );
    let filter = "*filter\n:KUBE-SERVICES - [0:0]\n:KUBE-FORWARD - [0:0]\n\
        -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
        -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
        -A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
        -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
        -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
        -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n";
    format!("{filter}{chains}{rules}")
}

/// One Service's chains and rules. Writing to a string cannot fail.
fn one(chains: &mut String, rules: &mut String, number: usize, service: &Service) {
    let Service {
        name,
        protocol,
        front,
        endpoints,
    } = service;
    let (ip, port) = (front.ip(), front.port());
    let svc = format!("KUBE-SVC-{}", letters(number, 0));
    let what = format!("-m comment --comment \"default/{name}:p cluster IP\"");
    let front = format!("-m {protocol} -p {protocol} -d {ip} --dport {port}");
    let _ = writeln!(chains, ":{svc} - [0:0]");
    let _ = writeln!(rules, "-A KUBE-SERVICES {what} {front} -j {svc}");
    let _ = writeln!(
        rules,
        "-A {svc} {what} {front} ! -s {PODS} -j KUBE-MARK-MASQ"
    );
    for (index, endpoint) in endpoints.iter().enumerate() {
        let sep = format!("KUBE-SEP-{}", letters(number, index + 1));
        let left = endpoints.len() - index;
        let chance = match left {
            1 => String::new(),
            left => format!(
                "-m statistic --mode random --probability {:.10} ",
                1.0 / left as f64
            ),
        };
        let _ = writeln!(chains, ":{sep} - [0:0]");
        let _ = writeln!(
            rules,
            "-A {svc} -m comment --comment \"default/{name}:p -> {endpoint}\" {chance}-j {sep}"
        );
        let named = format!("-m comment --comment default/{name}:p");
        let _ = writeln!(
            rules,
            "-A {sep} {named} -s {} -j KUBE-MARK-MASQ",
            endpoint.ip()
        );
        let _ = writeln!(
            rules,
            "-A {sep} {named} -m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}"
        );
    }
}

/// Sixteen letters, different for each pair, spread as a hash's are.
fn letters(number: usize, part: usize) -> String {
    // splitmix64's finalizer is a bijection: no two numbers share a result.
    let mut x = (number as u64) << 8 | part as u64;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let digit = |index: u32| char::from(b'A' + (x >> (4 * index) & 15) as u8);
    (0..16).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::proxy::world;

    #[test]
    fn five_endpoints_make_twenty_three_lines_a_service() {
        let lines = |count| render(&world::services(count)).lines().count();
        assert_eq!(lines(20) - lines(10), 230);
    }
}
