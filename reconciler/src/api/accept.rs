//! What an answer may look like: the `Accept` header.

use serde_json::json;

use super::status::Status;

/// Bytes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

/// What is told of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Everything.
    Object,
    /// Cells in columns, for people; in this version of `meta.k8s.io`.
    Table(&'static str),
    /// Metadata only: `PartialObjectMetadata` or its list, in this version of `meta.k8s.io`.
    Metadata(&'static str),
}

/// The answer that a client wants most, of those that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Bytes of the answer.
    pub encoding: Encoding,
    /// What is told of objects.
    pub form: Form,
}

/// Decides how a list, an object or (`watch`) a stream of events is answered.
///
/// # Errors
/// 406: there is none of the answers that the client takes. Protobuf is not written; nor are streams in YAML.
pub fn accept(header: Option<&str>, watch: bool) -> Result<Accepted, Status> {
    let header = header.unwrap_or_default();
    if header.trim().is_empty() {
        return Ok(Accepted {
            encoding: Encoding::Json,
            form: Form::Object,
        });
    }
    clauses(header)
        .iter()
        .find_map(|clause| {
            let encoding = match clause.media.as_str() {
                "application/json" | "application/*" | "*/*" => Encoding::Json,
                "application/yaml" if !watch => Encoding::Yaml,
                _ => return None,
            };
            let form = clause.form()?;
            Some(Accepted { encoding, form })
        })
        .ok_or_else(not_acceptable)
}

/// 406.
pub fn not_acceptable() -> Status {
    let mut status = Status::new(
        406,
        "NotAcceptable",
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    );
    status.details = Some(json!({}));
    status
}

/// One of the answers that a client takes: `application/json;as=Table;v=v1;g=meta.k8s.io`.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// In lower case.
    pub media: String,
    parameters: Vec<(String, String)>,
}

impl Clause {
    /// A parameter, or `""`.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// Whether it asks for a type of a group in a version.
    pub fn wants(&self, kind: &str, group: &str, version: &str) -> bool {
        self.parameter("as") == kind
            && self.parameter("g") == group
            && self.parameter("v") == version
    }

    fn form(&self) -> Option<Form> {
        let version = match (self.parameter("g"), self.parameter("v")) {
            ("meta.k8s.io", "v1") => Some("v1"),
            ("meta.k8s.io", "v1beta1") => Some("v1beta1"),
            _ => None,
        };
        match self.parameter("as") {
            "" => Some(Form::Object),
            "Table" => version.map(Form::Table),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => version.map(Form::Metadata),
            _ => None,
        }
    }
}

/// The answers that a header names, the most wanted first.
pub fn clauses(header: &str) -> Vec<Clause> {
    let mut found: Vec<(f32, Clause)> = header
        .split(',')
        .filter(|text| !text.trim().is_empty())
        .map(|text| {
            let mut parts = text.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<_> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(key, value)| {
                    let value = value.trim().trim_matches('"');
                    (key.trim().to_ascii_lowercase(), value.to_owned())
                })
                .collect();
            let clause = Clause { media, parameters };
            let quality = clause.parameter("q").parse().unwrap_or(1.0);
            (quality, clause)
        })
        .filter(|(quality, _)| *quality > 0.0)
        .collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().map(|(_, clause)| clause).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(form: Form) -> Option<Accepted> {
        Some(Accepted {
            encoding: Encoding::Json,
            form,
        })
    }

    /// The first six are what kubectl and other clients send.
    #[test]
    fn headers_of_clients_are_understood() {
        for (header, wanted) in [
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                json(Form::Table("v1")),
            ),
            ("application/json, */*", json(Form::Object)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                json(Form::Object),
            ),
            (
                "application/vnd.kubernetes.protobuf, */*",
                json(Form::Object),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
                json(Form::Metadata("v1")),
            ),
            ("application/json;stream=watch", json(Form::Object)),
            ("", json(Form::Object)),
            (
                "Application/JSON; G=meta.k8s.io ; as=PartialObjectMetadataList; v=v1beta1",
                json(Form::Metadata("v1beta1")),
            ),
            (
                "application/json;as=Table;v=v2;g=meta.k8s.io, application/json;q=0.1",
                json(Form::Object),
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
            ("application/json;as=Pod;v=v1;g=meta.k8s.io", None),
            ("application/json;q=0", None),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
            (
                "text/html, application/*;q=0.9, application/yaml",
                Some(Accepted {
                    encoding: Encoding::Yaml,
                    form: Form::Object,
                }),
            ),
        ] {
            assert_eq!(accept(Some(header), false).ok(), wanted, "{header}");
        }
        assert_eq!(accept(None, true).ok(), json(Form::Object));
        assert!(accept(Some("application/yaml"), true).is_err());
    }

    /// Recorded from kube-apiserver 1.36.2.
    #[test]
    fn the_refusal_is_that_of_the_reference() {
        assert_eq!(
            accept(Some("text/html"), false).unwrap_err().to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
                "reason": "NotAcceptable", "details": {}, "code": 406})
        );
    }
}
