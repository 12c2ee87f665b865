//! Transactions: all or nothing, in order, against an expected generation, and large ones.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use kernel::nft::{Data, Element, Socket, Table, Transaction, Verdict};

use crate::bed::{Node, concat, table};

const TABLE: &str = "
table ip weft-test {
    chain one { accept; }
    chain two { drop; }
    map services { typeof ip daddr . meta l4proto . th dport : verdict; }
    map slots { typeof ip daddr . meta l4proto . th dport : ip daddr . th dport; }
    map fenced {
        typeof ip daddr . meta l4proto . th dport . ip saddr : verdict
        flags interval
    }
    set clients { type ipv4_addr; flags timeout; }
    set few { type ipv4_addr; size 2; }
}
";

fn key(number: u32) -> kernel::nft::Bytes {
    let address = (0x0a60_0000 + number / 4).to_be_bytes();
    let port = (80 + (number % 4) as u16).to_be_bytes();
    concat(&[&address, &[6], &port])
}

fn value(number: u32) -> Data {
    let address = (0x0af4_0000 + number).to_be_bytes();
    Data::Value(concat(&[&address, &8080u16.to_be_bytes()]))
}

fn slot(number: u32) -> Element {
    Element::of_map(key(number), value(number))
}

fn goto(chain: &str) -> Data {
    Data::Verdict(Verdict::Goto(chain.into()))
}

fn read(socket: &mut Socket, set: &str) -> Vec<Element> {
    let mut elements = socket.elements(&table(), set).unwrap().unwrap();
    elements.sort();
    elements
}

#[test]
fn one_bad_element_and_nothing_is_done() {
    let Some((_node, mut socket)) = Node::with("atomic", TABLE) else {
        return;
    };
    let before = socket.generation().unwrap();
    let mut transaction = Transaction::new(&table());
    for number in 0..1000 {
        transaction.add("slots", &slot(number));
    }
    let bad = Element::of_map(key(5000), goto("nosuch"));
    transaction.add("services", &Element::of_map(key(1), goto("one")));
    transaction.add("services", &bad);
    transaction.add("services", &Element::of_map(key(2), goto("one")));
    let error = socket.commit(&transaction).unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        "add element 0x0a6004e20600000000500000 of nftables set ip weft-test services: \
         no such file or directory"
    );
    assert_eq!(socket.generation().unwrap(), before);
    assert_eq!(read(&mut socket, "slots"), []);
    assert_eq!(read(&mut socket, "services"), []);
}

#[test]
fn every_refusal_names_set_and_element() {
    let Some((node, mut socket)) = Node::with("refusals", TABLE) else {
        return;
    };
    let mut refused = |what: &dyn Fn(&mut Transaction)| {
        let mut transaction = Transaction::new(&table());
        what(&mut transaction);
        let error = socket.commit(&transaction).unwrap_err();
        (error.errno(), error.to_string())
    };
    node.nft("add element ip weft-test slots { 10.96.0.0 . tcp . 80 : 10.244.0.0 . 8080 }");
    let (errno, text) = refused(&|transaction| {
        transaction.create("slots", &slot(1));
        transaction.create("slots", &slot(0));
    });
    assert_eq!(errno, Some(libc::EEXIST));
    assert_eq!(
        text,
        "create element 0x0a6000000600000000500000 of nftables set ip weft-test slots: file exists"
    );
    let other = Element::of_map(key(0), value(9));
    let (errno, text) = refused(&|transaction| transaction.add("slots", &other));
    assert_eq!(errno, Some(libc::EEXIST), "{text}");
    let (errno, text) = refused(&|transaction| transaction.delete("slots", &slot(7)));
    assert_eq!(errno, Some(libc::ENOENT), "{text}");
    assert!(
        text.starts_with("delete element 0x0a6000010600000000530000 of"),
        "{text}"
    );
    let (errno, text) = refused(&|transaction| transaction.add("nosuch", &slot(7)));
    assert_eq!(errno, Some(libc::ENOENT), "{text}");
    assert!(text.contains("nftables set ip weft-test nosuch"), "{text}");
    let (errno, text) = refused(&|transaction| transaction.flush("nosuch"));
    assert_eq!(errno, Some(libc::ENOENT), "{text}");
    assert!(
        text.starts_with("flush nftables set ip weft-test nosuch"),
        "{text}"
    );
    let short = Element::of_map([1, 2, 3], value(1));
    let (errno, text) = refused(&|transaction| transaction.add("slots", &short));
    assert_eq!(errno, Some(libc::EINVAL), "{text}");
    let (errno, text) = refused(&|transaction| {
        (0..3u8).for_each(|last| transaction.add("few", &Element::of_set([10, 0, 0, last])));
    });
    assert_eq!(errno, Some(libc::ENFILE), "{text}");
    let long = Element::of_set(vec![0; 65]);
    let (errno, text) = refused(&|transaction| transaction.add("slots", &long));
    assert_eq!(errno, None);
    assert!(text.contains("65 bytes"), "{text}");
    let (errno, text) = refused(&|transaction| transaction.flush("slots\0x"));
    assert_eq!(errno, None);
    assert!(text.contains("cannot be a name"), "{text}");
    // Adding what is there is fine, and changes nothing.
    let before = socket.generation().unwrap();
    let mut transaction = Transaction::new(&table());
    transaction.add("slots", &slot(0));
    assert_eq!(socket.commit(&transaction).unwrap(), before);
}

#[test]
fn many_refusals_are_counted() {
    let Some((_node, mut socket)) = Node::with("many-refusals", TABLE) else {
        return;
    };
    let mut transaction = Transaction::new(&table());
    // Each delete and add is a message of its own.
    for number in 0..20_000 {
        transaction.delete("slots", &slot(number));
        transaction.add("services", &Element::of_map(key(number), goto("nosuch")));
    }
    let error = socket.commit(&transaction).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT));
    let text = error.to_string();
    assert!(
        text.starts_with("delete element 0x0a6000000600000000500000 of"),
        "{text}"
    );
    assert!(text.contains("more refusals"), "{text}");
    // The socket serves on.
    let mut transaction = Transaction::new(&table());
    transaction.add("slots", &slot(0));
    socket.commit(&transaction).unwrap();
    assert_eq!(read(&mut socket, "slots"), [slot(0)]);
}

/// A kernel fact that the proxy rests on: within one transaction an element can be deleted and
/// added with other data, in hash maps and in interval maps (6.18; nf_tables_api.c keeps the old
/// element for the present generation and the new one for the next).
#[test]
fn data_change_by_delete_and_add() {
    let Some((_node, mut socket)) = Node::with("replace", TABLE) else {
        return;
    };
    let fenced = |number: u32, chain: &str| {
        let with = |source: [u8; 4]| concat(&[&key(number), &source]);
        Element {
            key_end: Some(with([10, 255, 255, 255])),
            ..Element::of_map(with([10, 0, 0, 0]), goto(chain))
        }
    };
    type Make<'a> = &'a dyn Fn(u32) -> Element;
    let sets: [(&str, Make<'_>, Make<'_>); 3] = [
        ("slots", &slot, &|number| {
            Element::of_map(key(number), value(number + 1))
        }),
        (
            "services",
            &|number| Element::of_map(key(number), goto("one")),
            &|number| Element::of_map(key(number), goto("two")),
        ),
        ("fenced", &|number| fenced(number, "one"), &|number| {
            fenced(number, "two")
        }),
    ];
    for (set, old, new) in sets {
        let mut transaction = Transaction::new(&table());
        (0..500).for_each(|number| transaction.create(set, &old(number)));
        socket.commit(&transaction).unwrap();

        // All deletes, then all adds; and one after the other.
        let mut transaction = Transaction::new(&table());
        (0..250).for_each(|number| transaction.delete(set, &old(number)));
        (0..250).for_each(|number| transaction.create(set, &new(number)));
        for number in 250..500 {
            transaction.delete(set, &old(number));
            transaction.create(set, &new(number));
        }
        socket.commit(&transaction).unwrap();
        let wanted: Vec<_> = (0..500).map(new).collect();
        assert_eq!(read(&mut socket, set), wanted, "{set}");

        // A transaction that fails leaves the old data.
        let mut transaction = Transaction::new(&table());
        for number in 0..500 {
            transaction.delete(set, &new(number));
            transaction.create(set, &old(number));
        }
        transaction.delete(set, &old(1000));
        assert!(socket.commit(&transaction).unwrap_err().is_not_found());
        assert_eq!(read(&mut socket, set), wanted, "{set}");
    }
}

/// Kernel facts about elements with a time: deleting and adding renews them anywhere; adding alone
/// renews them from Linux 6.12 on (before, the old time stays).
#[test]
fn timeouts_are_renewed() {
    let Some((_node, mut socket)) = Node::with("renew", TABLE) else {
        return;
    };
    let client = |seconds: u64| Element {
        timeout: Some(Duration::from_secs(seconds)),
        ..Element::of_set([10, 0, 0, 1])
    };
    let mut commit = |what: &dyn Fn(&mut Transaction)| {
        let mut transaction = Transaction::new(&table());
        what(&mut transaction);
        socket.commit(&transaction).unwrap();
        read(&mut socket, "clients")[0].timeout.unwrap().as_secs()
    };
    assert_eq!(
        commit(&|transaction| transaction.create("clients", &client(100))),
        100
    );
    let renewed = commit(&|transaction| {
        transaction.delete("clients", &client(0));
        transaction.create("clients", &client(200));
    });
    assert_eq!(renewed, 200);
    let added = commit(&|transaction| transaction.add("clients", &client(300)));
    assert_eq!(added, if is_at_least(6, 12) { 300 } else { 200 });
}

fn is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

#[test]
fn an_expected_generation_that_is_past() {
    let Some((node, mut socket)) = Node::with("generation", TABLE) else {
        return;
    };
    let generation = socket.generation().unwrap();
    let mut transaction = Transaction::new(&table());
    transaction.add("slots", &slot(1));
    transaction.expect_generation(generation);
    let made = socket.commit(&transaction).unwrap();
    assert_ne!(made, generation);
    assert_eq!(made, socket.generation().unwrap());

    let mut transaction = Transaction::new(&table());
    transaction.expect_generation(made);
    assert_eq!(socket.commit(&transaction).unwrap(), made);
    node.nft("add chain ip weft-test three");
    assert!(socket.commit(&transaction).unwrap_err().is_outdated());
    transaction.add("slots", &slot(2));
    let error = socket.commit(&transaction).unwrap_err();
    assert!(error.is_outdated(), "{error}");
    assert_eq!(read(&mut socket, "slots"), [slot(1)]);
    transaction.expect_generation(socket.generation().unwrap());
    socket.commit(&transaction).unwrap();
    assert_eq!(read(&mut socket, "slots"), [slot(1), slot(2)]);
}

#[test]
fn fifty_thousand_elements() {
    let Some((_node, mut socket)) = Node::with("many", TABLE) else {
        return;
    };
    let mut transaction = Transaction::new(&table());
    let encoding = Instant::now();
    (0..50_000).for_each(|number| transaction.create("slots", &slot(number)));
    let encoding = encoding.elapsed();
    assert_eq!(transaction.len(), 50_000);
    let committing = Instant::now();
    socket.commit(&transaction).unwrap();
    let committing = committing.elapsed();
    let reading = Instant::now();
    let start = || (0u32, 0u32);
    let sum = socket.fold_elements(&table(), "slots", start, |(count, wrong), element| {
        *count += 1;
        let address = u32::from_be_bytes(*element.key.first_chunk().unwrap()) - 0x0a60_0000;
        let port = u16::from_be_bytes([element.key[8], element.key[9]]) - 80;
        let number = address * 4 + u32::from(port);
        *wrong += u32::from(element != slot(number));
    });
    let reading = reading.elapsed();
    assert_eq!(sum.unwrap(), Some((50_000, 0)));
    println!(
        "50,000 elements, {} bytes: encoded in {encoding:?}, committed in {committing:?}, read in {reading:?}",
        transaction.bytes()
    );
}

#[test]
fn a_list_is_of_one_moment() {
    let Some((node, mut socket)) = Node::with("moment", TABLE) else {
        return;
    };
    let fill = |socket: &mut Socket, data: u32| {
        let mut transaction = Transaction::new(&table());
        transaction.flush("slots");
        (0..3000).for_each(|number| {
            transaction.create("slots", &Element::of_map(key(number), value(data)));
        });
        socket.commit(&transaction).unwrap();
    };
    fill(&mut socket, 0);
    let stop = AtomicBool::new(false);
    let mut writer = Socket::open_in(&node.netns).unwrap();
    std::thread::scope(|scope| {
        let _ends = Stop(&stop);
        scope.spawn(|| {
            for data in 1.. {
                if stop.load(Relaxed) {
                    break;
                }
                fill(&mut writer, data);
                std::thread::sleep(Duration::from_millis(60));
            }
        });
        for _ in 0..20 {
            let elements = socket.elements(&table(), "slots").unwrap().unwrap();
            assert_eq!(elements.len(), 3000);
            let first = &elements[0].data;
            assert!(elements.iter().all(|element| element.data == *first));
        }
    });
}

/// Ends the other thread, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_table_that_is_not_there() {
    let Some((_node, mut socket)) = Node::with("no-table", TABLE) else {
        return;
    };
    let nowhere = Table::new(kernel::nft::Family::Ip6, "weft-test");
    let mut transaction = Transaction::new(&nowhere);
    transaction.add("slots", &slot(1));
    let error = socket.commit(&transaction).unwrap_err();
    assert!(error.is_not_found());
    assert!(error.to_string().contains("ip6 weft-test slots"), "{error}");
}
