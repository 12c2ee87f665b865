//! What a node asks the API server before it has a client of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Pair;
use super::trust::{self, ByHash, Token};

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// For one request and its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// For somebody to approve a request that is not signed at once.
const APPROVAL: Duration = Duration::from_secs(300);
/// How often an approval is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// The largest answer that is read.
const LARGEST: usize = 1 << 20;

/// An API server whose authority is known.
pub struct Server {
    uri: Uri,
    tls: Arc<ClientConfig>,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn uri(server: &str) -> anyhow::Result<Uri> {
    let uri: Uri = server
        .parse()
        .with_context(|| format!("{server:?} is no URL"))?;
    ensure!(
        uri.scheme_str() == Some("https") && uri.host().is_some(),
        "{server:?} is not https://HOST:PORT"
    );
    Ok(uri)
}

/// The authority of a server, PEM, which must be that of the token.
///
/// # Errors
/// It cannot be reached, or is not.
pub async fn authority(server: &str, token: &Token) -> anyhow::Result<String> {
    let verifier = Arc::new(ByHash::new(token, provider()));
    let tls = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    let server = Server {
        uri: uri(server)?,
        tls: Arc::new(tls),
    };
    tokio::time::timeout(PATIENCE, server.connect())
        .await
        .map_err(|_| anyhow!("connect to {}: no answer", server.uri))?
        .with_context(|| {
            format!(
                "is {} the server that the token is of? It must show the authority whose hash is in it",
                server.uri
            )
        })?;
    let der = verifier
        .found()
        .context("the server has shown no authority")?;
    let body = STANDARD.encode(&der);
    let lines: Vec<&str> = (0..body.len())
        .step_by(64)
        .filter_map(|at| body.get(at..body.len().min(at + 64)))
        .collect();
    Ok(format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    ))
}

impl Server {
    /// A server of this authority (PEM); who asks shows this certificate.
    ///
    /// # Errors
    /// They are no PEM.
    pub(super) fn known(
        server: &str,
        authority: &str,
        client: Option<&Pair>,
    ) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots
            .add(trust::der(authority).context("the authority")?)
            .context("trust the authority")?;
        let tls = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_root_certificates(roots);
        let tls = match client {
            None => tls.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
                    .map_err(|error| anyhow!("the client's key is none in PEM ({error})"))?;
                tls.with_client_auth_cert(vec![trust::der(&pair.certificate)?], key)
                    .context("use the client's certificate")?
            }
        };
        Ok(Self {
            uri: uri(server)?,
            tls: Arc::new(tls),
        })
    }

    /// Asks for a certificate, and waits for it; PEM.
    ///
    /// # Errors
    /// It is denied, or nobody signs it in time.
    pub(super) async fn sign(
        &self,
        secret: Option<&str>,
        signer: &str,
        usage: &str,
        request: &str,
    ) -> anyhow::Result<String> {
        let body = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "csr-"},
            "spec": {"request": STANDARD.encode(request), "signerName": signer,
                "usages": ["digital signature", usage]},
        });
        let mut answer = self.ask(Method::POST, PATH, secret, Some(&body)).await?;
        let name = answer["metadata"]["name"].as_str().map(str::to_owned);
        let begun = tokio::time::Instant::now();
        loop {
            if let Some(certificate) = answer["status"]["certificate"].as_str() {
                let pem = STANDARD.decode(certificate).context("status.certificate")?;
                return String::from_utf8(pem).context("status.certificate");
            }
            let conditions = answer["status"]["conditions"].as_array();
            for condition in conditions.into_iter().flatten() {
                if let Some(kind @ ("Denied" | "Failed")) = condition["type"].as_str() {
                    bail!(
                        "{kind}: {}",
                        condition["message"].as_str().unwrap_or_default()
                    );
                }
            }
            let Some(name) = &name else {
                bail!("it is neither signed nor stored");
            };
            ensure!(
                begun.elapsed() < APPROVAL,
                "nobody has signed it: kubectl certificate approve {name}"
            );
            tokio::time::sleep(LOOK).await;
            let path = format!("{PATH}/{name}");
            answer = self.ask(Method::GET, &path, secret, None).await?;
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        secret: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let asking = self.exchange(method, path, secret, body);
        tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| anyhow!("no answer within {PATIENCE:?}"))?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        secret: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let host = self.uri.authority().map_or("", |host| host.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json");
        if let Some(secret) = secret {
            request = request.header(AUTHORIZATION, format!("Bearer {secret}"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = async {
            let reply = sender.send_request(request).await?;
            let code = reply.status();
            let body = Limited::new(reply.into_body(), LARGEST)
                .collect()
                .await
                .map_err(|error| anyhow!("the answer broke off: {error}"))?
                .to_bytes();
            Ok((code, body))
        };
        let (code, body): (StatusCode, Bytes) = tokio::select! {
            answer = answer => answer,
            ended = connection => match ended {
                Ok(()) => Err(anyhow!("the connection was closed")),
                Err(error) => Err(error.into()),
            },
        }?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if code == StatusCode::UNAUTHORIZED {
            bail!("the token's secret, or the certificate, is not known there (401)");
        }
        ensure!(
            code.is_success(),
            "{code}: {}",
            value["message"].as_str().unwrap_or_default()
        );
        Ok(value)
    }

    async fn connect(&self) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let host = self.uri.host().unwrap_or_default();
        // An IPv6 address stands in brackets in a URL only.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.uri.port_u16().unwrap_or(443);
        let tcp = match host.parse() {
            Ok(ip) => TcpStream::connect(SocketAddr::new(ip, port)).await,
            Err(_) => TcpStream::connect((host, port)).await,
        };
        let tcp = tcp.with_context(|| format!("connect to {}", self.uri))?;
        let name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("{host:?} is no name of a server"))?;
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, tcp)
            .await
            .with_context(|| format!("speak TLS with {}", self.uri))
    }
}
