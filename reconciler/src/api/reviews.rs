//! Questions about users, and tokens of service accounts, as they come over the wire. What they are answered is in
//! [`auth`](super::auth).

use jiff::Timestamp;
use serde_json::Value;

use super::auth::{reviews, service_account};
use super::discovery::Question;
use super::rest::Call;
use super::rest::answer::{self, Reply};
use super::status::Status;
use super::{Api, body, handler, kinds, object};

fn read(call: &Call<'_>, group: &'static str, kind: &'static str) -> Result<Value, Status> {
    let target = body::Target::named(group, "v1", kind).ok_or_else(Status::unknown_resource)?;
    Ok(call.read(&target)?.value)
}

/// Answers a review.
///
/// # Errors
/// 400 and 422 for what is no question.
pub async fn answer(
    api: &Api,
    call: &Call<'_>,
    question: &'static Question,
) -> Result<Reply, Status> {
    let request = read(call, question.group, question.kind)?;
    let now = Timestamp::now();
    let value = match question.kind {
        "SelfSubjectReview" => reviews::self_subject(call.user, now),
        "SelfSubjectAccessReview" => reviews::self_access(call.user, &request)?,
        "SelfSubjectRulesReview" => reviews::self_rules(call.user),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let mut answer = reviews::access(&request)?;
            answer["kind"] = question.kind.into();
            answer
        }
        "TokenReview" => {
            let (token, audiences) = reviews::token_of(&request)?;
            let identity = if audiences.is_empty() {
                api.authenticator.token(token, now)
            } else {
                api.authenticator.token_for(token, &audiences, now)
            };
            let identity = match identity {
                Some(identity) if handler::alive(api, &identity).await? => Some(identity),
                _ => None,
            };
            reviews::token(&request, identity.as_ref())
        }
        _ => return Err(Status::unknown_resource()),
    };
    Ok(answer::json(201, &value))
}

/// The Pod that a token is asked for.
///
/// # Errors
/// 400 for a body that is no TokenRequest.
pub fn bound_pod(call: &Call<'_>) -> Result<Option<String>, Status> {
    let request = read(call, "authentication.k8s.io", "TokenRequest")?;
    Ok(service_account::pod_of(&request)?.map(|pod| pod.name))
}

/// `POST serviceaccounts/NAME/token`
///
/// # Errors
/// 404 for the account or the Pod, 422 for a lifetime that cannot be.
pub async fn token(api: &Api, call: &Call<'_>) -> Result<Reply, Status> {
    let request = read(call, "authentication.k8s.io", "TokenRequest")?;
    let namespace = call.target.namespace.as_deref();
    let account = load(api, "serviceaccounts", namespace, call.name()).await?;
    let account = account.ok_or_else(|| Status::not_found(call.target.kind, call.name()))?;
    let pod = match service_account::pod_of(&request)? {
        Some(pod) => load(api, "pods", namespace, &pod.name).await?,
        None => None,
    };
    let answer =
        api.authenticator
            .issuer()
            .request(&request, &account, pod.as_ref(), Timestamp::now())?;
    Ok(answer::json(201, &answer))
}

async fn load(
    api: &Api,
    plural: &str,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Value>, Status> {
    let kind = kinds::find("", "v1", plural).ok_or_else(Status::unknown_resource)?;
    let entry = api.store.get(&kind.key(namespace, name)).await?;
    Ok(entry.and_then(|entry| object::decode(&entry.value, entry.revision).ok()))
}
