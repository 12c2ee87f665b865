//! The files of a configMap, secret, downwardAPI or projected volume, before they are written. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume};

use crate::agent::fields::{self, Facts};
use crate::agent::objects::{Kind, Lookup};
use crate::agent::spec;

/// Files by their path below the volume: `ca.crt`, `keys/a`.
pub type Payload = BTreeMap<String, File>;

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it holds.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

/// A token that a volume wants: audience (empty is the API server's own), and for how many seconds.
pub type TokenKey = (String, i64);

const DEFAULT_MODE: i32 = 0o644;
const DEFAULT_EXPIRATION: i64 = 3600;

/// What the files are made from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The Pod.
    pub pod: &'a Pod,
    /// ConfigMaps and Secrets.
    pub objects: &'a dyn Lookup,
    /// Of the Pod and the node.
    pub facts: &'a Facts,
    /// Tokens that have been got.
    pub tokens: &'a BTreeMap<TokenKey, String>,
}

/// The tokens that the volumes of a Pod want.
pub fn tokens(pod: &Pod) -> Vec<TokenKey> {
    let volumes = spec::spec(pod).and_then(|spec| spec.volumes.as_deref());
    volumes
        .unwrap_or_default()
        .iter()
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.service_account_token.as_ref())
        .map(|token| token_key(token.audience.as_deref(), token.expiration_seconds))
        .collect()
}

fn token_key(audience: Option<&str>, seconds: Option<i64>) -> TokenKey {
    (
        audience.unwrap_or_default().to_owned(),
        seconds.unwrap_or(DEFAULT_EXPIRATION),
    )
}

/// The files of a volume; absent if it is of another kind.
///
/// # Errors
/// What is missing, as kubelets say it.
pub fn payload(volume: &Volume, sources: Sources<'_>) -> Result<Option<Payload>, String> {
    let mut files = Payload::new();
    if let Some(source) = &volume.config_map {
        let keys = source.items.as_deref();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        object(
            &mut files,
            sources,
            Kind::ConfigMap,
            &source.name,
            keys,
            mode,
            optional,
        )?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let keys = source.items.as_deref();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        object(
            &mut files,
            sources,
            Kind::Secret,
            name,
            keys,
            mode,
            optional,
        )?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward(
            &mut files,
            sources,
            source.items.as_deref().unwrap_or_default(),
            mode,
        )?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        for source in projected.sources.iter().flatten() {
            if let Some(of) = &source.config_map {
                let optional = of.optional == Some(true);
                let keys = of.items.as_deref();
                object(
                    &mut files,
                    sources,
                    Kind::ConfigMap,
                    &of.name,
                    keys,
                    mode,
                    optional,
                )?;
            } else if let Some(of) = &source.secret {
                let optional = of.optional == Some(true);
                let keys = of.items.as_deref();
                object(
                    &mut files,
                    sources,
                    Kind::Secret,
                    &of.name,
                    keys,
                    mode,
                    optional,
                )?;
            } else if let Some(of) = &source.downward_api {
                downward(
                    &mut files,
                    sources,
                    of.items.as_deref().unwrap_or_default(),
                    mode,
                )?;
            } else if let Some(of) = &source.service_account_token {
                let key = token_key(of.audience.as_deref(), of.expiration_seconds);
                let token = sources
                    .tokens
                    .get(&key)
                    .ok_or_else(|| "failed to fetch token".to_owned())?;
                put(&mut files, &of.path, token.clone().into_bytes(), mode)?;
            } else {
                return Err(
                    "a source of this projected volume is not supported by this node".to_owned(),
                );
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(files))
}

fn object(
    files: &mut Payload,
    sources: Sources<'_>,
    kind: Kind,
    name: &str,
    keys: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<(), String> {
    let namespace = spec::namespace(sources.pod);
    let Some(data) = sources.objects.find(kind, namespace, name)? else {
        return if optional {
            Ok(())
        } else {
            Err(format!("{} {name:?} not found", kind.word()))
        };
    };
    let Some(keys) = keys.filter(|keys| !keys.is_empty()) else {
        for (key, value) in data.iter() {
            put(files, key, value.clone(), mode)?;
        }
        return Ok(());
    };
    for key in keys {
        match data.get(&key.key) {
            Some(value) => put(files, &key.path, value.clone(), key.mode.unwrap_or(mode))?,
            None if optional => {}
            None => {
                let key = &key.key;
                return Err(match kind {
                    Kind::ConfigMap => {
                        format!("configmap references non-existent config key: {key}")
                    }
                    Kind::Secret => format!("references non-existent secret key: {key}"),
                });
            }
        }
    }
    Ok(())
}

fn downward(
    files: &mut Payload,
    sources: Sources<'_>,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
) -> Result<(), String> {
    for item in items {
        let value = if let Some(field) = &item.field_ref {
            fields::field(sources.pod, &field.field_path, sources.facts)?
        } else if let Some(field) = &item.resource_field_ref {
            fields::resource(sources.pod, None, field, sources.facts)?
        } else {
            continue;
        };
        put(
            files,
            &item.path,
            value.into_bytes(),
            item.mode.unwrap_or(mode),
        )?;
    }
    Ok(())
}

/// Adds a file whose path stays below the volume.
fn put(files: &mut Payload, path: &str, data: Vec<u8>, mode: i32) -> Result<(), String> {
    let good = !path.is_empty()
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'))
        && !path.starts_with("..");
    if !good {
        return Err(format!(
            "invalid path {path:?}: it has to stay below the volume"
        ));
    }
    let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
    files.insert(path.to_owned(), File { data, mode });
    Ok(())
}
