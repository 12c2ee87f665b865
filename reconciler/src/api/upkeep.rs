//! What the server does by itself: the objects that a cluster and each namespace begin with, and tidying: claims
//! without a Service, old events, old history, namespaces that are deleted.

mod namespaces;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::validation::Mode;
use super::rest::create;
use super::rest::write::Write;
use super::status::Status;
use super::{Api, kinds, object};
use crate::store::{self, Range};

/// Namespaces that are always there.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// How long events are kept.
const EVENT_SECONDS: i64 = 3600;
const EVERY: Duration = Duration::from_secs(180);
/// Of the store's history so much is kept: a round of tidying.
const HISTORY: Duration = Duration::from_secs(300);

fn write() -> Write {
    Write {
        dry_run: false,
        manager: "kube-apiserver".into(),
        mode: Mode::Ignore,
    }
}

/// Seconds to wait for the first address: longer than an orphaned claim is kept.
const PATIENCE: u32 = 70;

/// Makes an object unless it is there.
async fn ensure(
    api: &Api,
    group: &str,
    plural: &str,
    namespace: Option<&str>,
    value: Value,
) -> Result<(), Status> {
    let kind = kinds::find(group, "v1", plural).ok_or_else(Status::unknown_resource)?;
    let key = kind.key(namespace, object::name(&value));
    if api.store.get(&key).await?.is_some() {
        return Ok(());
    }
    match create::insert(api, kind, namespace, value, &write()).await {
        Err(status) if status.reason == "AlreadyExists" => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Makes an object that says where a server is, also in the place of one that says otherwise: the server has moved.
async fn renew(
    api: &Api,
    group: &str,
    plural: &str,
    value: Value,
    parts: &[&str],
) -> Result<(), Status> {
    let kind = kinds::find(group, "v1", plural).ok_or_else(Status::unknown_resource)?;
    let key = kind.key(Some("default"), object::name(&value));
    if let Some(entry) = api.store.get(&key).await? {
        let there = object::decode(&entry.value, entry.revision).unwrap_or_default();
        if parts
            .iter()
            .all(|part| there.pointer(part) == value.pointer(part))
        {
            return Ok(());
        }
        // Another server that starts may have done so.
        match api.store.delete(&key, entry.revision).await {
            Ok(_) | Err(store::Error::Changed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ensure(api, group, plural, Some("default"), value).await
}

/// Makes what a cluster begins with.
///
/// # Errors
/// The store's; also when the first service address belongs to somebody else.
pub async fn begin(api: &Api, endpoints: &[SocketAddr]) -> Result<(), Status> {
    for name in NAMESPACES {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(api, "", "namespaces", None, namespace).await?;
    }
    for name in NAMESPACES {
        furnish(api, name).await?;
    }
    let first = api
        .services
        .ranges()
        .networks
        .first()
        .map(|network| super::services::first_address(*network));
    // An address of loopback means another machine in each Pod: then nothing is behind the Service.
    let reached = endpoints
        .iter()
        .find(|address| !address.ip().is_loopback() && !address.ip().is_unspecified());
    let port = reached.or(endpoints.first()).map_or(0, SocketAddr::port);
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let ports = json!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {"clusterIP": first.map(|ip| ip.to_string()), "ports": ports, "type": "ClusterIP", "sessionAffinity": "None"},
    });
    // A crash, or another server that starts, may have left the address claimed without the Service.
    let mut tries = 0;
    while let Err(status) = ensure(api, "", "services", Some("default"), service.clone()).await {
        if status.code != 422 || tries == PATIENCE {
            return Err(status);
        }
        tries += 1;
        api.services.repair().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let Some(ip) = reached.map(SocketAddr::ip) else {
        return Ok(());
    };
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": [ip.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    let parts = ["/endpoints/0/addresses", "/ports/0/port"];
    renew(api, "discovery.k8s.io", "endpointslices", slice, &parts).await?;
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kubernetes",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": ip.to_string()}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    renew(api, "", "endpoints", endpoints, &["/subsets"]).await
}

/// What each namespace begins with: its ServiceAccount `default`, and the certificate that its Pods trust.
///
/// # Errors
/// The store's.
pub async fn furnish(api: &Api, namespace: &str) -> Result<(), Status> {
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    ensure(api, "", "serviceaccounts", Some(namespace), account).await?;
    let certificate = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt",
            "annotations": {"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc."}},
        "data": {"ca.crt": api.authority},
    });
    ensure(api, "", "configmaps", Some(namespace), certificate).await
}

/// Gives what is missing to the namespaces that are not being deleted: a crash came in between, or somebody removed it.
async fn furnish_all(api: &Api) -> Result<(), Status> {
    let kind = kinds::find("", "v1", "namespaces").ok_or_else(Status::unknown_resource)?;
    let range = Range {
        prefix: kind.prefix(None),
        ..Range::default()
    };
    for entry in api.store.list(range).await?.entries {
        let namespace = object::decode(&entry.value, entry.revision);
        if let Ok(namespace) = namespace.as_ref()
            && !object::deleting(namespace)
        {
            match furnish(api, object::name(namespace)).await {
                // It is being deleted by now, or gone.
                Err(status) if [403, 404].contains(&status.code) => {}
                done => done?,
            }
        }
    }
    Ok(())
}

/// Tidies for as long as the server runs; namespaces only if no controller empties them.
pub async fn run(api: Arc<Api>, empties_namespaces: bool) {
    let empty = async {
        if empties_namespaces {
            namespaces::run(Arc::clone(&api)).await;
        }
    };
    tokio::join!(tidy(Arc::clone(&api)), empty);
}

async fn tidy(api: Arc<Api>) {
    let mut marks: Vec<(Timestamp, store::Revision)> = Vec::new();
    loop {
        if let Err(error) = api.services.repair().await {
            tracing::warn!("compare Services with what is claimed for them: {error}");
        }
        if let Err(status) = furnish_all(&api).await {
            tracing::warn!(
                "give each namespace what it begins with: {}",
                status.message
            );
        }
        if let Err(error) = expire(&api).await {
            tracing::warn!("remove old events: {error}");
        }
        if let Err(error) = compact(&api, &mut marks).await {
            tracing::warn!("compact the store: {error}");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Forgets the history that was there a while ago.
async fn compact(
    api: &Api,
    marks: &mut Vec<(Timestamp, store::Revision)>,
) -> Result<(), store::Error> {
    let now = Timestamp::now();
    marks.push((now, api.store.revision().await?));
    let old = |(time, _): &(Timestamp, u64)| {
        now.as_second() - time.as_second() >= HISTORY.as_secs() as i64
    };
    let Some(upto) = marks.iter().rposition(old) else {
        return Ok(());
    };
    let (_, revision) = marks[upto];
    marks.drain(..=upto);
    match api.store.compact(revision).await {
        // Another server was quicker.
        Err(store::Error::Compacted { .. }) => Ok(()),
        other => other,
    }
}

async fn expire(api: &Api) -> Result<(), store::Error> {
    let Some(kind) = kinds::find("", "v1", "events") else {
        return Ok(());
    };
    let range = Range {
        prefix: kind.prefix(None),
        ..Range::default()
    };
    let now = Timestamp::now().as_second();
    for entry in api.store.list(range).await?.entries {
        let Ok(event) = object::decode(&entry.value, entry.revision) else {
            continue;
        };
        let times = [
            &["series", "lastObservedTime"][..],
            &["lastTimestamp"],
            &["eventTime"],
            &["metadata", "creationTimestamp"],
        ];
        let last = times
            .iter()
            .filter_map(|path| object::text(&event, path).parse::<Timestamp>().ok())
            // What a client dates into the future does not live longer.
            .filter(|time| time.as_second() <= now + 60)
            .max();
        if last.is_some_and(|last| last.as_second() + EVENT_SECONDS > now) {
            continue;
        }
        match api.store.delete(&entry.key, entry.revision).await {
            Ok(_) | Err(store::Error::Changed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
