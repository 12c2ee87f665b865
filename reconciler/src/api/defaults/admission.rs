//! What admission adds to an object once, when it is created.
//!
//! Left out of what a cluster of the reference adds: the finalizers `kubernetes.io/pvc-protection` and
//! `kubernetes.io/pv-protection`, since nothing here would take them off again.

use serde_json::{Value, json};

use super::fields::{child, items, make, make_list, unset, word, word_default};
use crate::api::kinds::Kind;
use crate::api::object::{self, Object};

/// What admission needs to know besides the object.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    /// What makes the name of a Pod's volume of credentials its own: five random letters.
    pub suffix: &'a str,
    /// The ServiceAccount that a Pod runs as ([`service_account`]).
    pub account: Option<&'a Value>,
}

/// The ServiceAccount that a Pod runs as.
pub fn service_account(pod: &Value) -> &str {
    let name = |key| object::text(pod, &["spec", key]);
    match (name("serviceAccountName"), name("serviceAccount")) {
        ("", "") => "default",
        ("", older) => older,
        (name, _) => name,
    }
}

/// Whether a Pod only mirrors one that a node runs on its own account.
pub fn is_mirror(pod: &Value) -> bool {
    object::at(
        pod,
        &["metadata", "annotations", "kubernetes.io/config.mirror"],
    )
    .is_some()
}

/// Adds what admission adds on create.
///
/// # Errors
/// Why the object may not be created: the text after `pods "p" is forbidden: `.
pub fn admit(kind: &Kind, object: &mut Value, context: &Admission<'_>) -> Result<(), String> {
    match (kind.group, kind.kind) {
        ("", "Pod") => pod(object, context),
        ("", "Node") => {
            if let Some(node) = object.as_object_mut() {
                not_ready(node);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A Node takes no Pods before it has said that it is ready.
fn not_ready(node: &mut Object) {
    let Some(taints) = make(node, "spec").and_then(|spec| make_list(spec, "taints")) else {
        return;
    };
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    let there = taints.iter().any(|known| {
        known.get("key") == taint.get("key") && known.get("effect") == taint.get("effect")
    });
    if !there {
        taints.push(taint);
    }
}

fn pod(pod: &mut Value, context: &Admission<'_>) -> Result<(), String> {
    let mirror = is_mirror(pod);
    let account = service_account(pod).to_owned();
    let Some(spec) = pod.as_object_mut().and_then(|pod| make(pod, "spec")) else {
        return Ok(());
    };
    if !mirror {
        spec.insert("serviceAccountName".to_owned(), json!(account));
        spec.insert("serviceAccount".to_owned(), json!(account));
        credentials(spec, context);
    }
    tolerations(spec);
    priority(spec)
}

/// Where containers find the credentials of the account.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Mounts a token, the authority's certificate and the namespace's name into every container, and takes the account's
/// secrets for images.
fn credentials(spec: &mut Object, context: &Admission<'_>) {
    let account = |key| context.account.and_then(|account| account.get(key));
    if unset(spec, "imagePullSecrets")
        && let Some(secrets) =
            account("imagePullSecrets").filter(|list| !super::fields::empty(list))
    {
        spec.insert("imagePullSecrets".to_owned(), secrets.clone());
    }
    let automount = spec
        .get("automountServiceAccountToken")
        .filter(|value| !value.is_null())
        .or_else(|| account("automountServiceAccountToken"));
    if automount == Some(&Value::Bool(false)) {
        return;
    }
    const VOLUME: &str = "kube-api-access-";
    let existing = items(spec, "volumes")
        .map(|volume| word(volume, "name").to_owned())
        .find(|name| name.starts_with(VOLUME));
    let name = existing
        .clone()
        .unwrap_or_else(|| format!("{VOLUME}{}", context.suffix));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in items(spec, list) {
            if items(container, "volumeMounts").any(|mount| word(mount, "mountPath") == MOUNT) {
                continue;
            }
            needed = true;
            if let Some(mounts) = make_list(container, "volumeMounts") {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT}));
            }
        }
    }
    if needed
        && existing.is_none()
        && let Some(volumes) = make_list(spec, "volumes")
    {
        volumes.push(json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef":
                {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

/// A Pod stays for five minutes on a node that is away, unless it says something about that.
fn tolerations(spec: &mut Object) {
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let said = items(spec, "tolerations").any(|toleration| {
            ["", key].contains(&word(toleration, "key"))
                && ["", "NoExecute"].contains(&word(toleration, "effect"))
        });
        if !said && let Some(list) = make_list(spec, "tolerations") {
            list.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300
            }));
        }
    }
}

/// The two classes that there are without PriorityClasses, and none.
fn priority(spec: &mut Object) -> Result<(), String> {
    let computed = match word(spec, "priorityClassName") {
        "" => 0,
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        other => return Err(format!("no PriorityClass with name {other} was found")),
    };
    object::default(spec, "priority", computed);
    if let Some(given) = spec.get("priority").and_then(Value::as_i64)
        && given != computed
    {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
        ));
    }
    word_default(spec, "preemptionPolicy", "PreemptLowerPriority");
    let policy = word(spec, "preemptionPolicy");
    if policy != "PreemptLowerPriority" {
        return Err(format!(
            "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; priority admission controller computed PreemptLowerPriority from the given PriorityClass name"
        ));
    }
    Ok(())
}

/// A Namespace is not gone before its content is.
pub fn namespace_finalizer(namespace: &mut Object) {
    if let Some(finalizers) = make(namespace, "spec").and_then(|spec| make_list(spec, "finalizers"))
        && !finalizers.iter().any(|name| name == "kubernetes")
    {
        finalizers.push(json!("kubernetes"));
    }
}

/// The label by which selectors find a Namespace.
pub fn namespace_label(namespace: &mut Object) {
    let Some(metadata) = child(namespace, "metadata") else {
        return;
    };
    let name = word(metadata, "name").to_owned();
    if name.is_empty() {
        return;
    }
    if let Some(labels) = make(metadata, "labels") {
        labels.insert("kubernetes.io/metadata.name".to_owned(), json!(name));
    }
}
