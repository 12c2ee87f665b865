//! Who a node is: how it joins with a token, and keeps its certificates.
//!
//! A token is `SECRET.SHA256`: the hash is that of the authority's certificate (DER, in hex), by which the server is
//! known before anything else is; the secret proves that the node may ask for a certificate. Everything is kept in one
//! folder, 0600 each:
//!
//! | file | what |
//! |---|---|
//! | `ca.crt` | the authority, from the server's own chain |
//! | `client.crt`, `client.key` | `CN=system:node:NAME, O=system:nodes` |
//! | `serving.crt`, `serving.key` | for the node's name and address |
//! | `node.kubeconfig` | the server, the authority and the client's pair, inline |
//!
//! Both certificates come by `certificates.k8s.io/v1` CertificateSigningRequests. `weft server` signs them at once; a
//! real API server may want `kubectl certificate approve`, which is waited for. What is there and lives long enough is
//! used again without a token; [`keep`] renews both. The addresses of a serving certificate are those that the server
//! sees the node ask from.

mod request;
mod trust;

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::serve;
pub use request::Server;
pub use trust::Token;

/// The least time between two renewals, and before one that failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Who wants to be whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://192.168.66.1:6443`
    pub server: String,
    /// Needed once.
    pub token: Option<String>,
    /// The Node's name.
    pub node: String,
    /// The node's addresses, for the serving certificate.
    pub addresses: Vec<IpAddr>,
    /// Where it is kept.
    pub folder: PathBuf,
}

/// A node's certificates.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For clients of the API.
    pub kubeconfig: PathBuf,
    /// For [`serve::serve`].
    pub tls: Arc<rustls::ServerConfig>,
    /// When the certificates should be renewed.
    pub renew: Timestamp,
}

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Client,
    Serving,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Serving => "serving",
        }
    }

    fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }
}

/// Uses what is there, and asks for what is not, or ends soon.
///
/// # Errors
/// There is no token and no certificate; the server is not the token's; it refuses; the file system's.
pub async fn obtain(config: &Config) -> anyhow::Result<Identity> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.folder)
        .with_context(|| format!("make the folder {}", config.folder.display()))?;
    let now = Timestamp::now();
    let authority_path = config.folder.join("ca.crt");
    let authority = read(&authority_path)?;
    let client = load(config, Purpose::Client)?.filter(|pair| lasts(pair, now));
    let (authority, client) = match (authority, client) {
        (Some(authority), Some(client)) => (authority, client),
        (authority, _) => {
            let (authority, client) = first(config, authority).await?;
            write(&authority_path, &authority)?;
            store(config, Purpose::Client, &client)?;
            (authority, client)
        }
    };
    let kubeconfig = config.folder.join("node.kubeconfig");
    write(&kubeconfig, &text(config, &authority, &client))?;
    let serving =
        load(config, Purpose::Serving)?.filter(|pair| lasts(pair, now) && names(pair, config));
    let serving = match serving {
        Some(serving) => serving,
        None => {
            let server = Server::known(&config.server, &authority, Some(&client))?;
            let serving = ask(config, &server, None, Purpose::Serving).await?;
            store(config, Purpose::Serving, &serving)?;
            serving
        }
    };
    let renew = renewal(&client)?.min(renewal(&serving)?);
    Ok(Identity {
        kubeconfig,
        tls: serve::server_config(&serving.certificate, &serving.key, &authority)?,
        renew,
    })
}

/// Renews certificates before they end, for as long as it is run; the server shows each new one at once. Clients that
/// were made from the kubeconfig before go on with the old certificate, which is good for as long again as half its
/// life.
pub async fn keep(
    config: &Config,
    first: &Identity,
    tls: &watch::Sender<Arc<rustls::ServerConfig>>,
) {
    let mut at = first.renew;
    loop {
        let left = at.duration_since(Timestamp::now());
        // A clock that is wrong must not make it ask without end.
        tokio::time::sleep(Duration::try_from(left).unwrap_or_default().max(AGAIN)).await;
        match renew(config).await {
            Ok(identity) => {
                at = identity.renew;
                tls.send_replace(identity.tls);
            }
            Err(error) => {
                tracing::warn!("renew the certificates of node {}: {error:#}", config.node);
            }
        }
    }
}

/// Both certificates anew, by the client certificate that is there.
///
/// # Errors
/// There is none, or the server refuses; what was there stays.
pub async fn renew(config: &Config) -> anyhow::Result<Identity> {
    let authority = read(&config.folder.join("ca.crt"))?.context("ca.crt is gone")?;
    let old = load(config, Purpose::Client)?.context("the client certificate is gone")?;
    let server = Server::known(&config.server, &authority, Some(&old))?;
    let client = ask(config, &server, None, Purpose::Client).await?;
    let serving = ask(config, &server, None, Purpose::Serving).await?;
    store(config, Purpose::Client, &client)?;
    store(config, Purpose::Serving, &serving)?;
    obtain(config).await
}

/// The first certificate of a client, by the token; and the authority.
async fn first(config: &Config, authority: Option<String>) -> anyhow::Result<(String, Pair)> {
    let token = config.token.as_deref().with_context(|| {
        format!(
            "{} holds no certificate of node {} that lasts: give --token, which `weft server` prints",
            config.folder.display(),
            config.node
        )
    })?;
    let token = Token::parse(token)?;
    let authority = match authority.filter(|authority| token.is_of(authority)) {
        Some(authority) => authority,
        None => request::authority(&config.server, &token).await?,
    };
    let server = Server::known(&config.server, &authority, None)?;
    let pair = ask(config, &server, Some(&token.secret), Purpose::Client).await?;
    Ok((authority, pair))
}

/// Makes a key, and asks for its certificate.
async fn ask(
    config: &Config,
    server: &Server,
    secret: Option<&str>,
    purpose: Purpose,
) -> anyhow::Result<Pair> {
    let names = match purpose {
        Purpose::Client => Vec::new(),
        Purpose::Serving => {
            let addresses = config.addresses.iter().map(ToString::to_string);
            addresses.chain([config.node.clone()]).collect()
        }
    };
    let mut params = CertificateParams::new(names).context("name the node")?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    params
        .distinguished_name
        .push(DnType::CommonName, format!("system:node:{}", config.node));
    let (usage, extended) = match purpose {
        Purpose::Client => ("client auth", ExtendedKeyUsagePurpose::ClientAuth),
        Purpose::Serving => ("server auth", ExtendedKeyUsagePurpose::ServerAuth),
    };
    params.extended_key_usages = vec![extended];
    let key = KeyPair::generate().context("make a key")?;
    let pem = params
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .context("make a certificate request")?;
    let certificate = server
        .sign(secret, purpose.signer(), usage, &pem)
        .await
        .with_context(|| {
            format!(
                "ask {} for the {} certificate of node {}",
                config.server,
                purpose.name(),
                config.node
            )
        })?;
    Ok(Pair {
        certificate,
        key: key.serialize_pem(),
    })
}

fn text(config: &Config, authority: &str, client: &Pair) -> String {
    let user = format!("system:node:{}", config.node);
    serde_json::json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "weft", "cluster": {
            "server": config.server, "certificate-authority-data": STANDARD.encode(authority)}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(&client.certificate),
            "client-key-data": STANDARD.encode(&client.key)}}],
        "contexts": [{"name": "weft", "context": {"cluster": "weft", "user": user}}],
        "current-context": "weft",
    })
    .to_string()
}

/// When two thirds of a certificate's life are over.
fn renewal(pair: &Pair) -> anyhow::Result<Timestamp> {
    let der = trust::der(&pair.certificate)?;
    let (_, certificate) =
        X509Certificate::from_der(&der).map_err(|error| anyhow!("a certificate: {error}"))?;
    let validity = certificate.validity();
    let (from, to) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    let third = to.saturating_sub(from) / 3;
    Timestamp::from_second(to.saturating_sub(third)).context("the end of a certificate")
}

fn lasts(pair: &Pair, now: Timestamp) -> bool {
    match renewal(pair) {
        Ok(renewal) => renewal > now,
        Err(error) => {
            tracing::warn!("a certificate is asked for anew: {error:#}");
            false
        }
    }
}

/// Whether a serving certificate has all the node's addresses.
fn names(pair: &Pair, config: &Config) -> bool {
    use x509_parser::extensions::GeneralName;
    let Ok(der) = trust::der(&pair.certificate) else {
        return false;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
        return false;
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.clone());
    let names = names.unwrap_or_default();
    config.addresses.iter().all(|address| {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        names
            .iter()
            .any(|name| matches!(name, GeneralName::IPAddress(there) if **there == bytes))
    })
}

fn load(config: &Config, purpose: Purpose) -> anyhow::Result<Option<Pair>> {
    let path = |end: &str| config.folder.join(format!("{}.{end}", purpose.name()));
    let (certificate, key) = (read(&path("crt"))?, read(&path("key"))?);
    Ok(certificate
        .zip(key)
        .filter(|(certificate, key)| trust::belong(certificate, key))
        .map(|(certificate, key)| Pair { certificate, key }))
}

/// The key first: cut off here, the old certificate does not fit it and both are asked for again.
fn store(config: &Config, purpose: Purpose, pair: &Pair) -> anyhow::Result<()> {
    let path = |end: &str| config.folder.join(format!("{}.{end}", purpose.name()));
    write(&path("key"), &pair.key)?;
    write(&path("crt"), &pair.certificate)
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => bail!("read {}: {error}", path.display()),
    }
}

/// Whole or not at all, 0600.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let draft = path.with_extension("new");
    let write = || {
        if let Err(error) = fs::remove_file(&draft)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}
