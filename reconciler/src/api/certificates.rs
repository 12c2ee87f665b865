//! Certificates of nodes: signs what a node asks for, at once.
//!
//! `POST /apis/certificates.k8s.io/v1/certificatesigningrequests` is answered as a request that has been approved and
//! signed, or denied; nothing is stored, so there is nothing to list, and the kind is in no discovery document. Two
//! signers, JSON bodies only:
//!
//! | `signerName` | who | what |
//! |---|---|---|
//! | `kubernetes.io/kube-apiserver-client-kubelet` | `system:bootstrappers`, or the node itself | `CN=system:node:NAME`, `O=system:nodes`, no names |
//! | `kubernetes.io/kubelet-serving` | the node itself | the same; as names its own name and the address it asks from |
//!
//! An address that a node does not ask from is not certified: with any other, a stolen key of a node could stand in for
//! the API server. Certificates live a year, or `expirationSeconds` if that is less.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{CertificateSigningRequestParams, DnType, DnValue, SanType};
use serde_json::{Value, json};

use super::auth::{User, roles};
use super::discovery::Question;
use super::pki::Pki;
use super::rest::Call;
use super::rest::answer::{self, Reply};
use super::status::Status;

/// How the path is called; see [`super::handler`].
pub static QUESTION: Question = Question {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    namespaced: false,
};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const BOOTSTRAPPERS: &str = "system:bootstrappers";
const NODES: &str = "system:nodes";

const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// As the reference: fewer are refused.
const SHORTEST: u64 = 600;

/// Answers a request that came from `from`.
///
/// # Errors
/// 400 for what is no request, 422 for a lifetime that cannot be.
pub fn answer(pki: &Pki, call: &Call<'_>, from: Option<IpAddr>) -> Result<Reply, Status> {
    let mut request: Value = serde_json::from_slice(&call.body)
        .map_err(|error| Status::bad_request(format!("the body is no JSON: {error}")))?;
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str);
    let pem = text("/spec/request")
        .and_then(|text| STANDARD.decode(text).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Status::bad_request("spec.request is no base64 of PEM"))?;
    let csr = CertificateSigningRequestParams::from_pem(&pem)
        .map_err(|error| Status::bad_request(format!("spec.request: {error}")))?;
    let signer = text("/spec/signerName").unwrap_or_default().to_owned();
    let lifetime = match request.pointer("/spec/expirationSeconds") {
        None | Some(Value::Null) => LONGEST,
        Some(seconds) => match seconds.as_u64() {
            Some(seconds) if seconds >= SHORTEST => Duration::from_secs(seconds).min(LONGEST),
            _ => {
                return Err(Status::bad_request(format!(
                    "spec.expirationSeconds: {seconds} is not at least {SHORTEST}"
                )));
            }
        },
    };
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, reason: &str, message: &str| {
        json!([{"type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": now}])
    };
    let status = match judge(call.user, &signer, &csr, from) {
        Ok(name) => {
            let certificate = pki
                .sign(&name, &csr, signer == SERVING, lifetime)
                .map_err(Status::internal)?;
            tracing::info!(
                "{} gets a certificate of {signer} for node {name}",
                call.user.name
            );
            json!({
                "conditions": condition("Approved", "AutoApproved", "the node is who it says"),
                "certificate": STANDARD.encode(certificate),
            })
        }
        Err(why) => {
            tracing::warn!("{} gets no certificate of {signer}: {why}", call.user.name);
            json!({"conditions": condition("Denied", "NotAllowed", &why)})
        }
    };
    request["apiVersion"] = json!("certificates.k8s.io/v1");
    request["kind"] = json!(QUESTION.kind);
    request["spec"]["username"] = json!(call.user.name);
    request["spec"]["groups"] = json!(call.user.groups);
    request["status"] = status;
    Ok(answer::json(201, &request))
}

/// The name of the node that is to get a certificate.
///
/// # Errors
/// Why nobody gets one.
pub fn judge(
    user: &User,
    signer: &str,
    csr: &CertificateSigningRequestParams,
    from: Option<IpAddr>,
) -> Result<String, String> {
    let asked = &csr.params;
    let mut names = asked.distinguished_name.iter();
    let (mut common_name, mut groups) = (String::new(), Vec::new());
    for (kind, value) in names.by_ref() {
        match kind {
            DnType::CommonName => common_name = plain(value)?,
            DnType::OrganizationName => groups.push(plain(value)?),
            _ => return Err("its subject has more than CN and O".to_owned()),
        }
    }
    let node = common_name
        .strip_prefix("system:node:")
        .filter(|node| is_name(node))
        .ok_or_else(|| format!("its CN {common_name:?} is not system:node:NAME"))?;
    if groups != [NODES] {
        return Err(format!("its O is not {NODES}"));
    }
    let itself = roles::node(user) == Some(node);
    match signer {
        CLIENT if !asked.subject_alt_names.is_empty() => {
            Err("a client's certificate has no other names".to_owned())
        }
        CLIENT if itself || user.is_in(BOOTSTRAPPERS) => Ok(node.to_owned()),
        SERVING if itself => {
            for name in &asked.subject_alt_names {
                let allowed = match name {
                    SanType::DnsName(name) => name.as_str() == node && !super::pki::is_own(node),
                    SanType::IpAddress(address) => Some(address.to_canonical()) == from,
                    _ => false,
                };
                if !allowed {
                    return Err(format!(
                        "{name:?} is neither the node's name nor the address that it asks from"
                    ));
                }
            }
            match asked.subject_alt_names.is_empty() {
                true => Err("a server's certificate needs a name".to_owned()),
                false => Ok(node.to_owned()),
            }
        }
        CLIENT | SERVING => Err(format!("{} is not node {node}", user.name)),
        _ => Err(format!("there is no signer {signer:?}")),
    }
}

fn plain(value: &DnValue) -> Result<String, String> {
    match value {
        DnValue::Utf8String(text) => Ok(text.clone()),
        DnValue::PrintableString(text) => Ok(text.as_str().to_owned()),
        _ => Err("its subject is neither UTF-8 nor printable".to_owned()),
    }
}

/// As names of Nodes must be.
fn is_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            bytes.first().is_some_and(inner)
                && bytes.last().is_some_and(inner)
                && bytes.iter().all(|byte| inner(byte) || *byte == b'-')
        })
}
