//! Against what kube-apiserver 1.36.2 answered (`tests/data/defaulted`: without what a fork of it adds, without
//! managedFields, and without the finalizers that protect volumes).

mod services;

use std::path::Path;

use super::*;
use crate::api::kinds;

fn recordings() -> Vec<(String, Value, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/defaulted");
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            let mut pair: Value =
                serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, pair["request"].take(), pair["stored"].take())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn kind_of(object: &Value) -> &'static Kind {
    kinds::of(
        object::text(object, &["apiVersion"]),
        object::text(object, &["kind"]),
    )
    .unwrap()
}

/// Takes the server's own choices over from the recording.
fn allocate(object: &mut Value, stored: &Value) {
    if object["kind"] != "Service" {
        return;
    }
    for key in ["clusterIP", "clusterIPs"] {
        if let Some(value) = stored["spec"]
            .get(key)
            .filter(|_| object["spec"].get(key).is_none())
        {
            object["spec"][key] = value.clone();
        }
    }
    let needs = service::needs_node_ports(object["spec"].as_object().unwrap());
    for (index, port) in object::list(stored, &["spec", "ports"]).iter().enumerate() {
        assert_eq!(needs, port.get("nodePort").is_some());
        if let Some(number) = port.get("nodePort") {
            object["spec"]["ports"][index]["nodePort"] = number.clone();
        }
    }
}

#[test]
fn objects_are_stored_as_the_reference_stores_them() {
    let recordings = recordings();
    assert_eq!(recordings.len(), 32);
    for (file, mut object, stored) in recordings {
        let kind = kind_of(&object);
        apply(kind, &mut object);
        let suffix = object::list(&stored, &["spec", "volumes"])
            .iter()
            .find_map(|volume| volume["name"].as_str()?.strip_prefix("kube-api-access-"))
            .unwrap_or("none");
        let account = None;
        admit(kind, &mut object, &Admission { suffix, account }).unwrap();
        for key in ["namespace", "uid", "creationTimestamp"] {
            if let Some(value) = stored["metadata"].get(key) {
                object["metadata"][key] = value.clone();
            }
        }
        prepare_create(kind, &mut object);
        assert_eq!(service::families(&mut object, None, &["IPv4"]), []);
        allocate(&mut object, &stored);
        assert_eq!(object, stored, "{file}");
        let mut again = object.clone();
        apply(kind, &mut again);
        assert_eq!(again, object, "{file}: what is stored is filled in already");
        assert!(!spec_changed(kind, &object, &stored), "{file}");
    }
}

fn named(name: &str) -> Value {
    let mut all = recordings().into_iter();
    all.find(|(file, ..)| file == name).unwrap().2
}

#[test]
fn a_status_is_written_alone_and_kept_from_other_writes() {
    let pod = named("pod.json");
    let kind = kind_of(&pod);
    let mut new = pod.clone();
    new["status"] = json!({"phase": "Running", "podIP": "10.0.0.1"});
    new["spec"]["nodeName"] = json!("elsewhere");
    new["metadata"]["annotations"] = json!({"a": "b"});
    new["metadata"]["ownerReferences"] = json!([{"uid": "x"}]);
    new["other"] = json!(1);
    apply(kind, &mut new);
    prepare_status(kind, &mut new, &pod);
    assert_eq!(new["spec"], pod["spec"]);
    assert_eq!(new.get("other"), None);
    assert_eq!(new["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(new["metadata"].get("ownerReferences"), None);
    assert_eq!(
        new["status"],
        json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "qosClass": "BestEffort"})
    );
    assert!(!spec_changed(kind, &pod, &new));

    let running = new;
    let mut new = pod.clone();
    new["spec"]["activeDeadlineSeconds"] = json!(5);
    prepare_update(kind, &mut new, &running);
    assert_eq!(new["status"], running["status"]);
    assert!(spec_changed(kind, &running, &new));

    let mut created = running;
    prepare_create(kind, &mut created);
    assert_eq!(created["status"], pod["status"]);

    // A node brings its status along.
    let node = kinds::find("", "v1", "nodes").unwrap();
    let mut object = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": 1}}});
    apply(node, &mut object);
    prepare_create(node, &mut object);
    assert_eq!(object["status"]["allocatable"], json!({"cpu": "1"}));
}

#[test]
fn templates_are_counted() {
    let old = named("daemonset.json");
    let kind = kind_of(&old);
    let count = |new: &mut Value| {
        prepare_update(kind, new, &old);
        new["metadata"]["annotations"]["deprecated.daemonset.template.generation"].take()
    };
    assert_eq!(count(&mut old.clone()), "1");
    let mut new = old.clone();
    new["spec"]["template"]["spec"]["hostname"] = json!("a");
    new["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("annotations");
    assert_eq!(count(&mut new), "2");
}

#[test]
fn classes_of_service_follow_limits_and_requests() {
    let class = |resources: Value| {
        let mut pod = json!({"spec": {"containers": [{"resources": resources}]}});
        let kind = kinds::find("", "v1", "pods").unwrap();
        apply(kind, &mut pod);
        prepare_create(kind, &mut pod);
        pod["status"]["qosClass"].clone()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"limits": {"cpu": 0}})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1"}})), "Burstable");
    let both = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(class(both), "Guaranteed");
    let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
    assert_eq!(class(less), "Burstable");
}

#[test]
fn pods_behind_gates_say_so() {
    let kind = kinds::find("", "v1", "pods").unwrap();
    let mut pod = json!({"metadata": {"creationTimestamp": "now"}, "spec": {"schedulingGates": [{"name": "a"}]}});
    prepare_create(kind, &mut pod);
    let condition = &pod["status"]["conditions"][0];
    assert_eq!(condition["reason"], "SchedulingGated");
    assert_eq!(condition["lastTransitionTime"], "now");
}

#[test]
fn amounts_ports_and_images_are_filled_in() {
    let kind = kinds::find("", "v1", "pods").unwrap();
    let mut pod = json!({"spec": {"hostNetwork": true, "containers": [{
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "0.0001"}},
        "env": [{"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
    }]}});
    apply(kind, &mut pod);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["ports"][0]["hostPort"], 80);
    assert_eq!(
        container["resources"],
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "1m", "memory": "1Gi"}})
    );
    assert_eq!(
        container["env"][0]["valueFrom"]["resourceFieldRef"]["divisor"],
        "0"
    );
    for (image, policy) in [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("r:5000/a", "Always"),
        ("a:1", "IfNotPresent"),
        ("r:5000/a:1", "IfNotPresent"),
        ("a@sha256:0", "IfNotPresent"),
        ("", "IfNotPresent"),
    ] {
        let mut pod = json!({"spec": {"containers": [{"image": image}]}});
        apply(kind, &mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["imagePullPolicy"], policy,
            "{image}"
        );
    }
}

#[test]
fn admission_minds_accounts_and_priorities() {
    let kind = kinds::find("", "v1", "pods").unwrap();
    let admitted = |spec: Value, account: Option<&Value>| {
        let mut pod = json!({"spec": spec});
        apply(kind, &mut pod);
        let context = Admission {
            suffix: "abcde",
            account,
        };
        admit(kind, &mut pod, &context).map(|()| pod["spec"].take())
    };
    let account =
        json!({"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "s"}]});
    let spec = admitted(json!({"containers": [{}]}), Some(&account)).unwrap();
    assert_eq!(spec.get("volumes"), None);
    assert_eq!(spec["imagePullSecrets"], account["imagePullSecrets"]);
    let own =
        json!({"containers": [{}], "automountServiceAccountToken": true, "serviceAccount": "sa"});
    let spec = admitted(own, Some(&account)).unwrap();
    assert_eq!(spec["volumes"][0]["name"], "kube-api-access-abcde");
    assert_eq!(spec["serviceAccountName"], "sa");
    // A mount of one's own stays alone.
    let mount = json!({"name": "x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    let spec = admitted(json!({"containers": [{"volumeMounts": [mount]}]}), None).unwrap();
    assert_eq!(spec.get("volumes"), None);
    let tolerant = json!({"tolerations": [{"operator": "Exists"}], "priorityClassName": "system-node-critical"});
    let spec = admitted(tolerant, None).unwrap();
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 1);
    assert_eq!(spec["priority"], 2_000_001_000);
    for (wrong, why) in [
        (
            json!({"priorityClassName": "x"}),
            "no PriorityClass with name x was found",
        ),
        (
            json!({"priority": 5}),
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
        ),
    ] {
        assert_eq!(admitted(wrong, None), Err(why.to_owned()));
    }
}

#[test]
fn other_kinds_are_filled_in() {
    let of = |group, plural, mut object: Value| {
        let kind = kinds::find(group, "v1", plural).unwrap();
        apply(kind, &mut object);
        object
    };
    let node = of("", "nodes", json!({"spec": {"podCIDR": "10.0.0.0/24"}}));
    assert_eq!(node["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
    let node = of(
        "",
        "nodes",
        json!({"spec": {"podCIDRs": ["10.0.0.0/24", "fd00::/64"]}}),
    );
    assert_eq!(node["spec"]["podCIDR"], "10.0.0.0/24");
    let secret = of(
        "",
        "secrets",
        json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "z"}}),
    );
    assert_eq!(secret["data"], json!({"a": "eg==", "b": "eQ=="}));
    let job = of(
        "batch",
        "jobs",
        json!({"spec": {"completions": 5, "backoffLimitPerIndex": 1}}),
    );
    assert_eq!(job["spec"]["parallelism"], 1);
    assert_eq!(job["spec"]["completions"], 5);
    assert_eq!(job["spec"]["backoffLimit"], 2_147_483_647);
}

#[test]
fn lists_that_are_empty_and_absent_are_the_same_but_objects_are_not() {
    let equal = |a: Value, b: Value| same(Some(&a), Some(&b));
    assert!(equal(json!({"a": []}), json!({})));
    assert!(equal(json!({"a": null}), json!({"b": []})));
    assert!(!equal(json!({"emptyDir": {}}), json!({})));
    assert!(!equal(json!([1]), json!([1, 2])));
    assert!(equal(json!([{"a": null}]), json!([{}])));
}
