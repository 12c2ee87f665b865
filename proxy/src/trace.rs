//! An imaginary packet and what becomes of it, in words common to all modes that have rules: for
//! `weft-proxy trace`, and so that one table of cases can be run over each mode's rules.

#[cfg(test)]
pub(crate) mod cases;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::model::Protocol;

/// The first packet of a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it; the port matters to nobody.
    pub source: SocketAddr,
    /// Where it is sent to.
    pub destination: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it comes in; `None`: the node itself sends it.
    pub interface: Option<String>,
    /// The source is an address of this node.
    pub source_is_local: bool,
    /// The destination is an address of this node.
    pub destination_is_local: bool,
}

/// What becomes of it in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It goes to one of [`Outcome::endpoints`].
    Balanced,
    /// It is refused, so that the sender knows.
    Reject,
    /// It vanishes.
    Drop,
    /// No rule is about it: it goes where it was sent.
    #[default]
    NotOurs,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The endpoints it may be sent to, and for each whether its source is replaced by the node's.
    pub endpoints: BTreeMap<SocketAddr, bool>,
    /// The decisions on its way, in order, for a person.
    pub steps: Vec<String>,
}

impl Packet {
    /// A packet that comes in by `eth0`, of which neither address is the node's.
    pub fn new(source: IpAddr, destination: SocketAddr, protocol: Protocol) -> Self {
        Self {
            source: SocketAddr::new(source, 40000),
            destination,
            protocol,
            interface: Some("eth0".to_owned()),
            source_is_local: false,
            destination_is_local: false,
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} from {} to {}",
            self.protocol, self.source, self.destination
        )?;
        match &self.interface {
            Some(interface) => write!(out, " in by {interface}"),
            None => out.write_str(" from the node itself"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            Verdict::Balanced => {
                out.write_str("to one of")?;
                for (endpoint, masqueraded) in &self.endpoints {
                    write!(out, " {endpoint}")?;
                    if *masqueraded {
                        out.write_str(" (masqueraded)")?;
                    }
                }
                Ok(())
            }
            Verdict::Reject => out.write_str("rejected"),
            Verdict::Drop => out.write_str("dropped"),
            Verdict::NotOurs => out.write_str("not a Service's: goes on as it is"),
        }
    }
}
