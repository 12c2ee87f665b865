//! Errors as Kubernetes says them: the `Status` object (`meta/v1`).

use serde_json::{Value, json};

use super::kinds::Kind;
use crate::store;

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`
    pub reason: &'static str,
    /// `Invalid value: 99999: must be between 1 and 65535, inclusive`
    pub message: String,
    /// `spec.ports[0].port`
    pub field: String,
}

impl Cause {
    fn new(reason: &'static str, field: impl Into<String>, message: String) -> Self {
        Self {
            reason,
            message,
            field: field.into(),
        }
    }

    /// The field has no value. `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueRequired", field, with("Required value", detail))
    }

    /// The value is not what the field may hold.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            with(&format!("Invalid value: {value}"), detail),
        )
    }

    /// The value is none of the few that the field may hold.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<_> = supported.iter().map(|word| format!("{word:?}")).collect();
        Self::new(
            "FieldValueNotSupported",
            field,
            format!(
                "Unsupported value: {value}: supported values: {}",
                list.join(", ")
            ),
        )
    }

    /// Another item of the list has that value.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {value}"),
        )
    }

    /// The field may not be set, or not in this way.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueForbidden", field, with("Forbidden", detail))
    }

    /// More than `limit` bytes.
    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        Self::new(
            "FieldValueTooLong",
            field,
            format!("Too long: may not be more than {limit} bytes"),
        )
    }

    /// What is referred to does not exist.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new("FieldValueNotFound", field, format!("Not found: {value}"))
    }
}

fn with(what: &str, detail: &str) -> String {
    if detail.is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {detail}")
    }
}

/// A refusal, or a success that has no object.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP's.
    pub code: u16,
    /// `NotFound`; empty when there is none.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `{"name","group","kind","causes",…}`
    pub details: Option<Value>,
    /// Seconds for the `Retry-After` header; also in the details.
    pub retry_after: Option<u32>,
    /// Where a list may go on, inconsistently.
    pub continue_token: Option<String>,
}

impl Status {
    /// A failure.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            retry_after: None,
            continue_token: None,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = Some(details(kind.group, kind.plural, name, &[]));
        self
    }

    fn empty_details(mut self) -> Self {
        self.details = Some(json!({}));
        self
    }

    /// No such object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} {name:?} not found", kind.qualified()),
        )
        .about(kind, name)
    }

    /// No such resource.
    pub fn unknown_resource() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
        .empty_details()
    }

    /// `create` of a name that is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} {name:?} already exists", kind.qualified()),
        )
        .about(kind, name)
    }

    /// A write that another one came before.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// A write whose condition does not hold.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} {name:?}: {why}",
                kind.qualified()
            ),
        )
        .about(kind, name)
    }

    /// Wrong fields. `kind` is the object's kind in its group.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<_> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let what = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let all = match texts.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let mut status = Self::new(422, "Invalid", format!("{what} {name:?} is invalid: {all}"));
        status.details = Some(details(group, kind, name, causes));
        status
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// Who asks may not do that. The message is whole.
    pub fn forbidden(kind: Option<&Kind>, name: &str, message: impl Into<String>) -> Self {
        let status = Self::new(403, "Forbidden", message);
        match kind {
            Some(kind) => status.about(kind, name),
            None => status.empty_details(),
        }
    }

    /// Nobody knows who asks.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// Not on this path.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .empty_details()
    }

    /// A watch from too far back.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// Something of ours went wrong.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let mut status = Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        status.details = Some(json!({"causes": [{"message": message.to_string()}]}));
        status
    }

    /// Adds causes to the details.
    pub fn with_causes(mut self, causes: &[Cause]) -> Self {
        let details = self.details.get_or_insert_with(|| json!({}));
        details["causes"] = causes.iter().map(cause).collect();
        self
    }

    /// Tells the client to try again after so many seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        let details = self.details.get_or_insert_with(|| json!({}));
        details["retryAfterSeconds"] = json!(seconds);
        self.retry_after = Some(seconds);
        self
    }

    /// The object, as it is sent.
    pub fn to_value(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata,
            "status": if self.code < 400 { "Success" } else { "Failure" },
        });
        if !self.message.is_empty() {
            value["message"] = json!(self.message);
        }
        if !self.reason.is_empty() {
            value["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            value["details"] = details.clone();
        }
        if self.code != 200 {
            value["code"] = json!(self.code);
        }
        value
    }
}

impl From<store::Error> for Status {
    /// What a store's error means to a client that did not ask for a certain revision.
    fn from(error: store::Error) -> Self {
        use store::Error::{Away, Broken, Changed, Compacted, Exists, Full, Future};
        match error {
            Exists(_) | Changed { .. } => Self::new(409, "Conflict", error.to_string()),
            Compacted { .. } => {
                Self::expired("The resourceVersion for the provided list is too old.")
            }
            Future { asked, newest } => {
                let mut status = Self::new(
                    504,
                    "Timeout",
                    format!("Timeout: Too large resource version: {asked}, current: {newest}"),
                );
                status.details = Some(json!({"causes": [
                    {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
                ]}));
                status.retry_after(1)
            }
            Full(text) => Self::new(
                507,
                "InsufficientStorage",
                format!("the store is full: {text}; what was acknowledged is kept"),
            ),
            Away(text) => Self::new(
                503,
                "ServiceUnavailable",
                format!("the store is away: {text}"),
            )
            .retry_after(1),
            Broken(text) => Self::internal(text),
        }
    }
}

fn details(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Value {
    let mut details = json!({});
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details[key] = json!(value);
        }
    }
    if !causes.is_empty() {
        details["causes"] = causes.iter().map(cause).collect();
    }
    details
}

fn cause(cause: &Cause) -> Value {
    json!({"reason": cause.reason, "message": cause.message, "field": cause.field})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinds;

    /// Recorded from kube-apiserver 1.36.2.
    #[test]
    fn refusals_are_those_of_the_reference() {
        let cm = kinds::find("", "v1", "configmaps").unwrap();
        assert_eq!(
            Status::modified(cm, "cm").to_value(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "Operation cannot be fulfilled on configmaps \"cm\": the object has been modified; please apply your changes to the latest version and try again",
                "reason": "Conflict", "details": {"name": "cm", "kind": "configmaps"}, "code": 409
            })
        );
        let port = |field| {
            Cause::invalid(
                field,
                &json!(99999),
                "must be between 1 and 65535, inclusive",
            )
        };
        let causes = [port("spec.ports[0].port"), port("spec.ports[0].targetPort")];
        assert_eq!(
            Status::invalid("", "Service", "bad", &causes).to_value(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "Service \"bad\" is invalid: [spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535, inclusive]",
                "reason": "Invalid",
                "details": {"name": "bad", "kind": "Service", "causes": [
                    {"reason": "FieldValueInvalid", "message": "Invalid value: 99999: must be between 1 and 65535, inclusive", "field": "spec.ports[0].port"},
                    {"reason": "FieldValueInvalid", "message": "Invalid value: 99999: must be between 1 and 65535, inclusive", "field": "spec.ports[0].targetPort"}
                ]}, "code": 422
            })
        );
    }
}
