//! Knowing a server by the hash of its authority.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow, ensure};
use rcgen::{KeyPair, PublicKeyData};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What `weft server` prints for nodes that join.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Proves that the node may ask.
    pub secret: String,
    hash: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Token")
    }
}

impl Token {
    /// Reads `SECRET.SHA256`.
    ///
    /// # Errors
    /// It is not of that form.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        // The text itself is not shown: it holds a secret.
        let wrong = "the token is not SECRET.SHA256, as `weft server` prints it";
        let (secret, hex) = text.trim().rsplit_once('.').context(wrong)?;
        let plain = |byte: &u8| byte.is_ascii_graphic();
        ensure!(
            !secret.is_empty() && secret.as_bytes().iter().all(plain),
            wrong
        );
        ensure!(hex.len() == 64 && hex.is_ascii(), wrong);
        let mut hash = [0; 32];
        for (place, byte) in hash.iter_mut().enumerate() {
            let digits = hex.get(2 * place..2 * place + 2).context(wrong)?;
            ensure!(digits.bytes().all(|digit| digit.is_ascii_hexdigit()), wrong);
            *byte = u8::from_str_radix(digits, 16).context(wrong)?;
        }
        Ok(Self {
            secret: secret.to_owned(),
            hash,
        })
    }

    /// Whether a certificate (PEM) is the authority that is meant.
    pub fn is_of(&self, authority: &str) -> bool {
        der(authority).is_ok_and(|der| self.matches(&der))
    }

    fn matches(&self, der: &CertificateDer<'_>) -> bool {
        Sha256::digest(der).as_slice() == self.hash
    }
}

/// Believes a server whose chain holds the authority of a token, and is signed by it.
#[derive(Debug)]
pub struct ByHash {
    token: Token,
    provider: Arc<rustls::crypto::CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ByHash {
    /// For one connection.
    pub fn new(token: &Token, provider: Arc<rustls::crypto::CryptoProvider>) -> Self {
        Self {
            token: token.clone(),
            provider,
            found: Mutex::default(),
        }
    }

    /// The authority, once a server has been believed.
    pub fn found(&self) -> Option<CertificateDer<'static>> {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ServerCertVerifier for ByHash {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| self.token.matches(certificate))
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(authority.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The first certificate of a PEM text.
///
/// # Errors
/// There is none.
pub fn der(pem: &str) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| anyhow!("it holds no certificate in PEM ({error})"))
}

/// Whether a certificate is that of a key.
pub fn belong(certificate: &str, key: &str) -> bool {
    let (Ok(der), Ok(key)) = (der(certificate), KeyPair::from_pem(key)) else {
        return false;
    };
    X509Certificate::from_der(&der)
        .is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}
