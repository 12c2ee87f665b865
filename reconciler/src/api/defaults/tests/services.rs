//! Services.

use super::*;
use crate::api::status::Cause;

/// A Service as an update of a recorded one: the patch is what a client sends in place of the object's fields.
fn updated(file: &str, patch: Value) -> (Value, Value) {
    let old = named(file);
    let mut new = old.clone();
    json_patch::merge(&mut new, &json!({"spec": patch}));
    let kind = kind_of(&new);
    apply(kind, &mut new);
    prepare_update(kind, &mut new, &old);
    assert_eq!(service::families(&mut new, Some(&old), &["IPv4"]), []);
    assert_eq!(crate::api::validate::update(kind, &new, &old), []);
    (new["spec"].take(), old["spec"].clone())
}

#[test]
fn services_keep_what_was_allocated_and_drop_what_is_of_no_use() {
    // PUT of a manifest that mentions nothing of that.
    let bare = json!({"clusterIP": null, "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null,
        "ports": [{"port": 80}]});
    for file in [
        "service-clusterip.json",
        "service-nodeport.json",
        "service-loadbalancer.json",
    ] {
        let (new, old) = updated(file, bare.clone());
        assert_eq!(new, old, "{file}");
    }
    let (new, old) = updated("service-clusterip.json", json!({"type": "NodePort"}));
    assert_eq!(new["clusterIP"], old["clusterIP"]);
    assert_eq!(new["externalTrafficPolicy"], "Cluster");
    let (new, _) = updated("service-nodeport.json", json!({"type": "ClusterIP"}));
    assert_eq!(
        new["ports"],
        json!([{"port": 80, "protocol": "TCP", "targetPort": 80}])
    );
    assert_eq!(new.get("externalTrafficPolicy"), None);
    let (new, _) = updated("service-loadbalancer.json", json!({"type": "ClusterIP"}));
    assert_eq!(new.get("allocateLoadBalancerNodePorts"), None);
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let (new, _) = updated("service-clusterip.json", external);
    for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(new.get(key), None, "{key}");
    }
    let back = json!({"type": "ClusterIP", "ports": [{"port": 80}]});
    let (new, _) = updated("service-externalname.json", back);
    assert_eq!(new.get("externalName"), None);
    assert_eq!(new["ipFamilies"], json!(["IPv4"]));
    // A client that knows only the older field changes only that.
    let old = named("service-clusterip.json");
    let kind = kind_of(&old);
    let mut new = old.clone();
    new["spec"]["clusterIP"] = json!("None");
    prepare_update(kind, &mut new, &old);
    assert_eq!(new["spec"]["clusterIPs"], json!(["None"]));
    let causes = crate::api::validate::update(kind, &new, &old);
    assert_eq!(
        causes,
        [Cause::invalid(
            "spec.clusterIPs[0]",
            &json!(["None"]),
            "may not change once set"
        )]
    );
    // A second port is new; the first keeps its own, by its name.
    let ports = json!([{"name": "a", "port": 81}, {"name": "", "port": 80}]);
    let mut old = named("service-nodeport.json");
    let kind = kind_of(&old);
    let mut new = old.clone();
    new["spec"]["ports"] = ports;
    apply(kind, &mut new);
    prepare_update(kind, &mut new, &old);
    assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(
        new["spec"]["ports"][1]["nodePort"],
        old["spec"]["ports"][0]["nodePort"].take()
    );
}

#[test]
fn families_are_those_that_are_asked_for_and_can_be_had() {
    let decide = |spec: Value, old: Option<Value>, cluster: &[&str]| {
        let mut object = json!({"spec": spec});
        object["spec"]["type"] = json!("ClusterIP");
        let old = old.map(|old| json!({"spec": old}));
        let causes = service::families(&mut object, old.as_ref(), cluster);
        let told: Vec<_> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let spec = object["spec"].take();
        (
            spec["ipFamilyPolicy"].clone(),
            spec["ipFamilies"].clone(),
            told.join("; "),
        )
    };
    let none = String::new;
    let dual: &[&str] = &["IPv6", "IPv4"];
    let single: &[&str] = &["IPv4"];
    assert_eq!(
        decide(json!({}), None, dual),
        (json!("SingleStack"), json!(["IPv6"]), none())
    );
    for policy in ["PreferDualStack", "RequireDualStack"] {
        assert_eq!(
            decide(
                json!({"ipFamilyPolicy": policy, "ipFamilies": ["IPv4"]}),
                None,
                dual
            ),
            (json!(policy), json!(["IPv4", "IPv6"]), none())
        );
    }
    assert_eq!(
        decide(json!({"ipFamilyPolicy": "PreferDualStack"}), None, single).1,
        json!(["IPv4"])
    );
    assert_eq!(
        decide(json!({"ipFamilyPolicy": "RequireDualStack"}), None, single).2,
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
    );
    assert_eq!(
        decide(json!({"ipFamilies": ["IPv6"]}), None, single).2,
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
    );
    assert_eq!(
        decide(json!({"ipFamilies": ["IPv6", "IPv4"]}), None, dual).2,
        "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"
    );
    assert_eq!(
        decide(
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
            None,
            single
        )
        .2,
        "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster"
    );
    let two = json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.0.0.1"],
        "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"});
    let mut less = two.clone();
    less["ipFamilyPolicy"] = json!("SingleStack");
    assert_eq!(
        decide(less, Some(two.clone()), dual),
        (json!("SingleStack"), json!(["IPv6"]), none())
    );
    let mut less = two.clone();
    less["clusterIPs"] = json!(["fd00::1"]);
    assert_eq!(
        decide(less, Some(two), dual).2,
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary cluster IP"
    );
}
