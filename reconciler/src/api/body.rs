//! Request bodies: from bytes in JSON, YAML or protobuf to an object of the type that the path asks for.

pub mod path;
pub mod protobuf;
pub mod text;
pub mod time;
pub mod validation;

use serde_json::{Map, Value};

use super::conform::{Canonical, conform, what};
use super::kinds::{self, Kind};
use super::schema::{self, Type};
use super::status::Status;
use text::Parsed;

/// `application/vnd.kubernetes.protobuf`
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`, and no Content-Type at all.
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Format {
    /// By the Content-Type of a request; parameters (`charset`) are ignored.
    ///
    /// # Errors
    /// 415 for any other.
    pub fn of(content_type: Option<&str>) -> Result<Self, Status> {
        let media = content_type.unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        match media.to_ascii_lowercase().as_str() {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" => Ok(Self::Yaml),
            PROTOBUF => Ok(Self::Protobuf),
            _ => Err(Status::new(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            )),
        }
    }
}

/// What a path takes as body.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// `""` is the core group.
    pub group: &'static str,
    /// `v1`
    pub version: &'static str,
    /// `Pod`
    pub kind: &'static str,
    /// Its fields.
    pub of: &'static Type,
}

impl Target {
    /// Objects of a kind.
    pub fn of(kind: &Kind) -> Self {
        Self {
            group: kind.group,
            version: kind.version,
            kind: kind.kind,
            of: schema::of(kind),
        }
    }

    /// A type that is no row of the kinds: `named("autoscaling", "v1", "Scale")`.
    pub fn named(group: &'static str, version: &'static str, kind: &'static str) -> Option<Self> {
        let of = schema::in_group(group, version, kind)?;
        Some(Self {
            group,
            version,
            kind,
            of,
        })
    }

    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// 400: the body is no such object.
    pub fn refuse(&self, why: &str) -> Status {
        refusal(self.kind, &self.api_version(), self.kind, why)
    }

    /// Checks the type that a body says it has, and says it where the body did not.
    fn check(&self, value: &mut Map<String, Value>, text: &[u8]) -> Result<(), Status> {
        for key in ["apiVersion", "kind"] {
            if let Some(wrong) = value.get(key).filter(|it| !it.is_string() && !it.is_null()) {
                let what = what(wrong, false);
                return Err(self.unrecognized(
                    &format!(
                        "json: cannot unmarshal {what} into Go struct field .{key} of type string"
                    ),
                    text,
                ));
            }
        }
        let said = |key| {
            value
                .get(key)
                .and_then(Value::as_str)
                .filter(|word| !word.is_empty())
        };
        let ours = self.api_version();
        let api_version = said("apiVersion").unwrap_or(&ours);
        let kind = said("kind").unwrap_or(self.kind);
        if kind == self.kind && api_version == ours {
            value.insert("apiVersion".into(), ours.into());
            value.insert("kind".into(), self.kind.into());
            return Ok(());
        }
        let why = match kinds::of(api_version, kind) {
            Some(row) => format!(
                "converting ({}.{kind}) to ({}.{}): unknown conversion",
                row.version,
                schema::package(self.group),
                self.kind
            ),
            None => format!(
                "no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
            ),
        };
        Err(refusal(kind, api_version, self.kind, &why))
    }

    fn no_object(&self, value: &Value, text: &[u8]) -> Status {
        let what = what(value, false);
        self.unrecognized(
            &format!("json: cannot unmarshal {what} into Go value of type struct"),
            text,
        )
    }

    /// 400: it cannot even be said what the body is.
    fn unrecognized(&self, why: &str, text: &[u8]) -> Status {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} ({})",
            self.kind,
            summary(text)
        ))
    }
}

fn refusal(kind: &str, api_version: &str, wanted: &str, why: &str) -> Status {
    Status::bad_request(format!(
        "{kind} in version {api_version:?} cannot be handled as a {wanted}: {why}"
    ))
}

/// The beginning of a body.
fn summary(text: &[u8]) -> String {
    const LONGEST: usize = 30;
    let (shown, more) = match text.get(..LONGEST) {
        Some(shown) if text.len() > LONGEST => (shown, " ..."),
        _ => (text, ""),
    };
    match text.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => {
            let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}

/// A body that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// An object of the type, with `apiVersion` and `kind`.
    pub value: Value,
    /// `duplicate field "data.a"`, `unknown field "spec.x"`: for [`validation::Mode::judge`].
    pub findings: Vec<String>,
}

/// Reads a body as an object of a type; `apiVersion` and `kind` may be absent.
///
/// # Errors
/// 415 for another format; 400 if it cannot be read, is of another type, or has values of wrong types.
pub fn read(
    content_type: Option<&str>,
    bytes: &[u8],
    target: &Target,
    canonical: Canonical,
) -> Result<Decoded, Status> {
    let Parsed {
        mut value,
        mut findings,
    } = parse(Format::of(content_type)?, bytes, target)?;
    match &mut value {
        Value::Object(map) => target.check(map, bytes)?,
        other => return Err(target.no_object(other, bytes)),
    }
    let unknown =
        conform(&mut value, target.of, canonical).map_err(|error| target.refuse(&error))?;
    findings.extend(unknown);
    Ok(Decoded { value, findings })
}

fn parse(format: Format, bytes: &[u8], target: &Target) -> Result<Parsed, Status> {
    match format {
        Format::Json => text::json(bytes).map_err(|error| target.unrecognized(&error, bytes)),
        Format::Yaml => text::yaml(bytes).map_err(|error| target.unrecognized(&error, bytes)),
        Format::Protobuf => {
            let unreadable = |error: String| {
                Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {}): {error} ({})",
                    target.kind,
                    summary(bytes)
                ))
            };
            let envelope = protobuf::open(bytes).map_err(unreadable)?;
            let mut types = Map::new();
            types.insert("apiVersion".into(), envelope.api_version.into());
            types.insert("kind".into(), envelope.kind.into());
            target.check(&mut types, bytes)?;
            let mut map =
                protobuf::object(envelope.raw, target.of).map_err(|error| target.refuse(&error))?;
            map.append(&mut types);
            Ok(Parsed {
                value: Value::Object(map),
                findings: Vec::new(),
            })
        }
    }
}

/// Reads the body of a DELETE: `DeleteOptions` of any API version, or nothing, which is `{}`.
///
/// # Errors
/// As [`read`].
pub fn delete_options(content_type: Option<&str>, bytes: &[u8]) -> Result<Value, Status> {
    if bytes.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let target = Target {
        group: "",
        version: "v1",
        kind: "DeleteOptions",
        of: schema::object("meta/v1.DeleteOptions"),
    };
    let format = Format::of(content_type)?;
    let mut value = match format {
        // Its version is that of any group.
        Format::Protobuf => {
            let envelope = protobuf::open(bytes).map_err(|error| target.refuse(&error))?;
            if !["", target.kind].contains(&envelope.kind) {
                return Err(refusal(
                    envelope.kind,
                    envelope.api_version,
                    target.kind,
                    "it is of another kind",
                ));
            }
            let map =
                protobuf::object(envelope.raw, target.of).map_err(|error| target.refuse(&error))?;
            Value::Object(map)
        }
        _ => parse(format, bytes, &target)?.value,
    };
    let map = match &mut value {
        Value::Object(map) => map,
        other => return Err(target.no_object(other, bytes)),
    };
    if map.get("apiVersion").is_some_and(Value::is_string) {
        map.remove("apiVersion");
    }
    target.check(map, bytes)?;
    // No field of it is a quantity.
    conform(&mut value, target.of, |_| None).map_err(|error| target.refuse(&error))?;
    Ok(value)
}

#[cfg(test)]
mod tests;
