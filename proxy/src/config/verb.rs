//! What to do: run, clean up, show, trace.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Subcommand;

use super::listen::address_and_port;
use super::values;
use crate::model::{ObjectName, Protocol};

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Proxy until told to end (or once, or dry: see [`super::Checked`]).
    Run,
    /// Remove what a former run left.
    Cleanup {
        /// What a kube-proxy left, too.
        kube_proxy: bool,
    },
    /// Print what Services resolve to on this node.
    Show {
        /// Of this one only.
        service: Option<ObjectName>,
    },
    /// Follow an imaginary packet.
    Trace(Trace),
    /// Write the configuration in force to a file.
    WriteConfig(PathBuf),
}

/// An imaginary packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Who sends it.
    pub from: TraceFrom,
    /// Where to.
    pub to: TraceTo,
    /// The interface by which it comes in; without: it is the node's own where `from` is a local
    /// address, else it comes from wherever.
    pub interface: Option<String>,
}

/// The sender of an imaginary packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceFrom {
    /// Its address.
    pub ip: IpAddr,
    /// Its port, where it matters.
    pub port: Option<u16>,
}

/// The destination of an imaginary packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceTo {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// The verbs as clap reads them.
#[derive(Subcommand, Clone, Debug, PartialEq)]
pub(super) enum VerbArgs {
    /// Remove everything that weft-proxy programmed, in each mode, and end
    Cleanup {
        /// Remove what a kube-proxy programmed, too
        #[arg(long)]
        kube_proxy: bool,
    },
    /// Print what Services resolve to on this node, and which rules or map entries say so
    Show {
        /// NAMESPACE/NAME of one Service
        #[arg(value_name = "SERVICE", value_parser = service)]
        service: Option<ObjectName>,
    },
    /// Follow an imaginary packet through the plan and name each decision
    Trace {
        /// Who sends it: IP, or IP:PORT
        #[arg(value_name = "SRC", value_parser = trace_from)]
        from: TraceFrom,
        /// Where to: as in 10.96.0.10:53/udp; an IPv6 address stands in brackets
        #[arg(value_name = "DST:PORT/PROTO", value_parser = trace_to)]
        to: TraceTo,
        /// The interface by which it comes in
        #[arg(long = "from-interface", value_name = "NAME", value_parser = values::interface)]
        interface: Option<String>,
    },
}

impl From<VerbArgs> for Verb {
    fn from(args: VerbArgs) -> Self {
        match args {
            VerbArgs::Cleanup { kube_proxy } => Self::Cleanup { kube_proxy },
            VerbArgs::Show { service } => Self::Show { service },
            VerbArgs::Trace {
                from,
                to,
                interface,
            } => Self::Trace(Trace {
                from,
                to,
                interface,
            }),
        }
    }
}

fn service(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err("write NAMESPACE/NAME, such as default/kubernetes".to_owned()),
    }
}

fn trace_from(text: &str) -> Result<TraceFrom, String> {
    let (ip, port) = address_and_port(text)
        .ok_or("write IP or IP:PORT, such as 10.244.0.5 or [fd00::5]:4000")?;
    Ok(TraceFrom { ip, port })
}

fn trace_to(text: &str) -> Result<TraceTo, String> {
    const REMEDY: &str = "write IP:PORT/PROTO, such as 10.96.0.10:53/udp or [fd00::a]:443/tcp";
    let (address, protocol) = text.rsplit_once('/').ok_or(REMEDY)?;
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err("the protocol is tcp, udp or sctp".to_owned()),
    };
    match address_and_port(address) {
        Some((ip, Some(port))) if port != 0 => Ok(TraceTo { ip, port, protocol }),
        _ => Err(REMEDY.to_owned()),
    }
}
