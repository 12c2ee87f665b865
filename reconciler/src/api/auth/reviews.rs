//! Answers to questions about users: who am I, may I, what may I, may they, whose token is this.
//!
//! Nothing is stored: each function turns what was posted into what is answered (201).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::roles::{self, Attributes, Resource, Target, Verdict};
use super::{Identity, User};
use crate::api::object::{at, list, text};
use crate::api::status::{Cause, Status};

const AUTHENTICATION: &str = "authentication.k8s.io/v1";
const AUTHORIZATION: &str = "authorization.k8s.io/v1";

/// SelfSubjectReview: who asks.
pub fn self_subject(user: &User, now: Timestamp) -> Value {
    let created = Timestamp::from_second(now.as_second()).unwrap_or(now);
    json!({
        "kind": "SelfSubjectReview", "apiVersion": AUTHENTICATION,
        "metadata": {"creationTimestamp": created.to_string()},
        "status": {"userInfo": user.to_value()},
    })
}

/// SelfSubjectAccessReview: whether who asks may do something.
///
/// # Errors
/// 422 unless exactly one of `resourceAttributes` and `nonResourceAttributes` is there.
pub fn self_access(user: &User, request: &Value) -> Result<Value, Status> {
    access_of(user, request, "SelfSubjectAccessReview", Vec::new())
}

/// SubjectAccessReview: whether a user may do something.
///
/// # Errors
/// As [`self_access`], and 422 if neither user nor group is named.
pub fn access(request: &Value) -> Result<Value, Status> {
    let strings = |value: &Value| -> Vec<String> {
        let strings = value.as_array().into_iter().flatten();
        strings
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect()
    };
    let spec = |key| at(request, &["spec", key]);
    let user = User {
        name: text(request, &["spec", "user"]).to_owned(),
        uid: text(request, &["spec", "uid"]).to_owned(),
        groups: spec("groups").map(strings).unwrap_or_default(),
        extra: Default::default(),
    };
    let mut causes = Vec::new();
    if user.name.is_empty() && user.groups.is_empty() {
        let wrong = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &json!(""), wrong));
    }
    access_of(&user, request, "SubjectAccessReview", causes)
}

fn access_of(
    user: &User,
    request: &Value,
    kind: &str,
    mut causes: Vec<Cause>,
) -> Result<Value, Status> {
    let part = |key| at(request, &["spec", key]).filter(|part| part.is_object());
    let attributes = match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(objects), None) => Some(of_objects(objects)),
        (None, Some(path)) => Some(Attributes {
            verb: text(path, &["verb"]),
            target: Target::Path(text(path, &["path"])),
        }),
        _ => {
            causes.push(Cause::invalid(
                "spec.resourceAttributes",
                &Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
            None
        }
    };
    let Some(attributes) = attributes.filter(|_| causes.is_empty()) else {
        return Err(Status::invalid("authorization.k8s.io", kind, "", &causes));
    };
    let status = match roles::allowed(user, &attributes) {
        Ok(Verdict::Allowed) => json!({"allowed": true}),
        Ok(Verdict::IfBoundTo(node)) => {
            json!({"allowed": true, "reason": format!("for Pods bound to node {node:?}")})
        }
        Ok(Verdict::IfNamed(name)) => {
            json!({"allowed": true, "reason": format!("for an object named {name:?}")})
        }
        Err(_) => json!({"allowed": false}),
    };
    Ok(json!({
        "kind": kind, "apiVersion": AUTHORIZATION, "metadata": {},
        "spec": at(request, &["spec"]), "status": status,
    }))
}

fn of_objects(objects: &Value) -> Attributes<'_> {
    let field = |key| text(objects, &[key]);
    let given = |key| Some(field(key)).filter(|text| !text.is_empty());
    Attributes {
        verb: field("verb"),
        target: Target::Resource(Resource {
            group: field("group"),
            resource: field("resource"),
            subresource: field("subresource"),
            namespace: given("namespace"),
            name: given("name"),
        }),
    }
}

/// SelfSubjectRulesReview: what who asks may do. It is the same in every namespace.
pub fn self_rules(user: &User) -> Value {
    let (objects, paths) = roles::list(user);
    json!({
        "kind": "SelfSubjectRulesReview", "apiVersion": AUTHORIZATION, "metadata": {}, "spec": {},
        "status": {"resourceRules": objects, "nonResourceRules": paths, "incomplete": false},
    })
}

/// The token that a TokenReview is about, and the audiences that it may be for (none: this server).
///
/// # Errors
/// 400 if there is none.
pub fn token_of(request: &Value) -> Result<(&str, Vec<&str>), Status> {
    let token = text(request, &["spec", "token"]);
    if token.is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences = list(request, &["spec", "audiences"]);
    Ok((token, audiences.iter().filter_map(Value::as_str).collect()))
}

/// TokenReview: whose a token is. `identity` is that of [`super::Authenticator::token_for`], if what it is bound to is
/// still there.
pub fn token(request: &Value, identity: Option<&Identity>) -> Value {
    let status = match identity {
        Some(identity) => {
            let mut status = json!({"authenticated": true, "user": identity.user.to_value()});
            if !identity.audiences.is_empty() {
                status["audiences"] = json!(identity.audiences);
            }
            status
        }
        None => json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}),
    };
    json!({
        "kind": "TokenReview", "apiVersion": AUTHENTICATION, "metadata": {},
        "spec": at(request, &["spec"]), "status": status,
    })
}
