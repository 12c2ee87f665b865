//! What can go wrong, in the words of `kubectl`.

use std::error::Error;
use std::fmt;
use std::io;

use serde_json::Value;

/// Why a command, or a part of it, failed. It is shown on one line, but for several causes.
#[derive(Debug)]
pub enum Failure {
    /// The server says no: its Status object, and the code of HTTP.
    Server(Box<Value>, u16),
    /// Nobody listens at the address.
    Refused(String),
    /// The server is not reached, or it breaks off; why.
    Unreachable(String),
    /// It is the command line, a file, or what the server lacks.
    Local(String),
    /// The output is closed or full.
    Output(io::Error),
}

impl Failure {
    /// What happened to a request to the server at `address`.
    pub fn transport(address: &str, error: &(dyn Error + 'static)) -> Self {
        let mut cause = error;
        loop {
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            if kind == Some(io::ErrorKind::ConnectionRefused) {
                return Self::Refused(address.to_owned());
            }
            match cause.source() {
                Some(deeper) => cause = deeper,
                None => return Self::Unreachable(format!("{address}: {cause}")),
            }
        }
    }

    /// The server knows no such object.
    pub fn not_found(&self) -> bool {
        matches!(self, Self::Server(_, 404))
    }

    /// Who read the output has left, as `head` does.
    pub fn nobody_reads(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(status, code) => server(f, status, *code),
            Self::Refused(address) => write!(
                f,
                "The connection to the server {address} was refused: start `weft apiserver`, or name another kubeconfig with --kubeconfig"
            ),
            Self::Unreachable(why) => write!(f, "Unable to connect to the server {why}"),
            Self::Local(why) => write!(f, "error: {why}"),
            Self::Output(error) => write!(f, "error: write the output: {error}"),
        }
    }
}

fn server(f: &mut fmt::Formatter<'_>, status: &Value, code: u16) -> fmt::Result {
    let text = |value: &Value, field: &str| -> String {
        let text = value.get(field).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let (message, reason) = (text(status, "message"), text(status, "reason"));
    let details = status.get("details").unwrap_or(&Value::Null);
    let causes = details.get("causes").and_then(Value::as_array);
    let causes = causes.map(Vec::as_slice).unwrap_or_default();
    if code == 401 {
        return write!(f, "error: You must be logged in to the server ({message})");
    }
    if code == 409
        && !causes.is_empty()
        && causes
            .iter()
            .all(|cause| text(cause, "reason") == "FieldManagerConflict")
    {
        return write!(
            f,
            "error: {message} (--force-conflicts takes these fields over)"
        );
    }
    if code == 422 && !causes.is_empty() {
        match (
            text(details, "kind").as_str(),
            text(details, "name").as_str(),
        ) {
            ("", _) => write!(f, "The request is invalid")?,
            (kind, "") => write!(f, "The {kind} is invalid")?,
            (kind, name) => write!(f, "The {kind} {name:?} is invalid")?,
        }
        let line = |cause: &Value| match text(cause, "field").as_str() {
            "" => text(cause, "message"),
            field => format!("{field}: {}", text(cause, "message")),
        };
        if let [cause] = causes {
            return write!(f, ": {}", line(cause));
        }
        f.write_str(": ")?;
        for cause in causes {
            write!(f, "\n* {}", line(cause))?;
        }
        return Ok(());
    }
    match reason.as_str() {
        "" => write!(f, "Error from server: {message}"),
        reason => write!(f, "Error from server ({reason}): {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(code: u16, status: Value) -> String {
        Failure::Server(Box::new(status), code).to_string()
    }

    #[test]
    fn statuses_are_worded_as_kubectl_does() {
        let status = json!({"reason": "NotFound", "message": "pods \"x\" not found"});
        assert_eq!(
            said(404, status),
            "Error from server (NotFound): pods \"x\" not found"
        );
        assert_eq!(
            said(
                401,
                json!({"reason": "Unauthorized", "message": "Unauthorized"})
            ),
            "error: You must be logged in to the server (Unauthorized)"
        );
        assert_eq!(said(500, json!([])), "Error from server: ");
        let one = json!({"reason": "Invalid", "message": "…", "details": {"kind": "Pod", "name": "x", "causes": [
            {"reason": "FieldValueRequired", "field": "spec.containers", "message": "Required value"}]}});
        assert_eq!(
            said(422, one.clone()),
            "The Pod \"x\" is invalid: spec.containers: Required value"
        );
        let mut two = one;
        two["details"]["causes"] = json!([{"field": "a", "message": "b"}, {"message": "c"}]);
        assert_eq!(said(422, two), "The Pod \"x\" is invalid: \n* a: b\n* c");
        let conflict = json!({"reason": "Conflict", "message": "Apply failed with 1 conflict: conflict with \"m\": .a",
            "details": {"causes": [{"reason": "FieldManagerConflict", "field": ".a"}]}});
        assert!(
            said(409, conflict)
                .ends_with("conflict with \"m\": .a (--force-conflicts takes these fields over)")
        );
    }

    #[test]
    fn a_refused_connection_names_the_address_and_the_remedy() {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Connect(#[source] io::Error);
        let refused = Connect(io::ErrorKind::ConnectionRefused.into());
        let said = Failure::transport("127.0.0.1:6443", &refused).to_string();
        assert!(
            said.contains("127.0.0.1:6443 was refused: start `weft apiserver`"),
            "{said}"
        );
        let other = io::Error::from(io::ErrorKind::TimedOut);
        let said = Failure::transport("h:1", &other).to_string();
        assert!(
            said.starts_with("Unable to connect to the server h:1: "),
            "{said}"
        );
    }
}
