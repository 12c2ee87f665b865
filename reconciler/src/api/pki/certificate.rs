//! Certificates: how they are made, and whether one that is there still serves.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// Clocks of others may be behind ours.
const SKEW: Duration = Duration::from_secs(3600);

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Proves a server; under these names and addresses.
    Server(BTreeSet<String>),
    /// Proves a client.
    Client,
}

/// Whom a certificate names, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// `CN`: the user.
    pub common_name: String,
    /// `O`: its groups.
    pub organizations: Vec<String>,
    /// What it is for.
    pub usage: Usage,
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn params(common_name: &str, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now().saturating_sub(SKEW);
    params.not_after = epoch + (now() + lifetime);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

/// The certificate of an authority, signed by itself.
pub fn authority(key: &KeyPair, lifetime: Duration) -> Result<Certificate, rcgen::Error> {
    let mut params = params("weft", lifetime);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params.self_signed(key)
}

/// A certificate of an authority.
pub fn issue(
    issuer: &Issuer<'_, KeyPair>,
    subject: &Subject,
    lifetime: Duration,
    key: &KeyPair,
) -> anyhow::Result<Certificate> {
    let mut params = params(&subject.common_name, lifetime);
    for organization in &subject.organizations {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match subject.usage {
        Usage::Server(_) => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    if let Usage::Server(names) = &subject.usage {
        let names: Vec<_> = names.iter().cloned().collect();
        params.subject_alt_names = CertificateParams::new(names)
            .with_context(|| format!("name a certificate of {}", subject.common_name))?
            .subject_alt_names;
    }
    params
        .signed_by(key, issuer)
        .with_context(|| format!("sign a certificate of {}", subject.common_name))
}

/// A certificate of a node, for a key that only it has.
pub fn sign(
    issuer: &Issuer<'_, KeyPair>,
    node: &str,
    names: &[SanType],
    serving: bool,
    lifetime: Duration,
    key: &impl PublicKeyData,
) -> anyhow::Result<Certificate> {
    let mut params = params(&format!("system:node:{node}"), lifetime);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match serving {
        true => ExtendedKeyUsagePurpose::ServerAuth,
        false => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.subject_alt_names = names.to_vec();
    params
        .signed_by(key, issuer)
        .with_context(|| format!("sign a certificate of node {node}"))
}

/// The first certificate of a PEM text, as DER.
pub fn der(pem: &str) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| anyhow!("it holds no certificate in PEM ({error})"))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> anyhow::Result<X509Certificate<'a>> {
    let (_, parsed) = X509Certificate::from_der(der)
        .map_err(|error| anyhow!("it is no certificate ({error})"))?;
    Ok(parsed)
}

/// Seconds until a certificate ends; negative when it has.
fn left(certificate: &X509Certificate<'_>) -> i64 {
    let now = i64::try_from(now().as_secs()).unwrap_or(i64::MAX);
    certificate
        .validity()
        .not_after
        .timestamp()
        .saturating_sub(now)
}

/// Checks that a certificate is an authority's, belongs to a key, and has not ended; the seconds left.
pub fn check_authority(der: &CertificateDer<'_>, key: &KeyPair) -> anyhow::Result<i64> {
    let certificate = parse(der)?;
    anyhow::ensure!(certificate.is_ca(), "it is no authority's");
    anyhow::ensure!(belongs(&certificate, key), "it is not that of the key");
    let left = left(&certificate);
    anyhow::ensure!(left > 0, "it has expired");
    Ok(left)
}

fn belongs(certificate: &X509Certificate<'_>, key: &KeyPair) -> bool {
    certificate.public_key().raw == key.subject_public_key_info()
}

/// Why a certificate must be made anew; `None` if it still serves.
pub fn outdated(
    der: &CertificateDer<'_>,
    key: &KeyPair,
    authority: &CertificateDer<'_>,
    subject: &Subject,
    spare: Duration,
) -> anyhow::Result<Option<&'static str>> {
    let certificate = parse(der)?;
    let authority = parse(authority)?;
    Ok(if !belongs(&certificate, key) {
        Some("it is not that of its key")
    } else if signer(&certificate).is_none() || signer(&certificate) != own(&authority) {
        Some("another authority signed it")
    } else if left(&certificate) < i64::try_from(spare.as_secs()).unwrap_or(i64::MAX) {
        Some("it ends soon")
    } else if !names(&certificate, &subject.usage) {
        Some("it lacks a name or an address")
    } else {
        None
    })
}

/// The identifier of the key that signed a certificate.
fn signer<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(identifier) => {
                identifier.key_identifier.as_ref().map(|id| id.0)
            }
            _ => None,
        })
}

/// The identifier of a certificate's own key.
fn own<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
}

fn names(certificate: &X509Certificate<'_>, usage: &Usage) -> bool {
    let Usage::Server(wanted) = usage else {
        return true;
    };
    let there: BTreeSet<_> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect();
    wanted.is_subset(&there)
}

fn address(bytes: &[u8]) -> Option<String> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(address.to_string())
}
