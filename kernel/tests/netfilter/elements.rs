//! Elements of every sort that the proxy uses, there and back.

use std::time::Duration;

use kernel::nft::{Data, Element, Family, Table, Transaction, Verdict};
use serde_json::json;

use crate::bed::{Node, concat, table};

const TABLE: &str = "
table ip weft-test {
    chain to-service { counter accept; }
    map services {
        typeof ip daddr . meta l4proto . th dport : verdict
    }
    map slots {
        typeof ip daddr . meta l4proto . th dport : ip daddr . th dport
    }
    set clients {
        typeof ip saddr . ip daddr
        flags timeout
    }
    map fenced {
        typeof ip daddr . meta l4proto . th dport . ip saddr : verdict
        flags interval
    }
    set networks {
        type ipv4_addr
        flags interval
    }
    map anything {
        type ipv4_addr : verdict
    }
}
table ip6 weft-test {
    map slots {
        typeof ip6 daddr . meta l4proto . th dport : ip6 daddr . th dport
    }
}
";

fn service(last: u8, port: u16) -> kernel::nft::Bytes {
    concat(&[&[10, 96, 0, last], &[6], &port.to_be_bytes()])
}

fn endpoint(last: u8, port: u16) -> Data {
    Data::Value(concat(&[&[10, 244, 0, last], &port.to_be_bytes()]))
}

#[test]
fn verdicts_are_written_as_nft_reads_them() {
    let Some((node, mut socket)) = Node::with("verdicts", TABLE) else {
        return;
    };
    let verdicts = [
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Return,
        Verdict::Jump("to-service".into()),
        Verdict::Goto("to-service".into()),
    ];
    let mut transaction = Transaction::new(&table());
    let mut wanted = Vec::new();
    for (last, verdict) in (1..).zip(verdicts) {
        wanted.push(Element::of_map(service(last, 80), Data::Verdict(verdict)));
        transaction.add("services", wanted.last().unwrap());
    }
    let generation = socket.commit(&transaction).unwrap();
    assert_eq!(generation, socket.generation().unwrap());
    let address = |last: u8| json!({"concat": [format!("10.96.0.{last}"), "tcp", 80]});
    assert_eq!(
        node.listed(&table(), "map", "services"),
        [
            json!([address(1), {"accept": null}]),
            json!([address(2), {"drop": null}]),
            json!([address(3), {"return": null}]),
            json!([address(4), {"jump": {"target": "to-service"}}]),
            json!([address(5), {"goto": {"target": "to-service"}}]),
        ]
    );
    let mut read = socket.elements(&table(), "services").unwrap().unwrap();
    read.sort();
    assert_eq!(read, wanted);

    let mut transaction = Transaction::new(&table());
    transaction.delete("services", &wanted[0]);
    socket.commit(&transaction).unwrap();
    assert_eq!(node.listed(&table(), "map", "services").len(), 4);
    let mut transaction = Transaction::new(&table());
    transaction.flush("services");
    socket.commit(&transaction).unwrap();
    assert_eq!(socket.elements(&table(), "services").unwrap(), Some(vec![]));
    assert_eq!(socket.elements(&table(), "nosuch").unwrap(), None);
    let nowhere = Table::new(Family::Ip, "nosuch");
    assert_eq!(socket.elements(&nowhere, "services").unwrap(), None);
}

#[test]
fn values_are_written_as_nft_reads_them() {
    let Some((node, mut socket)) = Node::with("values", TABLE) else {
        return;
    };
    let wanted = Element::of_map(service(1, 80), endpoint(7, 8080));
    let mut transaction = Transaction::new(&table());
    transaction.add("slots", &wanted);
    socket.commit(&transaction).unwrap();
    assert_eq!(
        node.listed(&table(), "map", "slots"),
        [json!([
            {"concat": ["10.96.0.1", "tcp", 80]},
            {"concat": ["10.244.0.7", 8080]}
        ])]
    );
    let read = socket.elements(&table(), "slots").unwrap().unwrap();
    assert_eq!(read, [wanted]);

    let table = Table::new(Family::Ip6, "weft-test");
    let address = |last: u16| std::net::Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last).octets();
    let port = 53u16.to_be_bytes();
    let wanted = Element::of_map(
        concat(&[&address(1), &[17], &port]),
        Data::Value(concat(&[&address(0xff), &port])),
    );
    let mut transaction = Transaction::new(&table);
    transaction.create("slots", &wanted);
    socket.commit(&transaction).unwrap();
    assert_eq!(
        node.listed(&table, "map", "slots"),
        [json!([
            {"concat": ["fd00:1::1", "udp", 53]},
            {"concat": ["fd00:1::ff", 53]}
        ])]
    );
    let read = socket.elements(&table, "slots").unwrap().unwrap();
    assert_eq!(read, [wanted]);
}

#[test]
fn elements_with_a_time_of_their_own() {
    let Some((node, mut socket)) = Node::with("times", TABLE) else {
        return;
    };
    let wanted = Element {
        timeout: Some(Duration::from_secs(3600)),
        ..Element::of_set(concat(&[&[10, 244, 0, 1], &[10, 244, 0, 2]]))
    };
    let mut transaction = Transaction::new(&table());
    transaction.add("clients", &wanted);
    socket.commit(&transaction).unwrap();
    let listed = node.listed(&table(), "set", "clients");
    let listed = &listed[0]["elem"];
    assert_eq!(listed["timeout"], 3600);
    assert_eq!(
        listed["val"],
        json!({"concat": ["10.244.0.1", "10.244.0.2"]})
    );
    let read = socket.elements(&table(), "clients").unwrap().unwrap();
    let expires = read[0].expires.unwrap();
    assert!(expires > Duration::from_secs(3500) && expires <= Duration::from_secs(3600));
    let expected = Element {
        expires: Some(expires),
        ..wanted
    };
    assert_eq!(read, [expected]);
}

#[test]
fn intervals_of_concatenations() {
    let Some((node, mut socket)) = Node::with("intervals", TABLE) else {
        return;
    };
    let key = |from: [u8; 4]| concat(&[&[10, 96, 0, 1], &[6], &80u16.to_be_bytes(), &from]);
    let wanted = Element {
        key_end: Some(key([192, 168, 255, 255])),
        ..Element::of_map(key([192, 168, 0, 0]), Data::Verdict(Verdict::Accept))
    };
    let mut transaction = Transaction::new(&table());
    transaction.add("fenced", &wanted);
    socket.commit(&transaction).unwrap();
    assert_eq!(
        node.listed(&table(), "map", "fenced"),
        [json!([
            {"concat": ["10.96.0.1", "tcp", 80, {"prefix": {"addr": "192.168.0.0", "len": 16}}]},
            {"accept": null}
        ])]
    );
    let read = socket.elements(&table(), "fenced").unwrap().unwrap();
    assert_eq!(read, std::slice::from_ref(&wanted));
    let mut transaction = Transaction::new(&table());
    transaction.delete("fenced", &wanted);
    socket.commit(&transaction).unwrap();
    assert!(node.listed(&table(), "map", "fenced").is_empty());
}

#[test]
fn intervals_of_one_field_have_two_elements() {
    let Some((node, mut socket)) = Node::with("plain-intervals", TABLE) else {
        return;
    };
    let first = Element::of_set([10, 0, 0, 0]);
    let after = Element {
        interval_end: true,
        ..Element::of_set([11, 0, 0, 0])
    };
    let mut transaction = Transaction::new(&table());
    transaction.add("networks", &first);
    transaction.add("networks", &after);
    socket.commit(&transaction).unwrap();
    assert_eq!(
        node.listed(&table(), "set", "networks"),
        [json!({"prefix": {"addr": "10.0.0.0", "len": 8}})]
    );
    let read = socket.elements(&table(), "networks").unwrap().unwrap();
    assert!(read.contains(&first) && read.contains(&after), "{read:?}");
    let mut transaction = Transaction::new(&table());
    transaction.delete("networks", &first);
    transaction.delete("networks", &after);
    socket.commit(&transaction).unwrap();
    assert!(node.listed(&table(), "set", "networks").is_empty());
}

#[test]
fn an_empty_key_is_the_catch_all() {
    let Some((node, mut socket)) = Node::with("catch-all", TABLE) else {
        return;
    };
    let wanted = Element::of_map([], Data::Verdict(Verdict::Drop));
    let mut transaction = Transaction::new(&table());
    transaction.add("anything", &wanted);
    socket.commit(&transaction).unwrap();
    assert_eq!(
        node.listed(&table(), "map", "anything"),
        [json!(["*", {"drop": null}])]
    );
    let read = socket.elements(&table(), "anything").unwrap().unwrap();
    assert_eq!(read, [wanted]);
}
