//! Events: who changed what, and how a program knows its own changes.

use std::os::fd::AsFd as _;

use kernel::nft::{Element, Event, Monitor, Transaction, What};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::bed::{Node, table};

const TABLE: &str = "
table ip weft-test {
    chain one { accept; }
    set clients { type ipv4_addr; }
}
";

/// What, its name, and whether it is gone.
type Change<'a> = (What, &'a str, bool);

/// All events that wait. The kernel has delivered them when the change returns.
fn read(monitor: &mut Monitor) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(events) = monitor.events().unwrap() {
        all.extend(events);
    }
    all
}

/// The changes and who did each.
fn changes(events: &[Event]) -> (Vec<Change<'_>>, Vec<u32>) {
    let mut who = Vec::new();
    let changes = events.iter().filter_map(|event| match event {
        Event::Changed {
            table: changed,
            what,
            name,
            removed,
            port_id,
        } => {
            assert_eq!(*changed, table());
            who.push(*port_id);
            Some((*what, name.as_str(), *removed))
        }
        _ => None,
    });
    (changes.collect(), who)
}

fn clients(count: u32) -> impl Iterator<Item = Element> {
    (0..count).map(|number| Element::of_set((0x0a00_0000 + number).to_be_bytes()))
}

#[test]
fn changes_by_nft() {
    let Some((node, mut socket)) = Node::with("events", TABLE) else {
        return;
    };
    let mut monitor = Monitor::open_in(&node.netns).unwrap();
    assert_eq!(monitor.events().unwrap(), None);
    let cases: [(&str, &[Change<'_>]); 8] = [
        (
            "add element ip weft-test clients { 10.0.0.1, 10.0.0.2 }",
            &[(What::Element, "clients", false)],
        ),
        (
            "delete element ip weft-test clients { 10.0.0.1 }",
            &[(What::Element, "clients", true)],
        ),
        (
            "flush set ip weft-test clients",
            &[(What::Element, "clients", true)],
        ),
        (
            "add rule ip weft-test one drop",
            &[(What::Rule, "one", false)],
        ),
        ("flush chain ip weft-test one", &[(What::Rule, "one", true)]),
        (
            "delete chain ip weft-test one",
            &[(What::Chain, "one", true)],
        ),
        (
            "add map ip weft-test slots { type ipv4_addr : ipv4_addr; }",
            &[(What::Set, "slots", false)],
        ),
        (
            "delete table ip weft-test",
            &[
                (What::Set, "slots", true),
                (What::Set, "clients", true),
                (What::Table, "", true),
            ],
        ),
    ];
    for (script, wanted) in cases {
        node.nft(script);
        let events = read(&mut monitor);
        let (mut changes, who) = changes(&events);
        let mut wanted = wanted.to_vec();
        changes.sort();
        wanted.sort();
        assert_eq!(changes, wanted, "{script}");
        assert!(
            who.iter()
                .all(|id| *id != socket.port_id() && *id == who[0])
        );
        let Some(Event::Generation {
            id,
            process,
            port_id,
            pid,
        }) = events.last()
        else {
            panic!("{script}: no generation after {events:?}");
        };
        assert_eq!(*id, socket.generation().unwrap());
        assert_eq!((process.as_str(), *port_id), ("nft", who[0]));
        assert_ne!(*pid, 0);
    }
    node.nft("flush ruleset");
    let events = read(&mut monitor);
    assert_eq!(changes(&events).0, []);
}

#[test]
fn own_changes_are_known_by_the_port() {
    let Some((node, mut socket)) = Node::with("own-events", TABLE) else {
        return;
    };
    let mut monitor = Monitor::open_in(&node.netns).unwrap();
    let mut transaction = Transaction::new(&table());
    clients(5000).for_each(|client| transaction.create("clients", &client));
    let generation = socket.commit(&transaction).unwrap();
    let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 1);
    let events = read(&mut monitor);
    let (_, who) = changes(&events);
    // Once for each datagram, not for each element.
    assert!(!who.is_empty() && who.len() < 500, "{}", who.len());
    assert!(who.iter().all(|id| *id == socket.port_id()));
    let last = events.last().unwrap();
    let Event::Generation { id, port_id, .. } = last else {
        panic!("{last:?}");
    };
    assert_eq!((*id, *port_id), (generation, socket.port_id()));

    // What failed is no event.
    socket.commit(&transaction).unwrap_err();
    assert_eq!(monitor.events().unwrap(), None);
}

#[test]
fn thirty_thousand_elements_fit_and_too_many_are_an_overrun() {
    let Some((node, mut socket)) = Node::with("overrun", TABLE) else {
        return;
    };
    let mut monitor = Monitor::open_in(&node.netns).unwrap();
    let mut add = Transaction::new(&table());
    clients(30_000).for_each(|client| add.create("clients", &client));
    let mut flush = Transaction::new(&table());
    flush.flush("clients");
    socket.commit(&add).unwrap();
    assert!(!read(&mut monitor).contains(&Event::Overrun));
    for _ in 0..10 {
        socket.commit(&flush).unwrap();
        socket.commit(&add).unwrap();
    }
    assert!(read(&mut monitor).contains(&Event::Overrun));
    // And it hears on.
    socket.commit(&flush).unwrap();
    let events = read(&mut monitor);
    assert!(
        matches!(events.last(), Some(Event::Generation { .. })),
        "{events:?}"
    );
}
