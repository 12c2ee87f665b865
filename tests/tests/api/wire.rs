//! Below HTTP: TLS connections to the server, byte by byte.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tests::ApiServer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

fn pair(folder: &Path, name: &str) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let path = |end: &str| folder.join("pki").join(format!("{name}.{end}"));
    Ok((
        CertificateDer::from_pem_file(path("crt"))?,
        PrivateKeyDer::from_pem_file(path("key"))?,
    ))
}

fn roots(folder: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("pki/ca.crt"))?)?;
    Ok(roots)
}

/// The administrator's side of TLS.
pub fn admin(folder: &Path) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificate, key) = pair(folder, "admin")?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(folder)?)
        .with_client_auth_cert(vec![certificate], key)?;
    Ok(Arc::new(config))
}

/// A node's side of TLS: it shows a certificate for 127.0.0.1 of the authority, and wants one of it.
pub fn node(folder: &Path) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // The server's own one names 127.0.0.1 too.
    let (certificate, key) = pair(folder, "apiserver")?;
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(folder)?), provider.clone())
            .build()?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)?;
    Ok(Arc::new(config))
}

/// Where the server listens.
pub fn address(server: &ApiServer) -> Result<String> {
    let url = server.url();
    Ok(url
        .strip_prefix("https://")
        .context("no https URL")?
        .to_owned())
}

/// A connection on which nothing has been said yet.
pub async fn connect(address: &str, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("127.0.0.1")?;
    Ok(TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await?)
}

/// Reads up to the empty line after headers.
pub async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await;
        head.push(byte.with_context(|| format!("after {:?}", String::from_utf8_lossy(&head)))?);
    }
    Ok(String::from_utf8(head)?)
}

/// Asks for a page on a connection and reads the head of the answer.
pub async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    head(stream).await
}
