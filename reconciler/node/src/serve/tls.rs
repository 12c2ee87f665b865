//! Who may ask: certificates of both sides.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How the API server calls itself.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
/// Those who may do everything.
const MASTERS: &str = "system:masters";

/// Who a client's certificate says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Common name.
    pub name: String,
    /// Organizations.
    pub groups: Vec<String>,
}

impl User {
    /// Whether it is the API server, or an administrator.
    pub fn may_ask(&self) -> bool {
        self.name == API_SERVER || self.groups.iter().any(|group| group == MASTERS)
    }
}

/// How the server speaks TLS: shows a certificate (a chain, PEM), and believes clients whose certificate is signed by
/// `authority` (PEM).
///
/// # Errors
/// They are not PEM, or do not fit each other.
pub fn server_config(
    certificate: &str,
    key: &str,
    authority: &str,
) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(authority).context("the authority")? {
        roots.add(certificate).context("trust the authority")?;
    }
    // Without a certificate it is told that it needs one, rather than cut off.
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("verify clients by the authority")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|error| anyhow!("the serving key is no private key in PEM ({error})"))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .with_client_cert_verifier(clients)
        .with_single_cert(
            certificates(certificate).context("the serving certificate")?,
            key,
        )
        .context("use the serving certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow!("it is no certificate in PEM ({error})"))?;
    ensure!(!all.is_empty(), "it holds no certificate in PEM");
    Ok(all)
}

/// Who a verified chain is of.
///
/// # Errors
/// There is none, or its subject has no name.
pub fn user(chain: Option<&[CertificateDer<'_>]>) -> Result<User, String> {
    let certificate = chain
        .and_then(|chain| chain.first())
        .ok_or("the client shows no certificate")?;
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("the client's certificate: {error}"))?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .ok_or("the client's certificate has no common name")?;
    Ok(User {
        name: name.to_owned(),
        groups: subject
            .iter_organization()
            .filter_map(|group| group.as_str().ok().map(str::to_owned))
            .collect(),
    })
}

/// A peer that is gone without a word is noticed after two minutes.
pub fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    let socket = tcp.as_fd();
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    setsockopt(&socket, sockopt::TcpKeepIdle, &60)?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &15)?;
    setsockopt(&socket, sockopt::TcpKeepCount, &4)?;
    Ok(())
}
