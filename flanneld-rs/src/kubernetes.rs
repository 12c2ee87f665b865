//! Leases from Kubernetes (`--kube-subnet-mgr`): a node's subnet is its Node's podCIDR, and what it announces
//! are annotations of that Node.
//!
//! Nothing is claimed here, as it is in etcd: the controller manager hands podCIDRs out, one to a Node, and a
//! lease never expires. So this is no [`LeaseStore`](crate::lease::store::LeaseStore), whose every word is
//! about claims, but a second source of the same news: [`Registrar`] tells the daemon what
//! [`daemon::registrar`](crate::daemon::registrar) tells it of etcd.
//!
//! ```text
//!   Nodes ──▶ Node (what we read) ──▶ Leases (a fold) ──▶ news
//!   own Node, attributes ──▶ publish (a plan) ──▶ patch of nodes/status
//! ```

pub mod annotations;
pub mod api;
mod connect;
pub mod leases;
pub mod node;
pub mod publish;
pub mod registrar;

use std::path::PathBuf;

pub use annotations::Annotations;
pub use api::Nodes;
pub use node::Node;
pub use registrar::Registrar;

/// What the command line says of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--kube-api-url`: replaces the kubeconfig's server; alone, a server that asks for no account.
    pub api_url: Option<String>,
    /// `--kubeconfig-file`; without it and `api_url` the account of the Pod that this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// A connection made elsewhere, in place of the two above.
    pub config: Option<kube::Config>,
    /// `--kube-annotation-prefix`.
    pub annotations: Annotations,
    /// `--net-config-path`.
    pub net_config: PathBuf,
    /// `--set-node-network-unavailable`.
    pub set_network_unavailable: bool,
    /// Which Node is ours.
    pub node: NodeName,
}

/// How the own Node is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeName {
    /// `NODE_NAME`.
    Name(String),
    /// The Node of this Pod: `POD_NAMESPACE` and `POD_NAME`.
    OfPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl NodeName {
    /// Reads the environment.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let given = |name| env(name).filter(|value| !value.is_empty());
        if let Some(name) = given("NODE_NAME") {
            return Ok(Self::Name(name));
        }
        match (given("POD_NAMESPACE"), given("POD_NAME")) {
            (Some(namespace), Some(name)) => Ok(Self::OfPod { namespace, name }),
            _ => Err(
                "--kube-subnet-mgr: which Node is ours is not known: set NODE_NAME, or POD_NAME and POD_NAMESPACE"
                    .to_owned(),
            ),
        }
    }
}
