//! A server on loopback that answers as a test wants it to: UDP and TCP on one port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// How a question came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    Udp,
    Tcp,
}

/// It ends when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    asked: [Arc<AtomicUsize>; 2],
    _tasks: JoinSet<()>,
}

impl Server {
    /// `told` makes the datagrams (or the frames) that answer a question, when they are to be sent.
    pub async fn new<F, T>(told: F) -> Self
    where
        F: Fn(Message, By) -> T + Clone + Send + 'static,
        T: Future<Output = Vec<Vec<u8>>> + Send + 'static,
    {
        Self::on_ip([127, 0, 0, 1], told).await
    }

    /// On any port of an address.
    pub async fn on_ip<F, T>(ip: impl Into<IpAddr>, told: F) -> Self
    where
        F: Fn(Message, By) -> T + Clone + Send + 'static,
        T: Future<Output = Vec<Vec<u8>>> + Send + 'static,
    {
        let ip = ip.into();
        loop {
            let tcp = TcpListener::bind((ip, 0)).await.unwrap();
            let address = tcp.local_addr().unwrap();
            // Another process may have the port by UDP.
            if let Ok(udp) = UdpSocket::bind(address).await {
                return Self::on(udp, tcp, told);
            }
        }
    }

    /// On the port of one that was dropped, once it is free.
    pub async fn at<F, T>(address: SocketAddr, told: F) -> Self
    where
        F: Fn(Message, By) -> T + Clone + Send + 'static,
        T: Future<Output = Vec<Vec<u8>>> + Send + 'static,
    {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            if let Ok(tcp) = TcpListener::bind(address).await
                && let Ok(udp) = UdpSocket::bind(address).await
            {
                return Self::on(udp, tcp, told);
            }
        }
    }

    fn on<F, T>(udp: UdpSocket, tcp: TcpListener, told: F) -> Self
    where
        F: Fn(Message, By) -> T + Clone + Send + 'static,
        T: Future<Output = Vec<Vec<u8>>> + Send + 'static,
    {
        let address = tcp.local_addr().unwrap();
        let asked: [Arc<AtomicUsize>; 2] = Default::default();
        let mut tasks = JoinSet::new();
        let (count, tell) = (Arc::clone(&asked[0]), told.clone());
        tasks.spawn(async move {
            let udp = Arc::new(udp);
            let mut running = JoinSet::new();
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (udp, tell) = (Arc::clone(&udp), tell.clone());
                running.spawn(async move {
                    for answer in tell(question, By::Udp).await {
                        // The one who asked may be gone.
                        let _ = udp.send_to(&answer, from).await;
                    }
                });
            }
        });
        let count = Arc::clone(&asked[1]);
        tasks.spawn(async move {
            let mut running = JoinSet::new();
            loop {
                let (stream, _) = tcp.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                running.spawn(serve(stream, told.clone()));
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    /// How often it was asked that way.
    pub fn asked(&self, by: By) -> usize {
        self.asked[by as usize].load(Ordering::SeqCst)
    }
}

async fn serve<F, T>(mut stream: TcpStream, told: F)
where
    F: Fn(Message, By) -> T,
    T: Future<Output = Vec<Vec<u8>>>,
{
    let Ok(length) = stream.read_u16().await else {
        return;
    };
    let mut question = vec![0; usize::from(length)];
    stream.read_exact(&mut question).await.unwrap();
    for answer in told(Message::from_vec(&question).unwrap(), By::Tcp).await {
        let length = u16::try_from(answer.len()).unwrap();
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    }
}

/// An answer to `question` without records.
pub fn empty(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.queries.clone_from(&question.queries);
    answer
}

/// An answer of the addresses `192.0.2.N`.
pub fn addresses(question: &Message, ttl: u32, lasts: impl IntoIterator<Item = u8>) -> Message {
    let mut answer = empty(question, ResponseCode::NoError);
    let name = &question.queries[0].name;
    answer.add_answers(
        lasts
            .into_iter()
            .map(|last| Record::from_rdata(name.clone(), ttl, RData::A(A::new(192, 0, 2, last)))),
    );
    answer
}

/// As bytes.
pub fn bytes(message: &Message) -> Vec<Vec<u8>> {
    vec![message.to_vec().unwrap()]
}
