//! Sockets on loopback: real servers, real clients.

use std::net::Ipv4Addr;
use std::sync::RwLock;
use std::time::Instant;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::forward::{self, Forward};
use crate::handler;
use crate::limits;
use crate::metrics::Metrics;
use crate::model::{Event, Kind, ObjectName, Service, Target};
use crate::zone::{self, Zone};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn handler(upstreams: Vec<SocketAddr>) -> Arc<Handler> {
    let domain = Name::from_ascii("cluster.local.").unwrap();
    let mut zone = Zone::new(zone::Settings::new(domain.clone()));
    let name = ObjectName {
        namespace: "shop".into(),
        name: "web".into(),
    };
    let target = Target::ClusterIps([Ipv4Addr::new(10, 96, 0, 20).into()].into());
    let service = Service {
        name,
        target,
        ports: [].into(),
        publish_not_ready: false,
    };
    zone.apply(vec![
        Event::Service(service),
        Event::Listed(Kind::Services),
        Event::Listed(Kind::Slices),
    ]);
    let registry = prometheus::Registry::new();
    let settings = forward::Settings {
        upstreams,
        ..forward::Settings::default()
    };
    let forward = Forward::new(settings, &registry).unwrap();
    let metrics = Arc::new(Metrics::new(&registry, &domain).unwrap());
    let settings = handler::Settings {
        recursive: false,
        search: None,
        limits: limits::Settings::default(),
        query_log: false,
    };
    Handler::new(Arc::new(RwLock::new(zone)), forward, metrics, settings)
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message
        .queries
        .push(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

const WEB: &str = "web.shop.svc.cluster.local.";

/// A server that runs until this is dropped or ended.
struct Running {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

fn start(sockets: Sockets, handler: Arc<Handler>) -> Running {
    let address = sockets.addresses()[0];
    let (end, ended) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(sockets, handler, async {
        ended.await.ok();
    }));
    Running {
        address,
        end: Some(end),
        task,
    }
}

impl Running {
    async fn end(mut self) {
        self.end.take().unwrap().send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

async fn ask_udp(server: SocketAddr, packet: &[u8]) -> Message {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(packet, server).await.unwrap();
    let mut answer = [0; 4096];
    let received = tokio::time::timeout(Duration::from_secs(20), socket.recv_from(&mut answer));
    let (size, from) = received.await.expect("an answer").unwrap();
    assert_eq!(from, server);
    Message::from_vec(&answer[..size]).unwrap()
}

async fn read_framed(stream: &mut TcpStream) -> Option<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await.ok()?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await.ok()?;
    Some(Message::from_vec(&answer).unwrap())
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [
        &u16::try_from(packet.len()).unwrap().to_be_bytes()[..],
        packet,
    ]
    .concat()
}

#[tokio::test]
async fn an_address_is_served_over_udp_and_tcp_of_the_same_port() {
    let server = start(Sockets::open(&[LOOPBACK]).unwrap(), handler(Vec::new()));
    let answer = ask_udp(server.address, &query(7, WEB)).await;
    assert_eq!((answer.metadata.id, answer.answers.len()), (7, 1));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for id in 0..3 {
        stream.write_all(&framed(&query(id, WEB))).await.unwrap();
        let answer = read_framed(&mut stream).await.unwrap();
        assert_eq!((answer.metadata.id, answer.answers.len()), (id, 1));
    }
    server.end().await;
}

#[tokio::test]
async fn ipv6_addresses_are_served_and_do_not_take_ipv4_ones() {
    let sockets = Sockets::open(&["[::1]:0".parse().unwrap()]).unwrap();
    let port = sockets.addresses()[0].port();
    Sockets::open(&[SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)]).unwrap();
    let server = start(sockets, handler(Vec::new()));
    let client = tokio::net::UdpSocket::bind("[::1]:0").await.unwrap();
    client
        .send_to(&query(1, WEB), server.address)
        .await
        .unwrap();
    let mut answer = [0; 512];
    let received = tokio::time::timeout(Duration::from_secs(20), client.recv(&mut answer)).await;
    assert!(received.unwrap().unwrap() > 12);
    server.end().await;
}

#[tokio::test]
async fn several_queries_arrive_in_one_segment_or_byte_by_byte() {
    let server = start(Sockets::open(&[LOOPBACK]).unwrap(), handler(Vec::new()));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let all: Vec<u8> = (0..200).flat_map(|id| framed(&query(id, WEB))).collect();
    stream.write_all(&all).await.unwrap();
    for id in 0..200 {
        assert_eq!(read_framed(&mut stream).await.unwrap().metadata.id, id);
    }
    stream.set_nodelay(true).unwrap();
    for byte in framed(&query(300, WEB)) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read_framed(&mut stream).await.unwrap().metadata.id, 300);
    // A client that has said all may close its side, and still gets its answers.
    stream.write_all(&framed(&query(301, WEB))).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_framed(&mut stream).await.unwrap().metadata.id, 301);
    assert!(read_framed(&mut stream).await.is_none());
    server.end().await;
}

#[tokio::test]
async fn a_slow_name_does_not_hold_up_the_others_of_its_connection() {
    // Takes queries, and answers none.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let handler = handler(vec![silent.local_addr().unwrap()]);
    let server = start(Sockets::open(&[LOOPBACK]).unwrap(), handler);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let both = [
        framed(&query(1, "www.example.com.")),
        framed(&query(2, WEB)),
    ]
    .concat();
    stream.write_all(&both).await.unwrap();
    assert_eq!(read_framed(&mut stream).await.unwrap().metadata.id, 2);
    let late = read_framed(&mut stream).await.unwrap();
    assert_eq!(
        (late.metadata.id, late.metadata.response_code),
        (1, ResponseCode::ServFail)
    );
    server.end().await;
}

#[tokio::test]
async fn a_client_has_only_so_many_connections() {
    let handler = handler(Vec::new());
    let server = start(Sockets::open(&[LOOPBACK]).unwrap(), handler.clone());
    let mut open = Vec::new();
    for _ in 0..70 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may have closed it by now; then the read tells.
        stream.write_all(&framed(&query(1, WEB))).await.ok();
        open.push((read_framed(&mut stream).await.is_some(), stream));
    }
    assert_eq!(open.iter().filter(|(answered, _)| *answered).count(), 64);
    assert_eq!(handler.metrics().closed_connections.get(), 6);
    open.clear();
    // When its connections are closed it may open others.
    let start = Instant::now();
    loop {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&framed(&query(1, WEB))).await.ok();
        if read_framed(&mut stream).await.is_some() {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "still no connection"
        );
    }
    server.end().await;
}

#[tokio::test]
async fn nonsense_does_not_end_the_service() {
    let server = start(Sockets::open(&[LOOPBACK]).unwrap(), handler(Vec::new()));
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for size in [0, 1, 11, 12, 100, 4095, 4096, 4097, 9000, 65000] {
        client
            .send_to(&vec![0x5a; size], server.address)
            .await
            .unwrap();
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[0xff; 70000]).await.ok();
    let mut short = TcpStream::connect(server.address).await.unwrap();
    short.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
    assert!(
        read_framed(&mut short).await.is_none(),
        "closed: there is no answer to three bytes"
    );
    assert_eq!(ask_udp(server.address, &query(9, WEB)).await.metadata.id, 9);
    server.end().await;
}

#[tokio::test]
async fn what_arrives_between_two_runs_is_answered_by_the_next() {
    let sockets = Sockets::open(&[LOOPBACK]).unwrap();
    let address = sockets.addresses()[0];
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    let mut sent = 0u16;
    for _ in 0..5 {
        let server = start(sockets.try_clone().unwrap(), handler(Vec::new()));
        for _ in 0..20 {
            client.send(&query(sent, WEB)).await.unwrap();
            sent += 1;
        }
        server.end().await;
        client.send(&query(sent, WEB)).await.unwrap();
        sent += 1;
    }
    let server = start(sockets.try_clone().unwrap(), handler(Vec::new()));
    let mut answered = std::collections::BTreeSet::new();
    let mut answer = [0; 512];
    while answered.len() < usize::from(sent) {
        let received = tokio::time::timeout(Duration::from_secs(20), client.recv(&mut answer));
        let size = received.await.expect("every query is answered").unwrap();
        answered.insert(Message::from_vec(&answer[..size]).unwrap().metadata.id);
    }
    server.end().await;
}

#[tokio::test]
async fn the_end_waits_for_answers_under_way() {
    let upstream = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let handler = handler(vec![upstream.local_addr().unwrap()]);
    let server = start(Sockets::open(&[LOOPBACK]).unwrap(), handler);
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client
        .send_to(&query(5, "www.example.com."), server.address)
        .await
        .unwrap();
    let mut asked = [0; 512];
    let (size, from) = upstream.recv_from(&mut asked).await.unwrap();
    let ending = tokio::spawn(server.end());
    tokio::task::yield_now().await;
    let mut answer = Message::from_vec(&asked[..size]).unwrap();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.response_code = ResponseCode::NXDomain;
    answer.edns = None;
    upstream
        .send_to(&answer.to_vec().unwrap(), from)
        .await
        .unwrap();
    let mut told = [0; 512];
    let received = tokio::time::timeout(Duration::from_secs(20), client.recv(&mut told));
    let size = received.await.expect("an answer").unwrap();
    let told = Message::from_vec(&told[..size]).unwrap();
    assert_eq!(
        (told.metadata.id, told.metadata.response_code),
        (5, ResponseCode::NXDomain)
    );
    ending.await.unwrap();
}

#[test]
fn a_port_that_another_has_is_an_error_that_names_him() {
    // Without SO_REUSEPORT, as other servers do.
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let error = Sockets::open(&[address]).unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("udp"),
        "{error}"
    );
    let pid = std::process::id();
    assert!(
        error.contains(&format!("(pid {pid}) has it; stop that")),
        "{error}"
    );
}

#[test]
fn an_address_that_the_host_has_not_is_an_error_that_says_so() {
    let error = Sockets::open(&["192.0.2.1:53".parse().unwrap()])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no interface of this host has the address"),
        "{error}"
    );
}

#[test]
fn two_processes_may_share_an_address() {
    // Ports of their own first, so that SO_REUSEPORT is set for both.
    let free = Sockets::open(&[LOOPBACK]).unwrap().addresses();
    let first = Sockets::open(&free).unwrap();
    let second = Sockets::open(&free).unwrap();
    assert_eq!(first.addresses(), second.addresses());
}
