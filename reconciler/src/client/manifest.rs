//! Manifests: files, folders and standard input to objects.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::value::RawValue;

use super::failure::Failure;
use super::resources::{Resource, Resources};
use crate::api::body::text;

/// An object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The file; for messages.
    pub from: String,
    /// The object.
    pub object: Value,
}

impl Manifest {
    /// Its kind, its name, and the namespace that it names.
    ///
    /// # Errors
    /// One of them is missing, or the server has no such kind.
    pub fn identity<'a, 'r>(
        &'a self,
        resources: &'r Resources,
    ) -> Result<(&'r Resource, &'a str, Option<&'a str>), Failure> {
        let from = &self.from;
        let text = |path: &str| {
            let text = self.object.pointer(path).and_then(Value::as_str);
            text.filter(|text| !text.is_empty())
        };
        let missing = |what: &str| Failure::Local(format!("{from}: an object has no {what}"));
        let api_version = text("/apiVersion").ok_or_else(|| missing("apiVersion"))?;
        let kind = text("/kind").ok_or_else(|| missing("kind"))?;
        let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
        let Some(name) = name else {
            return Err(if text("/metadata/generateName").is_some() {
                Failure::Local(format!("from {from}: cannot use generate name with apply"))
            } else {
                missing("metadata.name")
            });
        };
        let resource = resources.of(api_version, kind).ok_or_else(|| {
            Failure::Local(format!(
                "resource mapping not found for name: {name:?} namespace: {:?} from {from:?}: no matches for kind {kind:?} in version {api_version:?}",
                namespace.unwrap_or_default()
            ))
        })?;
        Ok((resource, name, namespace))
    }
}

/// Reads what `-f` names: a file, a folder's `.yaml`, `.yml` and `.json` files by name, or `-` for standard input. What
/// cannot be read stands in its place as the reason.
pub fn read(places: &[PathBuf]) -> Vec<Result<Manifest, Failure>> {
    let mut all = Vec::new();
    for place in places {
        if place.as_os_str() == "-" {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            match read {
                Ok(_) => all.extend(parse("STDIN", &bytes)),
                Err(error) => all.push(Err(Failure::Local(format!("read STDIN: {error}")))),
            }
            continue;
        }
        let files = match files(place) {
            Ok(files) => files,
            Err(failure) => {
                all.push(Err(failure));
                continue;
            }
        };
        for file in files {
            let shown = file.display().to_string();
            match std::fs::read(&file) {
                Ok(bytes) => all.extend(parse(&shown, &bytes)),
                Err(error) => all.push(Err(Failure::Local(format!("read {shown}: {error}")))),
            }
        }
    }
    all
}

fn files(place: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !place.is_dir() {
        return Ok(vec![place.to_owned()]);
    }
    let wrong =
        |error: std::io::Error| Failure::Local(format!("read {}: {error}", place.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(place).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a text with any number of documents, JSON or YAML; a List is what is in it. A document that is wrong stands in
/// its place as the reason.
pub fn parse(from: &str, bytes: &[u8]) -> Vec<Result<Manifest, Failure>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let documents = json_documents(bytes).unwrap_or_else(|| {
        let documents = yaml_documents(bytes).into_iter();
        documents.map(text::yaml).collect()
    });
    let mut all = Vec::new();
    for document in documents {
        match document {
            Ok(parsed) => match parsed.findings.first() {
                Some(finding) => all.push(Err(Failure::Local(format!("{from}: {finding}")))),
                None => unfold(from, parsed.value, &mut all),
            },
            Err(why) => all.push(Err(Failure::Local(format!("{from}: {why}")))),
        }
    }
    all
}

/// JSON documents one after the other, if that is what the text is.
fn json_documents(bytes: &[u8]) -> Option<Vec<Result<text::Parsed, String>>> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Box<RawValue>>();
    let documents: Result<Vec<_>, _> = documents.collect();
    let documents = documents.ok()?.into_iter();
    Some(
        documents
            .map(|raw| text::json(raw.get().as_bytes()))
            .collect(),
    )
}

/// The pieces between lines that begin with `---`.
fn yaml_documents(bytes: &[u8]) -> Vec<&[u8]> {
    let mut documents = Vec::new();
    let (mut begin, mut at) = (0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if let Some(rest) = line.strip_prefix(b"---")
            && rest.first().is_none_or(u8::is_ascii_whitespace)
        {
            documents.push(&bytes[begin..at]);
            // What stands behind the dashes is of the document.
            begin = at + 3;
        }
        at += line.len();
    }
    documents.push(&bytes[begin..]);
    documents
}

fn unfold(from: &str, value: Value, all: &mut Vec<Result<Manifest, Failure>>) {
    let is_list = value
        .get("kind")
        .and_then(Value::as_str)
        .is_some_and(|kind| kind.ends_with("List"));
    match value {
        Value::Null => {}
        Value::Object(mut fields)
            if is_list && fields.get("items").is_some_and(Value::is_array) =>
        {
            if let Some(Value::Array(items)) = fields.remove("items") {
                for item in items {
                    unfold(from, item, all);
                }
            }
        }
        Value::Object(fields) => all.push(Ok(Manifest {
            from: from.to_owned(),
            object: Value::Object(fields),
        })),
        _ => all.push(Err(Failure::Local(format!(
            "{from}: a document is no object with fields"
        )))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn objects(text: &str) -> Vec<Result<Value, String>> {
        let all = parse("f", text.as_bytes()).into_iter();
        all.map(|one| {
            one.map(|manifest| manifest.object)
                .map_err(|why| why.to_string())
        })
        .collect()
    }

    #[test]
    fn documents_are_split_and_lists_unfolded() {
        let text = "# a comment\n---\na: 1\n--- # the second\nb: |\n  --- no end\n  c\n---\r\n\n---\nkind: List\nitems:\n- {c: 1}\n- kind: PodList\n  items: [{d: 1}]\n...\n";
        assert_eq!(
            objects(text),
            [
                Ok(json!({"a": 1})),
                Ok(json!({"b": "--- no end\nc\n"})),
                Ok(json!({"c": 1})),
                Ok(json!({"d": 1}))
            ]
        );
        assert_eq!(
            objects("{\"a\": 1}\n{\"b\": 2}"),
            [Ok(json!({"a": 1})), Ok(json!({"b": 2}))]
        );
        assert_eq!(objects("{a: 1}"), [Ok(json!({"a": 1}))]);
        assert_eq!(objects("\u{feff}a: 1"), [Ok(json!({"a": 1}))]);
        assert_eq!(objects(""), []);
        assert_eq!(objects("--- {a: 1}"), [Ok(json!({"a": 1}))]);
    }

    #[test]
    fn a_wrong_document_leaves_the_others() {
        let all = objects("a: 1\n---\na: [\n---\n- 1\n---\na: 1\na: 2\n---\nb: 1\n");
        assert_eq!(all[0], Ok(json!({"a": 1})));
        assert!(all[1].as_ref().unwrap_err().starts_with("error: f: yaml: "));
        assert_eq!(
            all[2],
            Err("error: f: a document is no object with fields".to_owned())
        );
        assert_eq!(all[3], Err("error: f: duplicate field \"a\"".to_owned()));
        assert_eq!(all[4], Ok(json!({"b": 1})));
    }

    #[test]
    fn an_object_needs_a_kind_that_the_server_has_and_a_name() {
        let mut resources = Resources::default();
        resources.read(
            &json!({"items": [{"metadata": {}, "versions": [{"version": "v1", "resources": [
            {"resource": "pods", "responseKind": {"kind": "Pod"}, "scope": "Namespaced"}]}]}]}),
        );
        let said = |object: Value| {
            let manifest = Manifest {
                from: "f".to_owned(),
                object,
            };
            manifest
                .identity(&resources)
                .err()
                .map(|why| why.to_string())
        };
        let good =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"}});
        assert_eq!(said(good), None);
        assert_eq!(
            said(json!({})).unwrap(),
            "error: f: an object has no apiVersion"
        );
        assert_eq!(
            said(json!({"apiVersion": "v1", "kind": 1})).unwrap(),
            "error: f: an object has no kind"
        );
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": ""}});
        assert_eq!(
            said(object).unwrap(),
            "error: f: an object has no metadata.name"
        );
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a"}});
        assert_eq!(
            said(object).unwrap(),
            "error: from f: cannot use generate name with apply"
        );
        let object = json!({"apiVersion": "v2", "kind": "Pod", "metadata": {"name": "a"}});
        assert!(
            said(object)
                .unwrap()
                .ends_with("no matches for kind \"Pod\" in version \"v2\"")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_objects_or_reasons(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse("f", &bytes);
        }

        #[test]
        fn any_odd_text_is_objects_or_reasons(text in "(---|\\.\\.\\.|\n| |\t|- |a|b|: |\\{|\\}|\\[|\\]|,|\"|'|\\||>|&a|\\*a|<<|!!|#|%YAML|kind: List|items:|\r){0,60}") {
            for one in parse("f", text.as_bytes()).into_iter().flatten() {
                prop_assert!(one.object.is_object());
                let _ = one.identity(&Resources::default());
            }
        }

        #[test]
        fn as_many_documents_come_out_as_went_in(values in prop::collection::vec("[ -~]{0,30}", 0..8)) {
            let objects: Vec<_> = values.iter().map(|value| json!({"a": value})).collect();
            let text: Vec<_> = objects.iter().map(ToString::to_string).collect();
            for separator in ["\n", "\n---\n"] {
                let read: Vec<_> = parse("f", text.join(separator).as_bytes()).into_iter()
                    .map(|one| one.unwrap().object).collect();
                prop_assert_eq!(&read, &objects);
            }
        }
    }
}
