//! The table of the specification (`data/answers.txt`), asked over UDP and over TCP.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use dns::handler::Handler;
use dns::listen::{self, Sockets};
use dns::metrics::Metrics;
use dns::model::{Event, Kind};
use dns::zone::Zone;
use dns::{forward, handler, limits, objects, zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use prometheus::Registry;
use serde_json::Value;

/// Far more than an answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).unwrap()
}

/// The zone that the table is for.
fn the_zone() -> Zone {
    let own = [
        "10.96.0.0/12",
        "10.244.0.0/16",
        "fd00:96::/112",
        "fd00:244::/32",
    ];
    let mut zone = Zone::new(zone::Settings {
        own_reverse: own.iter().map(|net| net.parse().unwrap()).collect(),
        servers: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
        ..zone::Settings::new(name("cluster.local"))
    });
    let objects: Vec<Value> = serde_json::from_str(include_str!("data/cluster.json")).unwrap();
    for object in objects {
        let word = |field| object.pointer(field).and_then(Value::as_str).unwrap();
        let kind = objects::kind_of(word("/kind"), Some(word("/apiVersion"))).unwrap();
        zone.apply(vec![objects::parse(kind, object).unwrap().event]);
    }
    zone.apply(
        [Kind::Services, Kind::Slices, Kind::Pods]
            .map(Event::Listed)
            .into(),
    );
    zone
}

/// A server of the zone on loopback, without upstreams.
fn serve() -> (SocketAddr, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let registry = Registry::new();
    let sockets = Sockets::open(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = sockets.addresses()[0];
    let forward = forward::Forward::new(forward::Settings::default(), &registry).unwrap();
    let metrics = Arc::new(Metrics::new(&registry, &name("cluster.local")).unwrap());
    let settings = handler::Settings {
        recursive: false,
        search: None,
        limits: limits::Settings::default(),
        query_log: false,
    };
    let handler = Handler::new(
        Arc::new(RwLock::new(the_zone())),
        forward,
        metrics,
        settings,
    );
    runtime.spawn(listen::serve(sockets, handler, std::future::pending()));
    (address, runtime)
}

fn question(id: u16, asked: &str, kind: &str) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.queries.push(Query::query(
        name(asked),
        kind.parse::<RecordType>().unwrap(),
    ));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.edns = Some(edns);
    message
}

fn over_udp(server: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server).unwrap();
    socket.send(&question.to_vec().unwrap()).unwrap();
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).unwrap();
    Message::from_vec(&answer[..length]).unwrap()
}

fn over_tcp(stream: &mut TcpStream, question: &Message) -> Message {
    let bytes = question.to_vec().unwrap();
    let mut framed = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    framed.extend(bytes);
    stream.write_all(&framed).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

/// The answer as lines of the table. The order of records is the server's to choose.
fn lines(answer: &Message) -> BTreeSet<String> {
    let line = |sign: &str, record: &Record| {
        let text = record.to_string();
        // The serial of the SOA record is of no account.
        let serial = text
            .split(' ')
            .rev()
            .nth(4)
            .filter(|_| text.contains(" SOA "));
        let text = serial.map_or(text.clone(), |serial| {
            text.replace(&format!(" {serial} "), " SERIAL ")
        });
        format!("{sign} {}", text.trim_end())
    };
    let mut lines: BTreeSet<_> = answer
        .answers
        .iter()
        .map(|record| line("   ", record))
        .collect();
    lines.extend(answer.additionals.iter().map(|record| line("  +", record)));
    let negative = match (answer.metadata.response_code, answer.answers.is_empty()) {
        (ResponseCode::NoError, true) => Some("    NODATA".to_owned()),
        (ResponseCode::NoError, false) => None,
        (ResponseCode::NXDomain, true) => Some("    NXDOMAIN".to_owned()),
        (code, _) => Some(format!("    {code}")),
    };
    lines.extend(negative);
    lines
}

#[test]
fn the_table_holds_over_udp_and_tcp() {
    let (server, _runtime) = serve();
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let table = include_str!("data/answers.txt");
    let mut cases: Vec<(&str, &str, BTreeSet<String>)> = Vec::new();
    for line in table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match (
            line.starts_with(' '),
            line.split_once(' '),
            cases.last_mut(),
        ) {
            (true, _, Some((_, _, expected))) => drop(expected.insert(line.to_owned())),
            (false, Some((asked, kind)), _) => cases.push((asked, kind, BTreeSet::new())),
            _ => panic!("{line:?} is neither a question nor an answer"),
        }
    }
    let mut asked_for = 0;
    for (id, (asked, kind, expected)) in (1..).zip(&cases) {
        // What other servers have to answer is not in the table.
        let others = ["    FOREIGN", "    ALIAS "];
        if expected
            .iter()
            .any(|line| others.iter().any(|other| line.starts_with(other)))
        {
            continue;
        }
        asked_for += 1;
        let question = question(id, asked, kind);
        for (way, answer) in [
            ("UDP", over_udp(server, &question)),
            ("TCP", over_tcp(&mut stream, &question)),
        ] {
            assert_eq!(
                lines(&answer),
                *expected,
                "{asked} {kind} over {way}: {answer}"
            );
            assert_eq!(answer.metadata.id, id);
            assert!(answer.metadata.authoritative, "{asked} {kind} over {way}");
            assert!(!answer.metadata.truncation, "{asked} {kind} over {way}");
            let negative = answer.answers.is_empty();
            let soa = answer
                .authorities
                .iter()
                .filter(|record| record.record_type() == RecordType::SOA);
            assert_eq!(
                soa.count(),
                usize::from(negative),
                "{asked} {kind} over {way}"
            );
            // As asked, letter by letter.
            assert!(answer.queries[0].name.eq_case(&name(asked)));
        }
    }
    assert!(asked_for > 100, "{asked_for}");
}
