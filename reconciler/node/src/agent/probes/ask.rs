//! One question to a container.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::net::TcpStream;

use crate::agent::{Context, http};
use crate::runtime;

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// The container, for the runtime.
    pub id: String,
    /// For names of ports.
    pub container: Container,
    /// Of the Pod, if it has a network.
    pub ip: Option<IpAddr>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Good.
    Success,
    /// Bad, and how.
    Failure(String),
}

/// Asks once.
pub async fn ask(context: &Context, probe: &Probe, target: &Target) -> Outcome {
    let limit = super::seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let answer = if let Some(action) = &probe.exec {
        let command = action.command.as_deref().unwrap_or_default();
        match context.runtime.exec_sync(&target.id, command, limit).await {
            Ok(output) if output.code == 0 => Ok(()),
            Ok(output) => Err(output.text.trim_end().to_owned()),
            Err(runtime::Error::Timeout(_)) => Err(format!(
                "command timed out: {:?} timed out after {}s",
                command.join(" "),
                limit.as_secs()
            )),
            Err(error) => Err(error.to_string()),
        }
    } else if let Some(action) = &probe.http_get {
        match http::get(action, &target.container, target.ip, limit).await {
            Ok(answer) if (200..400).contains(&answer.code) => Ok(()),
            Ok(answer) => Err(format!(
                "HTTP probe failed with statuscode: {}",
                answer.code
            )),
            Err(error) => Err(error),
        }
    } else if let Some(action) = &probe.tcp_socket {
        match http::port(&action.port, &target.container) {
            Ok(port) => connect(action.host.as_deref(), target.ip, port, limit).await,
            Err(error) => Err(error),
        }
    } else if probe.grpc.is_some() {
        Err("gRPC probes are not supported by this node; use exec, httpGet or tcpSocket".to_owned())
    } else {
        Err("missing probe handler".to_owned())
    };
    match answer {
        Ok(()) => Outcome::Success,
        Err(text) => Outcome::Failure(text),
    }
}

async fn connect(
    host: Option<&str>,
    ip: Option<IpAddr>,
    port: u16,
    limit: Duration,
) -> Result<(), String> {
    let address = match host.filter(|host| !host.is_empty()) {
        Some(host) => format!("{host}:{port}"),
        None => match ip {
            Some(ip) => SocketAddr::new(ip, port).to_string(),
            None => return Err(http::NO_ADDRESS.to_owned()),
        },
    };
    match tokio::time::timeout(limit, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!(
            "dial tcp {address}: connect: {}",
            http::plain(&error)
        )),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}
