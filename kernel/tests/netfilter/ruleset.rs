//! Tables, chains, rules and sets as listed.

use std::{net::UdpSocket, time::Duration};

use kernel::{
    Netlink,
    nft::{BaseChain, Family, SetData, Table},
};

use crate::bed::{Node, table};

const TABLE: &str = r#"
table ip weft-test {
    map services { typeof ip daddr . meta l4proto . th dport : verdict; }
    map slots { typeof ip daddr . meta l4proto . th dport : ip daddr . th dport; size 1000; }
    set clients { typeof ip saddr; flags timeout; timeout 3h; }
    chain to-service { counter accept comment "the service"; }
    chain output {
        type filter hook output priority -100; policy accept;
        ip daddr 127.0.0.1 counter jump to-service
        ip daddr . meta l4proto . th dport vmap @services
        meta mark 0x4000 drop
    }
}
table ip weft-other { chain to-service { drop; }; set clients { type inet_service; }; }
table ip6 weft-test { chain other { accept; }; }
"#;

#[test]
fn a_table_is_told_as_it_is() {
    let Some((node, mut socket)) = Node::with("ruleset", TABLE) else {
        return;
    };
    assert!(socket.has_table(&table()).unwrap());
    let nowhere = Table::new(Family::Inet, "weft-test");
    assert!(!socket.has_table(&nowhere).unwrap());
    assert_eq!(socket.sets(&nowhere).unwrap(), []);
    assert_eq!(socket.chains(&nowhere).unwrap(), []);
    assert_eq!(socket.rules(&nowhere).unwrap(), []);

    let sets = socket.sets(&table()).unwrap();
    let shape: Vec<_> = sets
        .iter()
        .map(|set| {
            (
                set.name.as_str(),
                set.key_length,
                set.data,
                set.timeout,
                set.size,
            )
        })
        .collect();
    let three_hours = Some(Duration::from_secs(3 * 3600));
    assert_eq!(
        shape,
        [
            ("services", 12, Some(SetData::Verdict), None, None),
            ("slots", 12, Some(SetData::Value(8)), None, Some(1000)),
            ("clients", 4, None, three_hours, None),
        ]
    );

    let chains = socket.chains(&table()).unwrap();
    let shape: Vec<_> = chains
        .iter()
        .map(|chain| (chain.name.as_str(), chain.base.clone()))
        .collect();
    let base = BaseChain {
        kind: "filter".into(),
        hook: 3,
        priority: -100,
        accepts: true,
    };
    assert_eq!(shape, [("to-service", None), ("output", Some(base))]);

    let rules = socket.rules(&table()).unwrap();
    let shape: Vec<_> = rules.iter().map(|rule| rule.chain.as_str()).collect();
    assert_eq!(shape, ["to-service", "output", "output", "output"]);
    assert!(rules[0].attached.ends_with(b"the service\0"));
    let output = socket.rules_of(&table(), "output").unwrap();
    assert_eq!(output, rules[1..]);
    assert_eq!(socket.rules_of(&table(), "nosuch").unwrap(), []);

    // The list is in the order in which nft shows the rules.
    let text = node.output("nft", &["-a", "list", "chain", "ip", "weft-test", "output"]);
    let handles: Vec<u64> = text
        .lines()
        .filter(|line| !line.contains('{'))
        .filter_map(|line| line.rsplit_once("# handle ")?.1.parse().ok())
        .collect();
    assert_eq!(
        handles,
        output.iter().map(|rule| rule.handle).collect::<Vec<_>>()
    );
}

#[test]
fn what_a_rule_counts_does_not_change_it() {
    let Some((node, mut socket)) = Node::with("counters", TABLE) else {
        return;
    };
    let mut nl = Netlink::open_in(&node.netns).unwrap();
    let lo = nl.expect_link("lo").unwrap();
    nl.ensure_up(&lo).unwrap();
    let before = socket.rules(&table()).unwrap();
    node.netns
        .run(|| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client
                .send_to(b"knock", client.local_addr().unwrap())
                .unwrap();
        })
        .unwrap();
    let text = node.output("nft", &["list", "chain", "ip", "weft-test", "output"]);
    assert!(text.contains("counter packets 1"), "{text}");
    assert_eq!(socket.rules(&table()).unwrap(), before);

    // The same rules written anew have other handles and equal expressions; another rule differs.
    node.nft(&format!("delete table ip weft-test\n{TABLE}"));
    let expressions = |rules: &[kernel::nft::Rule]| -> Vec<_> {
        rules.iter().map(|rule| rule.expressions.clone()).collect()
    };
    let anew = socket.rules_of(&table(), "output").unwrap();
    assert_eq!(expressions(&anew), expressions(&before[1..]));
    node.nft("flush chain ip weft-test to-service\nadd rule ip weft-test to-service drop\n");
    let other = socket.rules_of(&table(), "to-service").unwrap();
    assert_ne!(expressions(&other), expressions(&before[..1]));
}
