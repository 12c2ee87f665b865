//! What each role may do, and the texts of refusals.

use super::*;

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(|&group| group.to_owned()).collect();
    User::authenticated(name.to_owned(), groups)
}

fn n1() -> User {
    user("system:node:n1", &["system:nodes"])
}

/// `on("get pods/log.group ns/name")`: `-` is no namespace, an empty name none.
fn on(text: &str) -> Attributes<'_> {
    let mut words = text.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let (verb, what, place) = (next(), next(), next());
    if what.starts_with('/') {
        let target = Target::Path(what);
        return Attributes { verb, target };
    }
    let (what, group) = what.split_once('.').unwrap_or((what, ""));
    let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (namespace, name) = place.split_once('/').unwrap_or((place, ""));
    let given = |text: &'static str| move |other: &&str| *other != text;
    let target = Target::Resource(Resource {
        group,
        resource,
        subresource,
        namespace: Some(namespace).filter(given("-")).filter(given("")),
        name: Some(name).filter(given("")),
    });
    Attributes { verb, target }
}

fn may(user: &User, text: &str) -> bool {
    allowed(user, &on(text)) == Ok(Verdict::Allowed)
}

fn may_not(user: &User, text: &str) -> bool {
    allowed(user, &on(text)).is_err()
}

/// Recorded from kube-apiserver 1.36.2.
#[test]
fn refusals_are_told_as_the_reference_tells_them() {
    let dev = user("dev", &[]);
    let told = |user: &User, text: &str| allowed(user, &on(text)).unwrap_err();
    assert_eq!(
        told(&User::anonymous(), "list pods demo"),
        r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "demo""#
    );
    assert_eq!(
        told(&dev, "list nodes -"),
        r#"nodes is forbidden: User "dev" cannot list resource "nodes" in API group "" at the cluster scope"#
    );
    assert_eq!(
        told(&dev, "create deployments.apps demo"),
        r#"deployments.apps is forbidden: User "dev" cannot create resource "deployments" in API group "apps" in the namespace "demo""#
    );
    assert_eq!(
        told(&dev, "create pods/exec demo/pod"),
        r#"pods "pod" is forbidden: User "dev" cannot create resource "pods/exec" in API group "" in the namespace "demo""#
    );
    assert_eq!(
        told(&dev, "get /metrics"),
        r#"forbidden: User "dev" cannot get path "/metrics""#
    );
}

#[test]
fn masters_may_do_everything() {
    let admin = user("kubernetes-admin", &["system:masters"]);
    for text in [
        "delete nodes -/n1",
        "get secrets demo/s",
        "create pods/exec demo/p",
        "impersonate users -/x",
        "get /metrics",
        "post /anything",
        "deletecollection widgets.example.com demo",
    ] {
        assert!(may(&admin, text), "{text}");
    }
}

#[test]
fn anyone_may_ask_for_health_and_who_is_known_for_discovery() {
    let known = user(
        "system:serviceaccount:demo:default",
        &["system:serviceaccounts"],
    );
    for text in ["get /healthz", "get /livez", "head /readyz"] {
        assert!(may(&User::anonymous(), text) && may(&known, text), "{text}");
    }
    for text in [
        "get /api",
        "get /apis/apps/v1",
        "get /openapi/v3",
        "get /version",
    ] {
        assert!(may(&known, text), "{text}");
        assert!(may_not(&User::anonymous(), text), "{text}");
    }
    for text in [
        "create selfsubjectreviews.authentication.k8s.io -",
        "create selfsubjectaccessreviews.authorization.k8s.io -",
        "create selfsubjectrulesreviews.authorization.k8s.io -",
    ] {
        assert!(may(&known, text), "{text}");
        assert!(may_not(&User::anonymous(), text), "{text}");
    }
    for text in [
        "get /metrics",
        "get /healthz/etcd",
        "post /healthz",
        "get /apisx",
        "get /",
        "list pods demo",
        "get configmaps demo/c",
        "create subjectaccessreviews.authorization.k8s.io -",
        "create tokenreviews.authentication.k8s.io -",
    ] {
        assert!(may_not(&known, text), "{text}");
    }
}

#[test]
fn a_node_reads_what_it_needs_and_writes_what_is_its_own() {
    let node = n1();
    for text in [
        "list pods -",
        "watch services -",
        "watch endpointslices.discovery.k8s.io -",
        "get nodes -/n2",
        "get secrets demo/s",
        "watch secrets demo/s",
        "list configmaps kube-flannel",
        "get leases.coordination.k8s.io kube-node-lease/n2",
        "patch nodes -/n1",
        "update nodes/status -/n1",
        "create events demo",
        "patch events.events.k8s.io demo/e",
        "update leases.coordination.k8s.io kube-node-lease/n1",
        "create tokenreviews.authentication.k8s.io -",
    ] {
        assert!(may(&node, text), "{text}");
    }
    for text in [
        "list secrets demo",
        "list secrets -",
        "watch secrets -",
        "update nodes -/n2",
        "patch nodes/status -/n2",
        "create nodes -/n2",
        "delete nodes -/n1",
        "deletecollection nodes -",
        "create pods demo",
        "update pods demo/p",
        "patch pods demo/p",
        "deletecollection pods demo",
        "create pods/binding demo/p",
        "create pods/exec demo/p",
        "get pods/exec demo/p",
        "get pods/log demo/p",
        "update leases.coordination.k8s.io kube-node-lease/n2",
        "update leases.coordination.k8s.io kube-system/n1",
        "create leases.coordination.k8s.io kube-system",
        "delete events demo/e",
        "update services demo/s",
        "create deployments.apps demo",
        "list deployments.apps -",
        "update nodes.example.com -/n1",
        "get /metrics",
    ] {
        assert!(may_not(&node, text), "{text}");
    }
    let verdict = |text| allowed(&node, &on(text)).unwrap();
    for text in [
        "delete pods demo/p",
        "patch pods/status demo/p",
        "update pods/status demo/p",
        "create serviceaccounts/token demo/default",
    ] {
        assert_eq!(verdict(text), Verdict::IfBoundTo("n1"), "{text}");
    }
    for text in [
        "create nodes -",
        "create leases.coordination.k8s.io kube-node-lease",
    ] {
        assert_eq!(verdict(text), Verdict::IfNamed("n1"), "{text}");
    }
}

#[test]
fn a_node_is_one_by_name_and_group() {
    for (name, groups) in [
        ("system:node:n1", &[] as &[&str]),
        ("n1", &["system:nodes"]),
        ("system:node:", &["system:nodes"]),
        ("system:nodes:n1", &["system:nodes"]),
    ] {
        let user = user(name, groups);
        assert_eq!(node(&user), None, "{name}");
        assert!(may_not(&user, "list pods -"), "{name}");
        assert!(may_not(&user, "update nodes -/n1"), "{name}");
    }
    assert_eq!(node(&n1()), Some("n1"));
}

#[test]
fn readers_see_all_but_secrets_and_run_nothing() {
    let reader = user("eve", &["weft:readers"]);
    for text in [
        "list pods -",
        "get deployments.apps demo/d",
        "watch nodes -",
        "get pods/log demo/p",
        "get deployments/scale demo/d",
    ] {
        assert!(may(&reader, text), "{text}");
    }
    for text in [
        "get secrets demo/s",
        "list secrets -",
        "get pods/exec demo/p",
        "get pods/attach demo/p",
        "get pods/portforward demo/p",
        "get nodes/proxy -/n1",
        "create pods demo",
        "delete pods demo/p",
        "create serviceaccounts/token demo/default",
        "get /metrics",
    ] {
        assert!(may_not(&reader, text), "{text}");
    }
    let (objects, _) = list(&reader);
    let told = Value::from(objects).to_string();
    assert!(told.contains("\"deployments\"") && !told.contains("secrets"));
}

#[test]
fn the_proxy_reads_services() {
    let proxy = user("system:kube-proxy", &[]);
    assert!(may(&proxy, "watch services -"));
    assert!(may(&proxy, "list endpointslices.discovery.k8s.io -"));
    assert!(may(&proxy, "create events demo"));
    assert!(may_not(&proxy, "list pods -"));
    assert!(may_not(&proxy, "get secrets demo/s"));
}

#[test]
fn rules_name_the_nodes_own_objects() {
    let (objects, paths) = list(&n1());
    let own =
        json!({"verbs": KEEP, "apiGroups": [""], "resources": ["nodes"], "resourceNames": ["n1"]});
    assert!(objects.contains(&own));
    assert_eq!(paths.len(), 2);
}
