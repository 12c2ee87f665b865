//! The volumes of one Pod: emptyDir, hostPath, configMap, secret, downwardAPI, projected, persistentVolumeClaim.
//! Others are refused by name.
//!
//! All is below `DATA/pods/UID/volumes`, which only root enters, but for host paths and claims. Files of configMaps
//! and the like follow their objects; tokens are renewed when 80 % of their time is over.

mod payload;
pub mod place;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Container, Pod, ServiceAccount, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use self::payload::{Sources, TokenKey};
use super::claims::Claims;
use super::fields::Facts;
use super::objects::Lookup;
use super::{env, quantity, spec};
use crate::runtime::Mount;

/// What volumes are made from beside the Pod.
#[derive(Clone, Copy)]
pub struct From<'a> {
    /// For tokens.
    pub client: &'a Client,
    /// Folders of claims.
    pub claims: &'a Claims,
    /// ConfigMaps and Secrets.
    pub objects: &'a (dyn Lookup + Send),
    /// Of Pod and node.
    pub facts: &'a Facts,
}

/// A volume that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its name in the Pod.
    pub volume: String,
    /// Why.
    pub cause: String,
}

/// Those of one Pod.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    tokens: BTreeMap<TokenKey, Token>,
    claims: BTreeMap<String, PathBuf>,
    /// What could not be brought up to date is tried again then.
    again: Option<Timestamp>,
}

#[derive(Debug)]
struct Token {
    text: String,
    renew: Timestamp,
}

impl Volumes {
    /// None yet; below `DATA/pods/UID`.
    ///
    /// # Errors
    /// The uid is no name for a folder.
    pub fn new(data: &Path, uid: &str) -> Result<Self, String> {
        Ok(Self {
            root: data.join("pods").join(place::plain(uid)?),
            tokens: BTreeMap::new(),
            claims: BTreeMap::new(),
            again: None,
        })
    }

    /// When a token has to be renewed, or something else brought up to date.
    pub fn renewal(&self) -> Option<Timestamp> {
        let tokens = self.tokens.values().map(|token| token.renew);
        tokens.chain(self.again).min()
    }

    /// Makes all volumes of the Pod, or brings them up to date. One that has been made before, perhaps by an earlier
    /// agent, serves as it is while what it is made from cannot be had.
    ///
    /// # Errors
    /// Those that failed; the others are made.
    pub async fn ensure(&mut self, pod: &Pod, from: From<'_>) -> Result<(), Vec<Failed>> {
        self.again = None;
        let mut failed = Vec::new();
        let token_failure = self.get_tokens(pod, from.client).await.err();
        let tokens = self
            .tokens
            .iter()
            .map(|(key, token)| (key.clone(), token.text.clone()))
            .collect();
        let volumes = spec::spec(pod).and_then(|spec| spec.volumes.as_deref());
        for volume in volumes.unwrap_or_default() {
            let sources = Sources {
                pod,
                objects: from.objects,
                facts: from.facts,
                tokens: &tokens,
            };
            if let Err(cause) = self.make(pod, volume, sources, from.claims).await {
                let cause = match &token_failure {
                    Some(failure) if cause == "failed to fetch token" => {
                        format!("{cause}: {failure}")
                    }
                    _ => cause,
                };
                let is_made = self
                    .folder(volume)
                    .is_ok_and(|folder| folder.join(write::DATA).exists());
                if is_made {
                    tracing::warn!(
                        "volume {} of pod {} stays as it is: {cause}",
                        volume.name,
                        spec::full_name(pod)
                    );
                    self.again = Some(super::backoff::after(
                        Timestamp::now(),
                        super::backoff::FIRST,
                    ));
                    continue;
                }
                failed.push(Failed {
                    volume: volume.name.clone(),
                    cause,
                });
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(failed)
        }
    }

    async fn get_tokens(&mut self, pod: &Pod, client: &Client) -> Result<(), String> {
        let now = Timestamp::now();
        for key in payload::tokens(pod) {
            if self.tokens.get(&key).is_some_and(|token| token.renew > now) {
                continue;
            }
            match token(client, pod, &key).await {
                Ok(token) => {
                    self.tokens.insert(key, token);
                }
                // The old one may still be good for a while.
                Err(error) if self.tokens.contains_key(&key) => {
                    tracing::warn!("renew token of pod {}: {error}", spec::full_name(pod));
                    if let Some(token) = self.tokens.get_mut(&key) {
                        token.renew = super::backoff::after(now, super::backoff::FIRST);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn folder(&self, volume: &Volume) -> Result<PathBuf, String> {
        Ok(self.root.join("volumes").join(place::plain(&volume.name)?))
    }

    async fn make(
        &mut self,
        pod: &Pod,
        volume: &Volume,
        sources: Sources<'_>,
        claims: &Claims,
    ) -> Result<(), String> {
        let folder = self.folder(volume)?;
        let failed = |error: io::Error| format!("{}: {error}", folder.display());
        let group = group(pod);
        if let Some(source) = &volume.host_path {
            return place::host_path(
                Path::new(&source.path),
                source.type_.as_deref().unwrap_or_default(),
            );
        }
        if let Some(source) = &volume.persistent_volume_claim {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let folder = claims
                .folder(spec::namespace(pod), &source.claim_name, uid)
                .await?;
            self.claims.insert(volume.name.clone(), folder);
            return Ok(());
        }
        if let Some(files) = payload::payload(volume, sources)? {
            self.open_root().map_err(failed)?;
            fs::create_dir_all(&folder).map_err(failed)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(failed)?;
            return write::write(&folder, &files, group).map_err(failed);
        }
        let Some(source) = &volume.empty_dir else {
            return Err(format!(
                "the kind of volume {:?} is not supported by this node",
                volume.name
            ));
        };
        self.open_root().map_err(failed)?;
        if folder.exists() && source.medium.as_deref() != Some("Memory") {
            return Ok(());
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        if source.medium.as_deref() == Some("Memory") {
            let size = source
                .size_limit
                .as_ref()
                .and_then(|size| quantity::thousandths(&size.0))
                .and_then(|size| u64::try_from(size.div_ceil(1000)).ok())
                .filter(|size| *size > 0);
            place::memory(&folder, size).map_err(failed)?;
        }
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        std::os::unix::fs::chown(&folder, None, group).map_err(failed)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).map_err(failed)
    }

    fn open_root(&self) -> io::Result<()> {
        fs::create_dir_all(self.root.join("volumes"))?;
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700))
    }

    /// The mounts of a container. `variables`: for `subPathExpr`.
    ///
    /// # Errors
    /// A volume that does not exist, or a part of one that leads out of it.
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        variables: &BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, String> {
        container
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| self.mount(pod, mount, variables))
            .collect()
    }

    fn mount(
        &self,
        pod: &Pod,
        mount: &VolumeMount,
        variables: &BTreeMap<String, String>,
    ) -> Result<Mount, String> {
        let volumes = spec::spec(pod).and_then(|spec| spec.volumes.as_deref());
        let volume = volumes
            .unwrap_or_default()
            .iter()
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| format!("volume {:?} not found", mount.name))?;
        let written = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        let claim_read_only = volume
            .persistent_volume_claim
            .as_ref()
            .is_some_and(|claim| claim.read_only == Some(true));
        let root = if let Some(source) = &volume.host_path {
            PathBuf::from(&source.path)
        } else if volume.persistent_volume_claim.is_some() {
            self.claims
                .get(&volume.name)
                .cloned()
                .ok_or_else(|| format!("volume {:?} is not made yet", mount.name))?
        } else {
            self.folder(volume)?
        };
        let part = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(part), _) if !part.is_empty() => part.clone(),
            (_, Some(text)) => env::expand(text, &|name| variables.get(name).cloned()),
            _ => String::new(),
        };
        let source = if part.is_empty() {
            root
        } else {
            place::part(&root, &part, written)?
        };
        Ok(Mount {
            source,
            target: Path::new("/").join(&mount.mount_path),
            read_only: written || claim_read_only || mount.read_only == Some(true),
            propagation: mount
                .mount_propagation
                .clone()
                .unwrap_or_else(|| "None".to_owned()),
        })
    }

    /// Unmounts and removes all of it, but for claims and host paths.
    ///
    /// # Errors
    /// Of the file system.
    pub async fn remove(&self) -> io::Result<()> {
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || place::remove(&root))
            .await
            .map_err(io::Error::other)?
    }
}

/// Uids of Pods that have a folder.
pub fn present(data: &Path) -> Vec<String> {
    fs::read_dir(data.join("pods"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn group(pod: &Pod) -> Option<u32> {
    let context = spec::spec(pod)?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

async fn token(client: &Client, pod: &Pod, key: &TokenKey) -> Result<Token, String> {
    let (audience, seconds) = key;
    let account = spec::spec(pod)
        .and_then(|spec| spec.service_account_name.as_deref())
        .filter(|name| !name.is_empty())
        .unwrap_or("default");
    let request = TokenRequest {
        metadata: ObjectMeta::default(),
        spec: Some(TokenRequestSpec {
            audiences: (!audience.is_empty()).then(|| vec![audience.clone()]),
            expiration_seconds: Some(*seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        status: None,
    };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), spec::namespace(pod));
    let answer: TokenRequest =
        super::within(api.create_subresource("token", account, &PostParams::default(), &request))
            .await
            .map_err(|error| format!("serviceaccount {account:?}: {}", super::cause(&error)))?;
    let status = answer.status.ok_or("the server answered without a token")?;
    let text = status.token.ok_or("the server answered without a token")?;
    let end = status.expiration_timestamp.map(|end| end.0);
    let left = end.map_or(*seconds, |end| {
        end.as_second() - Timestamp::now().as_second()
    });
    let wait = std::time::Duration::from_secs(u64::try_from(left * 4 / 5).unwrap_or(0).max(10));
    Ok(Token {
        text,
        renew: super::backoff::after(Timestamp::now(), wait),
    })
}
