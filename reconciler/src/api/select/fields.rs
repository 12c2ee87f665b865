//! Field selectors: `status.phase!=Failed,spec.nodeName=n1`.

use std::borrow::Cow;

use serde_json::Value;

use crate::api::kinds::Kind;
use crate::api::object;

/// All terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    path: String,
    equal: bool,
    value: String,
}

/// Paths beside `metadata.name` and `metadata.namespace`.
fn known(kind: &Kind) -> &'static [&'static str] {
    match (kind.group, kind.kind) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "Event") => &[
            "reason",
            "reportingController",
            "type",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
        ],
        ("", "Namespace") => &["status.phase"],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "ReplicationController") | ("apps", "ReplicaSet") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        _ => &[],
    }
}

impl Fields {
    /// Reads a selector; an empty text selects everything.
    ///
    /// # Errors
    /// A term without an operator, or a path that the kind cannot be selected by, in the reference's words.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for term in split(text) {
            let (path, equal, value) = operands(&term)
                .ok_or_else(|| format!("invalid selector: {text:?}; can't understand {term:?}"))?;
            let known = known(kind);
            if !["metadata.name", "metadata.namespace"].contains(&path) && !known.contains(&path) {
                return Err(if known.is_empty() {
                    format!(
                        "{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {path}")
                });
            }
            all.push(Term {
                path: path.to_owned(),
                equal,
                value: unescape(value),
            });
        }
        Ok(Self(all))
    }

    /// Whether there is no term.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that a path must have.
    pub fn wanted(&self, path: &str) -> Option<&str> {
        let term = self.0.iter().find(|term| term.equal && term.path == path)?;
        Some(&term.value)
    }

    /// Whether an object meets all terms.
    pub fn matches(&self, object: &Value) -> bool {
        self.0
            .iter()
            .all(|term| (read(object, &term.path) == term.value) == term.equal)
    }
}

/// A field as text; absent is empty, or false.
fn read<'a>(object: &'a Value, path: &str) -> Cow<'a, str> {
    let get = |path: &str| {
        let keys: Vec<_> = path.split('.').collect();
        object::at(object, &keys)
    };
    match path {
        // The core object holds what events.k8s.io calls by other names.
        "regarding.kind"
        | "regarding.namespace"
        | "regarding.name"
        | "regarding.uid"
        | "regarding.apiVersion"
        | "regarding.resourceVersion"
        | "regarding.fieldPath" => {
            return read(object, &path.replacen("regarding", "involvedObject", 1))
                .into_owned()
                .into();
        }
        "reportingController" | "reportingComponent" => return text(get("reportingComponent")),
        "source" => {
            let source = text(get("source.component"));
            return if source.is_empty() {
                text(get("reportingComponent"))
            } else {
                source
            };
        }
        "status.podIPs" => return text(get("status.podIP")),
        "spec.hostNetwork" | "spec.unschedulable" => {
            return if get(path) == Some(&Value::Bool(true)) {
                "true"
            } else {
                "false"
            }
            .into();
        }
        "status.replicas" => return get(path).map_or("0".into(), |value| value.to_string().into()),
        "status.successful" => {
            return get("status.succeeded").map_or("0".into(), |value| value.to_string().into());
        }
        _ => {}
    }
    text(get(path))
}

fn text(value: Option<&Value>) -> Cow<'_, str> {
    value.and_then(Value::as_str).unwrap_or_default().into()
}

/// Terms are split at commas that no backslash precedes.
fn split(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for letter in text.chars() {
        if letter == ',' && !escaped {
            terms.push(String::new());
        } else if let Some(term) = terms.last_mut() {
            term.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    terms.retain(|term| !term.is_empty());
    terms
}

/// Path, whether it must be equal, value.
fn operands(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find('=')?;
    let (before, after) = (&term[..at], &term[at + 1..]);
    if let Some(path) = before.strip_suffix('!') {
        return Some((path.trim(), false, after));
    }
    Some((
        before.trim(),
        true,
        after.strip_prefix('=').unwrap_or(after),
    ))
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(letters.next()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinds::find;
    use serde_json::json;

    fn parse(plural: &str, text: &str) -> Result<Fields, String> {
        Fields::parse(find("", "v1", plural).unwrap(), text)
    }

    #[test]
    fn terms_hold_in_any_order() {
        let pod = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        for (text, expected) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==b", false),
            (
                "status.phase!=Failed,spec.nodeName=n1,status.phase!=Succeeded",
                true,
            ),
            ("spec.nodeName=", false),
            ("spec.hostNetwork=false", true),
            ("spec.nodeName!=", true),
        ] {
            assert_eq!(
                parse("pods", text).unwrap().matches(&pod),
                expected,
                "{text}"
            );
        }
        assert_eq!(
            parse("pods", "metadata.name=a")
                .unwrap()
                .wanted("metadata.name"),
            Some("a")
        );
        let event = json!({"involvedObject": {"name": "x,y"}, "reportingComponent": "kubelet"});
        assert!(
            parse("events", "involvedObject.name=x\\,y,source=kubelet")
                .unwrap()
                .matches(&event)
        );
        let view = Fields::parse(
            find("events.k8s.io", "v1", "events").unwrap(),
            "regarding.name=x\\,y",
        );
        assert!(view.unwrap().matches(&event));
    }

    #[test]
    fn unknown_paths_are_refused_as_recorded() {
        assert_eq!(
            parse("pods", "spec.foo=x").unwrap_err(),
            "field label not supported: spec.foo"
        );
        assert_eq!(
            parse("configmaps", "data.a=b").unwrap_err(),
            "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        parse("pods", "what").unwrap_err();
    }
}
