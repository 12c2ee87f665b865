//! The kinds that are served: one row each. Everything else (paths, discovery, names, storage, subresources) follows.
//!
//! Source: the discovery documents of kube-apiserver 1.36 and `k8s.io/api`.

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `/namespaces/NS/…`
    Namespaced,
    /// Directly below the version.
    Cluster,
}

/// What a name must be (RFC 1123; 1035 is a label that starts with a letter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// At most 253 characters: labels joined by dots.
    Subdomain,
    /// At most 63 characters: lower case letters, digits and `-`.
    Label,
}

/// A path below an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// The same object; only its status is written.
    Status,
    /// An autoscaling/v1 Scale.
    Scale,
    /// Binds a Pod to a node.
    Binding,
    /// Deletes a Pod unless a disruption budget forbids it.
    Eviction,
    /// The same Pod; only its ephemeral containers are written.
    EphemeralContainers,
    /// The same Pod; only its containers' resources are written.
    Resize,
    /// The same Namespace; only its finalizers are written.
    Finalize,
    /// Makes a token of a ServiceAccount.
    Token,
    /// A container's output, from the node.
    Log,
    /// A command in a container, on the node.
    Exec,
    /// A container's terminal, on the node.
    Attach,
    /// A Pod's ports, through the node.
    PortForward,
}

impl Subresource {
    /// The last segment of its path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Finalize => "finalize",
            Self::Token => "token",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
        }
    }

    /// Verbs, as discovery lists them.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale | Self::EphemeralContainers | Self::Resize => {
                &["get", "patch", "update"]
            }
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Finalize => &["update"],
            Self::Log => &["get"],
            Self::Exec | Self::Attach | Self::PortForward => &["create", "get"],
        }
    }
}

/// What may be done to objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbs {
    /// create, delete, deletecollection, get, list, patch, update, watch.
    All,
    /// All but deletecollection.
    NoCollection,
    /// get and list: made up when asked for.
    ReadOnly,
}

impl Verbs {
    /// In the order of discovery.
    pub fn list(self) -> &'static [&'static str] {
        match self {
            Self::All => &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ],
            Self::NoCollection => &[
                "create", "delete", "get", "list", "patch", "update", "watch",
            ],
            Self::ReadOnly => &["get", "list"],
        }
    }
}

/// One kind in one version of one group.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// `""` is the core group.
    pub group: &'static str,
    /// `v1`
    pub version: &'static str,
    /// `Pod`
    pub kind: &'static str,
    /// `pods`: in paths, in messages, and the folder in the store.
    pub plural: &'static str,
    /// `po`
    pub short: &'static [&'static str],
    /// Part of `kubectl get all`.
    pub all: bool,
    /// Whether it lives in a namespace.
    pub scope: Scope,
    /// What its names must be.
    pub name: NameRule,
    /// Whether `metadata.generation` counts changes of what is not metadata or status.
    pub generation: bool,
    /// What may be done.
    pub verbs: Verbs,
    /// Paths below an object.
    pub subresources: &'static [Subresource],
    /// What is said to everybody who asks for it; nothing unless it is deprecated.
    pub warning: Option<&'static str>,
}

use NameRule::{Label, Subdomain};
use Scope::{Cluster, Namespaced};
use Subresource as Sub;

/// A kind with everything as most have it.
const fn kind(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    subresources: &'static [Subresource],
) -> Kind {
    Kind {
        group,
        version: "v1",
        kind,
        plural,
        short,
        all: false,
        scope: Namespaced,
        name: Subdomain,
        generation: false,
        verbs: Verbs::All,
        subresources,
        warning: None,
    }
}

impl Kind {
    const fn in_all(mut self) -> Self {
        self.all = true;
        self
    }

    const fn counted(mut self) -> Self {
        self.generation = true;
        self
    }

    const fn cluster(mut self) -> Self {
        self.scope = Cluster;
        self
    }

    const fn named(mut self, rule: NameRule) -> Self {
        self.name = rule;
        self
    }

    const fn verbs(mut self, verbs: Verbs) -> Self {
        self.verbs = verbs;
        self
    }

    const fn warns(mut self, text: &'static str) -> Self {
        self.warning = Some(text);
        self
    }

    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: how messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `pod`
    pub fn singular(&self) -> String {
        self.kind.to_ascii_lowercase()
    }

    /// Whether it lives in a namespace.
    pub fn namespaced(&self) -> bool {
        self.scope == Namespaced
    }

    /// Whether it has that path.
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The key of its objects in the store: `/registry/pods/`, all of one namespace `/registry/pods/NS/`.
    pub fn prefix(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.namespaced() => {
                format!("/registry/{}/{namespace}/", self.plural)
            }
            _ => format!("/registry/{}/", self.plural),
        }
    }

    /// The key of an object in the store: `/registry/pods/NS/NAME`, `/registry/nodes/NAME`.
    pub fn key(&self, namespace: Option<&str>, name: &str) -> String {
        self.prefix(namespace) + name
    }
}

const APPS: &str = "apps";
const NETWORKING: &str = "networking.k8s.io";

/// Every kind, in the order of discovery: the core group, then the others.
pub static KINDS: &[Kind] = &[
    kind("", "ComponentStatus", "componentstatuses", &["cs"], &[])
        .cluster()
        .verbs(Verbs::ReadOnly)
        .warns("v1 ComponentStatus is deprecated in v1.19+"),
    kind("", "ConfigMap", "configmaps", &["cm"], &[]),
    kind("", "Endpoints", "endpoints", &["ep"], &[])
        .warns("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    kind("", "Event", "events", &["ev"], &[]),
    kind(
        "",
        "Namespace",
        "namespaces",
        &["ns"],
        &[Sub::Finalize, Sub::Status],
    )
    .cluster()
    .named(Label)
    .verbs(Verbs::NoCollection),
    kind("", "Node", "nodes", &["no"], &[Sub::Status]).cluster(),
    kind(
        "",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        &["pvc"],
        &[Sub::Status],
    ),
    kind(
        "",
        "PersistentVolume",
        "persistentvolumes",
        &["pv"],
        &[Sub::Status],
    )
    .cluster(),
    kind(
        "",
        "Pod",
        "pods",
        &["po"],
        &[
            Sub::Attach,
            Sub::Binding,
            Sub::EphemeralContainers,
            Sub::Eviction,
            Sub::Exec,
            Sub::Log,
            Sub::PortForward,
            Sub::Resize,
            Sub::Status,
        ],
    )
    .in_all()
    .counted(),
    kind(
        "",
        "ReplicationController",
        "replicationcontrollers",
        &["rc"],
        &[Sub::Scale, Sub::Status],
    )
    .in_all()
    .counted(),
    kind("", "Secret", "secrets", &[], &[]),
    kind(
        "",
        "ServiceAccount",
        "serviceaccounts",
        &["sa"],
        &[Sub::Token],
    ),
    kind("", "Service", "services", &["svc"], &[Sub::Status])
        .in_all()
        .named(Label),
    kind(APPS, "ControllerRevision", "controllerrevisions", &[], &[]),
    kind(APPS, "DaemonSet", "daemonsets", &["ds"], &[Sub::Status])
        .in_all()
        .counted(),
    kind(
        APPS,
        "Deployment",
        "deployments",
        &["deploy"],
        &[Sub::Scale, Sub::Status],
    )
    .in_all()
    .counted(),
    kind(
        APPS,
        "ReplicaSet",
        "replicasets",
        &["rs"],
        &[Sub::Scale, Sub::Status],
    )
    .in_all()
    .counted(),
    kind(
        APPS,
        "StatefulSet",
        "statefulsets",
        &["sts"],
        &[Sub::Scale, Sub::Status],
    )
    .in_all()
    .counted(),
    kind("batch", "CronJob", "cronjobs", &["cj"], &[Sub::Status])
        .in_all()
        .counted(),
    kind("batch", "Job", "jobs", &[], &[Sub::Status])
        .in_all()
        .counted(),
    kind("coordination.k8s.io", "Lease", "leases", &[], &[]),
    kind(
        "discovery.k8s.io",
        "EndpointSlice",
        "endpointslices",
        &[],
        &[],
    )
    .counted(),
    kind("events.k8s.io", "Event", "events", &["ev"], &[]),
    kind(NETWORKING, "IngressClass", "ingressclasses", &[], &[])
        .cluster()
        .counted(),
    kind(NETWORKING, "Ingress", "ingresses", &["ing"], &[Sub::Status]).counted(),
    kind(
        NETWORKING,
        "NetworkPolicy",
        "networkpolicies",
        &["netpol"],
        &[],
    )
    .counted(),
    kind(
        "policy",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        &["pdb"],
        &[Sub::Status],
    )
    .counted(),
];

/// The kind of a path: `find("apps", "v1", "deployments")`.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The kind of an object: `of("apps/v1", "Deployment")`.
pub fn of(api_version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|row| row.kind == kind && row.api_version() == api_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_path_and_by_object() {
        let row = find("apps", "v1", "deployments").unwrap();
        assert_eq!(row.kind, "Deployment");
        assert_eq!(row.qualified(), "deployments.apps");
        assert_eq!(of("apps/v1", "Deployment"), Some(row));
        assert_eq!(
            row.key(Some("demo"), "web"),
            "/registry/deployments/demo/web"
        );
        assert_eq!(
            find("", "v1", "nodes").unwrap().key(None, "n1"),
            "/registry/nodes/n1"
        );
        assert_eq!(of("v1", "Deployment"), None);
    }

    #[test]
    fn the_two_views_of_events_share_a_folder_and_no_other_kinds_do() {
        let mut folders: Vec<_> = KINDS.iter().map(|kind| kind.plural).collect();
        folders.sort_unstable();
        folders.dedup();
        assert_eq!(folders.len(), KINDS.len() - 1);
    }
}
