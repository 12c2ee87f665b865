//! Tokens of service accounts: JWTs that we sign (ES256), with Kubernetes' claims.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{CREDENTIAL, Identity, User};
use crate::api::object::{self, at, text};
use crate::api::status::{Cause, Status};

/// Who issues them, and whom they are for unless something else is asked for.
pub const ISSUER: &str = "https://kubernetes.default.svc";

const PREFIX: &str = "system:serviceaccount:";
/// Clocks of two servers over one store differ a little.
const LEEWAY: i64 = 10;
/// Seconds: unless asked for, at least, at most.
const LIFETIME: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// A thing by name, and which one of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a token stands and falls with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Where both are.
    pub namespace: String,
    /// The account.
    #[serde(rename = "serviceaccount")]
    pub account: Reference,
    /// The Pod that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

/// Makes and verifies tokens.
pub struct Issuer {
    sign: EncodingKey,
    verify: DecodingKey,
    rules: Validation,
}

impl Issuer {
    /// `key` is an ECDSA P-256 key in PKCS #8 PEM.
    ///
    /// # Errors
    /// It is no such key.
    pub fn new(key: &str) -> anyhow::Result<Self> {
        let pair = KeyPair::from_pem(key).context("read the key that signs tokens")?;
        let mut rules = Validation::new(Algorithm::ES256);
        // Only the signature: the claims are checked here, at a given time.
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        rules.validate_aud = false;
        Ok(Self {
            sign: EncodingKey::from_ec_pem(key.as_bytes())
                .context("sign tokens with the key (is it ECDSA P-256?)")?,
            verify: DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes())
                .context("verify tokens with the key (is it ECDSA P-256?)")?,
            rules,
        })
    }

    /// Whose a token is, if it is one of ours, in its time, and for one of these audiences.
    pub fn verify(&self, token: &str, audiences: &[&str], now: Timestamp) -> Option<Identity> {
        let claims: Claims = jsonwebtoken::decode(token, &self.verify, &self.rules)
            .ok()?
            .claims;
        let Bound {
            namespace, account, ..
        } = &claims.bound;
        let name = format!("{PREFIX}{namespace}:{}", account.name);
        let meant: Vec<_> = audiences
            .iter()
            .filter(|wanted| claims.aud.iter().any(|one| one == *wanted))
            .map(|&wanted| wanted.to_owned())
            .collect();
        let now = now.as_second();
        let good = claims.iss == ISSUER
            && claims.sub == name
            && !meant.is_empty()
            && claims.exp.saturating_add(LEEWAY) > now
            && claims.nbf.saturating_sub(LEEWAY) <= now;
        if !good {
            return None;
        }
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
        let mut user = User::authenticated(name, groups);
        user.uid.clone_from(&account.uid);
        user.extra = extra(&claims);
        Some(Identity {
            user,
            bound: Some(claims.bound),
            audiences: meant,
        })
    }

    /// Answers a TokenRequest for an account. `pod` is the Pod that [`pod_of`] names.
    ///
    /// # Errors
    /// 422 for a lifetime or an audience that cannot be, 400 and 409 for a Pod that does not fit.
    pub fn request(
        &self,
        request: &Value,
        account: &Value,
        pod: Option<&Value>,
        now: Timestamp,
    ) -> Result<Value, Status> {
        let reference = |value| Reference {
            name: object::name(value).to_owned(),
            uid: object::uid(value).to_owned(),
        };
        let pod = match pod_of(request)? {
            Some(wanted) => Some(fit(wanted, pod, account)?),
            None => None,
        };
        let seconds = lifetime(request, account)?;
        let audiences = audiences(request, account)?;
        let namespace = object::namespace(account).unwrap_or_default().to_owned();
        let expires = now.as_second().saturating_add(seconds);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: format!("{PREFIX}{namespace}:{}", object::name(account)),
            aud: audiences.clone(),
            exp: expires,
            iat: now.as_second(),
            nbf: now.as_second(),
            jti: identifier(),
            bound: Bound {
                namespace,
                account: reference(account),
                pod: pod.map(reference),
            },
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.sign)
            .map_err(|error| Status::internal(format!("sign a token: {error}")))?;
        let second = |time: i64| Timestamp::from_second(time).map(|time| time.to_string());
        let time = second(expires).map_err(|error| Status::internal(error.to_string()))?;
        let created = second(now.as_second()).unwrap_or_default();
        Ok(json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": object::name(account), "namespace": object::namespace(account),
                "uid": object::uid(account), "creationTimestamp": created,
            },
            "spec": {
                "audiences": audiences, "expirationSeconds": seconds,
                "boundObjectRef": at(request, &["spec", "boundObjectRef"]),
            },
            "status": {"token": token, "expirationTimestamp": time},
        }))
    }
}

fn extra(claims: &Claims) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::from([(CREDENTIAL.to_owned(), vec![format!("JTI={}", claims.jti)])]);
    if let Some(pod) = &claims.bound.pod {
        for (key, value) in [("pod-name", &pod.name), ("pod-uid", &pod.uid)] {
            extra.insert(
                format!("authentication.kubernetes.io/{key}"),
                vec![value.clone()],
            );
        }
    }
    extra
}

fn invalid(account: &Value, cause: Cause) -> Status {
    Status::invalid(
        "authentication.k8s.io",
        "TokenRequest",
        object::name(account),
        &[cause],
    )
}

fn lifetime(request: &Value, account: &Value) -> Result<i64, Status> {
    const FIELD: &str = "spec.expirationSeconds";
    let given = match at(request, &["spec", "expirationSeconds"]) {
        None | Some(Value::Null) => return Ok(LIFETIME),
        Some(given) => given,
    };
    let wrong = match given.as_i64() {
        Some(seconds @ SHORTEST..=LONGEST) => return Ok(seconds),
        Some(..SHORTEST) => "may not specify a duration less than 10 minutes",
        Some(_) => "may not specify a duration larger than 2^32 seconds",
        None => "must be a number of seconds",
    };
    Err(invalid(account, Cause::invalid(FIELD, given, wrong)))
}

fn audiences(request: &Value, account: &Value) -> Result<Vec<String>, Status> {
    let given = match at(request, &["spec", "audiences"]) {
        None | Some(Value::Null) => &[],
        Some(Value::Array(given)) => given.as_slice(),
        Some(other) => {
            let cause = Cause::invalid("spec.audiences", other, "must be a list of strings");
            return Err(invalid(account, cause));
        }
    };
    let read = |(index, audience): (usize, &Value)| match audience.as_str() {
        Some(audience) => Ok(audience.to_owned()),
        None => {
            let field = format!("spec.audiences[{index}]");
            Err(invalid(
                account,
                Cause::invalid(field, audience, "must be a string"),
            ))
        }
    };
    let read: Vec<_> = given
        .iter()
        .enumerate()
        .map(read)
        .collect::<Result<_, _>>()?;
    if read.is_empty() {
        return Ok(vec![ISSUER.to_owned()]);
    }
    Ok(read)
}

/// The Pod that a TokenRequest is to be bound to, in the account's namespace; uid may be empty.
///
/// # Errors
/// 400 if it is to be bound to something else.
pub fn pod_of(request: &Value) -> Result<Option<Reference>, Status> {
    let Some(wanted) =
        at(request, &["spec", "boundObjectRef"]).filter(|reference| !reference.is_null())
    else {
        return Ok(None);
    };
    if text(wanted, &["apiVersion"]) != "v1" || text(wanted, &["kind"]) != "Pod" {
        return Err(Status::bad_request(format!(
            "cannot bind token to object of type {}, Kind={}",
            text(wanted, &["apiVersion"]),
            text(wanted, &["kind"])
        )));
    }
    Ok(Some(Reference {
        name: text(wanted, &["name"]).to_owned(),
        uid: text(wanted, &["uid"]).to_owned(),
    }))
}

/// Checks that a Pod is the one that is meant and runs as the account.
fn fit<'a>(
    wanted: Reference,
    pod: Option<&'a Value>,
    account: &Value,
) -> Result<&'a Value, Status> {
    let kind = crate::api::kinds::find("", "v1", "pods")
        .ok_or_else(|| Status::internal("pods are not served"))?;
    let same = |pod: &&Value| {
        object::name(pod) == wanted.name && object::namespace(pod) == object::namespace(account)
    };
    let Some(pod) = pod.filter(same) else {
        return Err(Status::not_found(kind, &wanted.name));
    };
    if !wanted.uid.is_empty() && wanted.uid != object::uid(pod) {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            wanted.uid
        );
        return Err(Status::conflict(kind, &wanted.name, &why));
    }
    let runs_as = match text(pod, &["spec", "serviceAccountName"]) {
        "" => "default",
        name => name,
    };
    if runs_as != object::name(account) {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            object::name(account)
        )));
    }
    Ok(pod)
}

/// A random UUID.
fn identifier() -> String {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    parts.map(|(from, to)| &hex[from..to]).join("-")
}
