use proptest::prelude::*;
use serde_json::json;

use super::*;

fn names() -> Annotations {
    Annotations::with_prefix("flannel.alpha.coreos.com").unwrap()
}

fn config() -> NetworkConfig {
    NetworkConfig::parse(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#).unwrap()
}

/// A Node of this subnet (the third byte of its podCIDR) at this address (its last byte).
fn node(name: &str, managed: bool, subnet: Option<u8>, address: u8) -> Node {
    let value = json!({
        "metadata": {"name": name, "annotations": {
            names().name("kube-subnet-manager"): managed.to_string(),
            names().name("backend-type"): "host-gw",
            names().name("backend-data"): "null",
            names().name("public-ip"): format!("192.168.66.{address}"),
        }},
        "spec": {"podCIDR": subnet.map(|subnet| format!("10.5.{subnet}.0/24"))},
    });
    serde_json::from_value(value).unwrap()
}

fn set(leases: &mut Leases, node: &Node) -> Vec<String> {
    said(&leases.set(&names(), &config(), node))
}

/// `+KEY ADDRESS`, `+KEY: why`, `-KEY`.
fn said(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Delete { key } => format!("-{key}"),
        Event::Config(_) => "config".to_owned(),
        Event::Put(entry) => match &entry.lease {
            Ok(lease) => format!("+{} {}", entry.key, lease.attrs.public_ip.unwrap()),
            Err(why) => format!("+{}: {why}", entry.key),
        },
    };
    events.iter().map(line).collect()
}

#[test]
fn a_node_comes_changes_moves_and_goes() {
    let mut leases = Leases::new("n1");
    let nothing: [&str; 0] = [];
    assert_eq!(set(&mut leases, &node("n2", false, Some(2), 12)), nothing);
    let added = set(&mut leases, &node("n2", true, Some(2), 12));
    assert_eq!(added, ["+10.5.2.0-24 192.168.66.12"]);
    assert_eq!(set(&mut leases, &node("n2", true, Some(2), 12)), nothing);
    let changed = set(&mut leases, &node("n2", true, Some(2), 22));
    assert_eq!(changed, ["+10.5.2.0-24 192.168.66.22"]);
    let moved = set(&mut leases, &node("n2", true, Some(3), 22));
    assert_eq!(moved, ["-10.5.2.0-24", "+10.5.3.0-24 192.168.66.22"]);
    let unusable = set(&mut leases, &node("n2", true, None, 22));
    assert_eq!(unusable, ["-10.5.3.0-24", "+of Node n2: it has no podCIDR"]);
    assert_eq!(said(&leases.remove("n2")), ["-of Node n2"]);
    assert_eq!(said(&leases.remove("n2")), nothing);
    assert!(leases.holders.is_empty());
}

#[test]
fn our_own_node_is_no_entry() {
    let mut leases = Leases::new("n1");
    assert!(set(&mut leases, &node("n1", true, Some(1), 11)).is_empty());
    assert!(leases.entries().is_empty());
}

#[test]
fn of_two_nodes_with_one_subnet_the_first_by_name_is_served() {
    let mut leases = Leases::new("n1");
    assert_eq!(
        set(&mut leases, &node("n3", true, Some(2), 13)),
        ["+10.5.2.0-24 192.168.66.13"]
    );
    assert_eq!(
        set(&mut leases, &node("n2", true, Some(2), 12)),
        [
            "+10.5.2.0-24 192.168.66.12",
            "+of Node n3: its podCIDR 10.5.2.0/24 is that of Node n2"
        ]
    );
    assert_eq!(
        said(&leases.remove("n2")),
        ["-of Node n3", "+10.5.2.0-24 192.168.66.13"]
    );
}

/// A Node's name may look like a lease's key.
#[test]
fn the_key_of_a_node_without_a_subnet_names_none() {
    let mut leases = Leases::new("n1");
    set(&mut leases, &node("10.5.2.0-24", true, None, 12));
    assert_eq!(leases.entries()[0].subnet(), None);
}

proptest! {
    /// Any order of events, with whatever comes between, ends in the same entries; and events applied to
    /// the entries before give the entries after.
    #[test]
    fn events_lead_to_what_is(
        steps in proptest::collection::vec(
            (0usize..4, 0u8..4, proptest::option::of(0u8..3), 0u8..2), 0..40
        ),
    ) {
        let mut leases = Leases::new("own");
        let mut told: BTreeMap<String, Entry> = BTreeMap::new();
        let mut last: BTreeMap<String, Option<Node>> = BTreeMap::new();
        for (who, what, subnet, address) in steps {
            let name = ["own", "a", "b", "c"][who].to_owned();
            let events = if what == 0 {
                last.insert(name.clone(), None);
                leases.remove(&name)
            } else {
                let node = node(&name, what != 1, subnet, address);
                last.insert(name, Some(node.clone()));
                leases.set(&names(), &config(), &node)
            };
            for event in events {
                match event {
                    Event::Put(entry) => { told.insert(entry.key.clone(), entry); }
                    Event::Delete { key } => { prop_assert!(told.remove(&key).is_some()); }
                    Event::Config(_) => prop_assert!(false),
                }
            }
            let mut is = leases.entries();
            is.sort_by(|a, b| a.key.cmp(&b.key));
            prop_assert_eq!(told.values().cloned().collect::<Vec<_>>(), is);
        }
        let mut fresh = Leases::new("own");
        for node in last.values().flatten().rev() {
            fresh.set(&names(), &config(), node);
        }
        prop_assert_eq!(fresh.entries(), leases.entries());
    }
}
