//! Which families of addresses (IPv4, IPv6) a Service has.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::fields::{child, make_list, unset, word};
use super::service::has_cluster_ip;
use crate::api::object::Object;
use crate::api::status::Cause;

const POLICY: &str = "spec.ipFamilyPolicy";

/// Decides `ipFamilies` and `ipFamilyPolicy` of a Service that is created, or comes from an old one. `cluster`: the
/// families of the cluster (`IPv4`, `IPv6`), the main one first. Headless Services get `clusterIPs` too. What cannot be
/// had is told.
pub fn families(service: &mut Value, old: Option<&Value>, cluster: &[&str]) -> Vec<Cause> {
    let Some(spec) = service
        .as_object_mut()
        .and_then(|service| child(service, "spec"))
    else {
        return Vec::new();
    };
    let old = old.and_then(|old| old.get("spec")?.as_object());
    if !has_cluster_ip(spec) {
        return Vec::new();
    }
    let headless = word(spec, "clusterIP") == "None";
    if headless
        && unset(spec, "clusterIPs")
        && let Some(list) = make_list(spec, "clusterIPs")
    {
        list.push(json!("None"));
    }
    // What prefers two families does not get another by chance, after the cluster has.
    let keys = ["ipFamilyPolicy", "ipFamilies", "clusterIPs"];
    let untouched = old.is_some_and(|old| {
        let same = |key: &&str| super::same(spec.get(*key), old.get(*key));
        word(spec, "ipFamilyPolicy") == "PreferDualStack" && keys.iter().all(same)
    });
    if untouched {
        return Vec::new();
    }
    // Without addresses and selector it is said nowhere where its endpoints are: all families.
    let free = headless && unset(spec, "selector");
    if unset(spec, "ipFamilyPolicy") {
        let before = old.map_or("", |old| word(old, "ipFamilyPolicy"));
        let policy = match before {
            "" if free => "RequireDualStack",
            "" => "SingleStack",
            before => before,
        };
        spec.insert("ipFamilyPolicy".to_owned(), json!(policy));
    }
    let policy = word(spec, "ipFamilyPolicy").to_owned();
    let mut causes = reduced(spec, old, &policy);
    let mut families = words(spec, "ipFamilies");
    infer(spec, &mut families, cluster, &mut causes);
    if !causes.is_empty() {
        return causes;
    }
    if !free {
        configured(&policy, &families, cluster, &mut causes);
        if !causes.is_empty() {
            return causes;
        }
    }
    if families.is_empty() {
        families.extend(cluster.first().map(|family| (*family).to_owned()));
    }
    if policy != "SingleStack"
        && (free || cluster.len() > 1)
        && let [only] = families.as_slice()
    {
        let other = if only == "IPv4" { "IPv6" } else { "IPv4" };
        families.push(other.to_owned());
    }
    spec.insert("ipFamilies".to_owned(), json!(families));
    causes
}

/// From two families to one: with the policy alone, the second goes by itself; without it, it may not go.
fn reduced(spec: &mut Object, old: Option<&Object>, policy: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let wrong = |detail: String| Cause::invalid(POLICY, &json!(policy), &detail);
    for (key, one, several) in [
        ("clusterIPs", "cluster IP", "cluster IPs"),
        ("ipFamilies", "IP family", "IP families"),
    ] {
        let before = old.map_or(0, |old| words(old, key).len());
        let same = old.is_some_and(|old| super::same(spec.get(key), old.get(key)));
        let now = words(spec, key).len();
        if policy == "SingleStack" {
            if same && let Some(list) = make_list(spec, key) {
                list.truncate(1);
            } else if now > 1 {
                causes.push(wrong(format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {several} are specified"
                )));
            }
        } else if before > 1 && now == 1 {
            causes.push(wrong(format!(
                "must be 'SingleStack' to release the secondary {one}"
            )));
        }
    }
    causes
}

/// Families that follow from addresses.
fn infer(spec: &Object, families: &mut Vec<String>, cluster: &[&str], causes: &mut Vec<Cause>) {
    let addresses = words(spec, "clusterIPs");
    for (index, address) in addresses.iter().enumerate().skip(families.len()) {
        let family = match address.parse() {
            Ok(IpAddr::V4(_)) => "IPv4",
            Ok(IpAddr::V6(_)) => "IPv6",
            Err(_) => break,
        };
        if cluster.contains(&family) {
            families.push(family.to_owned());
        } else {
            causes.push(Cause::invalid(
                format!("spec.clusterIPs[{index}]"),
                &json!(addresses),
                &format!("{family} is not configured on this cluster"),
            ));
        }
    }
}

fn configured(policy: &str, families: &[String], cluster: &[&str], causes: &mut Vec<Cause>) {
    if policy == "RequireDualStack" && cluster.len() < 2 {
        causes.push(Cause::invalid(
            POLICY,
            &json!(policy),
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (index, family) in families.iter().enumerate() {
        if !cluster.contains(&family.as_str()) {
            causes.push(Cause::invalid(
                format!("spec.ipFamilies[{index}]"),
                &json!(family),
                "not configured on this cluster",
            ));
        }
    }
}

fn words(spec: &Object, key: &str) -> Vec<String> {
    let list = spec.get(key).and_then(Value::as_array);
    let list = list.map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}
