//! What a user may do: a table of rules. What no rule allows is forbidden.
//!
//! - **`system:masters`**: everything.
//! - **Nodes** (`system:node:NAME` in `system:nodes`): read what a kubelet, kube-proxy and flanneld need; write their
//!   own Node, its Lease, events, and the status of (and delete) Pods bound to them; get tokens for those Pods.
//!   **A Secret can be read by any node that knows its name** (not listed without one): which Pods use it is not
//!   looked at, so a stolen node key reads every Secret whose name it guesses or finds in a Pod.
//! - **`system:bootstrappers`**: ask for a node's first certificate.
//! - **`system:kube-proxy`**: reads Services, endpoints and nodes, writes events.
//! - **`weft:readers`**: read everything but Secrets, and logs; run nothing.
//! - **Everyone who is known**, service accounts too: discovery, and what they may do themselves.
//! - **Anyone**: `/healthz`, `/livez`, `/readyz`.

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use super::User;
use crate::api::kinds::KINDS;

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for a path the method in
    /// lower case.
    pub verb: &'a str,
    /// On what.
    pub target: Target<'a>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Objects.
    Resource(Resource<'a>),
    /// Anything else: `/version`.
    Path(&'a str),
}

/// Objects that a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resource<'a> {
    /// `apps`; empty is the core group.
    pub group: &'a str,
    /// `deployments`
    pub resource: &'a str,
    /// `status`; may be empty.
    pub subresource: &'a str,
    /// Absent for the cluster and for all namespaces.
    pub namespace: Option<&'a str>,
    /// One object: of the path, or of a list or watch with the field selector `metadata.name=…`.
    pub name: Option<&'a str>,
}

/// How a request is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Without more.
    Allowed,
    /// If the Pod is bound to this node: the caller looks at its `spec.nodeName`, of the object that is there and of
    /// the new one, and otherwise answers with [`forbidden`]. For `serviceaccounts/token` the Pod is that of
    /// `spec.boundObjectRef`, and there must be one.
    IfBoundTo(&'a str),
    /// If the new object has this name, which for `create` is not in the path; otherwise as above.
    IfNamed(&'a str),
}

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anyone,
    Known,
    Group(&'static str),
    User(&'static str),
    Node,
}

/// Which objects of its resources a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    All,
    /// One that is named.
    Named,
    /// The one that has the node's name; in this namespace, if one is given.
    Own(Option<&'static str>),
    /// Pods bound to the node.
    Bound,
    /// What may be shown to readers.
    Shown,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// Group, `resource` or `resource/subresource`, and which of them.
    Objects(&'static str, &'static [&'static str], Only),
    /// A final `*` is any rest.
    Paths(&'static [&'static str]),
}

struct Rule(Who, &'static [&'static str], On);

use On::{Objects, Paths};
use Only::{All, Bound, Named, Own, Shown};
use Who::{Anyone, Group, Known, Node};

const MASTERS: &str = "system:masters";
const READ: &[&str] = &["get", "list", "watch"];
const KEEP: &[&str] = &["create", "update", "patch"];
const CHANGE: &[&str] = &["update", "patch"];
const CREATE: &[&str] = &["create"];
const FETCH: &[&str] = &["get", "head"];
const ANY: &[&str] = &["*"];
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const PROXY: Who = Who::User("system:kube-proxy");

static RULES: &[Rule] = &[
    Rule(Group(MASTERS), ANY, Objects("*", ANY, All)),
    Rule(Group(MASTERS), ANY, Paths(ANY)),
    Rule(Anyone, FETCH, Paths(&["/healthz", "/livez", "/readyz"])),
    Rule(
        Known,
        FETCH,
        Paths(&[
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/openapi",
            "/openapi/*",
            "/version",
            "/version/",
        ]),
    ),
    Rule(
        Known,
        CREATE,
        Objects(AUTHENTICATION, &["selfsubjectreviews"], All),
    ),
    Rule(
        Known,
        CREATE,
        Objects(
            AUTHORIZATION,
            &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            All,
        ),
    ),
    Rule(
        Node,
        READ,
        Objects(
            "",
            &[
                "nodes",
                "pods",
                "services",
                "endpoints",
                "namespaces",
                "configmaps",
                "serviceaccounts",
                "persistentvolumeclaims",
                "persistentvolumes",
            ],
            All,
        ),
    ),
    Rule(Node, READ, Objects("", &["secrets"], Named)),
    Rule(
        Node,
        READ,
        Objects("discovery.k8s.io", &["endpointslices"], All),
    ),
    Rule(
        Node,
        READ,
        Objects("networking.k8s.io", &["networkpolicies"], All),
    ),
    Rule(Node, READ, Objects("coordination.k8s.io", &["leases"], All)),
    Rule(Node, KEEP, Objects("", &["nodes"], Own(None))),
    Rule(Node, CHANGE, Objects("", &["nodes/status"], Own(None))),
    Rule(
        Node,
        KEEP,
        Objects(
            "coordination.k8s.io",
            &["leases"],
            Own(Some("kube-node-lease")),
        ),
    ),
    Rule(Node, CHANGE, Objects("", &["pods/status"], Bound)),
    Rule(Node, &["delete"], Objects("", &["pods"], Bound)),
    Rule(Node, KEEP, Objects("", &["events"], All)),
    Rule(Node, KEEP, Objects("events.k8s.io", &["events"], All)),
    Rule(Node, CREATE, Objects("", &["serviceaccounts/token"], Bound)),
    // Which of them are signed is in `certificates`.
    Rule(
        Node,
        CREATE,
        Objects(CERTIFICATES, &["certificatesigningrequests"], All),
    ),
    Rule(
        Group("system:bootstrappers"),
        CREATE,
        Objects(CERTIFICATES, &["certificatesigningrequests"], All),
    ),
    // Who a kubelet's own clients are, and what they may do on the node.
    Rule(
        Node,
        CREATE,
        Objects(AUTHENTICATION, &["tokenreviews"], All),
    ),
    Rule(
        Node,
        CREATE,
        Objects(AUTHORIZATION, &["subjectaccessreviews"], All),
    ),
    Rule(
        PROXY,
        READ,
        Objects("", &["services", "endpoints", "nodes"], All),
    ),
    Rule(
        PROXY,
        READ,
        Objects("discovery.k8s.io", &["endpointslices"], All),
    ),
    Rule(PROXY, KEEP, Objects("", &["events"], All)),
    Rule(PROXY, KEEP, Objects("events.k8s.io", &["events"], All)),
    Rule(Group("weft:readers"), READ, Objects("*", ANY, Shown)),
];

/// The node that a user is.
pub fn node(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    (!name.is_empty() && user.is_in("system:nodes")).then_some(name)
}

impl Who {
    fn is(self, user: &User) -> bool {
        match self {
            Self::Anyone => true,
            Self::Known => user.is_in(super::AUTHENTICATED),
            Self::Group(group) => user.is_in(group),
            Self::User(name) => user.name == name,
            Self::Node => node(user).is_some(),
        }
    }
}

fn has(list: &[&str], word: &str) -> bool {
    list.iter().any(|one| *one == "*" || *one == word)
}

/// Readers see no secrets, and what runs or forwards something is no reading although its verb is `get`.
fn shown(resource: &str, subresource: &str) -> bool {
    resource != "secrets" && ["", "status", "scale", "log"].contains(&subresource)
}

impl On {
    fn covers<'a>(self, target: &Target<'_>, user: &'a User) -> Option<Verdict<'a>> {
        match (self, target) {
            (Self::Paths(paths), Target::Path(path)) => paths
                .iter()
                .any(|known| match known.strip_suffix('*') {
                    Some(start) => path.starts_with(start),
                    None => known == path,
                })
                .then_some(Verdict::Allowed),
            (Self::Objects(group, names, only), Target::Resource(resource)) => {
                let named = names.iter().any(|known| {
                    let (name, below) = known.split_once('/').unwrap_or((known, ""));
                    *known == "*" || name == resource.resource && below == resource.subresource
                });
                if !named || !["*", resource.group].contains(&group) {
                    return None;
                }
                only.covers(resource, user)
            }
            _ => None,
        }
    }
}

impl Only {
    fn covers<'a>(self, resource: &Resource<'_>, user: &'a User) -> Option<Verdict<'a>> {
        let holds = match self {
            Self::All => true,
            Self::Named => resource.name.is_some(),
            Self::Shown => shown(resource.resource, resource.subresource),
            Self::Bound => return node(user).map(Verdict::IfBoundTo),
            Self::Own(namespace) => {
                let own = node(user)?;
                if namespace.is_some() && namespace != resource.namespace {
                    return None;
                }
                match resource.name {
                    None => return Some(Verdict::IfNamed(own)),
                    Some(name) => name == own,
                }
            }
        };
        holds.then_some(Verdict::Allowed)
    }
}

/// Whether a user may do that.
///
/// # Errors
/// The message of the refusal, [`forbidden`].
pub fn allowed<'a>(user: &'a User, attributes: &Attributes<'_>) -> Result<Verdict<'a>, String> {
    RULES
        .iter()
        .filter(|Rule(who, verbs, _)| has(verbs, attributes.verb) && who.is(user))
        .find_map(|Rule(_, _, on)| on.covers(&attributes.target, user))
        .ok_or_else(|| forbidden(user, attributes))
}

/// The message of a refusal (403).
pub fn forbidden(user: &User, attributes: &Attributes<'_>) -> String {
    let (name, verb) = (&user.name, attributes.verb);
    let resource = match &attributes.target {
        Target::Path(path) => {
            return format!("forbidden: User {name:?} cannot {verb} path {path:?}");
        }
        Target::Resource(resource) => resource,
    };
    let mut what = resource.resource.to_owned();
    if !resource.group.is_empty() {
        what = format!("{what}.{}", resource.group);
    }
    if let Some(name) = resource.name {
        what = format!("{what} {name:?}");
    }
    let mut path = resource.resource.to_owned();
    if !resource.subresource.is_empty() {
        path = format!("{path}/{}", resource.subresource);
    }
    let place = match resource.namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    format!(
        "{what} is forbidden: User {name:?} cannot {verb} resource {path:?} in API group {:?} {place}",
        resource.group
    )
}

/// What a user may do, as a SelfSubjectRulesReview lists it: rules for objects, rules for paths.
pub fn list(user: &User) -> (Vec<Value>, Vec<Value>) {
    let (mut objects, mut paths) = (Vec::new(), Vec::new());
    // Who may do everything is told only that.
    let everything = user.is_in(MASTERS);
    for Rule(who, verbs, on) in RULES {
        if !who.is(user) || everything && *who != Group(MASTERS) {
            continue;
        }
        match on {
            Paths(urls) => paths.push(json!({"verbs": verbs, "nonResourceURLs": urls})),
            Objects(_, _, Shown) => objects.extend(
                KINDS
                    .iter()
                    .filter(|kind| shown(kind.plural, ""))
                    .map(|kind| {
                        json!({"verbs": verbs, "apiGroups": [kind.group], "resources": [kind.plural]})
                    }),
            ),
            Objects(group, resources, only) => {
                let mut rule =
                    json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
                if let (Own(_), Some(name)) = (only, node(user)) {
                    rule["resourceNames"] = json!([name]);
                }
                objects.push(rule);
            }
        }
    }
    (objects, paths)
}
