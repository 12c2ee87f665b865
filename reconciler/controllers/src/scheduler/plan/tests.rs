use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn node(name: &str, cpu: &str, more: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    merge(&mut node, more);
    Arc::new(serde_json::from_value(node).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn pod(name: &str, cpu: &str, more: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "demo", "uid": name},
        "spec": {"schedulerName": "default-scheduler", "containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu}}},
        ]},
    });
    merge(&mut pod, more);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn places(nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> BTreeMap<String, String> {
    places_with(nodes, pods, &[])
}

fn places_with(
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    claims: &[Arc<PersistentVolumeClaim>],
) -> BTreeMap<String, String> {
    let decisions = plan(nodes, pods, claims, &Assumed::new(), &BTreeSet::new());
    decisions
        .into_iter()
        .map(|decision| match decision {
            Decision::Bind { pod, node } => (pod.metadata.name.clone().unwrap(), node),
            Decision::Unschedulable { pod, message } => {
                (pod.metadata.name.clone().unwrap(), message)
            }
        })
        .collect()
}

#[test]
fn pods_are_spread_over_equal_nodes() {
    let nodes = ["n1", "n2", "n3"].map(|name| node(name, "8", json!({})));
    let owned = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true},
    ]}});
    let pods: Vec<_> = (0..99)
        .map(|i| pod(&format!("p{i:02}"), "0", owned.clone()))
        .collect();
    let places = places(&nodes, &pods);
    for name in ["n1", "n2", "n3"] {
        assert_eq!(
            places.values().filter(|node| *node == name).count(),
            33,
            "{name}"
        );
    }
}

#[test]
fn each_rule_has_its_reason() {
    let refused = |one: Arc<Node>, pod: Arc<Pod>| places(&[one], &[pod])["p"].clone();
    let plain = || pod("p", "1", json!({}));
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    for (message, node, pod) in [
        ("1 Insufficient cpu", node("n", "500m", json!({})), plain()),
        (
            "1 node(s) were unschedulable",
            node("n", "4", json!({"spec": {"unschedulable": true}})),
            plain(),
        ),
        (
            "1 node(s) had untolerated taint(s)",
            node("n", "4", taint),
            plain(),
        ),
        (
            "1 node(s) had untolerated taint(s)",
            node(
                "n",
                "4",
                json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
            ),
            plain(),
        ),
        (
            "1 node(s) didn't match Pod's node affinity/selector",
            node("n", "4", json!({})),
            pod("p", "1", json!({"spec": {"nodeSelector": {"disk": "ssd"}}})),
        ),
        (
            "1 Too many pods",
            node("n", "4", json!({"status": {"allocatable": {"pods": "0"}}})),
            plain(),
        ),
        (
            "1 Insufficient example.com/gpu, 1 Insufficient memory",
            node("n", "4", json!({})),
            pod(
                "p",
                "1",
                json!({"spec": {"containers": [
                    {"name": "c", "resources": {"requests": {"memory": "9Gi", "example.com/gpu": "1"}}},
                ]}}),
            ),
        ),
    ] {
        let message = format!("0/1 nodes are available: {message}.");
        assert_eq!(refused(node, pod), message);
    }
    assert_eq!(
        places(&[], &[plain()])["p"],
        "no nodes available to schedule pods"
    );
}

#[test]
fn reasons_of_several_nodes_are_counted() {
    let tainted = json!({"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}});
    let nodes = [
        node("n1", "1", json!({})),
        node("n2", "8", tainted.clone()),
        node("n3", "8", tainted),
    ];
    assert_eq!(
        places(&nodes, &[pod("p", "2", json!({}))])["p"],
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s)."
    );
}

#[test]
fn a_port_of_a_node_is_taken_once() {
    let nodes = ["n1", "n2"].map(|name| node(name, "8", json!({})));
    let takes = |ip: &str| {
        json!({"spec": {"containers": [
            {"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": ip}]},
        ]}})
    };
    let pods: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| pod(name, "0", takes("")))
        .collect();
    let found = places(&nodes, &pods);
    assert_ne!(found["a"], found["b"]);
    assert_eq!(
        found["c"],
        "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports."
    );
    let apart = [
        pod("a", "0", takes("127.0.0.1")),
        pod("b", "0", takes("127.0.0.2")),
    ];
    assert_eq!(
        places(&nodes[..1], &apart)
            .values()
            .filter(|node| *node == "n1")
            .count(),
        2
    );
}

#[test]
fn the_important_come_first_and_the_older_before_the_younger() {
    let nodes = [node("n1", "1", json!({}))];
    let pods = [
        pod(
            "a",
            "1",
            json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:02Z"}}),
        ),
        pod(
            "b",
            "1",
            json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:01Z"}}),
        ),
    ];
    assert_eq!(places(&nodes, &pods)["b"], "n1");
    let important = pod("c", "1", json!({"spec": {"priority": 7}}));
    let [a, b] = pods;
    assert_eq!(places(&nodes, &[a, b, important])["c"], "n1");
}

#[test]
fn what_is_not_for_this_scheduler_is_left_alone() {
    let nodes = [node("n1", "1", json!({}))];
    let pods = [
        pod("a", "0", json!({"spec": {"schedulerName": "other"}})),
        pod(
            "b",
            "0",
            json!({"spec": {"schedulingGates": [{"name": "g"}]}}),
        ),
        pod("c", "0", json!({"spec": {"nodeName": "n1"}})),
        pod(
            "d",
            "0",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        ),
        pod("e", "0", json!({"status": {"phase": "Failed"}})),
    ];
    assert!(places(&nodes, &pods).is_empty());
}

#[test]
fn preferences_decide_among_those_that_fit() {
    let nodes = [
        node("n1", "8", json!({"metadata": {"labels": {"disk": "hdd"}}})),
        node("n2", "4", json!({"metadata": {"labels": {"disk": "ssd"}}})),
    ];
    let prefers = json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {
            "matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}],
        }}],
    }}}});
    assert_eq!(places(&nodes, &[pod("p", "1", prefers)])["p"], "n2");
    assert_eq!(places(&nodes, &[pod("p", "1", json!({}))])["p"], "n1");
    let disliked = json!({"spec": {"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}});
    let nodes = [node("n1", "8", disliked), node("n2", "4", json!({}))];
    assert_eq!(places(&nodes, &[pod("p", "1", json!({}))])["p"], "n2");
}

#[test]
fn a_pod_goes_where_its_claim_is() {
    let nodes = ["n1", "n2", "n3"].map(|name| node(name, "8", json!({})));
    let uses = |name: &str, claim: &str| {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
        pod(name, "1", json!({"spec": {"volumes": volumes}}))
    };
    let claim = |name: &str, node: Value| -> Arc<PersistentVolumeClaim> {
        let metadata =
            json!({"name": name, "namespace": "demo", "annotations": {"weft.io/node": node}});
        Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
    };
    let mut new = (*claim("new", json!("x"))).clone();
    new.metadata.annotations = None;
    let claims = [
        claim("kept", json!("n3")),
        claim("lost", json!("n9")),
        Arc::new(new),
    ];
    let pods = [
        uses("a", "kept"),
        uses("b", "lost"),
        uses("c", "new"),
        uses("d", "new"),
        uses("e", "none"),
    ];
    let found = places_with(&nodes, &pods, &claims);
    assert_eq!(found["a"], "n3");
    assert_eq!(
        found["b"],
        "0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity."
    );
    assert_eq!(found["c"], found["d"]);
    assert_eq!(
        found["e"],
        "0/3 nodes are available: persistentvolumeclaim \"none\" not found."
    );
}

/// What happens in a cluster while it is scheduled.
#[derive(Clone, Debug)]
enum Step {
    /// A Pod is made that asks for so many thousandths of a CPU.
    Create(u32),
    /// The scheduler looks and binds.
    Schedule,
    /// The observed state of one Pod catches up with the true one.
    Show(prop::sample::Index),
    /// A Pod ends.
    Delete(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u32..900).prop_map(Step::Create),
        3 => Just(Step::Schedule),
        4 => any::<prop::sample::Index>().prop_map(Step::Show),
        1 => any::<prop::sample::Index>().prop_map(Step::Delete),
    ]
}

proptest! {
    /// Whatever the order of events, and however late they are observed, no node is given more than it has; and in the
    /// end no Pod waits that would fit.
    #[test]
    fn nothing_is_overcommitted(steps in prop::collection::vec(step(), 0..60)) {
        let nodes = [node("n1", "1", json!({})), node("n2", "2", json!({}))];
        let room = BTreeMap::from([("n1", 1000), ("n2", 2000)]);
        let mut truth: BTreeMap<String, (u32, Option<String>)> = BTreeMap::new();
        let mut seen: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        let mut assumed = Assumed::new();
        let show = |name: &str, truth: &BTreeMap<String, (u32, Option<String>)>, seen: &mut BTreeMap<String, Arc<Pod>>, assumed: &mut Assumed| {
            match truth.get(name) {
                Some((cpu, node)) => {
                    let more = node.as_ref().map_or(json!({}), |node| json!({"spec": {"nodeName": node}}));
                    seen.insert(name.to_owned(), pod(name, &format!("{cpu}m"), more));
                }
                None => { seen.remove(name); }
            }
            let pods: Vec<_> = seen.values().cloned().collect();
            forget(assumed, &pods);
        };
        let mut count = 0;
        for step in steps.into_iter().chain([Step::Schedule]) {
            match step {
                Step::Create(cpu) => {
                    let name = format!("p{count:03}");
                    count += 1;
                    truth.insert(name.clone(), (cpu, None));
                    show(&name, &truth, &mut seen, &mut assumed);
                }
                Step::Schedule => {
                    let pods: Vec<_> = seen.values().cloned().collect();
                    for decision in plan(&nodes, &pods, &[], &assumed, &BTreeSet::new()) {
                        let Decision::Bind { pod, node } = decision else { continue };
                        let uid = pod.metadata.uid.clone().unwrap();
                        // The server refuses to bind what is gone or bound.
                        if let Some((_, place @ None)) = truth.get_mut(&uid) {
                            *place = Some(node.clone());
                        }
                        assumed.insert(uid, node);
                    }
                }
                Step::Show(index) if !(truth.is_empty() && seen.is_empty()) => {
                    let names: BTreeSet<_> = truth.keys().chain(seen.keys()).cloned().collect();
                    let names: Vec<_> = names.into_iter().collect();
                    let name: &String = index.get(&names);
                    show(name, &truth, &mut seen, &mut assumed);
                }
                Step::Delete(index) if !truth.is_empty() => {
                    let names: Vec<_> = truth.keys().cloned().collect();
                    truth.remove(index.get(&names));
                }
                Step::Show(_) | Step::Delete(_) => {}
            }
            for (name, has) in &room {
                let taken: u32 = truth.values().filter(|(_, node)| node.as_deref() == Some(name)).map(|(cpu, _)| cpu).sum();
                prop_assert!(taken <= *has, "{name} has {has} and gave {taken}");
            }
        }
        // All is observed: what still waits fits nowhere.
        let names: BTreeSet<_> = truth.keys().chain(seen.keys()).cloned().collect();
        for name in names {
            show(&name, &truth, &mut seen, &mut assumed);
        }
        let pods: Vec<_> = seen.values().cloned().collect();
        for decision in plan(&nodes, &pods, &[], &assumed, &BTreeSet::new()) {
            if let Decision::Bind { pod, node } = decision {
                truth.get_mut(pod.metadata.uid.as_ref().unwrap()).unwrap().1 = Some(node);
            }
        }
        for (cpu, node) in truth.values().filter(|(_, node)| node.is_none()) {
            prop_assert_eq!(node, &None);
            for (name, has) in &room {
                let taken: u32 = truth.values().filter(|(_, node)| node.as_deref() == Some(name)).map(|(cpu, _)| cpu).sum();
                prop_assert!(taken + cpu > *has, "{} of {} taken, and a Pod of {} waits", taken, has, cpu);
            }
        }
    }
}
