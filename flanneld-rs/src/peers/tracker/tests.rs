use proptest::prelude::*;

use super::*;
use crate::lease::{BackendData, LeaseAttrs};

fn entry(name: &str, last: u8, kind: &str) -> Entry {
    let attrs = LeaseAttrs {
        public_ip: Some([192, 168, 66, last].into()),
        backend_type: kind.to_owned(),
        backend_data: Some(BackendData::new(
            &serde_json::json!({"VtepMAC": "02:00:00:00:00:01"}),
        )),
        ..LeaseAttrs::default()
    };
    let lease = key::parse(name)
        .map(|subnet| Lease { subnet, attrs })
        .ok_or_else(|| "no subnet".to_owned());
    Entry {
        key: name.to_owned(),
        lease,
        reserved: false,
        revision: 1,
        created: 1,
    }
}

fn rules() -> Rules {
    Rules {
        own: key::parse("10.3.1.0-24"),
        addresses: vec![[192, 168, 66, 11].into()],
        networks: vec!["10.3.0.0/16".parse().unwrap()],
        backend_types: &["vxlan"],
    }
}

fn tracker(entries: &[Entry]) -> (Tracker, Outcome) {
    let mut tracker = Tracker::new(rules());
    let outcome = tracker.replace(entries, Instant::now(), None);
    (tracker, outcome)
}

fn names(tracker: &Tracker) -> Vec<String> {
    tracker
        .peers()
        .iter()
        .map(|lease| key::render(&lease.subnet))
        .collect()
}

fn put(name: &str, last: u8) -> Event {
    Event::Put(entry(name, last, "vxlan"))
}

fn delete(name: &str) -> Event {
    Event::Delete {
        key: name.to_owned(),
    }
}

#[test]
fn a_listing_gives_all_other_nodes() {
    let (tracker, outcome) = tracker(&[
        entry("10.3.1.0-24", 11, "vxlan"),
        entry("10.3.2.0-24", 12, "vxlan"),
    ]);
    assert_eq!(names(&tracker), ["10.3.2.0-24"]);
    assert!(
        matches!(outcome.changes.as_slice(), [PeerChange::Added(_)]) && outcome.ignored.is_empty()
    );
    assert_eq!((tracker.leases(), tracker.ignored()), (2, 0));
}

#[test]
fn what_cannot_be_served_is_named_once_and_the_others_still_are() {
    let garbage = Entry {
        lease: Err("not JSON".to_owned()),
        ..entry("10.3.5.0-24", 1, "")
    };
    let mut nowhere = entry("10.3.8.0-24", 13, "vxlan");
    nowhere.lease.as_mut().unwrap().attrs.public_ip = None;
    let mut no_mac = entry("10.3.10.0-24", 14, "vxlan");
    no_mac.lease.as_mut().unwrap().attrs.backend_data =
        Some(BackendData::new(&serde_json::json!({"VtepMAC": "x"})));
    let entries = [
        garbage,
        nowhere,
        no_mac,
        entry("nonsense", 13, "vxlan"),
        entry("10.3.2.0-24", 12, "vxlan"),
        entry("10.3.0.0-20", 13, "vxlan"),
        entry("192.168.0.0-16", 13, "vxlan"),
        entry("10.3.6.0-24", 11, "vxlan"),
        entry("10.3.7.0-24", 13, "host-gw"),
        entry("10.3.9.7-24", 13, "vxlan"),
        entry("172.16.5.0-24", 13, "vxlan"),
    ];
    let (mut tracker, outcome) = tracker(&entries);
    assert_eq!(names(&tracker), ["10.3.2.0-24"]);
    let reasons: Vec<String> = outcome
        .ignored
        .iter()
        .map(|(key, why)| format!("{key}: {why}"))
        .collect();
    assert_eq!(
        reasons,
        [
            "10.3.0.0-20: it overlaps this node's own subnet",
            "10.3.10.0-24: its BackendData cannot be used: VtepMAC: \"x\" is not a MAC address (six \
             pairs of hex digits, as in 0a:58:0a:f4:01:02)",
            "10.3.5.0-24: not JSON",
            "10.3.6.0-24: it carries this node's own address 192.168.66.11",
            "10.3.7.0-24: its backend is \"host-gw\"",
            "10.3.8.0-24: it has no public address of its subnet's family",
            "10.3.9.7-24: the key should be 10.3.9.0-24",
            "172.16.5.0-24: 172.16.5.0/24 is not part of the network",
            "192.168.0.0-16: it holds this node's own address 192.168.66.11",
            "nonsense: no subnet",
        ]
    );
    assert_eq!(tracker.ignored(), 10);
    assert_eq!(
        tracker.replace(&entries, Instant::now(), None),
        Outcome::default()
    );
}

#[test]
fn events_fold_into_one_change_per_subnet() {
    let (mut tracker, _) = tracker(&[
        entry("10.3.2.0-24", 12, "vxlan"),
        entry("10.3.3.0-24", 13, "vxlan"),
    ]);
    let events = [
        delete("10.3.2.0-24"),
        put("10.3.2.0-24", 14),
        put("10.3.4.0-24", 15),
        delete("10.3.4.0-24"),
        delete("10.3.3.0-24"),
    ];
    let outcome = tracker.apply(&events);
    assert_eq!(outcome.changes.len(), 2, "{outcome:?}");
    assert!(
        matches!(&outcome.changes[0], PeerChange::Changed { old, new }
        if old.attrs.public_ip == Some([192, 168, 66, 12].into()) && new.attrs.public_ip == Some([192, 168, 66, 14].into()))
    );
    assert!(
        matches!(&outcome.changes[1], PeerChange::Removed(lease) if lease.subnet.to_string() == "10.3.3.0/24")
    );
    assert_eq!(tracker.apply(&[put("10.3.2.0-24", 14)]), Outcome::default());
}

#[test]
fn a_second_spelling_of_a_subnet_leaves_the_peer_alone() {
    let (mut tracker, _) = tracker(&[
        entry("10.3.2.0-24", 12, "vxlan"),
        entry("10.3.2.9-24", 13, "vxlan"),
    ]);
    assert_eq!(tracker.apply(&[delete("10.3.2.9-24")]).changes, []);
    assert_eq!(names(&tracker), ["10.3.2.0-24"]);
}

#[test]
fn peers_of_a_store_that_lost_its_data_linger_until_they_come_back_or_time_is_up() {
    let now = Instant::now();
    let minute = Duration::from_secs(60);
    let (mut tracker, _) = tracker(&[
        entry("10.3.2.0-24", 12, "vxlan"),
        entry("10.3.3.0-24", 13, "vxlan"),
    ]);
    assert_eq!(tracker.replace(&[], now, Some(minute)), Outcome::default());
    assert_eq!(tracker.next_expiry(), Some(now + minute));
    assert_eq!(tracker.apply(&[put("10.3.2.0-24", 12)]), Outcome::default());
    assert_eq!(tracker.expire(now + minute / 2), Outcome::default());
    assert_eq!(
        tracker.replace(&[entry("10.3.2.0-24", 12, "vxlan")], now + minute / 2, None),
        Outcome::default()
    );
    let outcome = tracker.expire(now + minute);
    assert!(
        matches!(outcome.changes.as_slice(), [PeerChange::Removed(lease)] if lease.subnet.to_string() == "10.3.3.0/24")
    );
    assert_eq!(
        (names(&tracker), tracker.next_expiry()),
        (vec!["10.3.2.0-24".to_owned()], None)
    );
}

#[test]
fn another_own_subnet_makes_the_old_one_a_peer() {
    let (mut tracker, _) = tracker(&[
        entry("10.3.1.0-24", 12, "vxlan"),
        entry("10.3.2.0-24", 13, "vxlan"),
    ]);
    let outcome = tracker.set_rules(Rules {
        own: key::parse("10.3.2.0-24"),
        ..rules()
    });
    assert_eq!(outcome.changes.len(), 2);
    assert_eq!(names(&tracker), ["10.3.1.0-24"]);
}

proptest! {
    /// However the store's history is cut into listings and batches, the peers are those of its last state,
    /// and the changes replayed on a copy give the same peers.
    #[test]
    fn changes_always_lead_to_the_same_peers_as_a_fresh_listing(steps in proptest::collection::vec((0u8..6, proptest::option::of(0u8..4), any::<bool>()), 0..40)) {
        let (mut tracker, _) = tracker(&[]);
        let mut store: BTreeMap<String, Entry> = BTreeMap::new();
        let mut copy: BTreeMap<Subnet, Arc<Lease>> = BTreeMap::new();
        for (subnet, value, relist) in steps {
            let name = format!("10.3.{subnet}.0-24");
            let kind = if value == Some(3) { "udp" } else { "vxlan" };
            let event = match value {
                Some(value) => { store.insert(name.clone(), entry(&name, 10 + value, kind)); Event::Put(entry(&name, 10 + value, kind)) }
                None => { store.remove(&name); delete(&name) }
            };
            let listing: Vec<Entry> = store.values().cloned().collect();
            let outcome = if relist { tracker.replace(&listing, Instant::now(), None) } else { tracker.apply(&[event]) };
            for change in outcome.changes {
                match change {
                    PeerChange::Added(lease) => prop_assert!(copy.insert(lease.subnet, lease).is_none()),
                    PeerChange::Changed { old, new } => prop_assert_eq!(copy.insert(new.subnet, new), Some(old)),
                    PeerChange::Removed(lease) => prop_assert_eq!(copy.remove(&lease.subnet), Some(lease)),
                }
            }
            let fresh = Tracker::new(rules());
            let mut fresh = fresh;
            fresh.replace(&listing, Instant::now(), None);
            prop_assert_eq!(tracker.peers(), fresh.peers());
            prop_assert_eq!(tracker.peers(), &copy.values().cloned().collect::<Peers>());
            prop_assert_eq!(tracker.ignored(), fresh.ignored());
        }
    }
}
