use super::super::book::tests::site;
use super::*;
use crate::model::{LocalDetector, NodePortAddresses};

fn basis() -> Basis {
    Basis {
        site: site(),
        timeouts: BTreeSet::new(),
    }
}

fn text_of(ruleset: &Ruleset, name: &str) -> Vec<String> {
    let chain = ruleset.chains.iter().find(|chain| chain.name == name);
    let chain = chain.unwrap_or_else(|| panic!("no chain {name}"));
    chain
        .rules
        .iter()
        .map(|rule| render(rule, ruleset.family))
        .collect()
}

#[test]
fn chains_as_an_operator_sees_them() {
    let mut basis = basis();
    basis.site.local = LocalDetector::Cidrs(vec!["10.244.0.0/16".parse().unwrap()]);
    basis.timeouts.insert(10_800);
    let rules = ruleset(&basis);
    assert_eq!(
        text_of(&rules, "services"),
        [
            "ip daddr . meta l4proto . th dport vmap @service-ips",
            "ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
        ]
    );
    assert_eq!(
        text_of(&rules, "cluster-5"),
        [
            "ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000",
            "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 5 map @endpoints",
        ]
    );
    assert_eq!(text_of(&rules, "local-5").len(), 1);
    assert_eq!(text_of(&rules, "cluster-nodeport-5").len(), 1);
    assert_eq!(
        text_of(&rules, "internal-local"),
        [
            "ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000",
            "goto pick-local",
        ]
    );
    assert_eq!(
        text_of(&rules, "external-local"),
        [
            "ip saddr 10.244.0.0/16 goto pick-cluster",
            "fib saddr type local meta mark set meta mark | 0x4000 goto pick-cluster",
            "goto pick-local",
        ]
    );
    assert_eq!(
        text_of(&rules, "masquerading"),
        [
            "meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random",
            "ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random",
        ]
    );
    assert_eq!(text_of(&rules, "local-nodeport-64").len(), 7);
    assert_eq!(
        text_of(&rules, "local-nodeport-64")[6],
        "dnat ip to meta l4proto . th dport . numgen random mod 32 map @local-nodeport-endpoints"
    );
    assert_eq!(
        text_of(&rules, "note-client-10800")[0],
        "update @affinity { ct original ip saddr . ct original ip daddr . meta l4proto . ct original proto-dst timeout 10800s : ip daddr . th dport }"
    );
}

#[test]
fn every_chain_that_is_named_is_there() {
    for hash in [false, true] {
        let mut basis = basis();
        basis.site.affinity_by_hash = hash;
        basis.timeouts.insert(60);
        let rules = ruleset(&basis);
        let names: BTreeSet<&str> = rules
            .chains
            .iter()
            .map(|chain| chain.name.as_str())
            .collect();
        assert_eq!(names.len(), rules.chains.len(), "two chains of one name");
        for chain in &rules.chains {
            for action in chain.rules.iter().flat_map(|rule| &rule.actions) {
                if let Action::Jump(to) | Action::Goto(to) = action {
                    assert!(names.contains(to.as_str()), "{} leads to {to}", chain.name);
                }
            }
        }
    }
}

#[test]
fn the_stamp_tells_rules_apart() {
    let plain = ruleset(&basis()).stamp();
    let mut marked = basis();
    marked.site.masquerade_mark = 0x8000;
    assert_ne!(ruleset(&marked).stamp(), plain);
    assert_eq!(ruleset(&basis()).stamp(), plain);
    // What is an element is no rule.
    let mut elsewhere = basis();
    elsewhere.site.node_port_addresses = NodePortAddresses::Some(BTreeSet::new());
    assert_eq!(ruleset(&elsewhere).stamp(), plain);
}
