//! What the server says it serves: groups, versions, resources, and its own version.
//!
//! Two forms: aggregated (`apidiscovery.k8s.io`), where `/api` and `/apis` say everything, and the older one with a
//! document for each group and version.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::accept;
use super::document::{Answer, Document};
use super::kinds::{KINDS, Kind, Subresource};

/// A kind whose objects are only created: questions that are answered at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// `authorization.k8s.io`
    pub group: &'static str,
    /// `SelfSubjectAccessReview`
    pub kind: &'static str,
    /// `selfsubjectaccessreviews`
    pub plural: &'static str,
    /// Whether its path has a namespace.
    pub namespaced: bool,
}

const fn question(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> Question {
    Question {
        group,
        kind,
        plural,
        namespaced,
    }
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Every such kind, all of version v1.
pub static QUESTIONS: &[Question] = &[
    question("", "Binding", "bindings", true),
    question(
        AUTHENTICATION,
        "SelfSubjectReview",
        "selfsubjectreviews",
        false,
    ),
    question(AUTHENTICATION, "TokenReview", "tokenreviews", false),
    question(
        AUTHORIZATION,
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        true,
    ),
    question(
        AUTHORIZATION,
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        false,
    ),
    question(
        AUTHORIZATION,
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        false,
    ),
    question(
        AUTHORIZATION,
        "SubjectAccessReview",
        "subjectaccessreviews",
        false,
    ),
];

/// Answers `/version`, `/api`, `/apis`, `/api/v1`, `/apis/G` and `/apis/G/V`; none for any other path. Where a path
/// has two forms, the Content-Type says which one it is, and `Vary: Accept` should be sent.
pub fn respond(path: &str, header: Option<&str>, if_none_match: Option<&str>) -> Option<Answer> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let documents = match path {
        "/api" => &DOCUMENTS.core,
        "/apis" => &DOCUMENTS.named,
        _ => return Some(DOCUMENTS.paths.get(path)?.answer(if_none_match)),
    };
    let clauses = accept::clauses(header.unwrap_or_default());
    let document = clauses.iter().find_map(|clause| {
        let aggregated = ["v2", "v2beta1"].iter().position(|version| {
            clause.wants("APIGroupDiscoveryList", "apidiscovery.k8s.io", version)
        });
        match (clause.media.as_str(), aggregated) {
            ("application/json", Some(at)) => documents.get(at),
            ("application/json" | "application/*" | "*/*", None)
                if clause.parameter("as").is_empty() =>
            {
                documents.get(2)
            }
            _ => None,
        }
    });
    Some(document.unwrap_or(&documents[2]).answer(if_none_match))
}

/// Groups by name, each with its resources; the core group is first.
pub fn groups() -> Vec<(&'static str, Vec<Resource>)> {
    let mut groups: Vec<(&'static str, Vec<Resource>)> = Vec::new();
    let rows = KINDS.iter().map(|kind| (kind.group, Resource::of(kind)));
    let questions = QUESTIONS
        .iter()
        .map(|question| (question.group, Resource::asked(question)));
    for (group, resource) in rows.chain(questions) {
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, resources)) => resources.push(resource),
            None => groups.push((group, vec![resource])),
        }
    }
    for (_, resources) in &mut groups {
        resources.sort_by_key(|resource| resource.plural);
    }
    groups
}

/// A resource of a group, with what is below it.
#[derive(Debug)]
pub struct Resource {
    /// `pods`
    pub plural: &'static str,
    /// `Pod`
    pub kind: &'static str,
    /// Whether it lives in a namespace.
    pub namespaced: bool,
    /// In alphabetical order.
    pub verbs: &'static [&'static str],
    /// `po`
    pub short: &'static [&'static str],
    /// Part of `kubectl get all`.
    pub all: bool,
    /// Paths below an object.
    pub subresources: &'static [Subresource],
}

impl Resource {
    fn of(kind: &Kind) -> Self {
        Self {
            plural: kind.plural,
            kind: kind.kind,
            namespaced: kind.namespaced(),
            verbs: kind.verbs.list(),
            short: kind.short,
            all: kind.all,
            subresources: kind.subresources,
        }
    }

    fn asked(question: &Question) -> Self {
        Self {
            plural: question.plural,
            kind: question.kind,
            namespaced: question.namespaced,
            verbs: &["create"],
            short: &[],
            all: false,
            subresources: &[],
        }
    }

    /// The type that a path below an object takes or gives: its group and version, unless they are this resource's,
    /// and kind.
    pub fn below(&self, subresource: Subresource) -> (&'static str, &'static str, &'static str) {
        match subresource {
            Subresource::Scale => ("autoscaling", "v1", "Scale"),
            Subresource::Eviction => ("policy", "v1", "Eviction"),
            Subresource::Token => (AUTHENTICATION, "v1", "TokenRequest"),
            Subresource::Binding => ("", "", "Binding"),
            Subresource::Exec => ("", "", "PodExecOptions"),
            Subresource::Attach => ("", "", "PodAttachOptions"),
            Subresource::PortForward => ("", "", "PodPortForwardOptions"),
            Subresource::Status
            | Subresource::EphemeralContainers
            | Subresource::Resize
            | Subresource::Finalize
            | Subresource::Log => ("", "", self.kind),
        }
    }

    fn extras(&self, mut value: Value) -> Value {
        if !self.short.is_empty() {
            value["shortNames"] = json!(self.short);
        }
        if self.all {
            value["categories"] = json!(["all"]);
        }
        value
    }

    fn aggregated(&self) -> Value {
        let mut value = self.extras(json!({
            "resource": self.plural,
            "responseKind": {"group": "", "version": "", "kind": self.kind},
            "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": self.kind.to_ascii_lowercase(),
            "verbs": self.verbs,
        }));
        let below: Vec<_> = self
            .subresources
            .iter()
            .map(|sub| {
                let (group, version, kind) = self.below(*sub);
                json!({
                    "subresource": sub.name(),
                    "responseKind": {"group": group, "version": version, "kind": kind},
                    "verbs": sub.verbs(),
                })
            })
            .collect();
        if !below.is_empty() {
            value["subresources"] = below.into();
        }
        value
    }

    fn legacy(&self) -> Vec<Value> {
        let own = self.extras(json!({
            "name": self.plural,
            "singularName": self.kind.to_ascii_lowercase(),
            "namespaced": self.namespaced,
            "kind": self.kind,
            "verbs": self.verbs,
        }));
        let below = self.subresources.iter().map(|sub| {
            let (group, version, kind) = self.below(*sub);
            let mut value = json!({
                "name": format!("{}/{}", self.plural, sub.name()),
                "singularName": "",
                "namespaced": self.namespaced,
                "kind": kind,
                "verbs": sub.verbs(),
            });
            if !group.is_empty() {
                value["group"] = json!(group);
                value["version"] = json!(version);
            }
            value
        });
        std::iter::once(own).chain(below).collect()
    }
}

struct Documents {
    /// `/api`: aggregated in v2, in v2beta1, and the older form.
    core: [Document; 3],
    /// `/apis`, likewise.
    named: [Document; 3],
    /// All other paths.
    paths: HashMap<String, Document>,
}

static DOCUMENTS: LazyLock<Documents> = LazyLock::new(build);

fn build() -> Documents {
    let groups = groups();
    let mut paths = HashMap::new();
    paths.insert("/version".to_owned(), Document::json(&version()));
    let (mut core, mut named, mut legacy) = (Vec::new(), Vec::new(), Vec::new());
    for (group, resources) in &groups {
        let aggregated: Vec<_> = resources.iter().map(Resource::aggregated).collect();
        let versions = json!([{"version": "v1", "freshness": "Current", "resources": aggregated}]);
        let list: Vec<_> = resources.iter().flat_map(Resource::legacy).collect();
        let mut resources = json!({"kind": "APIResourceList", "resources": list});
        if group.is_empty() {
            resources["groupVersion"] = json!("v1");
            core.push(json!({"metadata": {}, "versions": versions}));
            paths.insert("/api/v1".into(), Document::json(&resources));
            continue;
        }
        resources["apiVersion"] = json!("v1");
        resources["groupVersion"] = json!(format!("{group}/v1"));
        named.push(json!({"metadata": {"name": group}, "versions": versions}));
        paths.insert(format!("/apis/{group}/v1"), Document::json(&resources));
        let version = json!({"groupVersion": format!("{group}/v1"), "version": "v1"});
        let mut about = json!({"name": group, "versions": [version], "preferredVersion": version});
        legacy.push(about.clone());
        about["kind"] = json!("APIGroup");
        about["apiVersion"] = json!("v1");
        paths.insert(format!("/apis/{group}"), Document::json(&about));
    }
    let versions =
        json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []});
    let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": legacy});
    Documents {
        core: forms(&core, &versions),
        named: forms(&named, &list),
        paths,
    }
}

fn forms(items: &[Value], legacy: &Value) -> [Document; 3] {
    let aggregated = |version: &str, content_type| {
        let body = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {},
            "items": items,
        });
        Document::new(content_type, Some("public"), body.to_string())
    };
    [
        aggregated(
            "v2",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        ),
        aggregated(
            "v2beta1",
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        ),
        Document::json(legacy),
    ]
}

/// The version of Kubernetes whose API this is, and our own.
fn version() -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": concat!("v1.36.0+weft-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}

#[cfg(test)]
mod tests;
