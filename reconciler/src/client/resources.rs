//! The kinds that a server says it has, and the names people call them by.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::failure::Failure;
use super::session::Session;

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What stays as it is in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// A kind in one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `Deployment`
    pub kind: String,
    /// `deployments`
    pub plural: String,
    /// `deployment`
    pub singular: String,
    /// `deploy`
    pub short_names: Vec<String>,
    /// `all`
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// `list`, `watch` and so on.
    pub verbs: Vec<String>,
}

impl Resource {
    /// `apps/v1`
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `deployment.apps`
    pub fn shown(&self) -> String {
        let kind = self.kind.to_lowercase();
        match self.group.as_str() {
            "" => kind,
            group => format!("{kind}.{group}"),
        }
    }

    /// `/apis/apps/v1/namespaces/NS/deployments/NAME`; without a namespace, that of all namespaces.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let mut push = |segment: &str| {
            path.push('/');
            path.extend(utf8_percent_encode(segment, SEGMENT));
        };
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            push("namespaces");
            push(namespace);
        }
        push(&self.plural);
        if let Some(name) = name {
            push(name);
        }
        path
    }

    fn is_called(&self, word: &str) -> bool {
        let name = |name: &str| {
            self.plural == name
                || self.singular == name
                || self.kind.to_lowercase() == name
                || self.short_names.iter().any(|short| short == name)
        };
        if name(word) {
            return true;
        }
        let Some((first, rest)) = word.split_once('.') else {
            return false;
        };
        let versioned = format!("{}.{}", self.version, self.group);
        name(first) && (rest == self.group || rest == versioned)
    }
}

/// The kinds of a server, in its order of preference.
#[derive(Clone, Debug, Default)]
pub struct Resources(Vec<Resource>);

impl Resources {
    /// Asks the server.
    ///
    /// # Errors
    /// It does not answer, or in a form from before Kubernetes 1.30.
    pub async fn discover(session: &mut Session<'_>) -> Result<Self, Failure> {
        let mut all = Self::default();
        for path in ["/api", "/apis"] {
            let document = session.get(path, ACCEPT).await?;
            if document.get("kind").and_then(Value::as_str) != Some("APIGroupDiscoveryList") {
                return Err(Failure::Local(format!(
                    "the server at {} does not list its kinds in one document (apidiscovery.k8s.io/v2, Kubernetes 1.30 and later)",
                    session.address()
                )));
            }
            all.read(&document);
        }
        Ok(all)
    }

    /// Adds what an APIGroupDiscoveryList says.
    pub fn read(&mut self, document: &Value) {
        for item in list(document, "items") {
            let group = text(item.get("metadata").unwrap_or(&Value::Null), "name");
            for version in list(item, "versions") {
                for resource in list(version, "resources") {
                    let response = resource.get("responseKind").unwrap_or(&Value::Null);
                    let kind = text(response, "kind");
                    let singular = match text(resource, "singularResource") {
                        singular if singular.is_empty() => kind.to_lowercase(),
                        singular => singular,
                    };
                    self.0.push(Resource {
                        group: group.clone(),
                        version: text(version, "version"),
                        kind,
                        plural: text(resource, "resource"),
                        singular,
                        short_names: texts(resource, "shortNames"),
                        categories: texts(resource, "categories"),
                        namespaced: text(resource, "scope") == "Namespaced",
                        verbs: texts(resource, "verbs"),
                    });
                }
            }
        }
    }

    /// A kind by plural, singular, short name, kind, or any of these with `.group` or `.version.group`.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, word: &str) -> Result<&Resource, Failure> {
        let lower = word.to_lowercase();
        let found = self.0.iter().find(|resource| resource.is_called(&lower));
        found.ok_or_else(|| {
            Failure::Local(format!("the server doesn't have a resource type {word:?}"))
        })
    }

    /// The kinds of a category, as `all`, or the one kind of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn find_all(&self, word: &str) -> Result<Vec<&Resource>, Failure> {
        let of_category: Vec<_> = self
            .0
            .iter()
            .filter(|resource| {
                resource.categories.iter().any(|category| category == word)
                    && resource.verbs.iter().any(|verb| verb == "list")
            })
            .collect();
        if of_category.is_empty() {
            return Ok(vec![self.find(word)?]);
        }
        Ok(of_category)
    }

    /// The kind that a manifest names.
    pub fn of(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.0.iter().find(|resource| {
            resource.group == group && resource.version == version && resource.kind == kind
        })
    }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    let list = value.get(field).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value, field: &str) -> String {
    let text = value.get(field).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let texts = list(value, field).iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resources() -> Resources {
        let mut resources = Resources::default();
        resources.read(&json!({"items": [{"metadata": {}, "versions": [{"version": "v1", "resources": [
            {"resource": "pods", "responseKind": {"group": "", "version": "", "kind": "Pod"}, "scope": "Namespaced",
             "singularResource": "pod", "shortNames": ["po"], "categories": ["all"], "verbs": ["get", "list"]},
            {"resource": "events", "responseKind": {"kind": "Event"}, "scope": "Namespaced", "verbs": ["list"]},
            {"resource": "nodes", "responseKind": {"kind": "Node"}, "scope": "Cluster", "shortNames": ["no"]}]}]}]}));
        resources.read(&json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
                {"resource": "deployments", "responseKind": {"kind": "Deployment"}, "scope": "Namespaced",
                 "categories": ["all"], "shortNames": ["deploy"], "verbs": ["list"]}]}]},
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [
                {"resource": "events", "responseKind": {"kind": "Event"}, "scope": "Namespaced"}]}]}]}));
        resources
    }

    #[test]
    fn a_kind_is_found_by_each_of_its_names() {
        let resources = resources();
        for word in [
            "deployments",
            "deployment",
            "deploy",
            "Deployment",
            "deployments.apps",
            "deploy.v1.apps",
        ] {
            assert_eq!(
                resources.find(word).unwrap().shown(),
                "deployment.apps",
                "{word}"
            );
        }
        assert_eq!(resources.find("pods.v1.").unwrap().shown(), "pod");
        assert_eq!(resources.find("events").unwrap().group, "");
        assert_eq!(
            resources.find("events.events.k8s.io").unwrap().group,
            "events.k8s.io"
        );
        for word in [
            "",
            ".",
            "foos",
            "pods.apps",
            "deploy.v2.apps",
            "deployments.",
        ] {
            assert!(resources.find(word).is_err(), "{word}");
        }
        let all: Vec<_> = resources
            .find_all("all")
            .unwrap()
            .iter()
            .map(|kind| kind.shown())
            .collect();
        assert_eq!(all, ["pod", "deployment.apps"]);
    }

    #[test]
    fn paths_have_the_namespace_and_nothing_that_a_name_could_change() {
        let resources = resources();
        let deployments = resources.of("apps/v1", "Deployment").unwrap();
        assert_eq!(
            deployments.path(Some("a"), Some("b/../c?d")),
            "/apis/apps/v1/namespaces/a/deployments/b%2F..%2Fc%3Fd"
        );
        assert_eq!(deployments.path(None, None), "/apis/apps/v1/deployments");
        let nodes = resources.find("no").unwrap();
        assert_eq!(nodes.path(Some("a"), Some("n")), "/api/v1/nodes/n");
        assert!(resources.of("v1", "Deployment").is_none());
    }

    #[test]
    fn any_document_is_read() {
        for document in [
            json!(null),
            json!([]),
            json!({"items": [1, {"versions": [{"resources": [[]]}]}]}),
        ] {
            Resources::default().read(&document);
        }
    }
}
