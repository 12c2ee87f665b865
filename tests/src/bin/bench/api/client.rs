//! HTTP/2 over TLS to an API server: a few connections, many requests on each.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Knows a server and how to show who we are.
#[derive(Clone)]
pub struct Client {
    address: String,
    tls: Arc<rustls::ClientConfig>,
    token: Option<String>,
}

/// One connection.
#[derive(Clone)]
pub struct Connection {
    address: String,
    token: Option<String>,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// The administrator of one of our servers, whose keys are in `pki`.
    pub fn with_certificate(url: &str, pki: &Path) -> Result<Self> {
        let file = |name: &str| {
            let path = pki.join(name);
            std::fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let chain =
            CertificateDer::pem_slice_iter(&file("admin.crt")?).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&file("admin.key")?)?;
        let tls = roots(&file("ca.crt")?)?.with_client_auth_cert(chain, key)?;
        Ok(Self::new(url, tls, None))
    }

    /// A bearer of a token.
    pub fn with_token(url: &str, authority: &[u8], token: &str) -> Result<Self> {
        let tls = roots(authority)?.with_no_client_auth();
        Ok(Self::new(url, tls, Some(token.to_owned())))
    }

    fn new(url: &str, mut tls: rustls::ClientConfig, token: Option<String>) -> Self {
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            address: url.trim_start_matches("https://").to_owned(),
            tls: Arc::new(tls),
            token,
        }
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, tcp)
            .await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(16 << 20)
            .initial_connection_window_size(64 << 20)
            .handshake(TokioIo::new(tls))
            .await?;
        tokio::spawn(connection);
        Ok(Connection {
            address: self.address.clone(),
            token: self.token.clone(),
            sender,
        })
    }
}

fn roots(
    authority: &[u8],
) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots))
}

impl Connection {
    /// Sends a request; the answer's body is still to be read.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("https://{}{path}", self.address))
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body.into()))?;
        let answer = self.sender.clone().send_request(request).await?;
        ensure!(
            answer.status().is_success(),
            "{method} {path}: {}",
            answer.status()
        );
        Ok(answer)
    }

    /// Sends a request and reads the whole answer; its length.
    pub async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<usize> {
        let mut answer = self.open(method, path, body).await?.into_body();
        let mut length = 0;
        while let Some(frame) = answer.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }
}
