//! Who is trusted: the server's own certificate authority, made at first start in `DIR/pki`, and what it has signed.
//!
//! | file | what |
//! |---|---|
//! | `ca.crt`, `ca.key` | the authority; 10 years |
//! | `apiserver.crt`, `.key` | what the server shows; all its names and addresses |
//! | `apiserver-kubelet-client.crt`, `.key` | for nodes: `CN=kube-apiserver-kubelet-client, O=system:masters` |
//! | `admin.crt`, `.key` | `CN=kubernetes-admin, O=system:masters`, also inline in `DIR/admin.kubeconfig` |
//! | `sa.key` | signs tokens of service accounts |
//!
//! All keys are ECDSA P-256, all files 0600, written whole or not at all. A certificate of the authority lives 825 days
//! and is made anew at a start when fewer than 30 remain, when a name is missing, or when the authority is another one.
//! A key that others can read, a certificate that others can write, or a file that does not parse is refused: what to
//! do about it is for a person to decide. Two servers over one etcd share clients if `ca.*` and `sa.key` are copied to
//! the second before its first start.

mod certificate;
mod join;
pub mod private;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use sha2::{Digest, Sha256};

use certificate::{DAY, Subject, Usage};

const AUTHORITY_LIFETIME: Duration = DAY.saturating_mul(3650);
const LIFETIME: Duration = DAY.saturating_mul(825);
/// Renewed at a start when less remains.
const SPARE: Duration = DAY.saturating_mul(30);

/// Names that clients within a cluster use.
const NAMES: [&str; 7] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "::1",
];

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    /// `-----BEGIN CERTIFICATE-----…`
    pub certificate: String,
    /// `-----BEGIN PRIVATE KEY-----…` (PKCS #8)
    pub key: String,
}

impl Pair {
    /// As rustls takes them.
    ///
    /// # Errors
    /// The texts are no PEM of a certificate and a key.
    pub fn der(&self) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|error| anyhow!("it holds no private key in PEM ({error})"))?;
        Ok((vec![certificate::der(&self.certificate)?], key))
    }
}

/// Keys and certificates.
pub struct Pki {
    data: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    authority: String,
    authority_der: CertificateDer<'static>,
    serving: Pair,
    kubelet_client: Pair,
    admin: Pair,
    token_key: String,
}

impl Pki {
    /// Reads what is in `data/pki` and makes what is not. `names` are the names and addresses under which the server is
    /// reached besides those that are always there (`kubernetes.default.svc`, `localhost`, …, the host's name): where
    /// it listens, the first address of each service range.
    ///
    /// # Errors
    /// A file cannot be read or written, is open to others, or does not hold what it should; the text says which, and
    /// what to do.
    pub fn open(data: &Path, names: &[String]) -> anyhow::Result<Self> {
        let folder = data.join("pki");
        private::folder(&folder)?;
        let (issuer, authority) = open_authority(&folder)?;
        let authority_der = certificate::der(&authority)?;
        let pair = |name, common_name: &str, organization: &str, usage| {
            let subject = Subject {
                common_name: common_name.to_owned(),
                organizations: [organization]
                    .into_iter()
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
                usage,
            };
            open_pair(&folder, name, &issuer, &authority_der, &subject)
        };
        Ok(Self {
            serving: pair(
                "apiserver",
                "kube-apiserver",
                "",
                Usage::Server(serving_names(names)),
            )?,
            kubelet_client: pair(
                "apiserver-kubelet-client",
                "kube-apiserver-kubelet-client",
                "system:masters",
                Usage::Client,
            )?,
            admin: pair("admin", "kubernetes-admin", "system:masters", Usage::Client)?,
            token_key: open_key(&folder.join("sa.key"))?.serialize_pem(),
            data: data.to_owned(),
            issuer,
            authority,
            authority_der,
        })
    }

    /// The authority's certificate, PEM: what clients trust, and `kube-root-ca.crt`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What the server shows to nodes.
    pub fn kubelet_client(&self) -> &Pair {
        &self.kubelet_client
    }

    /// The administrator's.
    pub fn admin(&self) -> &Pair {
        &self.admin
    }

    /// The key that signs tokens of service accounts, PKCS #8 PEM.
    pub fn token_key(&self) -> &str {
        &self.token_key
    }

    /// Makes a client certificate, such as a node's: `issue("system:node:n1", &["system:nodes"], …)`.
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn issue(
        &self,
        common_name: &str,
        organizations: &[&str],
        lifetime: Duration,
    ) -> anyhow::Result<Pair> {
        let subject = Subject {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|&name| name.to_owned()).collect(),
            usage: Usage::Client,
        };
        make_pair(&self.issuer, &subject, lifetime)
    }

    /// Makes a certificate under which a node answers the API server. `names` are its name and addresses.
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn issue_serving(
        &self,
        node: &str,
        names: &[String],
        lifetime: Duration,
    ) -> anyhow::Result<Pair> {
        let subject = Subject {
            common_name: format!("system:node:{node}"),
            organizations: vec!["system:nodes".to_owned()],
            usage: Usage::Server(names.iter().cloned().collect()),
        };
        make_pair(&self.issuer, &subject, lifetime)
    }

    /// Signs what a node asks for: a certificate of `system:node:NAME`, for a server under the names that stand in the
    /// request, which the caller has judged. PEM.
    ///
    /// # Errors
    /// The request cannot be signed.
    pub fn sign(
        &self,
        node: &str,
        request: &rcgen::CertificateSigningRequestParams,
        serving: bool,
        lifetime: Duration,
    ) -> anyhow::Result<String> {
        let names = &request.params.subject_alt_names;
        Ok(certificate::sign(
            &self.issuer,
            node,
            names,
            serving,
            lifetime,
            &request.public_key,
        )?
        .pem())
    }

    /// What a node needs to join, to be shown to whoever starts one: `SECRET.SHA256`. The secret is a token of
    /// `DIR/tokens.csv` for `system:bootstrap:weft`, made if it is not there; the hash, in hex, is that of the
    /// authority's certificate, by which the node knows the server.
    ///
    /// # Errors
    /// The file cannot be read or written, or is open to others.
    pub fn join_token(&self) -> anyhow::Result<String> {
        let secret = join::secret(&self.data.join("tokens.csv"))?;
        Ok(format!(
            "{secret}.{:x}",
            Sha256::digest(&self.authority_der)
        ))
    }

    /// How the server speaks TLS: 1.2 and 1.3, HTTP/2 and HTTP/1.1; a client may show a certificate, and if it does it
    /// must be the authority's.
    ///
    /// # Errors
    /// The certificates do not fit.
    pub fn server_config(&self) -> anyhow::Result<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(self.authority_der.clone())
            .context("trust the authority")?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .context("verify clients by the authority")?;
        let (mut chain, key) = self.serving.der().context("read the serving certificate")?;
        // A node that joins knows the authority by its hash only.
        chain.push(self.authority_der.clone());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .context("use the serving certificate")?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// A kubeconfig with everything inline. `server` is a URL: `https://127.0.0.1:6443`.
    pub fn kubeconfig(&self, server: &str, user: &str, pair: &Pair) -> String {
        let [user, server] = [user, server].map(|text| serde_json::json!(text).to_string());
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: weft\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {}\n    \
             client-key-data: {}\ncontexts:\n- name: weft\n  context:\n    cluster: weft\n    user: {user}\n\
             current-context: weft\n",
            STANDARD.encode(&self.authority),
            STANDARD.encode(&pair.certificate),
            STANDARD.encode(&pair.key),
        )
    }

    /// Writes `DIR/admin.kubeconfig` (0600) unless it already says that; its path.
    ///
    /// # Errors
    /// The file system's, or others may read the file that is there.
    pub fn write_kubeconfig(&self, server: &str) -> anyhow::Result<PathBuf> {
        let path = self.data.join("admin.kubeconfig");
        let text = self.kubeconfig(server, "kubernetes-admin", &self.admin);
        if private::read(&path)?.is_none_or(|there| there != text) {
            private::write(&path, &text)?;
        }
        Ok(path)
    }
}

/// Whether a name is one of the server's own.
pub fn is_own(name: &str) -> bool {
    serving_names(&[]).contains(name)
}

/// All names of the serving certificate.
fn serving_names(names: &[String]) -> BTreeSet<String> {
    let mut all: BTreeSet<_> = NAMES.map(str::to_owned).into();
    if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
        all.insert(host.trim().to_owned());
    }
    all.extend(names.iter().map(|name| {
        // Addresses as they are printed, so that a certificate's are found again.
        name.parse::<IpAddr>()
            .map_or_else(|_| name.clone(), |address| address.to_string())
    }));
    // Nobody is reached under these.
    for nothing in ["", "0.0.0.0", "::"] {
        all.remove(nothing);
    }
    all
}

/// Reads a key, or makes it.
fn open_key(path: &Path) -> anyhow::Result<KeyPair> {
    if let Some(text) = private::read(path)? {
        return parse_key(path, &text);
    }
    let key = KeyPair::generate().with_context(|| format!("make {}", path.display()))?;
    private::write(path, &key.serialize_pem())?;
    Ok(key)
}

fn parse_key(path: &Path, text: &str) -> anyhow::Result<KeyPair> {
    KeyPair::from_pem(text).map_err(|error| {
        anyhow!(
            "{} holds no private key in PEM ({error}): put the right one back",
            path.display()
        )
    })
}

fn open_authority(folder: &Path) -> anyhow::Result<(Issuer<'static, KeyPair>, String)> {
    let (key_path, path) = (folder.join("ca.key"), folder.join("ca.crt"));
    let there = private::read_public(&path)?;
    if there.is_some() && private::read(&key_path)?.is_none() {
        bail!(
            "{} has lost its key: put {} back, or remove the whole folder to begin with a new authority (every client \
             then needs a new certificate)",
            path.display(),
            key_path.display()
        );
    }
    // A key without a certificate is a first start that was cut off: the certificate follows from the key.
    let key = open_key(&key_path)?;
    let pem = match there {
        Some(pem) => pem,
        None => {
            let pem = certificate::authority(&key, AUTHORITY_LIFETIME)
                .context("make the certificate authority")?
                .pem();
            private::write(&path, &pem)?;
            pem
        }
    };
    let left = certificate::der(&pem)
        .and_then(|der| certificate::check_authority(&der, &key))
        .with_context(|| format!("use {}", path.display()))?;
    if left < i64::try_from(SPARE.as_secs()).unwrap_or(i64::MAX) {
        tracing::warn!("{} ends in {} days", path.display(), left / 86_400);
    }
    let issuer = Issuer::from_ca_cert_pem(&pem, key)
        .with_context(|| format!("sign with {}", path.display()))?;
    Ok((issuer, pem))
}

fn make_pair(
    issuer: &Issuer<'_, KeyPair>,
    subject: &Subject,
    lifetime: Duration,
) -> anyhow::Result<Pair> {
    let key = KeyPair::generate().context("make a key")?;
    Ok(Pair {
        certificate: certificate::issue(issuer, subject, lifetime, &key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// Reads a certificate and its key, or makes both if one is missing or they no longer serve.
fn open_pair(
    folder: &Path,
    name: &str,
    issuer: &Issuer<'_, KeyPair>,
    authority: &CertificateDer<'_>,
    subject: &Subject,
) -> anyhow::Result<Pair> {
    let path = folder.join(format!("{name}.crt"));
    let key_path = folder.join(format!("{name}.key"));
    if let (Some(pem), Some(key)) = (private::read_public(&path)?, private::read(&key_path)?) {
        let parsed = parse_key(&key_path, &key)?;
        let why = certificate::der(&pem)
            .and_then(|der| certificate::outdated(&der, &parsed, authority, subject, SPARE))
            .with_context(|| format!("use {} (remove it and it is made anew)", path.display()))?;
        match why {
            None => {
                return Ok(Pair {
                    certificate: pem,
                    key,
                });
            }
            Some(why) => tracing::info!("{} is made anew: {why}", path.display()),
        }
    }
    let pair = make_pair(issuer, subject, LIFETIME)?;
    // The key first: cut off here, the old certificate does not fit it and both are made again.
    private::write(&key_path, &pair.key)?;
    private::write(&path, &pair.certificate)?;
    Ok(pair)
}
