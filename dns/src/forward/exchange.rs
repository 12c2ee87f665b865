//! One question to one server: by UDP, and by TCP if the answer does not fit.
//!
//! Against forged answers (RFC 5452): the socket is connected, so the kernel drops what other addresses send; its port
//! and the id of the message are random; the answer must repeat the question. A datagram that does not fit is counted
//! and passed over, for the true answer may still come.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};

/// The largest datagram that an upstream may send, in bytes (DNS flag day 2020: it is not fragmented on the way).
const PAYLOAD: u16 = 1232;

/// Why an answer of an upstream is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("no answer in time")]
    Silent,
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("an answer of {0} bytes, which is no DNS message")]
    Malformed(usize),
    #[error("a datagram of more than the {PAYLOAD} bytes that were offered")]
    Oversized,
    #[error("an answer with another id")]
    OtherId,
    #[error("an answer to another question")]
    OtherQuestion,
    #[error("a query in place of an answer")]
    NotAnswer,
    #[error("a truncated answer by TCP")]
    Truncated,
    #[error("an answer whose records are all of other names or types")]
    Unrelated,
    #[error("the question cannot be put into a message: {0}")]
    Unaskable(#[from] hickory_proto::ProtoError),
}

impl Fault {
    /// The value of the metric's label.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::Silent => "timeout",
            Self::Socket(_) => "socket",
            Self::Malformed(_) => "malformed",
            Self::Oversized => "oversized",
            Self::OtherId => "other_id",
            Self::OtherQuestion => "other_question",
            Self::NotAnswer => "not_answer",
            Self::Truncated => "truncated",
            Self::Unrelated => "unrelated",
            Self::Unaskable(_) => "unaskable",
        }
    }

    /// Whether it says nothing of the server: this process has no descriptor, port or memory left.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Unaskable(_) => true,
            Self::Socket(error) => error.raw_os_error().is_some_and(|code| {
                matches!(
                    Errno::from_raw(code),
                    Errno::EMFILE
                        | Errno::ENFILE
                        | Errno::ENOBUFS
                        | Errno::ENOMEM
                        | Errno::EADDRNOTAVAIL
                )
            }),
            _ => false,
        }
    }
}

/// Asks `server`. `passed_over` is told of what came and was no answer. Waits without end: the caller sets the time.
pub(super) async fn ask(
    server: SocketAddr,
    query: &Query,
    dnssec_ok: bool,
    passed_over: impl Fn(&Fault),
) -> Result<Message, Fault> {
    let message = by_udp(server, &question(query, Some(dnssec_ok)), &passed_over).await?;
    match message {
        // RFC 6891 section 7: a server that does not know EDNS.
        Some(answer) if answer.metadata.response_code == ResponseCode::FormErr => {
            let plain = question(query, None);
            match by_udp(server, &plain, &passed_over).await? {
                Some(answer) => Ok(answer),
                None => by_tcp(server, &plain).await,
            }
        }
        Some(answer) => Ok(answer),
        None => by_tcp(server, &question(query, Some(dnssec_ok))).await,
    }
}

/// A message with a random id. `edns`: with an OPT record, and its DO bit.
fn question(query: &Query, edns: Option<bool>) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    if let Some(dnssec_ok) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD)
            .set_version(0)
            .set_dnssec_ok(dnssec_ok);
        message.set_edns(edns);
    }
    message
}

/// `None`: the answer is larger than a datagram.
async fn by_udp(
    server: SocketAddr,
    asked: &Message,
    passed_over: &impl Fn(&Fault),
) -> Result<Option<Message>, Fault> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&asked.to_vec()?).await?;
    loop {
        // ERROR: a closed port is told by that alone.
        let ready = Interest::READABLE | Interest::ERROR;
        match socket.async_io(ready, || receive(&socket, asked)).await? {
            Ok(answer) => return Ok(Some(answer)),
            Err(Fault::Truncated) => return Ok(None),
            Err(fault @ Fault::Oversized) => {
                passed_over(&fault);
                return Ok(None);
            }
            Err(fault @ (Fault::OtherId | Fault::OtherQuestion | Fault::NotAnswer)) => {
                passed_over(&fault);
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// One datagram. Its buffer is on the stack, so that a question that waits has none.
fn receive(socket: &UdpSocket, asked: &Message) -> io::Result<Result<Message, Fault>> {
    let mut buffer = [0; PAYLOAD as usize + 1];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let told = check(buffer.get(..length).unwrap_or_default(), asked);
    Ok(match told {
        Ok(_) | Err(Fault::Malformed(_)) if length > usize::from(PAYLOAD) => Err(Fault::Oversized),
        told => told,
    })
}

async fn by_tcp(server: SocketAddr, asked: &Message) -> Result<Message, Fault> {
    let bytes = asked.to_vec()?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut framed = Vec::with_capacity(bytes.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&bytes);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    check(&answer, asked)
}

/// The message in `answer`, if it answers `asked`. A truncated one is not read: its last record may be cut.
pub(super) fn check(answer: &[u8], asked: &Message) -> Result<Message, Fault> {
    let malformed = || Fault::Malformed(answer.len());
    if answer.first_chunk() != Some(&asked.metadata.id.to_be_bytes()) {
        return Err(Fault::OtherId);
    }
    let header = answer.first_chunk::<12>().ok_or_else(malformed)?;
    if header[2] & 0x80 == 0 {
        return Err(Fault::NotAnswer);
    }
    if header[2] & 0x02 != 0 {
        return Err(Fault::Truncated);
    }
    let message = Message::from_vec(answer).map_err(|_| malformed())?;
    if message.metadata.message_type != MessageType::Response
        || message.metadata.op_code != OpCode::Query
    {
        return Err(Fault::NotAnswer);
    }
    // A server that could not read the question may leave it out.
    let unread = message.queries.is_empty()
        && !matches!(
            message.metadata.response_code,
            ResponseCode::NoError | ResponseCode::NXDomain
        );
    if unread || message.queries == asked.queries {
        Ok(message)
    } else {
        Err(Fault::OtherQuestion)
    }
}
