//! What a request asks for: its path and query, as a value.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::kinds::{self, Kind};
use super::status::{Cause, Status};

/// The query parameters, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`. Unknown names are kept and ignored.
    pub fn parse(text: &str) -> Self {
        Self(
            form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a name, or `""`.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Whether a switch is on: `true`, `1`, or no value, as Go's conversion reads it.
    pub fn on(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// A number.
    ///
    /// # Errors
    /// 400 in the reference's words.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }

    /// A revision; absent and empty are none, `0` is any.
    ///
    /// # Errors
    /// 400 in the reference's words.
    pub fn revision(&self, name: &str) -> Result<Option<u64>, Status> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "invalid resource version: {name}: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }

    /// Whether nothing is to be stored (`dryRun=All`). `options` is the kind of the options: `CreateOptions`.
    ///
    /// # Errors
    /// 422 for another value.
    pub fn dry_run(&self, options: &str) -> Result<bool, Status> {
        let values: Vec<_> = self
            .all("dryRun")
            .filter(|value| !value.is_empty())
            .collect();
        if values.iter().any(|value| *value != "All") {
            let cause = Cause::not_supported("dryRun", &serde_json::json!(values), &["All"]);
            return Err(Status::invalid("meta.k8s.io", options, "", &[cause]));
        }
        Ok(!values.is_empty())
    }
}

/// Where a resource path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The kind of the path (for `/namespaces/NS`, Namespace).
    pub kind: &'static Kind,
    /// Absent: the cluster, or all namespaces.
    pub namespace: Option<String>,
    /// Absent: the collection.
    pub name: Option<String>,
    /// What follows the name.
    pub subresource: Option<String>,
    /// Below `/watch/`, the deprecated form of a watch.
    pub watch: bool,
}

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// An object or a collection.
    Resource(Target),
    /// A known group and version, but no such resource in it.
    UnknownResource,
    /// Not a resource: `/version`, `/apis/apps`, `/healthz`, or nothing at all.
    Other,
}

/// Reads the path of a URI.
pub fn path(path: &str) -> Path {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Path::Other,
    };
    if !kinds::KINDS
        .iter()
        .any(|kind| kind.group == group && kind.version == version)
    {
        return Path::Other;
    }
    let (watch, rest) = match rest {
        ["watch", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let Some(rest) = decode(rest) else {
        return Path::UnknownResource;
    };
    let words: Vec<&str> = rest.iter().map(AsRef::as_ref).collect();
    let (namespace, plural, rest) = match words.as_slice() {
        ["namespaces", namespace, plural, rest @ ..]
            if !(group.is_empty()
                && ["status", "finalize"].contains(plural)
                && rest.is_empty()) =>
        {
            (Some(*namespace), *plural, rest)
        }
        [plural, rest @ ..] => (None, *plural, rest),
        [] => return Path::UnknownResource,
    };
    let Some(kind) = kinds::find(group, version, plural) else {
        return Path::UnknownResource;
    };
    // A namespaced object is not reached without its namespace, nor another through one.
    let (name, subresource) = match rest {
        [] => (None, None),
        [name] => (Some(*name), None),
        [name, subresource] => (Some(*name), Some(*subresource)),
        _ => return Path::UnknownResource,
    };
    if namespace.is_some() != kind.namespaced() && (namespace.is_some() || name.is_some()) {
        return Path::UnknownResource;
    }
    Path::Resource(Target {
        kind,
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
        watch,
    })
}

/// Decoded segments; none if one cannot be part of a key in the store.
fn decode<'a>(segments: &[&'a str]) -> Option<Vec<Cow<'a, str>>> {
    let decode = |segment: &&'a str| {
        let text = percent_decode_str(segment).decode_utf8().ok()?;
        let bad = text.is_empty()
            || text == "."
            || text == ".."
            || text.len() > 253
            || text.contains(|letter: char| letter == '/' || letter.is_control());
        (!bad).then_some(text)
    };
    segments.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(text: &str) -> (String, Option<String>, Option<String>, Option<String>, bool) {
        let Path::Resource(target) = path(text) else {
            panic!("{text} leads to {:?}", path(text));
        };
        (
            target.kind.qualified(),
            target.namespace,
            target.name,
            target.subresource,
            target.watch,
        )
    }

    #[test]
    fn paths_lead_to_resources() {
        let some = |text: &str| Some(text.to_owned());
        for (text, expected) in [
            ("/api/v1/pods", ("pods", None, None, None, false)),
            (
                "/api/v1/namespaces/demo/pods/a/log",
                ("pods", some("demo"), some("a"), some("log"), false),
            ),
            (
                "/api/v1/namespaces/demo",
                ("namespaces", None, some("demo"), None, false),
            ),
            (
                "/api/v1/namespaces/demo/finalize",
                ("namespaces", None, some("demo"), some("finalize"), false),
            ),
            (
                "/api/v1/nodes/n%31",
                ("nodes", None, some("n1"), None, false),
            ),
            (
                "/apis/apps/v1/namespaces/d/deployments",
                ("deployments.apps", some("d"), None, None, false),
            ),
            (
                "/api/v1/watch/namespaces/d/pods/a",
                ("pods", some("d"), some("a"), None, true),
            ),
        ] {
            let (kind, namespace, name, sub, watch) = expected;
            assert_eq!(
                target(text),
                (kind.to_owned(), namespace, name, sub, watch),
                "{text}"
            );
        }
    }

    #[test]
    fn other_paths_do_not() {
        for text in [
            "/",
            "/version",
            "/apis/apps",
            "/apis/foo.example/v1/bars",
            "/api/v1",
            "/api/v2/pods",
        ] {
            assert_eq!(path(text), Path::Other, "{text}");
        }
        for text in [
            "/api/v1/foos",
            "/api/v1/pods/a",
            "/api/v1/namespaces/d/nodes/n1",
            "/api/v1/namespaces/d/pods/a/b/c",
            "/api/v1/namespaces/d/pods/..",
            "/api/v1/namespaces/d/pods/%2e%2e",
            "/api/v1/namespaces/d/pods/a%2fb",
            "/api/v1/namespaces//pods",
        ] {
            assert_eq!(path(text), Path::UnknownResource, "{text}");
        }
    }

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let query =
            Query::parse("watch=1&a=x%3Dy&limit=abc&resourceVersion=abc&dryRun=Foo&unknown");
        assert!(query.on("watch") && !query.on("absent") && query.on("unknown"));
        assert_eq!(query.get("a"), Some("x=y"));
        assert_eq!(
            query.number("limit").unwrap_err().message,
            "strconv.ParseInt: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            query.revision("resourceVersion").unwrap_err().message,
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            query.dry_run("CreateOptions").unwrap_err().message,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Foo\"]: supported values: \"All\""
        );
    }

    proptest! {
        #[test]
        fn no_path_escapes_its_folder(text in "/(api/v1|apis/apps/v1)(/(namespaces|pods|deployments|nodes|[a-z%.2ef]{0,8}|\\PC{0,5})){0,6}") {
            if let Path::Resource(target) = path(&text)
                && let Some(name) = &target.name
            {
                let key = target.kind.key(target.namespace.as_deref(), name);
                prop_assert_eq!(key.split('/').count(), if target.kind.namespaced() { 5 } else { 4 });
            }
        }
    }
}
