//! Traffic between namespaces: ping, TCP in several shapes, UDP, and the sender's address as the
//! receiver sees it.
//!
//! Sockets are made on a thread inside their namespace and stay there, so the threads that use
//! them are ordinary ones.

mod exchange;
mod knock;
mod knocker;
mod ping;
mod server;
mod stream;

pub use exchange::{UdpEcho, exchange, exchange_datagrams};
pub use knock::{Answer, Outcome, Transport, UdpClient, knock, knock_from};
pub use knocker::{Knocker, KnockerReport};
pub use ping::{Ping, PingReport};
pub use server::{TcpServer, UdpServer, bulk, seen_as, seen_as_udp};
pub use stream::{Conversation, Stream, StreamReport};

use crate::namespace::Namespace;
use anyhow::Result;

/// IP packets that these namespaces have cut into fragments, both families.
pub fn fragments<'a>(namespaces: impl IntoIterator<Item = &'a Namespace>) -> Result<u64> {
    let mut sum = 0;
    for namespace in namespaces {
        sum += namespace.snmp("Ip", "FragCreates")? + namespace.snmp6("Ip6FragCreates")?;
    }
    Ok(sum)
}
