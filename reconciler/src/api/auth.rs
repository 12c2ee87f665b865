//! Who asks: a verified client certificate, a token of `DIR/tokens.csv`, or a token of a service account.
//!
//! Without any of them it is `system:anonymous`; with a token that nobody knows the request is refused (401). What a
//! user may do is in [`roles`].

pub mod reviews;
pub mod roles;
pub mod service_account;
pub mod tokens;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use service_account::{Bound, Issuer};
use tokens::Tokens;

const AUTHENTICATED: &str = "system:authenticated";
/// Under this key of [`User::extra`] stands which credential it was.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `kubernetes-admin`, `system:node:n1`, `system:serviceaccount:demo:default`
    pub name: String,
    /// Of the service account, or from `tokens.csv`; empty otherwise.
    pub uid: String,
    /// `system:masters`, …; `system:authenticated` is last.
    pub groups: Vec<String>,
    /// More about the credential.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..Self::default()
        }
    }

    /// Someone who has proved it.
    fn authenticated(name: String, mut groups: Vec<String>) -> Self {
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self {
            name,
            groups,
            ..Self::default()
        }
    }

    /// Whether it is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// `userInfo` of a review.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"username": self.name});
        if !self.uid.is_empty() {
            value["uid"] = json!(self.uid);
        }
        if !self.groups.is_empty() {
            value["groups"] = json!(self.groups);
        }
        if !self.extra.is_empty() {
            value["extra"] = json!(self.extra);
        }
        value
    }
}

/// A user, and what its token stands and falls with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user: User,
    /// For a token of a service account: what must still exist with that uid, or the token is void. The caller looks.
    pub bound: Option<Bound>,
    /// Which of the audiences that were asked for the token is meant for; empty for tokens that name none.
    pub audiences: Vec<String>,
}

/// The user that a client certificate names: CN is the name, O the groups. TLS has verified it already,
/// and it stays the same as long as the connection: ask once.
///
/// `None` if it is no certificate or has no CN.
pub fn certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .map(str::to_owned)
        .collect();
    let mut user = User::authenticated(name.to_owned(), groups);
    user.extra.insert(
        CREDENTIAL.into(),
        vec![format!("X509SHA256={:x}", Sha256::digest(der))],
    );
    Some(user)
}

/// The token of an `Authorization` header, if it is of that kind.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Knows tokens.
pub struct Authenticator {
    tokens: Tokens,
    issuer: Issuer,
}

impl Authenticator {
    /// Reads `data/tokens.csv` if it is there; `token_key` signs tokens of service accounts ([`super::pki::Pki`]).
    ///
    /// # Errors
    /// The file or the key does not hold what it should, or the file is open to others.
    pub fn new(data: &Path, token_key: &str) -> anyhow::Result<Self> {
        Ok(Self {
            tokens: Tokens::open(&data.join("tokens.csv"))?,
            issuer: Issuer::new(token_key)?,
        })
    }

    /// Makes tokens of service accounts.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whose a token is, for this server. `None`: nobody's; the answer is 401.
    pub fn token(&self, token: &str, now: Timestamp) -> Option<Identity> {
        self.token_for(token, &[service_account::ISSUER], now)
    }

    /// Whose a token is, for any of these audiences.
    pub fn token_for(&self, token: &str, audiences: &[&str], now: Timestamp) -> Option<Identity> {
        if let Some(user) = self.tokens.find(token) {
            return Some(Identity {
                user,
                ..Identity::default()
            });
        }
        self.issuer.verify(token, audiences, now)
    }
}
