//! Masquerade rules for iptables: one chain per attachment of a container to a network, a jump to
//! it from POSTROUTING for each of the container's addresses.
//!
//! ```text
//! POSTROUTING: -s <address> -j CNI-<hash>
//! CNI-<hash>:  -d <subnet> -j ACCEPT
//!              ! -d <multicast> -j MASQUERADE
//! ```

use std::net::IpAddr;

use kernel::ipnet::IpNet;

use crate::netfilter::{
    line, names,
    saved::{Saved, SavedRule},
};

const MULTICAST_V4: &str = "224.0.0.0/4";
const MULTICAST_V6: &str = "ff00::/8";

/// Lines that set masquerading up where the chain does not exist yet. The transaction fails as a
/// whole if it does, and then [`plan`] has to look at what is there.
pub fn fresh(addresses: &[IpNet], network: &str, container: &str) -> Vec<String> {
    plan(addresses, network, container, &Saved::default())
}

/// Lines that add what is missing. The chain may exist already: the reference names it by network
/// and container only, so two interfaces of a container on one network share it.
pub fn plan(addresses: &[IpNet], network: &str, container: &str, saved: &Saved) -> Vec<String> {
    let Some(first) = addresses.first() else {
        return Vec::new();
    };
    let chain = names::chain("", network, container);
    let comment = names::comment(network, container);
    let remark = ["-m", "comment", "--comment", &comment];
    let multicast = if first.addr().is_ipv4() {
        MULTICAST_V4
    } else {
        MULTICAST_V6
    };
    let mut lines = Vec::new();
    if !saved.has_chain(&chain) {
        lines.push(format!("-N {chain}"));
    }
    let accepts = |subnet: &str| {
        saved
            .chain(&chain)
            .any(|rule| rule.option("-j") == Some("ACCEPT") && same_net(rule.option("-d"), subnet))
    };
    let mut accepted = Vec::new();
    for subnet in addresses.iter().map(|address| address.trunc().to_string()) {
        if !accepts(&subnet) && !accepted.contains(&subnet) {
            let words = [&["-d", subnet.as_str()][..], &remark, &["-j", "ACCEPT"]].concat();
            // Before the MASQUERADE that an earlier interface may have left at the end.
            lines.push(line(&format!("-I {chain} 1"), &words));
            accepted.push(subnet);
        }
    }
    if !saved
        .chain(&chain)
        .any(|rule| rule.option("-j") == Some("MASQUERADE"))
    {
        let words = [&["!", "-d", multicast][..], &remark, &["-j", "MASQUERADE"]].concat();
        lines.push(line(&format!("-A {chain}"), &words));
    }
    for address in addresses {
        let source = address.addr().to_string();
        let jumps = saved
            .jumps_to(&chain)
            .any(|rule| rule.chain == "POSTROUTING" && same_net(rule.option("-s"), &source));
        if !jumps {
            let words = [&["-s", source.as_str()][..], &remark, &["-j", &chain]].concat();
            lines.push(line("-A POSTROUTING", &words));
        }
    }
    lines
}

/// Lines that remove an attachment's rules: the jumps for its addresses, and the chain once no other
/// interface of the container jumps to it. Without addresses (the runtime does not say) all goes.
pub fn teardown(addresses: &[IpNet], network: &str, container: &str, saved: &Saved) -> Vec<String> {
    let chain = names::chain("", network, container);
    let is_ours = |source: Option<&str>| {
        addresses.is_empty()
            || addresses
                .iter()
                .any(|net| same_net(source, &net.addr().to_string()))
    };
    let (ours, others): (Vec<_>, Vec<_>) = saved
        .jumps_to(&chain)
        .partition(|rule| is_ours(rule.option("-s")));
    if others.is_empty() {
        return saved.remove_chain(&chain);
    }
    ours.into_iter().map(SavedRule::deletion).collect()
}

/// Lines that remove every chain of `network` whose container is not among `valid`.
pub fn garbage(network: &str, valid: &[&str], saved: &Saved) -> Vec<String> {
    let mut chains: Vec<String> = saved
        .chain("POSTROUTING")
        .filter_map(|rule| {
            let container = names::container_of(rule.comment()?, network)?;
            let chain = names::chain("", network, container);
            (rule.option("-j") == Some(&chain) && !valid.contains(&container)).then_some(chain)
        })
        .collect();
    chains.sort();
    chains.dedup();
    chains
        .iter()
        .flat_map(|chain| saved.remove_chain(chain))
        .collect()
}

/// Does the saved `-s` or `-d` mean the same network as `wanted`? A single address is saved with
/// its full prefix length.
fn same_net(saved: Option<&str>, wanted: &str) -> bool {
    let net = |text: &str| -> Option<IpNet> {
        text.parse()
            .ok()
            .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
    };
    saved.is_some_and(|saved| net(saved).is_some() && net(saved) == net(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::nat_transaction;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// What iptables-save shows after `lines` were applied, near enough for the planner.
    fn saved(lines: &[String]) -> Saved {
        let text: String = lines
            .iter()
            .map(|line| match line.strip_prefix("-N ") {
                Some(chain) => format!(":{chain} - [0:0]\n"),
                None => format!(
                    "{}\n",
                    line.replace("-I ", "-A ").replacen(" 1 -d", " -d", 1)
                ),
            })
            .collect();
        Saved::parse(&text)
    }

    #[test]
    fn a_fresh_attachment_golden() {
        let lines = fresh(&nets(&["10.244.2.7/24"]), "cbr0", "abc");
        let chain = names::chain("", "cbr0", "abc");
        assert_eq!(
            nat_transaction(&lines),
            format!(
                r#"*nat
-N {chain}
-I {chain} 1 -d 10.244.2.0/24 -m comment --comment "name: \"cbr0\" id: \"abc\"" -j ACCEPT
-A {chain} ! -d 224.0.0.0/4 -m comment --comment "name: \"cbr0\" id: \"abc\"" -j MASQUERADE
-A POSTROUTING -s 10.244.2.7 -m comment --comment "name: \"cbr0\" id: \"abc\"" -j {chain}
COMMIT
"#
            )
        );
    }

    #[test]
    fn nothing_to_do_when_all_is_there() {
        let nets = nets(&["fd00::7/64", "fd01::7/64"]);
        let lines = fresh(&nets, "n", "c");
        assert!(lines.iter().any(|line| line.contains("! -d ff00::/8")));
        assert_eq!(plan(&nets, "n", "c", &saved(&lines)), Vec::<String>::new());
    }

    #[test]
    fn a_second_interface_joins_the_chain_of_the_first() {
        let first = fresh(&nets(&["10.1.0.5/24"]), "n", "c");
        let lines = plan(&nets(&["10.2.0.5/24"]), "n", "c", &saved(&first));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("-I") && lines[0].contains("10.2.0.0/24"));
        assert!(lines[1].starts_with("-A POSTROUTING -s 10.2.0.5 "));
    }

    #[test]
    fn an_interface_that_goes_leaves_the_rules_of_the_other() {
        let mut lines = fresh(&nets(&["10.1.0.5/24"]), "n", "c");
        lines.extend(plan(&nets(&["10.2.0.5/24"]), "n", "c", &saved(&lines)));
        let both = saved(&lines);
        let first = teardown(&nets(&["10.1.0.5/24"]), "n", "c", &both);
        assert_eq!(first.len(), 1, "{first:?}");
        assert!(first[0].starts_with("-D POSTROUTING -s 10.1.0.5 "));
        let chain = names::chain("", "n", "c");
        let all = teardown(&[], "n", "c", &both);
        assert_eq!(all.last(), Some(&format!("-X {chain}")));
        let last = saved(&fresh(&nets(&["10.2.0.5/24"]), "n", "c"));
        let rest = teardown(&nets(&["10.2.0.5/24"]), "n", "c", &last);
        assert_eq!(rest.last(), Some(&format!("-X {chain}")));
    }

    #[test]
    fn garbage_is_what_no_valid_container_owns() {
        let mut lines = fresh(&nets(&["10.1.0.5/24"]), "n", "gone");
        lines.extend(fresh(&nets(&["10.1.0.6/24"]), "n", "here"));
        lines.extend(fresh(&nets(&["10.3.0.6/24"]), "other", "gone"));
        let removal = garbage("n", &["here"], &saved(&lines));
        let chain = names::chain("", "n", "gone");
        assert_eq!(removal.len(), 3);
        assert!(
            removal.iter().all(|line| line.contains(&chain)),
            "{removal:?}"
        );
    }
}
